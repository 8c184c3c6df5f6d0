"""Checks R2 to R6: splits run again, pins, provenance, passing faults, published counts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lps.manifests.audit.checks.published_counts import BY_LABEL, is_counted, miscounted
from lps.manifests.audit.checks.reproducibility import VERSIONS
from lps.manifests.audit.core.seal import seal_dataset
from lps.manifests.audit.run import Audit
from lps.manifests.canonical import pretty_json
from lps.manifests.schemas import Row
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store
from lps.pipeline.job.split_sets import add_split_set
from lps.pipeline.sources.adapters import LAYOUTS

Mutated = Callable[..., Path]
Broken = Callable[..., dict[str, set[str]]]
Replanned = Callable[[Row], Path]
NO_FACE = "original_sequences/youtube/c23/videos/003.mp4"


def moved(row: Row) -> Row:
    """Move the first group to where it was not."""
    if row["group_anchor"] != "ffpp/seq/000":
        return row
    return {**row, "split": "test" if row["split"] != "test" else "val"}


def test_forged_split_is_found(mutated: Mutated, broken: Broken) -> None:
    found = broken(mutated({"splits/ranked": moved}), split_set="ranked")
    assert set(found) == {"R2"}
    assert len(found["R2"]) == 6


@pytest.mark.parametrize("changes", [{"u": 0.5}, {"group_keys": ["x"]}, {"group_anchor": "x"}, {"pinned": True}])
def test_forged_column_of_a_split_is_found(mutated: Mutated, broken: Broken, changes: Row) -> None:
    video: list[bytes] = []

    def forge(row: Row) -> Row:
        video.append(row["video_id"])
        return {**row, **changes} if row["video_id"] == video[0] else row

    found = broken(mutated({"splits": forge}))
    assert video[0].hex() in found["R2"]
    assert set(found) == {"R2"}


def test_forged_rule_is_found(mutated: Mutated, broken: Broken, audit: Callable[..., Audit]) -> None:
    def edited(**changes: object) -> Callable[[bytes], bytes]:
        return lambda data: pretty_json({**json.loads(data), **changes})

    path = "manifests/splits/group.json"
    assert path in broken(mutated(files={path: edited(leaky=True)}), "R2")["R2"]
    assert broken(mutated(files={path: edited(rule="random")}), "R2")["R2"]
    assert broken(mutated(files={path: edited(rule="nonsense")}), "R2") == {"R2": {path}}
    for unknown in (edited(aliases_sha256="00"), edited(base_sha256="00"), lambda _: None):
        assert audit(mutated(files={path: unknown}), "R2").results[0].state == "unknown"


@pytest.mark.parametrize(("version", "state"), [("1.0", "pass"), ("1.1", "fail"), ("2.0", "fail")])
def test_what_an_older_version_did_not_record_is_no_forgery(
    mutated: Mutated, audit: Callable[..., Audit], version: str, state: str
) -> None:
    def edited(data: bytes) -> bytes:
        rule = json.loads(data)
        del rule["untied_fakes"]
        return pretty_json(rule)

    path = mutated(files={"manifests/splits/group.json": edited})
    index = json.loads((path / "index.json").read_bytes())
    (path / "index.json").write_bytes(pretty_json({**index, "schema_version": version}))
    assert audit(path, "R2").results[0].state == state


def test_new_videos_are_no_part_of_an_old_split(mutated: Mutated, broken: Broken) -> None:
    def other_keys(row: Row) -> Row:
        return {**row, "target_keys": ["ffpp/seq/012"]} if row["uri"] == NO_FACE else row

    assert set(broken(mutated({"videos": other_keys}))) == {"R2"}


# ---- R3 ------------------------------------------------------------------------------------------------------------


def test_pinned_videos_that_moved_are_found(mutated: Mutated, broken: Broken, audit: Callable[..., Audit]) -> None:
    out = mutated()
    add_split_set(str(out), "grown", SplitParams(rule="ranked", seed=1, giant="component"), "group")
    assert broken(out, split_set="grown") == {}
    assert audit(out, "R3", split_set="grown").results[0].note == "base group"
    found = broken(mutated({"splits/grown": moved}, base=out), split_set="grown")
    assert set(found) == {"R2", "R3"}
    assert len(found["R3"]) == 6
    unknown = mutated({"splits": lambda row: {**row, "u": 0.25}}, base=out)
    assert audit(unknown, "R3", split_set="grown").results[0].state == "unknown"


def test_without_a_base_nothing_is_pinned(dataset: Path, audit: Callable[..., Audit]) -> None:
    assert audit(dataset, "R3").results[0].state == "skip"


# ---- R4, R5, R6 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*VERSIONS, "weights/mtcnn"])
def test_missing_version_is_found(
    dataset: Path, replanned: Replanned, audit: Callable[..., Audit], broken: Broken, name: str
) -> None:
    versions = dict(json.loads((dataset / "plan/plan.json").read_bytes())["versions"])
    del versions[name]
    out = replanned({"versions": versions})
    assert broken(out) == {"R4": {"plan/plan.json"}}
    [offender] = audit(out, "R4").results[0].offenders
    assert offender.detail.startswith(f"versions.{name.split('/')[0]}")


def test_absent_library_and_short_digest_are_found(dataset: Path, replanned: Replanned, broken: Broken) -> None:
    versions = dict(json.loads((dataset / "plan/plan.json").read_bytes())["versions"])
    assert set(broken(replanned({"versions": {**versions, "torch": "absent"}}))) == {"R4"}
    assert set(broken(replanned({"versions": {**versions, "weights/mtcnn": "ab"}}), "R4")) == {"R4"}


def test_runs_of_modified_or_several_checkouts_are_found(
    mutated: Mutated, audit: Callable[..., Audit], broken: Broken
) -> None:
    def run(**code: object) -> Callable[[bytes], bytes]:
        return lambda _: pretty_json({"host": "a", "code": {"lps-prep": "0.1.0", **code}})

    one, two = "runs/1/run.json", "runs/2/run.json"
    assert audit(mutated(), "R4").results[0].note == "no runs are kept"
    same = mutated(files={one: run(commit="a" * 40, modified=False), two: run(commit="a" * 40, modified=False)})
    assert broken(same, "R4") == {}
    assert broken(mutated(files={two: run(commit="b" * 40, modified=True)}, base=same), "R4") == {"R4": {one, two}}
    changed = mutated(files={two: run(commit="a" * 40, modified=True)}, base=same)
    assert broken(changed, "R4") == {"R4": {two}}
    silent = audit(mutated(files={two: lambda _: b"{}"}, base=same), "R4").results[0]
    assert (silent.state, silent.note) == ("pass", "1 of 2 kept runs do not name a commit")


def test_passing_faults_warn_before_the_seal_and_fail_after(mutated: Mutated, audit: Callable[..., Audit]) -> None:
    def timed_out(row: Row) -> Row:
        return {**row, "error_code": "E_TIMEOUT"} if row["uri"] == NO_FACE else row

    out = mutated({"videos": timed_out})
    assert audit(out, "R5").results[0].state == "warn"
    seal_dataset(Store(str(out)), allow_transient=True)
    after = audit(out)
    assert {result.id for result in after.results if result.state == "fail"} == {"R5"}
    assert after.exit_code == 1


@pytest.mark.parametrize("adapter", ["ffpp", "dfdc", "celebdf", "kodf"])
def test_incomplete_published_data_set_is_found(replanned: Replanned, broken: Broken, adapter: str) -> None:
    found = broken(replanned({"dataset": adapter}))
    assert set(found) == {"R6"}


def test_what_nobody_counted_is_skipped_by_name(replanned: Replanned, audit: Callable[..., Audit]) -> None:
    [result] = audit(replanned({"dataset": "df40"}), "R6").results
    assert (result.state, result.note) == ("skip", "nobody published how many videos df40 has")


def test_published_counts_pass() -> None:
    ffpp = [("ffpp", 0, "real", "c23", 1000), ("ffpp", 1, "Deepfakes", "c23", 999), ("dfd", 1, "DFD", "c23", 3068)]
    assert list(miscounted("ffpp", ffpp, 0.001)) == []
    flat = [("ffpp", 1, "FaceSwap", "c23", 1000), ("dfd", 1, "DFD", "c23", 1000)]
    assert list(miscounted("ffpp-flat", flat, 0.001)) == []
    assert [o.key for o in miscounted("ffpp", flat, 0.001)] == ["dfd DFD c23"]
    dfdc = [("dfdc", 0, "real", None, 19154), ("dfdc", 1, "dfdc", None, 99992)]
    assert list(miscounted("dfdc", dfdc, 0.001)) == []
    assert list(miscounted("dfdc", [*dfdc, ("dfdc", 1, "test", None, 5000)], 0.001)) == []
    assert [o.key for o in miscounted("dfdc", [*dfdc, ("dfdc", 1, "test", None, 2500)], 0.001)] == ["dfdc"]
    celebdf = [("celebdf2", 0, "real", None, 890), ("celebdf2", 1, "celeb_synthesis", None, 5639)]
    assert list(miscounted("celebdf", celebdf, 0.001)) == []
    assert [o.key for o in miscounted("ffpp", [("ffpp", 1, "FaceSwap", "c40", 990)], 0.001)] == ["ffpp FaceSwap c40"]
    swaps = [("deeperforensics", 1, f"variant{k}", None, 1000) for k in range(11)]
    assert list(miscounted("deeperforensics", swaps, 0.001)) == [], "recordings of actors are loaded apart"
    less = [("kodf", 0, "real", None, 62_166), ("kodf", 1, "dffs", None, 100_000)]
    assert [(o.key, o.detail) for o in miscounted("kodf", less, 0.001)] == [
        ("kodf label 1", "100000 videos, published 175776")
    ]


def test_counts_are_those_that_sources_tells() -> None:
    for adapter, numbers in BY_LABEL.items():
        said = LAYOUTS[adapter].counts
        assert all(f"{n:,} " in said for n in numbers), (adapter, said)
    left = {id for id in LAYOUTS if not is_counted(id)}
    assert left == {"folder", "frames", "table", "df40", "deepfakebench", "deepfake-eval-2024", "av-deepfake1m-pp"}
