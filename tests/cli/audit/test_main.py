"""The commands of `lps-audit`: reports, exit codes, and one line for whatever cannot be read."""

import io
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from lps.cli.audit.main import main
from lps.cli.common import SEE_CODES
from lps.manifests.canonical import pretty_json
from lps.manifests.codes import Code, Stage
from lps.manifests.names import check_link
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.job.finalize import finalize
from lps.pipeline.job.plan import build_plan, publish_plan
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.probe import Probe
from tests.builders import folder_spec, folder_video

Spoil = Callable[[Path], None]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a complete data set of two videos that gave no clip. Tests only read it."""
    out = tmp_path_factory.mktemp("audit-cli") / "out"
    videos = [folder_video(f"{kind}/a.mp4", label) for label, kind in enumerate(("real", "fake"))]
    probes = {
        v.uri: Probe(n_bytes=9, sha256="0" * 63 + str(v.label), code=Code.E_PROBE, stage=Stage.PROBE) for v in videos
    }
    plan = build_plan(folder_spec(Params(), shard_bytes=1), videos, Probes.of(probes))
    publish_plan(plan, Store(str(out)))
    finalize(plan, Store(str(out)))
    return out


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may spoil."""
    shutil.copytree(small, tmp_path / "copy")
    return tmp_path / "copy"


