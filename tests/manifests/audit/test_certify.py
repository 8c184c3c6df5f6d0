"""`lps-audit certify`: what it writes, what --verify makes of it, and the commands of the docs that recompute it."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from lps.cli.audit.main import full_suite, main
from lps.manifests.audit.certify import Verification, differences, publish_certificate, signature_fault
from lps.manifests.audit.core.policy import Policy, Require
from lps.manifests.audit.core.seal import seal_dataset
from lps.manifests.audit.run import Audit, Verdict
from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.certificates.record import VERDICTS, certificate_from
from lps.manifests.errors import UnreadableError
from lps.manifests.schemas import Row
from lps.manifests.storage import Store
from tests.buckets import bucket_server, upload_folder
from tests.manifests.audit.checks.test_tamper import new_key, signers
from tests.manifests.audit.test_docs import blocks

Mutated = Callable[..., Path]
Record = dict[str, Any]
CERTIFICATE = "certificate.json"
BY_SQL = ("L2", "L3", "L4", "L5", "L7", "L8", "L10")
"""Checks of leakage whose query lists as many rows as there are offenders."""


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def certify(out: object, *words: object) -> Record:
    ended = run("certify", out, "--level", "quick", *words)
    assert ended.exit_code == 0, ended.output
    return read(Path(str(out)))


def read(out: Path) -> Record:
    record: Record = json.loads((out / CERTIFICATE).read_bytes())
    return record


def forge(out: Path, change: Callable[[Record], object]) -> None:
    record = read(out)
    change(record)
    (out / CERTIFICATE).write_bytes(canonical_json(record))


def moved(row: Row) -> Row:
    """Put one fake into another split than its original."""
    uri = "manipulated_sequences/Deepfakes/c23/videos/000_001.mp4"
    video_id = bytes.fromhex(sha256_hex(f"ffpp\0{uri}".encode())[:32])
    return {**row, "split": "val" if row["split"] != "val" else "test"} if row["video_id"] == video_id else row


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a private key."""
    return new_key(tmp_path_factory.mktemp("keys"), "auditor")


