"""Parameters: recorded whole, digested, and refused with one line where they cannot be used."""

import json
import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.errors import UnreadableError
from lps.pipeline.config.params import (
    CropParams,
    DecodeParams,
    Limits,
    LocalizeParams,
    PairParams,
    Params,
    params_from_record,
)

TABLES: dict[str, Params | CropParams | DecodeParams | LocalizeParams | PairParams | Limits] = {
    "": Params(),
    "crop": CropParams(),
    "decode": DecodeParams(),
    "localize": LocalizeParams(),
    "pair": PairParams(),
    "limits": Limits(),
}


def named() -> Iterator[tuple[str, str, object]]:
    """Yield table, name and default of every parameter."""
    for table, defaults in TABLES.items():
        for f in fields(defaults):
            if f.name not in TABLES:
                yield table, f.name, getattr(defaults, f.name)


def record_with(table: str, name: str, value: object) -> dict[str, object]:
    return {table: {name: value}} if table else {name: value}


def refused(record: dict[str, object]) -> str:
    with pytest.raises(UnreadableError) as caught:
        params_from_record(record)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_records_rebuild_what_they_record() -> None:
    params = Params(
        clips=3, codec="webp", align=False, localize=LocalizeParams(faces="all"), limits=Limits(max_seconds=9.5)
    )
    record = json.loads(json.dumps(params.record()))
    assert params_from_record(record) == params
    before = Params(max_outside_share=1.0, max_step=2.5, tone_map=False, decode=DecodeParams(scan="whole"))
    assert params_from_record({}) == before, "what a record lacks was not done when it was made"
    assert params_from_record(Params().record()) == Params()


def test_a_whole_number_serves_as_a_number_and_digests_like_it() -> None:
    params = params_from_record({**Params().record(), "localize": {"bound_px": 3}, "template_scale": 1})
    assert params.sha256() == Params(template_scale=1.0, localize=LocalizeParams(bound_px=3.0)).sha256()
    assert type(params.localize.bound_px) is float


def test_the_digest_is_that_of_the_record() -> None:
    assert Params().sha256() == sha256_hex(canonical_json(Params().record()))
    assert Params().sha256() == Params().sha256()


@pytest.mark.parametrize(("table", "name", "default"), list(named()))
def test_every_parameter_is_in_the_digest(table: str, name: str, default: object) -> None:
    other: object = {
        "localizer": "mtcnn",
        "codec": "png",
        "faces": "all",
        "clip_frames": 55,
        "crop_px": 352,
        "smooth_frames": 5,
        "max_side_px": 4000,
        "scan": "whole",
        "mode": "original",
        "margin": 1.5,
    }.get(name)
    if other is None:
        other = (not default) if isinstance(default, bool) else default / 2 if isinstance(default, float) else 1
        other = 2 if other == default else other
    changed = params_from_record({**Params().record(), **record_with(table, name, other)})
    assert changed != Params()
    assert changed.sha256() != Params().sha256()


@pytest.mark.parametrize(("table", "name", "default"), list(named()))
def test_values_of_a_wrong_type(table: str, name: str, default: object) -> None:
    wrong: list[object] = [None, [1], {"a": 1}]
    if isinstance(default, bool):
        wrong += [1, "true"]
    elif isinstance(default, int):
        wrong += [60.0, "60", True]
    elif isinstance(default, float):
        wrong += ["0.5", True, math.nan, math.inf]
    else:
        wrong += [1, True]
    for value in wrong:
        message = refused(record_with(table, name, value))
        assert f"'{table}.{name}'".replace("'.", "'") in message
        assert repr(value) in message


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"clip_frame": 60}, "unknown name 'clip_frame'"),
        ({"localize": {"stride": 8}}, "unknown name 'localize.stride'"),
        ({"limits": {"max_side": 1}}, "unknown name 'limits.max_side'"),
        ({"limits": 5}, "[limits] must be a table"),
        ({"localize": [1]}, "[localize] must be a table"),
    ],
)
def test_names_that_are_unknown(record: dict[str, object], message: str) -> None:
    assert refused(record).startswith(message)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    assert all(f.name in refused({"limits": {"x": 1}}) for f in fields(Limits))


@pytest.mark.parametrize(
    "record",
    [
        {"clip_frames": 61},
        {"clip_frames": 0},
        {"clip_frames": -5},
        {"clip_frames": 1, "block_frames": 1},
        {"clip_frames": 1005},
        {"block_frames": 0},
        {"block_frames": -5},
        {"clips": -1},
        {"codec": "bmp"},
        {"jpeg_quality": 0},
        {"jpeg_quality": 101},
        {"out_px": 0},
        {"max_outside_share": 1.5},
        {"max_outside_share": -0.1},
        {"template_scale": 0.0},
        {"decode": {"scan": "half"}},
        {"localize": {"faces": "biggest"}},
        {"localize": {"smooth_frames": 6}},
        {"localize": {"smooth_frames": -1}},
        {"localize": {"stride_frames": 0}},
        {"localize": {"crop_px": 300}},
        {"localize": {"crop_px": 0}},
        {"localize": {"crop_margin": -1.0}},
        {"localize": {"detect_side_px": 0}},
        {"localize": {"min_score": 1.1}},
        {"localize": {"min_det_rate": -0.1}},
        {"localize": {"cut_score": 2.0}},
        {"max_step": 0.0},
        {"localize": {"bound_px": -1.0}},
        {"localize": {"max_gap_frames": -1}},
        {"crop": {"margin": 0.9}},
        {"crop": {"margin": 2.1}},
        {"limits": {"max_frames": 0}},
        {"limits": {"max_side_px": 4097}},
        {"limits": {"max_seconds": -1.0}},
    ],
)
def test_values_that_cannot_be_used(record: dict[str, Any]) -> None:
    name = next(iter(record.values())) if isinstance(next(iter(record.values())), dict) else record
    assert next(iter(name)) in refused(record)


def test_edges_that_can_be_used() -> None:
    edges = {"stride_frames": 1, "smooth_frames": 1, "max_gap_frames": 0, "bound_px": 0.0, "cut_score": 1.0}
    assert params_from_record({"localize": edges, "clips": 0, "jpeg_quality": 100}).clips == 0


def test_what_is_wrong_is_refused_without_a_record_too() -> None:
    with pytest.raises(ValueError, match="clip_frames must be a multiple"):
        Params(clip_frames=59)
    with pytest.raises(ValueError, match="clips must be"):
        replace(Params(), clips=-1)
    with pytest.raises(ValueError, match="max_side_px cannot be above 4096"):
        Limits(max_side_px=8192)
