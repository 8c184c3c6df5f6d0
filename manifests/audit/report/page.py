"""The audit's result as one self-contained HTML page, for people and for paper."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lps.manifests.audit.core.stats import ks_distance
from lps.manifests.audit.core.types import CHECK_CLASSES, State
from lps.manifests.audit.report.data import ClipTile, CodeCount, Facts, Measure, Strip, is_id, read_facts
from lps.manifests.audit.report.views import (
    AuditPageView,
    ChartView,
    CheckView,
    CodeView,
    CountView,
    FoldView,
    GroupView,
    LeakView,
    LineView,
    MatrixView,
    PairView,
    ShortcutsView,
    StripView,
    ThumbView,
    TileView,
)
from lps.manifests.codes import code_link
from lps.manifests.names import CLASSES, SPLITS, check_link, label_name
from lps.manifests.pages.charts import axis_of, ecdf, histogram, number
from lps.manifests.pages.html import Mark, gallery_link, render_page, shortened, spelled
from lps.manifests.pages.pictures import read_strips
from lps.manifests.schemas import Row
from lps.manifests.shortcuts.records import panel_from
from lps.manifests.storage import Store

MAX_PAIRS = 30
MAX_SAMPLE = 20
"""Offenders of a check that the page lists; a record of ours has no more."""
MAX_THUMBS_OF_CHECK, MAX_THUMBS, MAX_THUMB_CHARS = 8, 80, 400_000
"""First frames of offenders: of one check, on the page, and characters of all of their data URIs."""
THUMB_PX = 64
MAX_NUMBERS = 4000
"""Characters of a check's own numbers that the page prints."""

Record = Mapping[str, Any]


MARKS = {
    State.FAIL: Mark("FAIL", "✕", "bad"),
    State.ERROR: Mark("ERROR", "✕", "bad"),
    State.WARN: Mark("WARN", "!", "warn"),
    State.WAIVED: Mark("WAIVED", "~", "open"),
    State.UNKNOWN: Mark("UNKNOWN", "?", "open"),
    State.SKIP: Mark("SKIP", "–", "plain"),
    State.PASS: Mark("PASS", "✓", "good"),
}
"""In the order in which they matter."""
FOLDED = (MARKS[State.SKIP], MARKS[State.PASS])

VERDICTS = {
    "pass": (Mark("Pass", "✓", "good"), "Every check that ran holds."),
    "warn": (Mark("Pass, with warnings", "!", "warn"), "No rule is broken, but some findings need a look."),
    "fail": (Mark("Fail", "✕", "bad"), "At least one rule is broken."),
    "integrity": (
        Mark("Fail: integrity", "✕", "bad"),
        "Bytes are not what the records say they are. Until that is explained, nothing else here can be relied on.",
    ),
    "incomplete": (
        Mark("Incomplete", "?", "open"),
        "At least one check could not run, so this audit proves neither the one nor the other.",
    ),
}
LEAK_TITLES = {
    "any": "any published key",
    "identity": "a person",
    "source": "a recording",
    "target": "the target",
    "donor": "the donor",
    "donor_only": "the donor, but not the target",
    "original": "its original",
    "duplicate": "an equal file",
}
IDENTITY_NAMES = {
    "name": "Data set",
    "index_sha256": "SHA-256 of index.json",
    "split_set": "Split set",
    "params_sha256": "SHA-256 of the parameters",
    "plan_sha256": "SHA-256 of the plan",
    "seal": "Seal",
    "seal_sha256": "SHA-256 of the seal",
    "shards_split_set": "Split set of the shards",
    "leaky": "Shards stamped leaky",
    "n_videos": "Videos",
    "n_clips": "Clips",
    "n_shards": "Shards",
}


def render_html(report: dict[str, Any], store: Store, *, thumbnails: bool = True, gallery: str = "") -> str:
    """Return the page of an audit.

    Args:
        report: the record of `lps-audit check --json`.
        store: the audited data set; its manifests give what the record does not hold. What cannot be read is noted.
        thumbnails: show frames; without them the page has captions alone.
        gallery: address of the page of `lps-prep preview --html`, to which clips and videos among the offenders link.
    """
    return render_page(__package__, _page(report, store, thumbnails, gallery))