@pytest.fixture(scope="module")
def signed(dataset: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sealed copy of the data set with a signed certificate. Tests only read it."""
    out = tmp_path_factory.mktemp("certified") / "out"
    shutil.copytree(dataset, out)
    seal_dataset(Store(str(out)))
    certify(out, "--key", key)
    return out


@pytest.fixture
def copy(signed: Path, tmp_path: Path) -> Path:
    """Return a copy of the certified data set that a test may spoil."""
    shutil.copytree(signed, tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_certificate_is_canonical_and_names_what_it_is_about(signed: Path, copy: Path) -> None:
    data, record = (signed / CERTIFICATE).read_bytes(), read(signed)
    assert data == canonical_json(record)
    files = {file["path"]: file for file in record["files"]}
    assert {"index.json", "plan/plan.json", "manifests/videos.parquet", "manifests/splits/group.parquet"} < {*files}
    assert "seals/000001.json" in files
    for path, file in files.items():
        stored = (signed / path).read_bytes()
        assert (file["sha256"], file["bytes"]) == (sha256_hex(stored), len(stored))
    assert record["split_set"]["sha256"] == files[record["split_set"]["path"]]["sha256"]
    assert record["measured"]["contents"]["videos"] == 44
    unknown = next(each for each in record["checks"] if each["id"] == "A4")
    assert (unknown["state"], unknown["offenders"], unknown["reason"]) == ("skip", "UNKNOWN", "needs --level full")
    assert [each["level"] for each in record["measured"]["reproducibility"] if each["id"] == "R1"] == ["deep"]
    lost = next(each for each in record["measured"]["damage"]["classes"] if each["label"] == "fake")
    assert (lost["videos"], lost["failed"], lost["partial"]) == (28, 2, 1)
    assert 0 < lost["share"]["low"] < lost["share"]["failed"] < lost["share"]["high"] < 1
    shutil.rmtree(copy / "runs", ignore_errors=True)  # a published copy lacks it
    certify(copy)
    assert (copy / CERTIFICATE).read_bytes() == data
    assert (copy / f"{CERTIFICATE}.sig").exists()  # of the same bytes


def test_everything_is_recomputed(signed: Path, key: Path, tmp_path: Path) -> None:
    ended = run("certify", signed, "--verify", "--signers", signers(tmp_path, key))
    assert ended.exit_code == 0, ended.output
    assert "everything in it was recomputed; signed by auditor@lab; verdict in it warn" in ended.stdout


def test_neither_seal_nor_checks_mind_it(signed: Path, audit: Callable[..., Audit], copy: Path) -> None:
    states = {result.id: str(result.state) for result in audit(signed, "A5,T,A9").results}
    assert states == {"A5": "pass", "A9": "pass", "T1": "pass", "T2": "pass", "T3": "skip", "T4": "pass"}
    assert seal_dataset(Store(str(copy))).number == 1  # nothing changed since


def test_tampered_certificate_is_found_and_its_signature_is_not_valid(copy: Path, key: Path, tmp_path: Path) -> None:
    def change(record: Record) -> None:
        record["measured"]["contents"]["videos"] = 43
        record["verdict"] = "pass"

    forge(copy, change)
    ended = run("certify", copy, "--verify", "--signers", signers(tmp_path, key))
    assert ended.exit_code == 5, ended.output
    lines = ended.stdout.splitlines()
    assert "its signature is not valid" in lines[0]
    assert lines[1:3] == [
        "measured.contents.videos: recorded 43, recomputed 44",
        'verdict: recorded "pass", recomputed "warn"',
    ]
    assert "2 values differ, 1 of them in digests and counts" in lines[3]


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (lambda data: data.replace(b",", b", ", 1), 5, "its bytes are not those of canonical JSON"),
        (lambda data: data[:-9], 5, "is not a certificate"),
        (lambda data: data.replace(b'"level":"quick"', b'"level":"deepest"'), 5, "level"),
        (lambda data: data.replace(b"lps.certificate", b"lps.seal"), 5, "its schema is not lps.certificate"),
        (lambda data: data.replace(b'"schema_version":"1.0"', b'"schema_version":"9.0"'), 4, "reads up to 1.0"),
        (lambda data: data.replace(b'"files":[', b'"files":[[],'), 5, "'files[0]' is missing or of the wrong type"),
    ],
)
def test_what_is_no_certificate_is_one_line(copy: Path, spoil: Callable[[bytes], bytes], code: int, says: str) -> None:
    (copy / CERTIFICATE).write_bytes(spoil((copy / CERTIFICATE).read_bytes()))
    ended = run("certify", copy, "--verify")
    assert ended.exit_code == code, ended.output
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def passing(kinds: list[Record]) -> list[Record]:
    """Return checks that all pass, before those that are so: a reader by id that takes the last sees no forgery."""
    return [{**each, "state": "pass"} for each in kinds] + kinds


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(checks=passing(r["checks"])), "its 'checks' has A1 twice"),
        (
            lambda r: r["measured"]["leakage"].update(kinds=passing(r["measured"]["leakage"]["kinds"])),
            "its 'measured.leakage.kinds' has L1 twice",
        ),
        (
            lambda r: r["files"].insert(0, {**r["files"][0], "sha256": "0" * 64}),
            "its 'files' has README.md twice",
        ),
        (lambda r: r.update({"versions.by": "the authority"}), "nothing in one is called 'versions.by'"),
        (lambda r: r.update(verdict="superb"), "its verdict is 'superb'"),
        (lambda r: r.update(checks=[]), "it has no checks"),
        (lambda r: r.update(measured={}), "nothing in it is measured"),
        (lambda r: r["split_set"].update(sha256="0" * 64), "its 'split_set' is none of its 'files'"),
        (lambda r: r["split_set"].update(name="group\nverdict pass"), "a name or a version in it is no line of text"),
        (lambda r: r["versions"].update({"numpy": "1\x1b[2J"}), "a name or a version in it is no line of text"),
        (
            lambda r: r["checks"].insert(0, {**r["checks"][0], "path": "beside", "state": "pass"}),
            "its 'checks' has A1 twice",
        ),
        (lambda r: r["policy"].pop("sha256"), "its 'policy.sha256' is missing"),
        (lambda r: r["checks"][3].pop("id"), "its 'checks[3].id' is missing"),
        (lambda r: r["measured"].update(deep=nested(80)), "it is nested too deeply"),
    ],
)
def test_forged_form_is_refused(copy: Path, change: Callable[[Record], object], says: str) -> None:
    forge(copy, change)
    ended = run("certify", copy, "--verify")
    assert ended.exit_code == 5, ended.output
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda r: r["measured"].update(
                {"contents.videos": 44, "contents": {**r["measured"]["contents"], "videos": 9}}
            ),
            "measured.contents.videos: recorded 9, recomputed 44\n"
            'measured["contents.videos"]: recorded 44, recomputed nothing',
        ),
        (lambda r: r["checks"].reverse(), "SHA-256 without versions, as by the order of a list: recorded"),
        (lambda r: r["checks"][0].update(approved=True), "checks[A1].approved: recorded true, recomputed nothing"),
    ],
)
def test_forged_value_is_found_wherever_it_stands(copy: Path, change: Callable[[Record], object], says: str) -> None:
    forge(copy, change)
    ended = run("certify", copy, "--verify")
    assert ended.exit_code == 5, ended.output
    assert says in ended.stdout
    assert "everything in it was recomputed" not in ended.stdout


def test_differences_hide_no_other() -> None:
    made = {"files": [{"path": "a", "sha256": "1"}], "checks": [{"id": "A1"}], "measured": {"a": {"b": 1}}}
    for forged in (
        {**made, "files": [{"path": "a", "sha256": "2"}, *made["files"]]},
        {**made, "files": [*made["files"], {"path": "a", "sha256": "2"}]},
        {**made, "checks": [{"id": "A1", "path": "A1"}]},
        {**made, "measured": {"a.b": 1, "a": {"b": 2}}},
        {**made, "versions.x": "y"},
        {**made, "measured": {"a": {"b": True}}},
        {**made, "measured": {"a": {"b": 1}, "": {}}},
    ):
        assert differences(forged, made), forged
        assert differences(made, forged), forged
    assert differences({**made, "versions": {"python": "4"}}, made) == []


def test_verdicts_are_those_of_an_audit() -> None:
    assert {*VERDICTS} == {str(each) for each in Verdict}


def test_unusable_key_leaves_the_signed_certificate(copy: Path, key: Path, tmp_path: Path) -> None:
    junk, mine = tmp_path / "junk", signers(tmp_path, key)
    junk.write_text("no key")
    junk.chmod(0o600)
    before = [(copy / name).read_bytes() for name in (CERTIFICATE, f"{CERTIFICATE}.sig")]
    ended = run("certify", copy, "--level", "quick", "--split-set", "ranked", "--key", junk)
    assert ended.exit_code == 3
    assert f"cannot sign with {junk}" in ended.stderr
    assert [(copy / name).read_bytes() for name in (CERTIFICATE, f"{CERTIFICATE}.sig")] == before
    assert run("certify", copy, "--verify", "--signers", mine).exit_code == 0


def test_signature_of_other_bytes_is_never_there(
    copy: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop before each write: what is left has its own signature or none, or all is as it was."""
    store, mine, record = Store(str(copy)), signers(tmp_path, key), read(copy)
    record["measured"]["contents"]["videos"] += 1

    def stopped(at: int, error: BaseException) -> tuple[str, str]:
        left = [at]

        def counted(name: str) -> Callable[..., object]:
            real = getattr(Store, name)

            def write(*words: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    raise error
                return real(*words)

            return write

        with monkeypatch.context() as patch:
            for name in ("publish", "delete"):
                patch.setattr(Store, name, counted(name))
            with pytest.raises(type(error)):
                publish_certificate(store, record, key)
        return signature_fault(store, Policy(), None)

    assert stopped(2, UnreadableError("disk full"))[0] == "signed by a key nobody vouches for"
    assert signature_fault(store, Policy(), mine) == ("signed by auditor@lab", "")
    for at, state in (
        (1, "signed by a key nobody vouches for"),
        (2, "not signed"),
        (2, "not signed"),
        (3, "not signed"),
    ):
        assert stopped(at, KeyboardInterrupt()) == (state, "")
    publish_certificate(store, record, key)
    assert signature_fault(store, Policy(), mine) == ("signed by auditor@lab", "")


def test_same_bytes_keep_their_signature_and_say_so(copy: Path) -> None:
    ended = run("certify", copy, "--level", "quick")
    assert "level quick, the same as before, whose signature stays, sha256" in ended.stdout
    (copy / f"{CERTIFICATE}.sig").unlink()
    assert "level quick, not signed, sha256" in run("certify", copy, "--level", "quick").stdout


def test_card_that_is_gone_is_named(copy: Path) -> None:
    (copy / "README.md").unlink()
    ended = run("certify", copy, "--verify")
    assert ended.exit_code == 5, ended.output
    assert "README.md is missing, though index.json lists it" in ended.stdout.splitlines()
    assert "files[README.md].sha256: recorded" in ended.stdout
    before = (copy / CERTIFICATE).read_bytes()
    ended = run("certify", copy, "--level", "quick")
    assert ended.exit_code == 4
    assert "README.md is missing, though index.json lists it: nothing was certified" in ended.stderr
    assert (copy / CERTIFICATE).read_bytes() == before


def test_show_tells_whether_it_is_of_the_present_index(dataset: Path, copy: Path) -> None:
    assert "certificate: none" in run("show", dataset).stdout.splitlines()
    of_this = "certificate: of this index, split set group, level quick, verdict warn"
    assert of_this in run("show", copy).stdout
    paths = [file["path"] for file in read(copy)["files"]]
    forge(copy, lambda record: record["files"][paths.index("index.json")].update(sha256="0" * 64))
    assert "certificate: of an earlier state: another index, split set group" in run("show", copy).stdout
    (copy / CERTIFICATE).write_bytes(b"{}")
    ended = run("show", copy, "--json")
    assert json.loads(ended.stdout)["certificate"].startswith("not readable: certificate.json is not a certificate")


def test_edited_card_is_another_file(copy: Path) -> None:
    (copy / "README.md").write_bytes((copy / "README.md").read_bytes() + b"\nLicence: mine.\n")
    ended = run("certify", copy, "--verify")
    assert ended.exit_code == 5
    assert "files[README.md].sha256: recorded" in ended.stdout


def test_certificate_of_another_data_set_is_found(signed: Path, mutated: Mutated) -> None:
    other = mutated({"videos": lambda row: {**row, "n_frames_with_face": 9} if row["label"] == 0 else row})
    shutil.copy(signed / CERTIFICATE, other)
    ended = run("certify", other, "--verify")
    assert ended.exit_code == 5
    assert "files[index.json].sha256: recorded" in ended.stdout
    assert "files[manifests/videos.parquet].sha256: recorded" in ended.stdout
    assert "files[seals/000001.json].path: recorded" in ended.stdout


def test_manifest_that_was_changed_under_the_index_is_found(copy: Path) -> None:
    path = copy / "manifests/splits/ranked.json"
    path.write_bytes(path.read_bytes() + b" ")
    ended = run("certify", copy, "--verify")
    assert ended.exit_code == 5
    assert "files[manifests/splits/ranked.json].sha256: recorded" in ended.stdout


def test_key_that_nobody_allows_and_a_missing_signature_are_found(copy: Path, key: Path, tmp_path: Path) -> None:
    store, mine = Store(str(copy)), signers(tmp_path, key)
    stranger = signers(tmp_path, new_key(tmp_path, "stranger"))
    said = "its signature is not valid: signed by a key that signers-stranger does not list"
    assert signature_fault(store, Policy(), stranger) == ("signature not valid", said)
    assert signature_fault(store, Policy(), None) == ("signed by a key nobody vouches for", "")
    listed = Policy(require=Require(signature=True, allowed_signers=mine))
    assert signature_fault(store, listed, None) == ("signed by auditor@lab", "")
    (copy / f"{CERTIFICATE}.sig").unlink()
    assert signature_fault(store, Policy(), None) == ("not signed", "")
    assert signature_fault(store, Policy(), mine) == ("not signed", "it is not signed")
    assert signature_fault(store, listed, None) == ("not signed", "it is not signed")


def test_another_version_is_named_and_only_what_it_cannot_change_counts(signed: Path) -> None:
    made, older = read(signed), read(signed)
    older["versions"]["lps-prep"] = "0.0.1"

    def compared() -> Verification:
        return Verification.of(certificate_from(canonical_json(older)), made, "")

    assert compared().exit_code == 0
    assert compared().lines()[0].startswith("made by other versions: lps-prep 0.0.1, here")
    older["checks"].pop(0)
    assert compared().exit_code == 6
    assert 'checks[A1].state: recorded nothing, recomputed "pass"' in compared().lines()
    assert "which other versions may explain" in compared().said()
    older["measured"]["contents"]["clips"] = 1
    assert compared().exit_code == 5


WAIVER = """
[limits]
b1_min_groups = 7
[[waivers]]
check = "B1"
scope = "*"
reason = "known"
approver = "J. Doe"
expires = {expires}
"""


def test_policy_is_named_and_needed_again(copy: Path, tmp_path: Path) -> None:
    policy = tmp_path / "lab.toml"
    policy.write_text(WAIVER.format(expires="2000-01-01"))
    ended = run("certify", copy, "--policy", policy)
    assert ended.exit_code == 3
    assert "policy lab.toml: the waiver of B1 by J. Doe expired on 2000-01-01" in ended.stderr
    policy.write_text(WAIVER.format(expires="2999-01-01"))
    record = certify(copy, "--policy", policy, "--split-set", "ranked")
    assert record["split_set"]["path"] == "manifests/splits/ranked.parquet"
    assert record["policy"]["sha256"] == sha256_hex(policy.read_bytes())
    assert record["policy"]["limits"]["b1_min_groups"] == 7
    assert record["valid_until"] == "2999-01-01"
    assert next(each for each in record["checks"] if each["id"] == "B1")["state"] == "waived"
    assert not (copy / f"{CERTIFICATE}.sig").exists()  # it was of other bytes
    assert run("certify", copy, "--verify", "--policy", policy).exit_code == 0
    missing = run("certify", copy, "--verify")
    other = tmp_path / "other.toml"
    other.write_text("")
    for ended in (missing, run("certify", copy, "--verify", "--policy", other)):
        assert ended.exit_code == 3
        assert "was made with the policy lab.toml" in ended.stderr


def test_wrong_usage(signed: Path, dataset: Path, key: Path) -> None:
    for words in (("--verify", "--level", "full"), ("--verify", "--key", key), ("--signers", key)):
        assert run("certify", signed, *words).exit_code == 3
    ended = run("certify", dataset, "--verify")
    assert ended.exit_code == 4
    assert "has no certificate.json; `lps-audit certify` makes it" in ended.stderr
    assert run("certify", dataset, "--split-set", "none").exit_code == 4


def test_commands_of_the_docs_recompute_it(mutated: Mutated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mutated({"splits": moved}).rename(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    ended = run("certify", "out")  # a data set that fails is certified as one
    assert ended.exit_code == 0, ended.output
    assert read(Path("out"))["verdict"] in ("fail", "integrity")
    measured = read(Path("out"))["measured"]
    assert {score["auc"] for score in measured["shortcuts"]["panel"]["scores"]} == {"UNKNOWN"}  # too few videos
    shell = blocks("sh", "sha256sum --quiet --check")
    with duckdb.connect() as db:
        recorded, recomputed = db.execute(blocks("sql", "CREATE TABLE certificate")).fetchall()
        assert (recorded[0], recomputed[0]) == ("recorded", "recomputed")
        assert recorded[1:] == recomputed[1:]
        assert recorded[1] == measured["contents"]["videos"]
        for statement in blocks("sql", "CREATE VIEW certified_cells").split(";\n"):
            if statement.strip():
                db.execute(statement)
                if statement.startswith("(FROM"):
                    assert db.fetchall() == []
        assert db.execute("SELECT count(*) FROM cells").fetchall() == [(len(measured["contents"]["cells"]),)]
        assert db.execute("SELECT count(*) FROM codes").fetchall() == [(len(measured["damage"]["codes"]),)]
        for having in ("CREATE VIEW videos", "CREATE TABLE aliases"):
            db.execute(blocks("sql", having))
        offenders = {each["id"]: each["offenders"] for each in measured["leakage"]["kinds"]}
        for check_id in BY_SQL:
            found = len(db.execute(full_suite().specs(check_id)[0].sql).fetchall())
            assert found == offenders[check_id] or (offenders[check_id] == "UNKNOWN" and not found), check_id
        assert offenders["L2"] > 0
    ended_shell = subprocess.run(["bash", "-euc", shell], capture_output=True, text=True, check=True)
    assert int(ended_shell.stdout) == measured["contents"]["members"]
    shard = next(Path("out/shards").rglob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    assert subprocess.run(["bash", "-euc", shell], capture_output=True, check=False).returncode


@pytest.fixture
def bucket(dataset: Path) -> Iterator[str]:
    """Return the URL of the data set in a bucket."""
    with bucket_server() as client:
        yield upload_folder(client, dataset)


def test_bucket_has_the_certificate_of_the_folder(bucket: str, dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "out")
    certify(tmp_path / "out")
    ended = run("certify", bucket, "--level", "quick")
    assert ended.exit_code == 0, ended.output
    assert Store(bucket).read(CERTIFICATE) == (tmp_path / "out" / CERTIFICATE).read_bytes()
    assert run("certify", bucket, "--verify").exit_code == 0
