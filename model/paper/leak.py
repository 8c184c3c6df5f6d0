"""How much a random split flatters: the same network, recipe and numbers of videos, people kept apart or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.canonical import pretty_json, sha256_hex, unit_interval
from lps.manifests.columns import read_columns, rule_path, split_path
from lps.manifests.errors import RefusedError
from lps.manifests.index import INDEX_JSON, JsonRecord, read_index
from lps.manifests.names import SPLITS
from lps.manifests.schemas import parquet_bytes
from lps.manifests.splits.inputs import INPUT_COLUMNS
from lps.manifests.splits.records import NOT_SELECTED, SplitParams
from lps.manifests.splits.table import split_table
from lps.manifests.storage import Store, open_store
from lps.model.evaluation.baselines import best_alone, lacking
from lps.model.evaluation.metrics import LEVEL
from lps.model.paper.pairing import CHANGES, N_SEEDS, auc_value, over_seeds
from lps.model.paper.results import Result, ResultRow, Value
from lps.model.paper.zoo import DataSet, ModelZoo

ARMS = ("group", "random")
"""Split rules that are compared."""
VIEW_OF = "view_of"
"""Where the index of a view tells which data set it shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakArms:
    """A data set under both rules."""

    views: Mapping[str, DataSet]
    """By rule: the same shards with a split set of that name."""
    counts: Mapping[str, int]
    """Videos with clips of each split, the same under both rules."""
    shared: Mapping[str, int]
    """By rule: test videos of which the training split has somebody or something."""


def leak(zoo: ModelZoo) -> Result:
    """Question of the field: what does an AUC gain where people are on both sides of the split?

    Both rules place the same videos, and each split has as many of each class under both. Each rule has its own
    pretraining, on its training split, and as many seeds of the detector as the zoo says, by default N_SEEDS. Raises
    RefusedError for a data set behind a URL, and as splitting and training do.
    """
    rows: list[ResultRow] = []
    notes: list[str] = []
    facts: dict[str, Any] = {}
    seeds = range(zoo.seed, zoo.seed + (zoo.n_seeds or (2 if zoo.smoke else N_SEEDS)))
    divided = [split_both_ways(data, zoo.out / "data", zoo.seed) for data in zoo.data]  # all, before any is trained on
    for data, arms in zip(zoo.data, divided, strict=True):
        found = {rule: _trained(zoo, data, arms.views[rule], rule, seeds) for rule in ARMS}
        for rule in ARMS:
            rows += [*found[rule], _mean(found[rule], f"{rule}, mean of {len(seeds)} seeds")]
        change = _change(found)
        notes += _notes(data, arms, change)
        facts[data.name] = {
            "videos": dict(arms.counts), "test_videos_shared_with_train": dict(arms.shared),
            "premium": {"value": change.value, "low": change.low, "high": change.high, "level": LEVEL,
                        "seeds": list(seeds)},
        }  # fmt: skip
    notes.append(
        "Both rules place the same videos, with the same number of each class in each split, but other videos are "
        "tested. Intervals of a seed draw videos again; those of means and differences are Student's t over "
        f"{len(seeds)} seeds of the training on one division, cut to what is possible: they say nothing of other "
        "divisions, nor of other data."
    )
    return Result(experiment="leak", item="Random against group split", rows=tuple(rows), metrics=("auc",),
                  notes=tuple(notes), facts={"seeds": list(seeds), "data": facts})  # fmt: skip


