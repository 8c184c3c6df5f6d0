"""Both cards of a data set: what they say, who reads them, and that nothing in them depends on anything else."""

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from click.testing import CliRunner
from PIL import Image

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main as prep
from lps.manifests.canonical import sha256_hex
from lps.manifests.cards.publish import make_cards
from lps.manifests.cards.readme import in_markdown
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.index import CARDS, INDEX_JSON
from lps.manifests.records import Outcome, SourceVideo, VideoResult
from lps.manifests.storage import Store, open_store
from lps.pipeline.config.params import PairParams, Params
from lps.pipeline.job.plan import PlanSpec
from lps.pipeline.job.wholeness import Fault, find_faults
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set, folder_spec, folder_video, manifest_rows, still_clip

HOSTILE = "a|b`\n---\nlicense: mit\n<script>alert(1)</script>[x](http://x.y) {{ 7 * 7 }} \x1b[31m\u202e"
PARAMS = Params(clip_frames=5)
N_FRAMES = 5


@dataclass(frozen=True, slots=True)
class Card:
    """README.md in its parts."""

    front: dict[str, Any]
    text: str


def read_card(out: Path) -> Card:
    yaml: Any = pytest.importorskip("yaml")
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    return Card(yaml.safe_load(front), text)


def read_croissant(out: Path) -> Any:
    return json.loads((out / "croissant.json").read_text())


def pictures() -> tuple[bytes, ...]:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "JPEG")
    return (sink.getvalue(),) * N_FRAMES


def processed(video: SourceVideo) -> VideoResult:
    if "bad" in video.uri:
        outcome = Outcome(status=Status.FAILED, code=Code.E_DECODE, stage=Stage.DECODE, detail="it is damaged")
        return VideoResult(video_id=video.video_id, outcome=outcome)
    clips = tuple(still_clip(N_FRAMES, start, frames=pictures()) for start in (0, 100))
    return VideoResult(video_id=video.video_id, outcome=Outcome(status=Status.OK, n_frames_decoded=200), clips=clips)


def videos_of_two_data_sets() -> list[SourceVideo]:
    reals = [folder_video(f"real/{k}.mp4", 0) for k in range(8)]
    fakes = [folder_video(f"fake/{k}.mp4", 1, method=HOSTILE if k % 2 else "swap") for k in range(8)]
    others = [replace(folder_video(f"{name}.mp4", None), dataset=HOSTILE) for name in ("u", "v", "bad")]
    return [*reals, *fakes, *others, folder_video("real/bad.mp4", 0)]


