"""A run that would not give what its output already holds is refused, and the message names the difference."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lps.manifests.codes import Code, Status
from lps.manifests.errors import IntegrityError, RefusedError
from lps.manifests.index import TABLES_OF_A_COMMIT, rows_path
from lps.manifests.records import VideoResult
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store
from lps.pipeline.config.params import CropParams, LocalizeParams, PairParams, Params
from lps.pipeline.job.events import Planned, PrepEvent
from lps.pipeline.job.shards import ShardJob, write_shard

if TYPE_CHECKING:
    import subprocess

    from tests.pipeline.conftest import Digests, Scenario


@pytest.fixture
def out(undisturbed_out: Path, tmp_path: Path) -> Path:
    """Return a finished data set that the test may spoil."""
    return shutil.copytree(undisturbed_out, tmp_path / "out")


@pytest.fixture
def source(scenario: "Scenario", tmp_path: Path) -> Path:
    """Return a copy of the sources that the test may spoil."""
    return shutil.copytree(scenario.source, tmp_path / "source")


def refusal(differences: str, out: Path) -> str:
    """Return the message that a resumed run must end with."""
    return f"{out} was planned differently: {differences}. Restore that, or use a new output folder"


# ---- parameters ----------------------------------------------------------------------------------------------------


CHANGES: dict[str, tuple[Callable[[Params], dict[str, Any]], str]] = {
    "bound": (
        lambda p: {"params": replace(p, localize=LocalizeParams(bound_px=1.0))},
        "params.localize.bound_px was 2.0, now 1.0",
    ),
    "margin": (
        lambda p: {"params": replace(p, crop=CropParams(margin=1.3))},
        "params.crop.margin was 1.0, now 1.3",
    ),
    "seed": (lambda p: {"params": replace(p, seed=1)}, "params.seed was 0, now 1"),
    "codec": (lambda p: {"params": replace(p, codec="png")}, 'params.codec was "jpg", now "png"'),
    "pairing": (
        lambda p: {"params": replace(p, pair=PairParams(mode="original"))},
        'params.pair.mode was "none", now "original"',
    ),
    "two": (
        lambda p: {"params": replace(p, clip_frames=20, align=False)},
        "params.align was true, now false; params.clip_frames was 10, now 20",
    ),
    "shard size": (lambda p: {"shard_mb": 2}, "shard_bytes was 1048576, now 2097152"),
    "ratios": (
        lambda p: {"split": SplitParams(rule="group", ratios=(0.5, 0.25, 0.25))},
        "split.ratios was [0.6, 0.2, 0.2], now [0.5, 0.25, 0.25]",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_changed_parameter_is_named(
    scenario: "Scenario", out: Path, digests: "Callable[[Path], Digests]", undisturbed: "Digests", name: str
) -> None:
    request = scenario.request(out)
    change, difference = CHANGES[name]
    with pytest.raises(RefusedError) as caught:
        scenario.run(replace(request, **change(request.params)))
    assert str(caught.value) == refusal(difference, out)
    assert digests(out) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("library", ["onnxruntime", "numpy"])
def test_another_version_of_a_library_is_named(
    scenario: "Scenario", out: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    installed = version(library)
    monkeypatch.setattr("lps.pipeline.job.survey.version", lambda name: "0.1" if name == library else version(name))
    with pytest.raises(RefusedError) as caught:
        scenario.run(scenario.request(out))
    assert str(caught.value) == refusal(f'versions.{library} was "{installed}", now "0.1"', out)


@pytest.mark.slow
def test_the_command_refuses_with_exit_code_3(
    command: "Callable[..., subprocess.CompletedProcess[str]]",
    assert_one_line: "Callable[[subprocess.CompletedProcess[str], int, str], None]",
    out: Path,
) -> None:
    assert_one_line(command(out, "--codec", "webp"), 3, refusal('params.codec was "jpg", now "webp"', out))


# ---- sources -------------------------------------------------------------------------------------------------------


def change(source: Path) -> str:
    """Give one video the content of another."""
    before = (source / "real/face_1.mp4").stat().st_size
    shutil.copyfile(source / "real/face_2.mp4", source / "real/face_1.mp4")
    return f"source changed: real/face_1.mp4 ({before} bytes, now {(source / 'real/face_1.mp4').stat().st_size})"


def add(source: Path) -> str:
    """Add a video."""
    shutil.copyfile(source / "real/no_face.mp4", source / "fake/new.mp4")
    return "source added: fake/new.mp4"


def remove(source: Path) -> str:
    """Remove a video."""
    (source / "real/no_face.mp4").unlink()
    return "source removed: real/no_face.mp4"


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [change, add, remove])
def test_a_changed_source_is_named(
    scenario: "Scenario",
    out: Path,
    source: Path,
    digests: "Callable[[Path], Digests]",
    undisturbed: "Digests",
    spoil: Callable[[Path], str],
) -> None:
    difference = spoil(source)
    with pytest.raises(RefusedError) as caught:
        scenario.run(scenario.request(out, source=str(source)))
    assert str(caught.value) == refusal(difference, out)
    assert digests(out) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [change, remove])
def test_a_source_that_changes_during_the_run_is_named(
    scenario: "Scenario", source: Path, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    spoilt: list[str] = []

    def on_event(event: PrepEvent) -> None:
        if isinstance(event, Planned):
            spoilt.append(spoil(source).split(" ")[2])

    with pytest.raises(RefusedError) as caught:
        scenario.run(scenario.request(tmp_path / "new", source=str(source)), on_event)
    expected = f"source changed since the plan was made: {spoilt[0]}; restore it or use a new output"
    assert str(caught.value) == expected
    assert not (tmp_path / "new/index.json").exists()


# ---- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "spoil", "message"),
    [
        ("commits/val-000000.json", lambda data: data[:-10], "is not a commit record: "),
        (
            "commits/val-000000.json",
            lambda data: data.replace(b'"plan_sha256":"', b'"plan_sha256":"x'),
            "belongs to another plan; use a new output",
        ),
        ("commits/val-000000.json", lambda data: data.replace(b'"clips"', b'"klips"'), "is not a commit record: "),
        ("plan/videos.parquet", lambda data: data[:-10], "is not the table its plan.json names; "),
        ("plan/plan.json", lambda data: data[:-10], "is damaged: "),
    ],
    ids=["cut commit", "foreign commit", "incomplete commit", "plan table", "cut plan"],
)
def test_damage_stops_a_resumed_run(
    scenario: "Scenario", out: Path, path: str, spoil: Callable[[bytes], bytes], message: str
) -> None:
    (out / path).write_bytes(spoil((out / path).read_bytes()))
    with pytest.raises(IntegrityError) as caught:
        scenario.run(scenario.request(out))
    assert str(caught.value).startswith(f"{out / path} {message}")


def test_other_bytes_for_a_committed_shard_are_refused(
    shard: tuple[ShardJob, Params, list[VideoResult]], tmp_path: Path
) -> None:
    job, params, (result,) = shard
    store, scratch = Store(str(tmp_path / "out")), tmp_path / "scratch"
    scratch.mkdir()
    first = write_shard(job, [result], params, store, scratch)
    before = {file.path: store.read(file.path) for file in store.walk()}
    assert set(before) == {job.uri, job.commit_uri, *(rows_path(job.shard_id, table) for table in TABLES_OF_A_COMMIT)}
    assert write_shard(job, [result], params, store, scratch) == first
    clip = result.clips[0]
    other = replace(result, clips=(replace(clip, frames=(b"other", *clip.frames[1:])),))
    with pytest.raises(IntegrityError, match=f"^shard {job.shard_id} was committed before with other bytes"):
        write_shard(job, [other], params, store, scratch)
    assert {file.path: store.read(file.path) for file in store.walk()} == before
    assert list(scratch.iterdir()) == []


def test_a_shard_that_gives_nothing_now_leaves_no_tar_of_before(
    shard: tuple[ShardJob, Params, list[VideoResult]], tmp_path: Path
) -> None:
    job, params, (result,) = shard
    store = Store(str(tmp_path / "out"))
    store.publish(job.uri, b"of a run that was killed before its commit")
    lost = replace(result, outcome=replace(result.outcome, status=Status.FAILED, code=Code.E_TIMEOUT), clips=())
    assert write_shard(job, [lost], params, store, tmp_path).shard is None
    assert not store.exists(job.uri)


@pytest.mark.slow
def test_an_index_without_its_plan_is_no_place_for_a_run(scenario: "Scenario", out: Path) -> None:
    (out / "plan/plan.json").unlink()
    with pytest.raises(RefusedError, match=r"holds an index but no plan; choose an empty output$"):
        scenario.run(scenario.request(out))
    assert json.loads((out / "index.json").read_bytes())["schema"] == "lps.dataset"