def audit(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def assert_one_line(result: Result, code: int, text: str) -> None:
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not isinstance(result.exception, Exception)


# ---- check ---------------------------------------------------------------------------------------------------------


def test_check_prints_a_table_and_writes_all_reports(small: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("json", "html")}
    before = sorted(small.rglob("*"))
    ended = audit("check", small, *(word for name, path in files.items() for word in (f"--{name}", path)))
    record = json.loads(files["json"].read_bytes())
    assert ended.exit_code == record["exit_code"]
    assert f"Verdict: {record['verdict'].upper()}" in ended.stdout
    assert "T4 Digests and rows agree" in ended.stdout
    assert "not sealed" in ended.stdout
    assert files["html"].read_text().startswith("<!")
    assert sorted(small.rglob("*")) == before
    for text in (files["json"].read_text(), files["html"].read_text()):
        assert str(small.parent) not in text, "reports are passed on"


def test_junit_is_written_beside_the_others(small: Path, copy: Path, tmp_path: Path) -> None:
    """Of a data set with spoiled bytes: one test case a check, as the JSON report has them, and the same exit code."""
    (copy / "plan/plan.json").write_bytes((copy / "plan/plan.json").read_bytes() + b"\n")
    for out, code in ((small, 0), (copy, 5)):
        files = {name: tmp_path / f"{out.name}.{name}" for name in ("json", "html", "junit")}
        words = [word for name, path in files.items() for word in (f"--{name}", path)]
        ended = audit("check", out, "--checks", "A1,T,L1,R4", *words, "--quiet")
        assert (ended.exit_code, ended.output) == (code, "")
        record = json.loads(files["json"].read_bytes())
        [suite] = ET.fromstring(files["junit"].read_bytes())
        cases = {case.attrib["name"].split()[0]: case[0] for case in suite.iter("testcase")}
        assert list(cases) == [check["id"] for check in record["checks"]]
        failed = {name for name, kind in cases.items() if kind.tag == "failure"}
        assert failed == {c["id"] for c in record["checks"] if c["state"] == "fail" and c["severity"] != "warn"}
        assert bool(failed) == bool(code)
        assert {c["id"] for c in record["checks"] if c["state"] in ("skip", "unknown")} == {
            name for name, kind in cases.items() if kind.tag == "skipped"
        }
        properties = {each.attrib["name"]: each.attrib["value"] for each in suite.iter("property")}
        assert (properties["exit_code"], properties["verdict"]) == (str(code), record["verdict"])
        assert str(out.parent) not in files["junit"].read_text(), "reports are passed on"
    before = files["junit"].read_bytes()
    assert_one_line(audit("check", copy / "nowhere", "--junit", files["junit"]), 4, "nowhere")
    assert files["junit"].read_bytes() == before


def test_json_on_stdout_is_all_that_is_there(small: Path) -> None:
    for words in (("--json",), ("--json", "-"), ("--json", "-", "--quiet")):
        ended = audit("check", small, "--checks", "R4", *words)
        assert json.loads(ended.stdout)["exit_code"] == ended.exit_code == 0
    shown = json.loads(audit("show", small, "--json").stdout)
    assert (shown["n_videos"], shown["split_sets"][0]["name"], shown["seal"]) == (2, "group", "not sealed")
    assert [row["code"] for row in shown["codes"]] == ["E_PROBE", "E_PROBE"]


def test_show_writes_json_beside_its_tables(small: Path, tmp_path: Path) -> None:
    ended = audit("show", small, "--json", tmp_path / "show.json")
    assert "split sets" in ended.stdout
    assert json.loads((tmp_path / "show.json").read_bytes())["name"] == small.name


def test_quiet_prints_nothing_and_problems_only_what_did_not_pass(small: Path, tmp_path: Path) -> None:
    words = ("check", small, "--checks", "A1,R4", "--strict")
    ended = audit(*words, "--quiet", "--html", tmp_path / "x.html", "--reports", tmp_path / "reports")
    assert (ended.exit_code, ended.output) == (2, "")
    assert (tmp_path / "x.html").read_bytes().startswith(b"<!")
    ended = audit(*words, "--problems-only")
    assert (ended.exit_code, "A1 " in ended.stdout, "R4 " in ended.stdout) == (2, False, True)
    assert f"\nR4: see {check_link('R4')}\n" in ended.stdout
    assert "audit.md#a1" not in ended.stdout
    assert "1 pass" in ended.stdout
    ended = audit("check", small, "--checks", "A1", "--problems-only")
    assert ended.stdout.splitlines()[-1] == "1 pass. Level quick. Verdict: PASS"
    assert "severity" not in ended.stdout


def test_reports_are_kept_beside_the_data_without_spoiling_it(copy: Path) -> None:
    assert audit("seal", copy).exit_code == 0
    ended = audit("check", copy, "--checks", "A1,A5,T", "--reports", copy / "audits")
    assert ended.exit_code == 0, ended.output
    [folder] = (copy / "audits").iterdir()
    assert folder.name in ended.stdout
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.html", "findings.parquet"}
    names = ["check", "state", "severity", "kind", "key", "detail"]
    assert pq.read_table(folder / "findings.parquet").column_names == names
    assert audit("check", copy, "--checks", "T,A1,A9", "--strict").exit_code == 0


@pytest.mark.parametrize(
    "words", [("--html", "x.html"), ("--json", "plan/x.json"), ("--junit", "x.xml"), ("--reports", "audit")]
)
def test_reports_do_not_go_anywhere_else_in_it(small: Path, words: tuple[str, str]) -> None:
    ended = audit("check", small, "--checks", "A1", words[0], small / "manifests" / ".." / words[1])
    assert ended.exit_code == 3
    assert "do not belong into OUT" in ended.stderr


def test_the_page_links_to_a_gallery(small: Path, tmp_path: Path) -> None:
    page, options = tmp_path / "page.html", ("--checks", "A1", "--html", tmp_path / "page.html", "--gallery")
    refused = audit("check", small, *options, "javascript:alert(1)")
    assert (refused.exit_code, page.exists()) == (3, False)
    assert "is no relative, file:, http: or https: address" in " ".join(refused.stderr.split())
    assert audit("check", small, *options, "gallery/index.html").exit_code == 0
    assert page.exists()


def test_exit_codes(small: Path, copy: Path, tmp_path: Path) -> None:
    assert audit("check", small, "--checks", "A1,T4").exit_code == 0
    assert audit("check", small, "--checks", "R4").exit_code == 0
    assert audit("check", small, "--checks", "R4", "--strict").exit_code == 2
    policy = tmp_path / "policy.toml"
    policy.write_text('[severity]\nR4 = "error"\n')
    assert audit("check", small, "--checks", "R4", "--policy", policy).exit_code == 1
    assert audit("check", small, "--checks", "L11").exit_code == 6
    (copy / "plan/plan.json").write_bytes((copy / "plan/plan.json").read_bytes() + b"\n")
    assert audit("check", copy, "--checks", "T,R4", "--policy", policy).exit_code == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check",), "Missing argument 'OUT'"),
        (("chek", "OUT"), "No such command"),
        (("--quick", "check"), "No such option"),
        (("show",), "Missing argument 'OUT'"),
        (("check", "OUT", "--checks", "A1,Z3"), "no class or check 'Z3'"),
        (("check", "OUT", "--level", "most"), "--level"),
        (("check", "--explain", "Z3"), "no check 'Z3'"),
        (("check", "OUT", "--json", "nowhere/report.json"), "no folder"),
        (("check", "OUT", "--junit", "nowhere/audit.xml"), "no folder"),
    ],
)
def test_wrong_usage(small: Path, words: tuple[str, ...], said: str) -> None:
    ended = audit(*(small if word == "OUT" else word for word in words))
    assert ended.exit_code == 3
    assert said in ended.stderr