def _page(report: Record, store: Store, thumbnails: bool, gallery: str) -> AuditPageView:
    checks = [_check(check, gallery) for check in report.get("checks", ())]
    pairs = _pairs(report)
    data: Record = report.get("data") or {}
    split_set = str(data.get("split_set") or "")
    named = [side["video_id"] for _, pair in pairs for side in pair["videos"]]
    wanted = _wanted(checks) if thumbnails else []
    videos, keys = ([key for kind, key, _ in wanted if kind == asked] for asked in ("video", "clip"))
    facts = read_facts(store, split_set, [*named, *videos], keys)
    checks = _with_thumbs(checks, wanted, facts, store, gallery)
    tiles = [*facts.clip_of_video.values(), *(tile for strip in facts.strips for tile in strip.tiles)]
    pictures = read_strips(store, [tile.row for tile in tiles]) if thumbnails else {}
    blank = "no readable frame" if thumbnails else "not shown"
    mark, said = _verdict(report, checks)
    return AuditPageView(
        verdict=mark,
        verdict_said=(said,),
        name=_name(data),
        split_set=split_set,
        counts=tuple(CountView(m, n) for m in MARKS.values() if (n := sum(check.mark == m for check in checks))),
        to_do=tuple(c for m in MARKS.values() for c in checks if c.mark == m and c.unfolded),
        notes=facts.notes,
        identity=_identity(report, data),
        leaks=_leaks(report),
        shortcuts=_shortcuts(report),
        matrix=_matrix((report.get("counts") or {}).get("split_matrix") or facts.matrix),
        problems=_groups([check for check in checks if check.mark not in FOLDED]),
        folds=tuple(_folds(checks)),
        charts=tuple(_chart(measure) for measure in facts.measures if any(len(v) for v in measure.values.values())),
        tallies=facts.tallies,
        codes=tuple(_code(code) for code in facts.codes),
        totals=facts.totals,
        pairs=tuple(_pair(check, pair, facts, pictures, blank) for check, pair in pairs),
        pairs_said=_pairs_said(report, len(pairs)),
        strips=tuple(_strip(strip, pictures, blank) for strip in facts.strips),
        made_by=f"Made by {report.get('tool', 'lps-audit')} {report.get('version', '')}".strip(),
    )


def _verdict(report: Record, checks: Sequence[CheckView]) -> tuple[Mark, str]:
    name = str(report.get("verdict", ""))
    mark, said = VERDICTS.get(name, (Mark(name or "No verdict", "?", "open"), ""))
    level = f" at level {report['level']}" if report.get("level") else ""
    code = f"; exit code {report['exit_code']}" if report.get("exit_code") is not None else ""
    counted = f"{len(checks)} checks" if checks else "No check ran"
    return mark, f"{said} {counted}{level}{code}.".strip()


def _identity(report: Record, data: Record) -> tuple[tuple[str, str], ...]:
    shown = {**data, "name": _name(data)}
    rows = [(IDENTITY_NAMES.get(name, name.replace("_", " ")), spelled(value)) for name, value in shown.items()]
    names = {
        "audited_utc": "Audited, UTC",
        "policy": "Policy",
        "policy_sha256": "SHA-256 of the policy",
        "level": "Level",
    }
    rows += [(title, spelled(report.get(name))) for name, title in names.items() if name in report]
    return tuple(rows)


def _name(data: Record) -> str:
    return str(data.get("name") or "a data set")


