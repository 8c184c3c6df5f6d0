"""Split rules over the published lists of FaceForensics++, Celeb-DF v2 and DFDC."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lps.manifests.audit.checks.shortcut import cross_validate
from lps.manifests.errors import RefusedError
from lps.manifests.splits.inputs import SplitInput
from lps.manifests.splits.records import SplitParams
from tests.manifests.splits.rows import count, crossing, record, where
from tests.manifests.splits.rows import split as assign


def test_ffpp_official_counts(ffpp: list[SplitInput]) -> None:
    split = where(assign(ffpp, SplitParams(rule="official")))
    for method in (None, "Deepfakes", "NeuralTextures"):
        assert Counter(split[v.video_id] for v in ffpp if v.method == method) == {
            "train": 720,
            "val": 140,
            "test": 140,
        }


def test_ffpp_official_clean_leaves_out_the_crossing(ffpp: list[SplitInput]) -> None:
    rows = assign(ffpp, SplitParams(rule="official-clean"))
    split = where(rows)
    assert Counter(split[v.video_id] for v in ffpp[:1000]) == {"train": 720, "val": 128, "test": 136, None: 16}
    assert {row.exclude_reason for row in rows if row.excluded} == {"bridge"}
    assert crossing(ffpp, rows) == []


@pytest.mark.parametrize(("seed", "sequences"), [(0, (628, 188, 184)), (1, (626, 176, 198)), (2, (642, 184, 174))])
def test_ffpp_hash_counts(ffpp: list[SplitInput], seed: int, sequences: tuple[int, ...]) -> None:
    rows = assign(ffpp, SplitParams(seed=seed))
    assert count(rows) == tuple(5 * n for n in sequences)
    assert {row.rule for row in rows} == {"hash"}


def test_ffpp_ranked_is_exact(ffpp: list[SplitInput]) -> None:
    rows = assign(ffpp, SplitParams(rule="ranked"))
    split = where(rows)
    assert Counter(split[v.video_id] for v in ffpp[:1000]) == {"train": 600, "val": 200, "test": 200}
    assert crossing(ffpp, rows) == []


def test_random_tears_more_than_half_of_the_pairs(ffpp: list[SplitInput]) -> None:
    split = where(assign(ffpp[:1000], SplitParams(rule="random", allow_leaky=True)))
    pairs = {frozenset((*v.target_keys, *v.donor_keys)) for v in ffpp if v.donor_keys}
    of_key = {v.target_keys[0]: split[v.video_id] for v in ffpp[:1000]}
    torn = sum(len({of_key[key] for key in pair}) > 1 for pair in pairs)
    assert len(pairs) == 500
    assert torn == pytest.approx(280, abs=4 * 11.1)  # 500 pairs torn with 1 - (.36 + .04 + .04), four deviations


def test_identity_hash_loses_the_pairs_that_random_tears(ffpp: list[SplitInput]) -> None:
    rows = assign(ffpp, SplitParams(rule="identity-hash"))
    split = where(rows)
    lost = sum(split[v.video_id] is None for v in ffpp[1000:2000]) / 1000
    assert lost == pytest.approx(0.54, abs=0.1)  # 0.56 of the pairs, less those of one recording
    assert crossing(ffpp, rows) == []


def test_seed_moves_the_expected_share(ffpp: list[SplitInput]) -> None:
    one, other = (where(assign(ffpp, SplitParams(seed=seed))) for seed in (0, 1))
    moved = sum(one[key] != other[key] for key in one) / len(one)
    assert moved == pytest.approx(0.56, abs=0.1)


def test_celebdf_list_has_no_header_and_inverted_labels(shared: Callable[[str], Path]) -> None:
    lines = shared("splits/celeb_df_v2_list_of_testing_videos.txt").read_text().split("\n")
    listed = [line.split(" ") for line in lines if line]
    assert len(listed) == 518
    assert listed[0] == ["1", "YouTube-real/00170.mp4"]
    folders = Counter((flag, path.split("/")[0]) for flag, path in listed)
    assert folders == {("0", "Celeb-synthesis"): 340, ("1", "Celeb-real"): 108, ("1", "YouTube-real"): 70}


def test_dfdc_label_rows(shared: Callable[[str], Path]) -> None:
    with shared("splits/dfdc_full_labels_119k.csv").open(newline="") as file:
        labels = Counter(row["is_fake"] for row in csv.DictReader(file))
    assert labels == {"0": 19154, "1": 99992}
    with shared("splits/dfdc_public_test_labels.csv").open(newline="") as file:
        assert Counter(row["label"] for row in csv.DictReader(file)) == {"0": 2500, "1": 2500}


def test_dfdc_frame_counts_alone_tell_a_little(shared: Callable[[str], Path]) -> None:
    with shared("splits/dfdc_full_labels_119k.csv").open(newline="") as file:
        rows = np.array([(int(row["is_fake"]), float(row["n_frame"])) for row in csv.DictReader(file)])
    assert [round(float((rows[rows[:, 0] == label, 1] == 300).mean()), 3) for label in (0, 1)] == [0.887, 0.805]
    some = rows[np.random.default_rng(0).permutation(len(rows))[:20_000]]
    found = cross_validate(some[:, 1:], some[:, 0].astype(np.int64), np.arange(len(some)))
    assert found is not None
    assert np.mean(found[0]) == pytest.approx(0.544, abs=0.01)


def test_celebdf_giant_group_is_refused_with_its_reason(celebdf: list[SplitInput]) -> None:
    fakes = [v for v in celebdf if v.label == 1]
    with pytest.raises(RefusedError, match=r"275 of 340 videos \(81%\).*celebdf2/id/id0.*component"):
        assign(fakes, SplitParams())


def test_celebdf_giant_policies(celebdf: list[SplitInput]) -> None:
    fakes = [v for v in celebdf if v.label == 1]
    whole = assign(fakes, SplitParams(giant="component"))
    assert count(whole) == (275, 24, 41)
    divided = assign(fakes, SplitParams(giant="identity-hash"))
    assert min(count(divided)) > 0
    assert crossing(fakes, divided) == []
    loose = assign(fakes, SplitParams(giant="target-only"))
    assert sum(count(loose)) == 340
    target = {v.video_id: v.target_keys[0] for v in fakes}
    homes = {(target[row.video_id], row.split) for row in loose}
    assert len(homes) == len({key for key, _ in homes})
    assert record(fakes, SplitParams(giant="target-only"))["accepted_leakage"] == ["donor"]


def test_more_tries_lose_fewer_videos(celebdf: list[SplitInput]) -> None:
    fakes = [v for v in celebdf if v.label == 1]
    lost = [
        sum(row.excluded for row in assign(fakes, SplitParams(rule="identity-hash", tries=tries)))
        for tries in (2, 50, 500)
    ]
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < 0.45 * len(fakes)


def test_official_carves_a_val_where_none_is_published(celebdf: list[SplitInput]) -> None:
    rows = assign(celebdf, SplitParams(rule="official"))
    split = where(rows)
    assert all(split[v.video_id] == "test" for v in celebdf if v.official_split == "test")
    carved = Counter(split[v.video_id] for v in celebdf if v.official_split == "train")
    assert carved["val"] / carved.total() == pytest.approx(0.25, abs=0.1)