def test_bad_policy_is_one_line(small: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[limits]\nc9 = 1\n")
    assert_one_line(audit("check", small, "--policy", policy), 3, "unknown name 'limits.c9'")


@pytest.mark.parametrize("name", ["A1", "c6", "A2", "C2", "R1", "L1", "B4", "T4"])
def test_explain_prints_rule_limits_remedy_and_sql(name: str) -> None:
    ended = audit("check", "--explain", name)
    assert ended.exit_code == 0
    assert ended.stdout.startswith(name.upper())
    assert "Rule\n" in ended.stdout
    assert "When it fails\n" in ended.stdout
    assert f"See {check_link(name)}\n" in ended.stdout


def test_explained_limits_are_those_of_the_policy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[limits]\nc6_min_p = 0.25\n")
    assert "c6_min_p = 0.25" in audit("check", "--explain", "C6", "--policy", policy).stdout


# ---- what cannot be read -------------------------------------------------------------------------------------------


def rewritten(path: str, edit: Callable[[pa.Table], pa.Table]) -> Spoil:
    def spoil(out: Path) -> None:
        table = edit(pq.read_table(io.BytesIO((out / path).read_bytes())))
        pq.write_table(table, out / path)

    return spoil


def marked(table: pa.Table, **marks: str) -> pa.Table:
    new = {f"lps.{name}".encode(): value.encode() for name, value in marks.items()}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **new})


def json_edit(path: str, **changes: object) -> Spoil:
    def spoil(out: Path) -> None:
        (out / path).write_bytes(pretty_json({**json.loads((out / path).read_bytes()), **changes}))

    return spoil


def removed(path: str) -> Spoil:
    return lambda out: (out / path).unlink()


def cut(path: str) -> Spoil:
    def spoil(out: Path) -> None:
        data = (out / path).read_bytes()
        (out / path).write_bytes(data[: len(data) // 2])

    return spoil


VIDEOS = "manifests/videos.parquet"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (removed("index.json"), "has no index.json"),
        (cut("index.json"), "is damaged"),
        (lambda out: (out / "index.json").write_text("[]"), "is damaged"),
        (lambda out: (out / "index.json").write_text("[" * 200_000), "is damaged: it is nested too deeply"),
        (lambda out: (out / "plan/plan.json").write_text('{"a":' * 200_000), "is damaged: it is nested too deeply"),
        (json_edit("index.json", schema="other"), "is not the index"),
        (json_edit("index.json", schema_version="4.0"), "schema version '4.0'"),
        (json_edit("index.json", manifests=3), "lists no manifests"),
        (
            json_edit("index.json", manifests={"../x.parquet": {}, "manifests/splits/group.parquet": {}}),
            "leaves its root",
        ),
        (json_edit("index.json", split_set="none"), "no split set 'none'"),
        (json_edit("index.json", manifests={"manifests/videos.parquet": 3}), "is not whole"),
        (json_edit("index.json", shards={"train": [{"uri": "x.tar"}]}), "is not whole"),
        (json_edit("index.json", shards={"train": 3}), "is not whole"),
        (json_edit("index.json", shards=[]), "is not whole"),
        (json_edit("index.json", untied_fakes="x"), "its 'untied_fakes' is of the wrong type"),
        (json_edit("index.json", manifests={VIDEOS: {"sha256": 3}}), "sha256' is of the wrong type"),
        (json_edit("plan/plan.json", shards=3), "its 'shards' is of the wrong type"),
        (json_edit("plan/plan.json", shards=[3]), "its 'shards[0]' is of the wrong type"),
        (json_edit("plan/plan.json", split=[]), "its 'split' is of the wrong type"),
        (json_edit("plan/plan.json", n_videos=True), "its 'n_videos' is of the wrong type"),
        (json_edit("plan/plan.json", params={"localize": {"min_face_px": "x"}}), "'params.localize.min_face_px' is of"),
        (json_edit("plan/plan.json", params={"seed": "x"}), "its 'params.seed' is of the wrong type"),
        (json_edit("plan/plan.json", shards=[{"n_videos": 1}]), "an entry of its shards is not whole"),
        (json_edit("plan/plan.json", split={"ratios": "x"}), "its 'split.ratios' is of the wrong type"),
        (lambda out: (out / "plan/plan.json").write_text('{"params": {"max_step": 1e999}}'), "no finite number"),
        (cut("plan/plan.json"), "is damaged"),
        (cut("plan/videos.parquet"), "not a readable Parquet file"),
        (cut(VIDEOS), "not a readable Parquet file"),
        (removed(VIDEOS), "is missing"),
        (removed("manifests/splits/group.parquet"), "is missing"),
        (lambda out: (out / VIDEOS).write_text("PAR1 nonsense PAR1"), "not a readable Parquet file"),
        (lambda out: pq.write_table(pa.table({"a": [1]}), out / VIDEOS), "is not a table 'videos'"),
        (lambda out: shutil.copy(out / "manifests/shards.parquet", out / VIDEOS), "is not a table 'videos'"),
        (rewritten(VIDEOS, lambda t: marked(t, schema_version="4.0")), "schema version '4.0'"),
        (rewritten(VIDEOS, lambda t: t.drop_columns(["uri"])), "no column uri"),
        (rewritten(VIDEOS, lambda t: t.slice(0, 0)), "holds no videos"),
        (rewritten(VIDEOS, lambda t: t.set_column(1, "uri", pa.array([1, 2]))), "column uri is int64"),
    ],
)
def test_what_cannot_be_read_is_one_line(copy: Path, spoil: Spoil, said: str) -> None:
    spoil(copy)
    assert_one_line(audit("check", copy), 4, said)