def _check(record: Record, gallery: str) -> CheckView:
    state = str(record.get("state", ""))
    mark = MARKS[State(state)] if state in tuple(State) else Mark(state.upper() or "?", "?", "open")
    measured, limit, note = (str(record.get(name) or "") for name in ("measured", "limit", "note"))
    found = f"{measured} (limit {limit})" if measured and limit else measured
    data = {name: value for name, value in (record.get("data") or {}).items() if name not in ("pairs", "panel")}
    spelled = "\n".join(f"{name}: {json.dumps(data[name], ensure_ascii=False, default=str)}" for name in sorted(data))
    return CheckView(
        id=str(record["id"]),
        link=check_link(str(record["id"])),
        title=str(record.get("title") or ""),
        mark=mark,
        severity=str(record.get("severity") or "?"),
        said=" · ".join(text for text in (found, note) if text),
        measured=measured,
        limit=limit,
        n_checked=int(record.get("n_checked") or 0),
        n_offenders=int(record.get("n_offenders") or 0),
        sample=tuple(_offender(row, gallery) for row in (record.get("sample") or ())[:MAX_SAMPLE]),
        note=note,
        rule=str(record.get("rule") or ""),
        remedy=str(record.get("remedy") or ""),
        numbers=spelled
        if len(spelled) <= MAX_NUMBERS
        else spelled[:MAX_NUMBERS] + "\n… the rest is in the JSON report",
        sql=str(record.get("sql") or "").strip(),
    )


def _offender(row: Record, gallery: str) -> Row:
    found = {name: str(row.get(name) or "") for name in ("kind", "key", "detail")}
    return found | {"link": gallery_link(gallery, _anchor(found)) if found["kind"] in ("clip", "video") else ""}


def _anchor(offender: Row) -> str:
    """Return the sample key or id of an offender; checks of tars name clips after their shard."""
    key = str(offender["key"])
    return key.rpartition("/")[2] if offender["kind"] == "clip" else key


def _wanted(checks: Sequence[CheckView]) -> list[tuple[str, str, str]]:
    """Return kind, key and check of the offenders that get a picture: the first of each check that did not pass."""
    found: list[tuple[str, str, str]] = []
    for check in checks:
        rows = [row for row in check.sample if row["kind"] == "clip" or (row["kind"] == "video" and is_id(row["key"]))]
        if check.unfolded:
            # a clip that breaks a rule in several ways is shown once
            found += [*dict.fromkeys((str(row["kind"]), _anchor(row), check.id) for row in rows)][:MAX_THUMBS_OF_CHECK]
    return found[:MAX_THUMBS]


def _with_thumbs(
    checks: Sequence[CheckView], wanted: Sequence[tuple[str, str, str]], facts: Facts, store: Store, gallery: str
) -> list[CheckView]:
    """Return the checks with the first frames of their offenders; what cannot be read has none."""
    clips = {"clip": facts.clip_of_key, "video": facts.clip_of_video}
    tiles = [(check, key, tile) for kind, key, check in wanted if (tile := clips[kind].get(key)) is not None]
    pictures = read_strips(store, [tile.row for *_, tile in tiles], taken="first", side_px=THUMB_PX)
    found: dict[str, list[ThumbView]] = {}
    n_chars = 0
    for check, key, tile in tiles:
        image = pictures.get(str(tile.row["sample_key"]), "")
        n_chars += len(image)
        if image and n_chars <= MAX_THUMB_CHARS:
            found.setdefault(check, []).append(ThumbView(key=key, image=image, link=gallery_link(gallery, key)))
    return [replace(check, thumbs=tuple(found.get(check.id, ()))) for check in checks]


def _folds(checks: Sequence[CheckView]) -> Iterator[FoldView]:
    for mark in FOLDED:
        mine = [check for check in checks if check.mark == mark]
        if mine:
            yield FoldView(mark=mark, n=len(mine), groups=_groups(mine))


def _groups(checks: Sequence[CheckView]) -> tuple[GroupView, ...]:
    """Sort checks into classes by the letter of their ids, in the order in which they come."""
    groups: dict[str, list[CheckView]] = {}
    for check in checks:
        groups.setdefault(re.match(r"[A-Za-z]*", check.id)[0], []).append(check)  # type: ignore[index]
    return tuple(
        GroupView(letter=letter, title=CHECK_CLASSES.get(letter, "Other checks"), checks=tuple(group))
        for letter, group in groups.items()
    )


