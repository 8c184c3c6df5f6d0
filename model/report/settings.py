"""Settings and data of runs side by side for the trainer's page, and what differs between them."""

from collections.abc import Mapping, Sequence
from typing import Any

from lps.manifests.names import Role
from lps.manifests.pages import html as report_html
from lps.manifests.pages.html import Mark
from lps.model.data.shards import Shard
from lps.model.evaluation.evaluate import PREP_FIELDS
from lps.model.report.curves import colour
from lps.model.report.metrics import EvaluatedData
from lps.model.report.runs import Record, TrainingRun, count, mapping, named_sets
from lps.model.report.views import NameView, SettingRow, StampView
from lps.model.training.params import RESULT_FIELDS
from lps.model.training.presets import PAPER
from lps.model.training.run_folder import DATA_SHA256

LEAKY = Mark("LEAKY SPLIT", "✕", "bad")
SAFE = Mark("not leaky", "✓", "good")
UNSTAMPED = Mark("no stamp", "?", "open")
LEARNT = Mark("LEARNT FROM IT", "✕", "bad")
CHOSEN = Mark("CHOSEN BY IT", "!", "warn")
UNSEEN = Mark("SEEN? UNKNOWN", "?", "open")
PLACES = {"data.data": 2, "data.shards": 2, "data.val_shards": 2, "init": 3, "run.maps_folder": 2}
"""Settings that are paths or URLs, and how many of their last parts the page shows: it may be given to others."""
ABSENT = "–"
MAX_CELL = 300
"""Characters of a value that the page shows; ours are shorter."""


def spelled(value: Any) -> str:
    """Spell a JSON value for a table's cell, with an end."""
    text = report_html.spelled(value)
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def stamp(leaky: Any) -> Mark:
    """Return the mark of a split set's stamp."""
    return UNSTAMPED if not isinstance(leaky, bool) else LEAKY if leaky else SAFE


def seen_marks(each: EvaluatedData) -> list[Mark]:
    """Return marks of an evaluation on videos that the detector has seen, or may have: then nobody knows."""
    marks = [LEARNT] if each.n_seen(Role.LABELS, Role.FRAMES) else []
    marks += [CHOSEN] if each.n_seen(Role.VALIDATION) else []
    return marks if each.seen and not each.seen.get("gaps") else [*marks, UNSEEN]


def name_view(run: TrainingRun) -> NameView:
    """Return a run's name in its colour."""
    return NameView(name=run.name, style=colour(run.number))


def setting_rows(runs: Sequence[TrainingRun]) -> tuple[SettingRow, ...]:
    """Return every setting with a cell for each run, the paper's recipe beside them."""
    columns = [_settings(run.config) for run in runs]
    cited = {name: spelled(value) for name, value in _flat(PAPER.record()).items()}
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in sorted(names, key=lambda name: ("." in name and not name.startswith("data."), "." in name)):
        cells = tuple(column.get(name, ABSENT) for column in columns)
        rows.append(SettingRow(name=name, cited=cited.get(name, ""), cells=cells, differs=len(set(cells)) > 1))
    return tuple(rows)


def differing(rows: Sequence[SettingRow]) -> tuple[SettingRow, ...]:
    """Return the settings that differ between runs or from the paper's recipe, without those that decide no result."""
    return tuple(
        row
        for row in rows
        if (row.differs or (row.cited and set(row.cells) != {row.cited}))
        and not (row.name.startswith("run.") and row.name.removeprefix("run.") not in RESULT_FIELDS)
    )


def _settings(config: Record) -> dict[str, str]:
    """Flatten a configuration into names as in a settings file, and values as words."""
    given = {name: value for name, value in config.items() if name not in ("preset", DATA_SHA256)}
    data = mapping(given.get("data"))
    if "sets" in data:
        given["data"] = {name: value for name, value in data.items() if name != "sets"} | {
            f"{name}.{key}": shown_place(each[key], 2) if isinstance(each[key], str) else each[key]
            for name, each in named_sets(data)
            for key in ("data", "shards", "val_shards", "weight")
            if key in each
        }
    return {
        name: shown_place(value, PLACES[name]) if name in PLACES and isinstance(value, str) else spelled(value)
        for name, value in {**_flat(given), **_flat(mapping(config.get("preset")))}.items()
    }


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": found for inner, found in value.items()}
        else:
            flat[str(name)] = value
    return flat


def shown_place(location: str, n_parts: int) -> str:
    """Return the end of a path or URL, without what may be secret."""
    try:
        plain = Shard(uri=location).shown
    except ValueError:
        return "a malformed URL"
    parts = [part for part in plain.split("/") if part]
    return "/".join(parts) if len(parts) <= n_parts and "://" not in plain else f"…/{'/'.join(parts[-n_parts:])}"