@pytest.mark.parametrize("command", [("show",), ("seal",), ("diff", "SMALL")])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (removed("index.json"), "has no index.json"),
        (json_edit("index.json", schema="other"), "is not the index"),
        (json_edit("index.json", schema_version="4.0"), "schema version '4.0'"),
        (json_edit("index.json", shards=[]), "is not whole"),
        (cut(VIDEOS), "not a readable Parquet file|is not readable"),
        (rewritten(VIDEOS, lambda t: marked(t, schema_version="4.0")), "schema version '4.0'"),
    ],
)
def test_no_command_reads_what_it_cannot_understand(
    small: Path, copy: Path, command: tuple[str, ...], spoil: Spoil, said: str
) -> None:
    spoil(copy)
    ended = audit(command[0], copy, *(small for _ in command[1:]))
    assert_one_line(ended, 4, next(text for text in said.split("|") if text in ended.stderr or text == said))


def test_older_minor_version_lacks_nullable_columns(copy: Path) -> None:
    rewritten(VIDEOS, lambda t: t.drop_columns(["phash", "codec", "has_audio", "duration_s"]))(copy)
    assert audit("check", copy, "--checks", "A1").exit_code == 0


def test_damage_behind_the_footer_is_found_and_leaves_the_rest_open(copy: Path, tmp_path: Path) -> None:
    data = bytearray((copy / VIDEOS).read_bytes())
    data[4:400] = bytes(396)
    (copy / VIDEOS).write_bytes(data)
    report = tmp_path / "report.json"
    ended = audit("check", copy, "--json", report)
    assert ended.exit_code == 5, "T4 knows that these are not the bytes of the index"
    assert audit("check", copy, "--checks", "A,B").exit_code == 6
    assert "Traceback" not in ended.output
    assert not isinstance(ended.exception, Exception)
    assert tempfile.gettempdir() not in report.read_text()


def test_empty_folder_and_no_folder(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "none"):
        assert_one_line(audit("check", out), 4, "has no index.json")
        assert_one_line(audit("show", out), 4, "has no index.json")
        assert_one_line(audit("seal", out), 4, "has no index.json")


def test_unknown_split_set_names_those_that_exist(small: Path) -> None:
    assert_one_line(audit("check", small, "--split-set", "paper"), 4, "it has: group")


def test_url_that_does_not_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/out"
    for words in (("check", url), ("show", url), ("seal", url), ("diff", url, url)):
        assert_one_line(audit(*words), 4, f"cannot read {url}/index.json")


def test_report_that_cannot_be_written_is_one_line(small: Path, tmp_path: Path) -> None:
    assert_one_line(audit("check", small, "--checks", "A1", "--json", tmp_path / ("x" * 300)), 4, "cannot write")


# ---- remote, show, diff, seal --------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(small: Path) -> Iterator[str]:
    """Address of the data set on a plain web server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(small.parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{small.name}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_data_set_behind_a_url(served: str) -> None:
    ended = audit("check", served, "--checks", "A,T", "--level", "full")
    assert ended.exit_code == 1, "it has no clips, which A7 says"
    assert "ERROR" not in ended.stdout


def test_show_counts_what_is_there(small: Path) -> None:
    ended = audit("show", small)
    assert ended.exit_code == 0
    assert "E_PROBE" in ended.stdout
    assert f"{SEE_CODES}\n" in ended.stdout
    assert "rule group, seed 0; of the shards" in ended.stdout
    assert "seal: not sealed" in ended.stdout


def test_diff_of_a_data_set_with_itself(small: Path) -> None:
    assert audit("diff", small, small).stdout.strip() == "no difference"
    assert json.loads(audit("diff", small, small, "--json").stdout)["same"] is True


def test_seal_is_stated_signed_or_not(copy: Path, tmp_path: Path) -> None:
    first = audit("seal", copy)
    assert "seal 1: " in first.stdout
    assert first.stdout.endswith("sealed, not signed\n")
    assert audit("check", copy, "--checks", "T").exit_code == 0
    assert "seal: sealed, not signed" in audit("show", copy).stdout
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    assert "signed (seals/000001.json.sig)" in audit("seal", copy, "--key", key).stdout
    assert "seal: sealed, signed by a key nobody vouches for" in audit("show", copy).stdout
    (copy / "plan/splits.parquet").unlink()
    assert audit("check", copy, "--checks", "T").exit_code == 5
