"""How even a split set is: sizes, groups that count, and facets."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from lps.manifests.audit.core.types import AuditContext
from lps.manifests.audit.imbalance import measure_imbalance

if TYPE_CHECKING:
    from tests.manifests.audit.checks.conftest import World

Opened = Callable[["World"], AuditContext]


def cleared(world: "World") -> "World":
    for table in (world.videos, world.clips, world.splits):
        table.clear()
    return world


def test_sizes_groups_and_ratio(world: "World", opened: Opened) -> None:
    report = measure_imbalance(opened(world))
    train, val, test = report.splits
    assert (train.split, val.split, test.split) == ("train", "val", "test")
    assert (train.n_videos, train.n_clips, train.n_real, train.n_fake) == (480, 480, 160, 320)
    assert (train.n_groups, train.share, train.target) == (80, 0.5, 0.5)
    assert train.effective_groups == pytest.approx(80)
    assert train.error95 == pytest.approx(1.96 * (0.25 / 160) ** 0.5)
    assert val.n_groups + test.n_groups == 80


def test_videos_of_few_groups_count_little(world: "World", opened: Opened) -> None:
    for i in range(98):
        world.add(f"x{i}", "test")
        world.splits[-1]["group_id"] = bytes(16)
    test = measure_imbalance(opened(world)).splits[2]
    assert (test.n_videos, test.n_groups) == (240 + 98, 41)
    assert test.effective_groups == pytest.approx(338**2 / (40 * 36 + 98**2))


def test_facets_name_what_is_uneven(world: "World", opened: Opened) -> None:
    cleared(world)
    for i in range(30):
        world.add(f"even{i}", ("train", "val", "test")[i % 3], 1, method="even", height=240, source_part="p")
        world.add(f"odd{i}", "train", 1, method="odd", height=2160, source_part="p")
    facets = {facet.facet: facet for facet in measure_imbalance(opened(world)).facets}
    assert list(facets) == ["label", "method", "dataset", "compression", "part", "height", "pair"]
    method = facets["method"]
    assert method.chi2_p < 1e-6
    assert method.cramers_v == pytest.approx(0.707, abs=0.01)
    assert facets["height"].cramers_v == method.cramers_v
    assert {cell.value for cell in facets["height"].cells} == {"<360", ">=1080"}
    cells = {(cell.value, cell.split): cell for cell in method.cells}
    assert ("odd", "test") not in cells
    assert cells["odd", "train"].share == 1
    assert cells["even", "val"].share == pytest.approx(1 / 3)
    assert (facets["part"].chi2_p, facets["part"].cramers_v) == (1, 0)


def test_excluded_and_unlabelled_videos(world: "World", opened: Opened) -> None:
    cleared(world)
    world.add("a", "train", label=None, height=None)
    world.add("b", "train")
    world.add("c", "test")
    world.splits[-1].update(split=None, excluded=True)
    world.rule = {}
    report = measure_imbalance(opened(world))
    train = report.splits[0]
    assert (train.n_videos, train.n_real, train.n_fake) == (2, 1, 0)
    assert (train.target, train.error95) == (None, None)
    assert {cell.value for facet in report.facets if facet.facet == "label" for cell in facet.cells} == {"?", "0"}


def test_nothing_to_report(world: "World", opened: Opened) -> None:
    report = measure_imbalance(opened(cleared(world)))
    assert [split.n_videos for split in report.splits] == [0, 0, 0]
    assert all(facet.cells == () for facet in report.facets)
