"""README.md of a data set: the card that the Hugging Face Hub shows, and that `datasets` reads the splits from.

What others named (data sets, methods) is escaped wherever it stands: in Markdown every sign that could mean something,
in the YAML above by writing each value as JSON.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lps.manifests.canonical import pretty_json, visible
from lps.manifests.cards.facts import CardFacts, Count
from lps.manifests.schemas import Row

MAX_ROWS = 100
"""Rows of a table: a table of sources may name a method for each of its videos."""
MAX_CHARS = 100
"""Characters of a name in a table."""
_SIGNS = re.compile(r"([!-,./:-@\[-`{-~])")
"""ASCII punctuation but the hyphen: with a backslash before it each is only itself."""
_PLAIN_KEY = re.compile("[a-z_]+")
_SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, slots=True)
class Raw:
    """Text that is Markdown, made here."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Counts as they stand in the page."""

    head: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    n_left: int
    """Rows that are left out."""


def readme(facts: CardFacts) -> bytes:
    """Return the page. Equal facts give equal bytes."""
    env = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=False,  # noqa: S701  it is no HTML: `finalize` escapes every value as Markdown
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {"raw": lambda text: Raw(str(text)), "code": _in_code}
    text = env.get_template("README.md.j2").render(
        facts=facts,
        params=facts.params,
        inner=facts.inner,
        front=Raw("\n".join(_yaml(_front_matter(facts)))),
        tables=_tables(facts),
        split_sets=_split_sets(facts),
        settings=Raw(pretty_json(_settings(facts.plan)).decode()),
        n_shards=sum(len(rows) for rows in facts.shards().values()),
        n_bytes=sum(row["bytes"] for rows in facts.shards().values() for row in rows),
    )
    return visible(text).encode()


def _settings(plan: Row) -> Row:
    """Return what the plan was asked for. Aliases are as many as a file has: their digest stands for them."""
    split = {name: value for name, value in plan.get("split", {}).items() if name != "aliases"}
    return {"params": plan.get("params"), "split": split, "versions": plan.get("versions")}


def _finalize(value: object) -> str:
    if isinstance(value, (int, float)):
        return str(value)
    return value.text if isinstance(value, Raw) else in_markdown(value)


def in_markdown(value: object) -> str:
    """Spell a value in a line or a cell of Markdown, where it means nothing but itself."""
    text = " ".join(str(value).split())
    text = text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
    return _SIGNS.sub(r"\\\1", text)


def _in_code(value: object) -> Raw:
    """Spell a value between backticks, where nothing is escaped and none may be."""
    return Raw(" ".join(str(value).replace("`", "'").split()))


# ---- YAML ------------------------------------------------------------------------------------------------------------


def _front_matter(facts: CardFacts) -> Row:
    front: Row = {
        "license": "unknown",
        "pretty_name": f"Face clips of {facts.plan.get('dataset', 'videos')}",
        "task_categories": ["video-classification"],
        "tags": ["deepfake-detection", "face", "video", "webdataset", "lps-prep"],
        "size_categories": [next((name for most, name in _SIZES if facts.total.n_clips < most), "1M<n<10M")],
    }
    if not facts.total.n_clips:
        return front
    name = str(facts.index["split_set"])
    files = [{"split": split, "path": f"shards/{split}/*.tar"} for split in facts.shards()]
    front["configs"] = [{"config_name": name, "default": True, "data_files": files}]
    front["dataset_info"] = [{"config_name": name, "features": _features(facts.params)}]
    return front


def _features(params: Mapping[str, Any]) -> list[Row]:
    """Return the columns of a sample: readers would guess them from the first clips, which may lack a label."""
    images = [{"name": f"{k:02d}.{params['codec']}", "dtype": "image"} for k in range(params["clip_frames"])]
    texts = ("clip_id", "video_id", "dataset", "method")
    record: list[Row] = [
        *({"name": name, "dtype": "string"} for name in texts),
        *({"name": name, "dtype": "int64"} for name in ("label", "track_id", "face_id")),
        {"name": "frame_idx", "list": "int64"},
        {"name": "pts_s", "list": "float64"},
        {"name": "align_M", "list": {"list": "float64"}},
        {"name": "box_source", "list": "int64"},
        {"name": "fps", "dtype": "float64"},
    ]
    return [
        *images,
        {"name": "cls", "dtype": {"class_label": {"names": {"0": "real", "1": "fake"}}}},
        {"name": "json", "struct": record},
        *({"name": name, "dtype": "string"} for name in ("__key__", "__url__")),
    ]


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Yield the lines of a record or a list; every value in them is JSON, which is YAML."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key)
            if isinstance(item, (dict, list)):
                yield f"{indent}{name}:"
                yield from _yaml(item, indent + "  ")
            else:
                yield f"{indent}{name}: {_scalar(item)}"
    else:
        for item in value:
            first, *others = _yaml(item, indent + "  ") if isinstance(item, (dict, list)) else [_scalar(item)]
            yield f"{indent}- {first.strip()}"
            yield from others


def _scalar(value: Any) -> str:
    return visible(json.dumps(value, ensure_ascii=False))


# ---- tables ----------------------------------------------------------------------------------------------------------


def _tables(facts: CardFacts) -> list[Table]:
    """Return the counts by split, data set and method."""
    return [
        _counted(("split", "label"), facts.counts(lambda kind: (kind.split or "none", kind.label))),
        _counted(("data set", "label"), facts.counts(lambda kind: (kind.dataset, kind.label))),
        _counted(("method", "label"), facts.counts(lambda kind: (kind.method or "none", kind.label))),
        _table(("code", "label", "videos"), ((*key, n) for key, n in facts.codes().items())),
    ]


def _counted(head: tuple[str, ...], counts: Mapping[tuple[str, ...], Count]) -> Table:
    rows = ((*key, count.n_videos, count.n_with_clips, count.n_clips) for key, count in counts.items())
    return _table((*head, "videos", "with clips", "clips"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Table:
    found = tuple(rows)
    return Table(head, found[:MAX_ROWS], max(0, len(found) - MAX_ROWS))


def _split_sets(facts: CardFacts) -> Table:
    """Return what each split set counts, and whether somebody is on both sides of it."""
    rows = []
    for one in facts.split_sets:
        counts = ", ".join(f"{name} {n}" for name, n in sorted(one.rule.get("counts", {}).items()))
        leaky = "yes" if one.rule.get("leaky") else "no"
        own = "yes" if one.name == facts.index["split_set"] else "no"
        rows.append((one.name, one.rule.get("rule", "?"), one.rule.get("seed", "?"), counts, leaky, own))
    return _table(("split set", "rule", "seed", "videos", "leaky", "shards are made for it"), rows)
