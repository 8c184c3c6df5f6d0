"""The faults that leak most, found by name in a data set on disk of which a copy was spoilt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lps.manifests.audit.checks import leakage as audit_leakage
from lps.manifests.audit.core.types import AuditContext, CheckResult, State
from tests.builders import manifest_rows

Audit = Callable[[Path], dict[str, CheckResult]]
FAKE = "manipulated_sequences/Deepfakes/c23/videos/000_001.mp4"
REAL = "original_sequences/youtube/c23/videos/000.mp4"


@pytest.fixture
def audit(audit_context: Callable[..., AuditContext]) -> Audit:
    """Return a function that runs every check of leakage on a data set on disk."""

    def run(out: Path) -> dict[str, CheckResult]:
        ctx = audit_context(out, limits=audit_leakage.LIMITS)
        return {entry.spec.id: entry.run(ctx) for entry in audit_leakage.CHECKS}

    return run


def failed(results: dict[str, CheckResult]) -> set[str]:
    return {check for check, result in results.items() if result.state in (State.FAIL, State.WARN, State.ERROR)}


def row_of(out: Path, uri: str) -> dict[str, Any]:
    videos = manifest_rows(out, "videos")
    return next(row for row in videos if row["uri"] == uri)


def test_unspoilt_data_set_leaks_nothing(dataset: Path, audit: Audit) -> None:
    assert failed(audit(dataset)) == set()


def test_fake_moved_from_its_original_is_found(dataset: Path, mutated: Callable[..., Path], audit: Audit) -> None:
    fake = row_of(dataset, FAKE)

    def move(row: dict[str, object]) -> dict[str, object]:
        elsewhere = "val" if row["split"] == "train" else "train"
        return {**row, "split": elsewhere} if row["video_id"] == fake["video_id"] else row

    results = audit(mutated({"splits": move}))
    assert {"L1", "L2"} <= failed(results)
    assert [offender.key for offender in results["L2"].offenders] == [fake["video_id"].hex()]


def test_duplicate_with_the_opposite_label_is_found(dataset: Path, mutated: Callable[..., Path], audit: Audit) -> None:
    real, fake = row_of(dataset, REAL), row_of(dataset, FAKE)

    def copy(row: dict[str, object]) -> dict[str, object]:
        return {**row, "sha256": real["sha256"]} if row["uri"] == FAKE else row

    results = audit(mutated({"videos": copy}))
    assert failed(results) == {"L8"}
    assert {o.key for o in results["L8"].offenders} == {real["video_id"].hex(), fake["video_id"].hex()}


def test_forged_group_column_does_not_hide_a_torn_group(
    dataset: Path, mutated: Callable[..., Path], audit: Audit
) -> None:
    """Every row claims a group of its own."""
    real = row_of(dataset, REAL)

    def forge(row: dict[str, Any]) -> dict[str, Any]:
        own = {"group_id": row["video_id"], "group_anchor": f"video/{row['video_id'].hex()}", "group_size": 1}
        elsewhere = "val" if row["split"] == "train" else "train"
        return {**row, **own, "split": elsewhere if row["video_id"] == real["video_id"] else row["split"]}

    results = audit(mutated({"splits": forge}))
    assert results["L1"].state == State.FAIL
    assert [offender.key for offender in results["L1"].offenders] == ["ffpp/seq/000"]