def _trained(zoo: ModelZoo, data: DataSet, view: DataSet, rule: str, seeds: Sequence[int]) -> list[ResultRow]:
    """Train a detector with each seed under one rule, and evaluate it on that rule's test split.

    A certificate is demanded of the data set, not of its view, whose split set was made a moment ago.
    """
    mine = replace(zoo, data=(view,), split_set=rule, allow_leaky=True, require_certificate=False)
    init = str(mine.pretrained(view))
    rows = []
    for seed in seeds:
        job = replace(mine.job(view, f"lps/classify-{seed}", "classify", init), seed=seed)
        record = mine.evaluated(mine.trained(job), view)
        entry = record["data"][0]
        rows.append(
            ResultRow(
                name=f"{rule}, seed {seed}", data=data.name, trained_on=data.name,
                values={"auc": auc_value(entry)}, checkpoint_sha256=record["checkpoint"]["sha256"],
                notes=tuple(entry["notes"]), alone=best_alone(entry),
                lacking=tuple(f"{said} (in {view.location})" for said in lacking(entry)),
            )
        )  # fmt: skip
    return rows


def _mean(rows: Sequence[ResultRow], name: str) -> ResultRow:
    values = {"auc": over_seeds([row.values["auc"].value for row in rows])}
    return replace(rows[0], name=name, values=values, checkpoint_sha256="", notes=())


def _change(found: Mapping[str, Sequence[ResultRow]]) -> Value:
    """Return what the random split changes of the AUC, seed by seed, in points of a hundred."""
    pairs = [[row.values["auc"].value for row in found[rule]] for rule in ARMS]
    return over_seeds([None if a is None or b is None else b - a for a, b in zip(*pairs, strict=True)], CHANGES)


def _notes(data: DataSet, arms: LeakArms, change: Value) -> list[str]:
    """Say what the random split changes, and how much of the test split the training split knows."""
    shares = ", ".join(f"{arms.shared[rule]} under {rule}" for rule in ARMS)
    notes = [
        f"{data.name}: {', '.join(f'{n} {split}' for split, n in arms.counts.items())} videos under both rules; of the "
        f"test videos, {shares} have somebody or something of the training split."
    ]
    if change.value is None:
        return [*notes, f"{data.name}: AUC cannot be compared: a test split gives none."]
    bounds = "" if change.low is None else f" [{change.low:+.2f}, {change.high:+.2f}]"
    return [*notes, f"{data.name}: the random split changes the AUC by {change.value:+.2f}{bounds} points."]


# ---- the same videos under both rules --------------------------------------------------------------------------------


def split_both_ways(data: DataSet, folder: Path, seed: int) -> LeakArms:
    """Make views of a data set below `folder`: its shards and manifests by links, and a split set for each rule.

    The data set itself stays as it is. Raises RefusedError for one behind a URL, which cannot be linked, and where a
    view of the name is of another one.
    """
    store = open_store(data.location)
    if not store.is_local:
        raise RefusedError(f"{store.url}: the experiment links to a data set's files; give it a local copy")
    source = read_index(store)
    index, places = source.values, {rule: folder / f"{data.name}-{rule}" for rule in ARMS}
    for place in places.values():
        _require_view_of(source, store.url, place)
    videos = read_columns(store, "videos", (*INPUT_COLUMNS, "status", "n_clips"))
    videos = videos.filter(pc.not_equal(videos["status"], "skipped")).sort_by("video_id")
    made = {rule: split_table(videos, SplitParams(rule=rule, seed=seed, allow_leaky=True)) for rule in ARMS}
    tables = _evened(videos, {rule: table for rule, (table, _) in made.items()}, seed)
    views = {}
    for rule, (_, record) in made.items():
        place = places[rule]
        _link(store, place, rule)
        marks = {"lps.params_sha256": str(index.get("params_sha256", ""))}
        files = {
            split_path(rule): parquet_bytes("splits", tables[rule], marks),
            rule_path(rule): pretty_json({**record, "evened": True}),
        }
        entries = {path: {"sha256": sha256_hex(file), "bytes": len(file), "rows": None} for path, file in files.items()}
        view = Store(str(place))
        for path, file in files.items():
            view.publish(path, file)
        shown = {"manifests": {**index["manifests"], **entries}, VIEW_OF: {"index_sha256": source.sha256}}
        view.publish(INDEX_JSON, pretty_json({**index, **shown}))
        views[rule] = DataSet(f"{data.name}-{rule}", str(place))
    usable = np.asarray(videos["n_clips"].to_numpy()) > 0
    return LeakArms(
        views=views,
        counts={s: int((_in_split(tables["group"], s) & usable).sum()) for s in SPLITS},
        shared={rule: _shared(tables[rule], usable) for rule in ARMS},
    )