def identities(
    runs: Sequence[TrainingRun], found: Sequence[EvaluatedData]
) -> tuple[tuple[StampView, ...], tuple[SettingRow, ...]]:
    """Return the stamps of all data, and rows with a cell for each."""
    columns = [(StampView(who=name_view(run), what="trained on", mark=stamp(run.leaky)), _of_run(run)) for run in runs]
    for each in found:
        mark = stamp(each.entry.get("leaky"))
        columns.append((StampView(who=each.who, what=f"evaluated on {each.title}", mark=mark), _of_entry(each)))
    names = list(dict.fromkeys(name for _, column in columns for name in column))
    rows = []
    for name in names:
        cells = tuple(column.get(name, ABSENT) for _, column in columns)
        rows.append(SettingRow(name=name, cited="", cells=cells, differs=len(set(cells) - {ABSENT, "none"}) > 1))
    return tuple(view for view, _ in columns), tuple(rows)


def _of_run(run: TrainingRun) -> dict[str, str]:
    wanted = mapping(run.config.get("data"))
    prep = mapping(run.data.get("prep"))
    return {
        **_common(run.data),
        "Videos seen, by role": spelled(mapping(mapping((run.result or {}).get("learnt")).get("videos")))
        or "not known",
        "Validated on": spelled(wanted.get("val_split")),
        "SHA-256 of validation samples": spelled(run.data.get("val_samples_sha256")),
        "Prepared with": spelled({name: prep[name] for name in PREP_FIELDS if name in prep}) or "none",
        **({"Learnt from and held out": _shared(run.data)} if "shared_videos" in run.data else {}),
        **({"Pairs": _pairs(run.data)} if "pairs" in run.data else {}),
        **{
            f"{name}: {title}": spelled(each.get(key))
            for name, each in named_sets(run.data)
            for title, key in (
                ("SHA-256 of index.json", "index_sha256"),
                ("SHA-256 of the certificate", "certificate_sha256"),
                ("SHA-256 of samples", "samples_sha256"),
                ("SHA-256 of validation samples", "val_samples_sha256"),
            )
        },
    }


def _pairs(identity: Record) -> str:
    """Say how many pairs are learnt from."""
    found = mapping(identity.get("pairs"))
    return (
        f"{count(found.get('n_pairs'))}, {count(found.get('n_shared'))} of them of the same frames; in no pair "
        f"{count(found.get('n_fakes_in_no_pair'))} fake and {count(found.get('n_reals_in_no_pair'))} real clips"
    )


def _shared(identity: Record) -> str:
    """Say how many videos one data set learns from and another holds out, by the evidence."""
    found = identity.get("shared_videos")
    each = [mapping(one) for one in found] if isinstance(found, list) else []
    return "; ".join(
        f"{count(one.get('n_videos'))} of {spelled(one.get('learnt'))} in {spelled(one.get('held_out'))}, "
        f"{spelled(one.get('split'))} ({spelled(one.get('kind')).replace('_', ' ')})"
        for one in each
    )


def _of_entry(each: EvaluatedData) -> dict[str, str]:
    entry, checkpoint = each.entry, each.evaluation.checkpoint
    learnt = each.evaluation.learnt_from
    code = mapping(each.evaluation.record.get("code"))
    return {
        **_common(entry),
        "SHA-256 of the preparation": spelled(entry.get("prep_sha256")),
        "Clips": spelled(entry.get("n_clips")),
        "Videos that the detector has seen": _seen(each),
        "Clips of one video": spelled(mapping(each.evaluation.record.get("request")).get("clips")),
        "SHA-256 of the checkpoint": spelled(checkpoint.get("sha256")),
        "Detector trained on": f"{spelled(learnt.get('datasets'))}, split {spelled(learnt.get('split'))}",
        "SHA-256 of its training index": spelled(learnt.get("index_sha256")),
        "Stamp of its training data": stamp(learnt.get("leaky")).word,
        "Code": f"{spelled(code.get('lps-prep'))}, commit {spelled(code.get('commit'))}",
    }


def _seen(each: EvaluatedData) -> str:
    n = count(each.seen.get("n_videos"))
    return "; ".join(f"{role}: {each.n_seen(role)} of {n}" for role in Role) if each.seen else "not known"


def _common(identity: Record) -> dict[str, str]:
    return {
        "Data sets": spelled(identity.get("datasets")),
        "SHA-256 of index.json": spelled(identity.get("index_sha256")),
        "SHA-256 of the certificate": spelled(identity.get("certificate_sha256") or "none"),
        "Split set": spelled(identity.get("split_set")),
        "Split": spelled(identity.get("split")),
        "SHA-256 of samples": spelled(identity.get("samples_sha256")),
    }