def _matrix(rows: Sequence[Row]) -> MatrixView:
    """Turn the long form into one line for each label and method, with the splits side by side."""
    found = {(str(row["split"]), str(row["label"]), str(row.get("method") or "")): row for row in rows}
    names = {split for split, _, _ in found}
    splits = tuple([s for s in SPLITS if s in names] + sorted(names - set(SPLITS)))
    kinds = sorted({key[1:] for key in found}, key=lambda kind: (kind[0] != "real", kind))
    columns = ("videos", "clips", "groups")
    lines = tuple(
        LineView(
            label=label, method=method, cells=tuple(_cells(found.get((s, label, method)), columns) for s in splits)
        )
        for label, method in kinds
    )
    sums = [
        [sum(int(row.get(c) or 0) for key, row in found.items() if key[0] == s) for c in columns[:2]] for s in splits
    ]
    wholes = [max(1, sum(column)) for column in zip(*sums, strict=True)] if sums else []
    totals = LineView(title="all", cells=tuple(tuple(f"{n:,}" for n in pair) for pair in sums))
    shares = LineView(
        title="share", cells=tuple(tuple(f"{n / w:.1%}" for n, w in zip(pair, wholes, strict=True)) for pair in sums)
    )
    return MatrixView(splits=splits, rows=lines, totals=(totals, shares))


def _leaks(report: Record) -> LeakView:
    """Show what L1 measured: kinds of keys by pairs of splits."""
    check: Mapping[str, Any] = next((c for c in report.get("checks", ()) if c.get("id") == "L1"), {})
    leaks = [leak for leak in (check.get("data") or {}).get("leakage") or () if leak.get("kind") in LEAK_TITLES]
    pairs = list(dict.fromkeys((str(leak["seen"]), str(leak["held"])) for leak in leaks))
    found = {(leak["kind"], str(leak["seen"]), str(leak["held"])): _leak_cell(leak) for leak in leaks}
    rows = tuple(
        LineView(title=title, cells=tuple(found.get((kind, *pair), ("–", "")) for pair in pairs))
        for kind, title in LEAK_TITLES.items()
        if any(leak["kind"] == kind and leak["state"] != "NONE" for leak in leaks)
    )
    return LeakView(pairs=tuple(f"{seen} → {held}" for seen, held in pairs), rows=rows)


def _shortcuts(report: Record) -> ShortcutsView:
    """Show the panel that B14 measured."""
    check: Mapping[str, Any] = next((c for c in report.get("checks", ()) if c.get("id") == "B14"), {})
    record = (check.get("data") or {}).get("panel")
    if not record:
        return ShortcutsView()
    panel = panel_from(record, "the report")
    rows = tuple(
        LineView(
            title=score.name,
            cells=(score.what, score.shown(), score.because()),
        )
        for score in panel.scores
    )
    return ShortcutsView(rows=rows, said=panel.said())


def _leak_cell(leak: Record) -> tuple[str, str]:
    if leak.get("rate") is None:
        return ("–", "") if leak["state"] == "NONE" else ("unknown", "")
    known = "" if leak["state"] == "MEASURED" else f" of {leak['n_known']:,} known"
    expected = leak.get("expected")
    return f"{leak['rate']:.1%}{known}", "" if expected is None else f"{expected:.1%}"