def _evened(videos: pa.Table, tables: Mapping[str, pa.Table], seed: int) -> dict[str, pa.Table]:
    """Leave videos out, by the hashes of their ids, until each split has as many of each class under every rule."""
    labels = np.asarray(videos["label"].fill_null(-1).to_numpy())
    usable = np.asarray(videos["n_clips"].to_numpy()) > 0
    u = np.array([unit_interval("lps-leak/v1", str(seed), i.hex()) for i in videos["video_id"].to_pylist()])
    out = {rule: np.zeros(len(videos), np.bool_) for rule in tables}
    for split in SPLITS:
        for label in np.unique(labels):
            mine = {
                rule: np.flatnonzero(_in_split(table, split) & usable & (labels == label))
                for rule, table in tables.items()
            }
            n = min(map(len, mine.values()))
            for rule, rows in mine.items():
                out[rule][rows[np.argsort(u[rows], kind="stable")[n:]]] = True
    return {rule: _without(table, out[rule]) for rule, table in tables.items()}


def _without(table: pa.Table, out: "np.ndarray[Any, np.dtype[np.bool_]]") -> pa.Table:
    """Mark rows of a split set as excluded."""
    mask = pa.array(out)
    columns = {
        "split": pc.if_else(mask, pa.scalar(None, pa.string()), table["split"].cast(pa.string())),
        "excluded": pc.or_(table["excluded"], mask),
        "exclude_reason": pc.if_else(mask, NOT_SELECTED, table["exclude_reason"].cast(pa.string())),
    }
    return pa.table([columns.get(name, table[name]) for name in table.column_names], schema=table.schema)


def _in_split(table: pa.Table, split: str) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    return np.asarray(pc.fill_null(pc.equal(table["split"], split), False), np.bool_)  # noqa: FBT003


def _shared(table: pa.Table, usable: "np.ndarray[Any, np.dtype[np.bool_]]") -> int:
    """Count the test videos whose group has videos in the training split, too."""
    groups = table["group_id"].combine_chunks()
    train = groups.filter(pa.array(_in_split(table, "train") & usable))
    return int((np.asarray(pc.is_in(groups, value_set=train)) & _in_split(table, "test") & usable).sum())


def _require_view_of(source: JsonRecord, url: str, place: Path) -> None:
    """Raise RefusedError where a view shows another data set, or the same one in another state.

    Runs know a view by its place, and finished ones would be taken for what this data set teaches. A view without an
    index was never finished, so nothing has been learnt from it.
    """
    view = Store(str(place))
    if not view.exists(INDEX_JSON):
        return
    if read_index(view).values.get(VIEW_OF) != {"index_sha256": source.sha256}:
        raise RefusedError(
            f"{place} shows another data set than {url}, or what that was before its index changed, and runs may have "
            "learnt from it; give the experiment another folder"
        )


def _link(store: Store, place: Path, rule: str) -> None:
    """Make a folder that shows what a data set holds, but for its index and a split set called as the rule.

    Links to where the data set was before it was moved are made anew. Raises RefusedError for what is no link, as where
    the folder was copied with what its links lead to.
    """
    own = {split_path(rule), rule_path(rule)}
    for path in ("shards", "plan", "manifests/*", "manifests/splits/*"):
        for source in Path(store.url).glob(path):
            name = source.relative_to(store.url).as_posix()
            link = place / name
            if name in own or name == "manifests/splits":
                continue
            target = source.resolve()
            if link.is_symlink():
                if link.readlink() == target:
                    continue
                link.unlink()
            elif link.exists():
                raise RefusedError(f"{link} is no link to {target}; delete {place}, and the same command makes it anew")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