def build(
    out: Path,
    videos: list[SourceVideo],
    spec: PlanSpec | None = None,
    result_of: Callable[[SourceVideo], VideoResult] = processed,
) -> Path:
    probes = {
        video.uri: Probe(n_bytes=1, sha256=sha256_hex(video.uri.encode()), n_frames_promised=200) for video in videos
    }
    build_data_set(out, spec or folder_spec(PARAMS, shard_bytes=200_000), videos, probes, result_of)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of two sources, with hostile names, videos that failed and a second split set."""
    out = build(tmp_path_factory.mktemp("cards") / "out d#é%20", videos_of_two_data_sets())
    ended = CliRunner().invoke(prep, ["split", str(out), "--rule", "ranked", "--name", "by-rank"])
    assert ended.exit_code == 0, ended.output
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """Return a copy that the test may change."""
    return Path(shutil.copytree(made, tmp_path / "out"))


def checked(out: Path, *checks: str) -> dict[str, Any]:
    """Return the results of checks by their ids."""
    ended = CliRunner().invoke(audit, ["check", str(out), "--checks", ",".join(checks), "--json", "-"])
    return {result["id"]: result for result in json.loads(ended.stdout)["checks"]}


# ---- what they say ---------------------------------------------------------------------------------------------------


def test_the_index_names_both_with_their_digests(made: Path) -> None:
    named = json.loads((made / INDEX_JSON).read_text())["manifests"]
    for card in CARDS:
        data = (made / card).read_bytes()
        assert named[card] == {"sha256": sha256_hex(data), "bytes": len(data), "rows": None}
    assert {result["state"] for result in checked(made, "A1", "A5", "T4").values()} == {"pass"}


def test_the_card_counts_what_the_manifests_hold(made: Path) -> None:
    card = read_card(made)
    splits = sorted({row["split"] for row in manifest_rows(made, "clips")})
    [config] = card.front["configs"]
    assert (config["config_name"], config["default"]) == ("group", True)
    assert sorted(files["split"] for files in config["data_files"]) == splits
    assert all(list(made.glob(files["path"])) for files in config["data_files"])
    assert "36 clips of faces, with 180 frames, from 20 source videos" in card.text
    assert "| folder | real | 9 | 8 | 16 |" in card.text
    assert "| swap | fake | 4 | 4 | 8 |" in card.text
    assert "| E\\_DECODE | real | 1 |" in card.text
    assert re.search(r"\| by-rank \| ranked \| 0 \| .* \| (yes|no) \| no \|", card.text)
    assert "5 frames of one face that follow each other, in blocks of 5; each is 224 × 224 px" in card.text


def test_names_of_others_mean_nothing_in_the_card(made: Path) -> None:
    card = read_card(made)
    assert card.front["license"] == "unknown"
    assert "<script>" not in card.text
    assert not {"\x1b", "\u202e"} & set(card.text)
    rows = [line for line in card.text.splitlines() if line.startswith("|")]
    hostile = [row for row in rows if "script" in row]
    assert len(hostile) == 2
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in hostile} == {6}
    assert [line for line in card.text.splitlines() if line.startswith("---")] == []
    labels = [source["prov:label"] for source in read_croissant(made)["prov:wasDerivedFrom"]]
    assert labels == sorted([HOSTILE, "folder"])


def test_every_sign_of_markdown_is_escaped() -> None:
    assert in_markdown("a_b *c* <d> |") == r"a\_b \*c\* \<d\> \|"
    assert in_markdown("www.x.org https://x.org") == r"www\.x\.org https\:\/\/x\.org"
    assert len(in_markdown("x" * 10_000)) == 100


def test_many_names_are_cut_off(tmp_path: Path) -> None:
    videos = [folder_video(f"bad/{k}.mp4", 1, method=f"m{k}") for k in range(150)]
    text = read_card(build(tmp_path / "out", videos, folder_spec(PARAMS))).text
    assert "50 more rows are left out here" in text
    assert len(text) < 20_000


def test_they_say_how_fakes_are_paired(tmp_path: Path) -> None:
    def shared(video: SourceVideo) -> VideoResult:
        clip = still_clip(N_FRAMES, frames=pictures(), pair_mode="shared" if video.label else "own")
        return VideoResult(video_id=video.video_id, outcome=Outcome(status=Status.OK), clips=(clip,))

    params = replace(PARAMS, pair=PairParams(mode="original"))
    videos = [folder_video("real/a.mp4", 0), replace(folder_video("fake/a.mp4", 1), original_uri="real/a.mp4")]
    text = read_card(build(tmp_path / "out", videos, folder_spec(params), shared)).text
    assert "own 1, shared 1." in text


@pytest.mark.filterwarnings("default")  # of libraries that are not ours
def test_without_clips_there_are_no_splits_to_load(tmp_path: Path) -> None:
    out = build(tmp_path / "out", [folder_video("real/bad.mp4", 0)])
    card = read_card(out)
    assert "configs" not in card.front
    assert "It has no clips." in card.text
    found = mlcroissant.Dataset(jsonld=str(out / "croissant.json"))
    assert not found.metadata.ctx.issues.warnings
    assert len(list(found.records(record_set="videos"))) == 1


# ---- who reads them --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")  # of libraries that are not ours
def test_croissant_is_valid_and_its_records_lead_from_clip_to_video_and_shard(made: Path) -> None:
    found = mlcroissant.Dataset(jsonld=str(made / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    assert not found.metadata.ctx.issues.warnings
    videos, clips, shards = (list(found.records(record_set=name)) for name in ("videos", "clips", "shards"))
    assert (len(videos), len(clips)) == (20, 36)
    uris = {row["videos/video_id"]: row["videos/uri"] for row in videos}
    tars = {row["shards/shard_id"]: row["shards/uri"] for row in shards}
    assert {uris[row["clips/video_id"]] for row in clips} == {
        video.uri.encode() for video in videos_of_two_data_sets() if "bad" not in video.uri
    }
    assert all((made / tars[row["clips/shard_id"]].decode()).exists() for row in clips)


def test_croissant_tells_provenance_in_terms_of_prov(made: Path) -> None:
    record = read_croissant(made)
    assert record["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert record["@context"]["prov"] == "http://www.w3.org/ns/prov#"
    [tars] = [part for part in record["distribution"] if part["@type"] == "cr:FileSet"]
    sets = {part["@id"]: part for part in record["recordSet"]}
    assert tars["prov:wasDerivedFrom"] == {"@id": "clips"}
    assert sets["clips"]["prov:wasDerivedFrom"] == {"@id": "videos"}
    fields = {field["@id"]: field for field in sets["clips"]["field"]}
    assert fields["clips/video_id"]["equivalentProperty"] == "prov:wasDerivedFrom"
    files = {part["contentUrl"]: part["sha256"] for part in record["distribution"] if part is not tars}
    assert {"manifests/clips.parquet", "manifests/splits/by-rank.parquet", "plan/plan.json"} <= set(files)
    assert files == {path: sha256_hex((made / path).read_bytes()) for path in files}


@pytest.mark.filterwarnings("default")  # of libraries that are not ours
def test_datasets_finds_the_splits_and_reads_clips(made: Path, tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    clips = manifest_rows(made, "clips")
    found = datasets.load_dataset(str(made), cache_dir=str(tmp_path))
    keys = {split: sorted(rows["__key__"]) for split, rows in found.items()}
    assert keys == {split: sorted(c["sample_key"] for c in clips if c["split"] == split) for split in keys}
    assert sum(map(len, keys.values())) == len(clips)
    labels = {row["clip_id"].hex(): row["label"] for row in clips}
    for row in found["train"]:
        assert row["00.jpg"].size == (8, 8)
        assert row["cls"] == labels[row["json"]["clip_id"]] == row["json"]["label"]
    streamed = datasets.load_dataset(str(made), streaming=True)
    assert {split: len(list(rows)) for split, rows in streamed.items()} == {s: len(k) for s, k in keys.items()}


# ---- same bytes ------------------------------------------------------------------------------------------------------


def test_equal_data_sets_have_equal_cards_wherever_they_lie(made: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "again", list(reversed(videos_of_two_data_sets())))
    split = CliRunner().invoke(prep, ["split", str(again), "--rule", "ranked", "--name", "by-rank"])
    assert split.exit_code == 0
    for card in CARDS:
        data = (made / card).read_bytes()
        assert data == (again / card).read_bytes()
        assert str(made).encode() not in data
    memory = open_store("memory://cards")
    for path in made.rglob("*"):
        if path.is_file() and path.name not in CARDS:
            memory.publish(path.relative_to(made).as_posix(), path.read_bytes())
    index = json.loads((made / INDEX_JSON).read_text())
    assert make_cards(memory, index) == {card: (made / card).read_bytes() for card in CARDS}


def test_a_split_set_makes_them_anew(out: Path) -> None:
    before = {card: (out / card).read_bytes() for card in CARDS}
    assert read_croissant(out)["version"] == "1.1.0"
    assert CliRunner().invoke(prep, ["split", str(out), "--rule", "ranked", "--name", "third"]).exit_code == 0
    assert all((out / card).read_bytes() != before[card] for card in CARDS)
    assert read_croissant(out)["version"] == "1.2.0"
    assert "| third | ranked |" in read_card(out).text
    assert checked(out, "T4")["T4"]["state"] == "pass"


def test_a_data_set_of_an_older_writer_gets_none(out: Path) -> None:
    index = json.loads((out / INDEX_JSON).read_text())
    for card in CARDS:
        del index["manifests"][card]
        (out / card).unlink()
    (out / INDEX_JSON).write_text(json.dumps(index))
    assert CliRunner().invoke(prep, ["split", str(out), "--rule", "ranked", "--name", "third"]).exit_code == 0
    assert not [card for card in CARDS if (out / card).exists()]
    assert {result["state"] for result in checked(out, "A1", "A5", "T4").values()} == {"pass"}


# ---- what may be changed ---------------------------------------------------------------------------------------------


def fill_in(out: Path) -> None:
    path = out / "README.md"
    path.write_text(path.read_text().replace('license: "unknown"', "license: cc-by-4.0"))


def test_a_licence_may_be_filled_in(out: Path) -> None:
    fill_in(out)
    assert find_faults(Store(str(out)), [], verify=True)[1:] == find_faults(Store(str(out)), [])[1:]
    assert not [fault for fault in find_faults(Store(str(out)), [], verify=True) if fault.path in CARDS]
    found = checked(out, "T4")["T4"]
    assert (found["state"], [offender["key"] for offender in found["sample"]]) == ("warn", ["README.md"])
    assert CliRunner().invoke(audit, ["seal", str(out)]).exit_code == 0
    assert checked(out, "T1")["T1"]["state"] == "pass"
    (out / "README.md").write_text("other")
    assert checked(out, "T1")["T1"]["state"] == "fail"


def test_what_was_filled_in_is_kept_where_a_split_set_makes_the_cards_anew(out: Path) -> None:
    fill_in(out)
    edited = (out / "README.md").read_bytes()
    ended = CliRunner().invoke(prep, ["split", str(out), "--rule", "ranked", "--name", "third"])
    assert "runs/withdrawn/README.md" in ended.output
    assert (out / "runs/withdrawn/README.md").read_bytes() == edited != (out / "README.md").read_bytes()
    assert not (out / "runs/withdrawn/croissant.json").exists()


def test_a_manifest_that_was_edited_too_is_no_warning(out: Path) -> None:
    fill_in(out)
    (out / "manifests/splits/by-rank.json").write_text("{}")
    assert checked(out, "T4")["T4"]["state"] == "fail"


def test_a_card_that_is_gone_is_a_fault(out: Path) -> None:
    (out / "README.md").unlink()
    assert Fault("README.md", "missing") in find_faults(Store(str(out)), [])
    assert checked(out, "T4")["T4"]["state"] == "fail"


def test_what_an_audit_found_may_lie_beside_them(out: Path) -> None:
    assert CliRunner().invoke(audit, ["seal", str(out)]).exit_code == 0
    for name in ("audit.json", "audit.html", "certificate.json", "certificate.json.sig"):
        (out / name).write_text("{}")
    found = checked(out, "A5", "T1", "T4")
    assert {result["state"] for result in found.values()} == {"pass"}
    assert found["A5"]["note"] == "4 files of audits, first audit.html"
    (out / "audits.json").write_text("{}")
    assert checked(out, "T1")["T1"]["state"] == "fail"