def _cells(row: Row | None, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple("–" if row is None or row.get(name) is None else f"{int(row[name]):,}" for name in columns)


def _chart(measure: Measure) -> ChartView:
    axis = axis_of(list(measure.values.values()), log=measure.log)
    real, fake = (measure.values[name] for name in CLASSES)
    unit = f"{measure.unit}{', logarithmic' if axis.log else ''}".strip(", ")
    both = len(real) and len(fake)
    said = f"KS distance {ks_distance(real, fake).size:.2f}" if both else "only one class was measured"
    return ChartView(
        title=measure.title,
        said=f"{said}{f' · {unit}' if unit else ''}",
        of=measure.of,
        histogram=histogram(measure.values, axis, measure.title, measure.unit),
        ecdf=ecdf(measure.values, axis, measure.title, measure.unit),
        rows=tuple(LineView(label=name, cells=_quantiles(measure.values[name])) for name in CLASSES),
    )


def _quantiles(values: "np.ndarray[Any, np.dtype[np.float64]]") -> tuple[str, ...]:
    if not len(values):
        return ("0", "–", "–", "–")
    return (f"{len(values):,}", *(number(float(q)) for q in np.quantile(values, [0.05, 0.5, 0.95])))


def _code(code: CodeCount) -> CodeView:
    tiles = (
        TileView(
            label=label_name(row["label"]),
            lines=tuple(str(row[name]) for name in ("error_stage", "error_detail") if row[name]),
            uri=shortened(str(row["uri"])),
        )
        for row in code.shown
    )
    return CodeView(
        code=code.code, link=code_link(code.code), meaning=code.meaning, by_label=code.by_label, tiles=tuple(tiles)
    )


def _pairs(report: Record) -> list[tuple[str, Row]]:
    """Return the pairs of videos that checks name, each with the check's id."""
    found = []
    for check in report.get("checks", ()):
        for pair in (check.get("data") or {}).get("pairs") or ():
            sides = pair.get("videos") if isinstance(pair, Mapping) else None
            if sides and len(sides) == 2 and all(is_id(side.get("video_id")) for side in sides):
                found.append((str(check["id"]), dict(pair)))
    return found[:MAX_PAIRS]


def _pairs_said(report: Record, n_shown: int) -> str:
    check = next((check for check in report.get("checks", ()) if check.get("id") == "L6"), None)
    if n_shown:
        return f"Videos of different splits whose frames look alike; {n_shown} pairs shown, the surest first."
    if check is None:
        return "Not looked for."
    state = str(check.get("state"))
    if state == State.PASS:
        return "None found."
    return f"{state.upper()}: {check.get('note') or check.get('measured') or 'no pairs are recorded'}"


def _pair(check: str, pair: Row, facts: Facts, pictures: Mapping[str, str], blank: str) -> PairView:
    sides = [_side(side, facts, pictures, blank) for side in pair["videos"]]
    distances = ", ".join(spelled(d) for d in pair.get("distances") or ())
    said = [
        "confirmed" if pair.get("confirmed") else "one frame alone",
        *([f"distances {distances} of 256 bits"] if distances else []),
        *(["mirrored"] if pair.get("mirrored") else []),
    ]
    return PairView(check=check, said=" · ".join(said), left=sides[0], right=sides[1])


def _side(side: Record, facts: Facts, pictures: Mapping[str, str], blank: str) -> TileView:
    video_id = str(side["video_id"])
    uri = facts.uris.get(video_id) or str(side.get("uri") or video_id)
    tile, split = facts.clip_of_video.get(video_id), str(side.get("split") or "")
    if tile is None:
        return TileView(label="unknown", lines=(split,), uri=shortened(uri), blank="no clip")
    return _tile(tile, (split,), pictures, blank)


def _strip(strip: Strip, pictures: Mapping[str, str], blank: str) -> StripView:
    tiles = tuple(
        _tile(tile, (f"{number(float(tile.row[strip.column]))} · {tile.row['split']}",), pictures, blank)
        for tile in strip.tiles
    )
    return StripView(title=strip.title, said=f"{strip.unit}; median of all clips {number(strip.median)}", tiles=tiles)


def _tile(tile: ClipTile, lines: tuple[str, ...], pictures: Mapping[str, str], blank: str) -> TileView:
    image = pictures.get(str(tile.row["sample_key"]), "")
    label = label_name(tile.row["label"])
    method = (str(tile.row["method"]),) if tile.row["method"] else ()
    uri = shortened(tile.uri or bytes(tile.row["video_id"]).hex())
    return TileView(label=label, lines=(*method, *lines), uri=uri, image=image, blank="" if image else blank)
