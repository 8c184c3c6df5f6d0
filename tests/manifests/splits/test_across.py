"""What one data set learns from and another one holds out."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lps.manifests.canonical import digest16
from lps.manifests.schemas import TABLES
from lps.manifests.splits.across import COMPARED_COLUMNS, ComparedSet, compare_sets
from lps.manifests.splits.inputs import EMPTY_SHA256
from lps.manifests.splits.near_copies import LIMITS

Row = dict[str, Any]
N = 30


def videos(name: str) -> list[Row]:
    """Return videos of one set that resemble nobody's: the even ones are learnt from, the odd ones are in `test`."""
    traits = Random(name)
    return [
        {
            "video_id": digest16(name, str(k)),
            "sha256": traits.randbytes(32),
            "uri": f"{name}{k:02d}",
            "dataset": name,
            "target_keys": [f"{name}/{k}"],
            "phash": [traits.randbytes(32) for _ in range(3)],
            "phash_quality": [90, 90, 90],
            "split": ("train", "test")[k % 2],
        }
        for k in range(N)
    ]


def flipped(digests: list[bytes], *distances: int) -> list[bytes]:
    """Return hashes with so many bits of each changed."""
    return [
        (int.from_bytes(digest, "big") ^ ((1 << n) - 1)).to_bytes(32, "big")
        for digest, n in zip(digests, distances, strict=True)
    ]


def compared(name: str, rows: list[Row]) -> ComparedSet:
    kinds = {column: TABLES["videos"].field(column).type for column in COMPARED_COLUMNS}
    columns = {column: pa.array([row.get(column) for row in rows], kind) for column, kind in kinds.items()}
    table = pa.table({**columns, "split": pa.array([row["split"] for row in rows], pa.string())})
    learnt = np.array([row["split"] == "train" for row in rows])
    return ComparedSet(name=name, videos=table, learnt=learnt, held=~learnt)


@pytest.fixture
def one() -> list[Row]:
    return videos("a")


@pytest.fixture
def two() -> list[Row]:
    return videos("b")


def found(one: list[Row], two: list[Row]) -> list[tuple[str, str, str, int, str]]:
    result = compare_sets([compared("one", one), compared("two", two)])
    return [(each.learnt, each.held_out, each.kind, each.n_videos, each.example) for each in result.shared]


def test_strangers_share_nothing(one: list[Row], two: list[Row]) -> None:
    result = compare_sets([compared("one", one), compared("two", two)])
    assert (result.shared, result.notes) == ((), ())


def same_file(one: Row, two: Row) -> None:
    two["sha256"] = one["sha256"]


def encoded_anew(one: Row, two: Row) -> None:
    two["phash"] = flipped(one["phash"], 0, 12, 20)


def same_person(one: Row, two: Row) -> None:
    two["donor_keys"] = one["target_keys"]


@pytest.mark.parametrize(
    ("change", "kind", "example"),
    [(same_file, "file", "b01"), (encoded_anew, "near_copy", "b01"), (same_person, "key", "b01 with a/0")],
)
def test_evidence_counts_where_one_learns_and_the_other_holds_out(
    one: list[Row], two: list[Row], change: Callable[[Row, Row], None], kind: str, example: str
) -> None:
    change(one[0], two[1])
    assert found(one, two) == [("one", "two", kind, 1, example)]
    assert found(two, one) == [("two", "one", kind, 1, example)], "the order of the sets is no matter"
    change(one[0], two[3])
    assert found(one, two) == [("one", "two", kind, 2, example)]


@pytest.mark.parametrize("change", [same_file, encoded_anew, same_person])
@pytest.mark.parametrize("places", [(0, 2), (1, 3)])
def test_what_both_learn_from_or_both_hold_out_is_no_leak(
    one: list[Row], two: list[Row], change: Callable[[Row, Row], None], places: tuple[int, int]
) -> None:
    change(one[places[0]], two[places[1]])
    assert found(one, two) == []


def test_the_strongest_evidence_counts(one: list[Row], two: list[Row]) -> None:
    for change in (same_file, encoded_anew, same_person):
        change(one[0], two[1])
    same_person(one[2], two[3])
    two[5]["split"] = "val"
    encoded_anew(one[4], two[5])
    result = compare_sets([compared("one", one), compared("two", two)])
    assert [(each.split, each.kind, each.n_videos) for each in result.shared] == [
        ("test", "file", 1),
        ("val", "near_copy", 1),
        ("test", "key", 1),
    ]
    assert result.refusal() == (
        "1 source file is learnt from in one and held out in two, in its split 'test' (such as b01), and 2 more such "
        "overlaps"
    )
    assert result.shared[2].said() == (
        "1 video shares a person or recording with one learnt from in one and is held out in two, in its split 'test' "
        "(such as b03 with a/2)"
    )


@pytest.mark.parametrize("key", ["folder/face_04", "table/face_04"])
def test_equal_names_of_files_are_no_evidence(one: list[Row], two: list[Row], key: str) -> None:
    for row in (one[0], two[1]):
        row["target_keys"], row["source_keys"] = [key], [key]
    assert found(one, two) == []
    two[1]["original_video_id"] = one[0]["video_id"] = two[0]["video_id"]
    encoded_anew(one[0], two[1])
    assert found(one, two) == [("one", "two", "near_copy", 1, "b01")], "nor do they hide a copy"


def test_empty_files_are_no_copies(one: list[Row], two: list[Row]) -> None:
    one[0]["sha256"] = two[1]["sha256"] = EMPTY_SHA256
    assert found(one, two) == []


def test_distances_are_judged_as_the_audit_does(one: list[Row], two: list[Row]) -> None:
    two[1]["phash"] = flipped(one[0]["phash"], 0, 12, 32)
    result = compare_sets([compared("one", one), compared("two", two)])
    assert result.shared == ()
    assert result.notes == ("1 video has one frame like one of one in two, which may be a shared title",)
    two[1]["phash_quality"] = [90, 90, 10]
    assert found(one, two) == [("one", "two", "near_copy", 1, "b01")]
    two[1]["phash_quality"] = [10, 90, 10]
    assert found(one, two) == []


def test_what_cannot_be_compared_is_said(one: list[Row], two: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    def notes(*sets: ComparedSet) -> list[str]:
        result = compare_sets(sets)
        assert result.shared == ()
        return list(result.notes)

    encoded_anew(one[0], two[1])
    known, other = compared("one", one), compared("two", two)
    older = "no hashes of frames to compare in two: copies encoded anew are not noticed"
    assert notes(known, replace(other, older_hashes=True)) == [older]
    few = compared("two", two[:4])
    assert notes(known, few) == [
        "too few or too similar videos in two (b) to tell near copies of them: those encoded anew are not noticed"
    ]
    monkeypatch.setitem(LIMITS, "l6_max_videos", 2 * N - 1)
    assert notes(known, other) == ["60 videos are more than 59: copies encoded anew are not noticed"]
    for row in two:
        row["phash"] = row["phash_quality"] = None
    assert notes(known, compared("two", two)) == [older]
