"""Evaluate a detector on one or more data sets, resumably:

OUT/scores.parquet   one row per clip
OUT/metrics.json     metrics with intervals, and what they are of; written last
OUT/parts/           scores of the data sets that are done, while others are not
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import MIN_MARGIN, Bools, check_margin
from lps.manifests.canonical import canonical_json, parse_json, pretty_json, sha256_hex
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.names import DeviceName, VideoRule
from lps.manifests.records import Note
from lps.manifests.splits.across import Comparison
from lps.manifests.splits.learnt import overlap
from lps.manifests.storage import Store, open_store
from lps.model.data.clip_data import ClipData, spread_clips
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions, require_margin
from lps.model.data.epoch_plan import evaluation_plan
from lps.model.data.sources import Sources, data_identity, open_split
from lps.model.data.video_score import DEFAULT_RULE
from lps.model.evaluation.baselines import SOURCES, baselines_of, known_scores
from lps.model.evaluation.events import ClipsScored, DataSetBegun, OnEvaluateEvent
from lps.model.evaluation.learnt_sets import compare_learnt
from lps.model.evaluation.loading import LoadedDetector
from lps.model.evaluation.metrics import Bootstrap, measure
from lps.model.evaluation.pairs import NO_SHARED, pairs_of, shared_windows_of
from lps.model.evaluation.predict import PredictOptions, predict
from lps.model.evaluation.scores import (
    SCORES_VERSION,
    THRESHOLD,
    UNNAMED,
    LabelledScores,
    Scores,
    concat,
    read_scores,
    scores_bytes,
)
from lps.model.evaluation.threshold import decision_record
from lps.model.evaluation.together import together
from lps.model.networks.conv_check import ConvShape
from lps.model.networks.detector import Detector
from lps.model.training.build import check_bf16
from lps.model.training.checkpoint import code_version
from lps.model.training.processes import choose_device

METRICS_ID = "lps.metrics"
METRICS_VERSION = "1.6"
METRICS_JSON, SCORES_PARQUET, PARTS = "metrics.json", "scores.parquet", "parts"
MATRIX = ("auc", "recall", "precision")
"""Metrics of the cross-data-set matrix (the paper's Table 2)."""
MAX_NAMED = 100
"""Bad samples that are named; all are counted."""
PREP_FIELDS = ("localizer", "align", "template_scale", "out_px", "codec", "jpeg_quality", "clip_frames")
"""Parameters of the preparation that change what a detector sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What is evaluated, and how the work is done."""

    n_clips: int | None = 3
    """Clips per video, spread evenly over it: 3 are the paper's 180 frames; None takes all."""
    video_score: VideoRule = DEFAULT_RULE
    """How a video is scored from its clips; see `video_scores`."""
    bf16: bool = False
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    batch_size: int = 16
    n_workers: int = 2
    device: DeviceName = "auto"
    max_bad_share: float = 0.01
    """Share of the samples that may be unusable."""
    margins: tuple[float, ...] = ()
    """Margins with which everything is evaluated once more, for the curve of the sensitivity to them."""

    def __post_init__(self) -> None:
        for margin in self.margins:
            check_margin("margins", margin)

    def record(self) -> dict[str, Any]:
        """Return what decides the result."""
        return {
            "clips": "all" if self.n_clips is None else self.n_clips,
            "video_score": self.video_score,
            "precision": "bf16" if self.bf16 else "fp32",
            "threshold": THRESHOLD,
            "bootstrap": asdict(self.bootstrap),
            **({"margins": list(self.margins)} if self.margins else {}),
        }


@dataclass(frozen=True, slots=True)
class _DataEntry:
    """One data set to be evaluated."""

    number: int
    data: ClipData
    facts: dict[str, Any]
    """Its identity, as it is recorded."""
    compared: Comparison
    """With what the detector learnt from; it depends on what is at hand, and so is not of the identity."""
    baselines: dict[str, Any]
    """What tells the label without a detector, as far as that was measured before: not of the identity either."""

    @property
    def notes(self) -> list[str]:
        """What makes its metrics say less than they seem to."""
        return [*self.facts["notes"], *(each.said() for each in self.compared.shared), *self.compared.notes]

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return str(self.facts["name"])


@dataclass(frozen=True, slots=True)
class ScoredData:
    """The scores of one data set."""

    scores: Scores
    bad: tuple[str, ...]
    """A line on every sample that could not be used."""


def evaluate(
    loaded: LoadedDetector,
    sources: Sequence[Sources],
    out: Path,
    options: EvaluateOptions,
    on_event: OnEvaluateEvent,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluate the detector on every source, write the files and return the content of metrics.json.

    `names` are what sources are called, in their order; where one is empty or missing, that of its data. Started again
    after an interruption it resumes with the first data set that is not done. Raises RefusedError where `out` holds
    another evaluation or bf16 cannot be relied on, and as the readers and `predict` do.
    """
    detectors = [loaded, *(replace(loaded, margin=margin) for margin in options.margins)]
    called = [*names, *[""] * (len(sources) - len(names))]
    places = [place for source in sources for place in source.places]
    entries = [
        _entry(number, source, name, loaded, options, places)
        for number, (source, name) in enumerate(zip(sources, called, strict=True))
    ]
    request = {
        "checkpoint": loaded.sha256,
        **options.record(),
        "data": [{"name": entry.name, "sha256": sha256_hex(canonical_json(entry.facts))} for entry in entries],
    }
    store = open_store(str(out))
    done = _finished(store, request)
    if done is not None:
        on_event(Note(f"{out} holds this evaluation already; delete it to evaluate again"))
        _remove_parts(store, [_part_path(each, entry, options) for each in detectors for entry in entries])
        return _with_baselines(store, done, entries, on_event)
    if options.bf16:
        _check_bf16(loaded, options, on_event)
    parts = [_scored(loaded, entry, store, options, on_event) for entry in entries]
    curves = [_by_margin(loaded, each, store, options, on_event) for each in zip(entries, parts, strict=True)]
    record = _record(loaded, request, entries, parts)
    for each, curve in zip(record["data"], curves, strict=True):
        each |= {"margins": curve} if curve else {}
    store.publish(SCORES_PARQUET, scores_bytes(concat([part.scores for part in parts]).sorted_by_id(), _marks(loaded)))
    store.publish(METRICS_JSON, pretty_json(record))
    _remove_parts(store, [_part_path(each, entry, options) for each in detectors for entry in entries])
    return record


def _check_bf16(loaded: LoadedDetector, options: EvaluateOptions, on_event: OnEvaluateEvent) -> None:
    """Check bf16 as a training does, for batches as they are scored. Raises RefusedError."""
    network, params, device = loaded.network, loaded.network.params, choose_device(options.device)
    shape = ConvShape.of_run(options.batch_size * params.n_blocks, params.block_frames, loaded.image_px, device)
    innermost = isinstance(network, Detector) and network.backbone.by_frame  # else as `predict` lays blocks out
    for note in check_bf16([network], shape, device, channels_last=innermost).notes:
        on_event(Note(note))


def _remove_parts(store: Store, paths: Sequence[str]) -> None:
    for path in paths:
        store.delete(path)
    if store.is_local:
        with suppress(OSError):  # parts of other evaluations may lie there
            store.local_path(PARTS).rmdir()


def _entry(
    number: int,
    sources: Sources,
    given: str,
    loaded: LoadedDetector,
    options: EvaluateOptions,
    places: Sequence[str],
) -> _DataEntry:
    data = open_split(sources, sources.split)
    if options.n_clips is not None:
        data = spread_clips(data, options.n_clips)
    identity = data_identity(sources, data)
    prep = identity.pop("prep", None)
    identity.pop("certificate_sha256", None)  # data that were certified since are the same data: `_data_record` has it
    seen = overlap(loaded.learnt, data.samples)
    require_margin(data, loaded.margin, given, evaluated=True)
    require_margin(data, max((MIN_MARGIN, *options.margins)), given)
    name = "+".join(identity["datasets"]) or f"data {number}"
    name = f"{name}/{identity['split']}" if identity["split"] else name
    facts = {
        **identity,
        "name": given or name,
        "n_shards": len(data.shards),
        "samples_sha256": data.digest(),
        "prep_sha256": sha256_hex(canonical_json(prep)) if prep else None,
        "seen": seen.record(),
        "notes": [*seen.notes(), *_notes(identity, prep, loaded), *_unlinked(data, options)],
    }
    for key in ("index_sha256", "split", "split_set"):
        facts[key] = facts[key] or None
    if sources.shards:
        facts["shards"] = [shard.shown for shard in (data.shards[0], data.shards[-1])]  # without what may be secret
    compared = compare_learnt(loaded, sources, data, str(facts["name"]), places)
    if compared.shared and not sources.allow_leaky:
        raise RefusedError(
            f"{compared.refusal()}: results on it would say little; evaluate on another data set, or allow it with "
            "--allow-leaky"
        )
    return _DataEntry(number, data, facts, compared, baselines_of(sources, data.identity.split_set))


def _notes(identity: dict[str, Any], prep: dict[str, Any] | None, loaded: LoadedDetector) -> list[str]:
    """Say what makes the metrics weaker than they look."""
    notes = []
    if identity["leaky"]:
        notes.append("the split set is stamped leaky: one person is on both sides of it")
    learnt = [(f"training on {each['name']}", each.get("prep")) for each in loaded.data.get("sets", ())]
    for where, theirs in learnt or [("training", loaded.data.get("prep"))]:
        if prep and theirs:
            changed = [name for name in PREP_FIELDS if prep.get(name) != theirs.get(name)]
            notes += [f"{name} was {theirs.get(name)!r} in {where} and is {prep.get(name)!r} here" for name in changed]
    return notes


def _learnt_from(loaded: LoadedDetector) -> dict[str, Any]:
    """Return the identity of what a detector learnt from, without parameters and places."""
    found = {name: value for name, value in loaded.data.items() if name not in ("prep", "shards")}
    if "sets" in found:
        found["sets"] = [
            {name: value for name, value in each.items() if name not in ("prep", "shards")} for each in found["sets"]
        ]
    return found


def _unlinked(data: ClipData, options: EvaluateOptions) -> list[str]:
    """Say where nobody knows which clips of a video show the same face."""
    if options.video_score == "mean" or not data.samples["face_id"].null_count or not data.column("track_id").any():
        return []
    return ["an older version prepared videos of several faces: those of different clips are told apart by size alone"]


def _finished(store: Store, request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the finished result of the same request. Raises RefusedError for one of another."""
    if not store.exists(METRICS_JSON):
        return None
    try:
        record: dict[str, Any] = parse_json(store.read(METRICS_JSON))
        found = dict(record["request"])
    except (ValueError, KeyError, TypeError) as e:
        raise UnreadableError(f"{store.join(METRICS_JSON)} is not a result of lps-train; use another folder") from e
    wanted = json.loads(canonical_json(request))
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        name = differing[0]
        raise RefusedError(
            f"{store.url} holds another evaluation: {name} was {_short(found.get(name))} and is "
            f"{_short(wanted[name])}; use another folder"
        )
    return record if store.exists(SCORES_PARQUET) else None


def _with_baselines(
    store: Store, done: dict[str, Any], entries: Sequence[_DataEntry], on_event: OnEvaluateEvent
) -> dict[str, Any]:
    """Return a finished result with the baselines of now; it is written again where they are others.

    What was measured stays where no value is known now: the data are the same.
    """
    changed = [
        {"baselines": entry.baselines}
        if found.get("baselines") != entry.baselines
        and (known_scores(entry.baselines) or not known_scores(found.get("baselines")))
        else {}
        for found, entry in zip(done["data"], entries, strict=True)
    ]
    if not any(changed):
        return done
    done = {**done, "data": [found | change for found, change in zip(done["data"], changed, strict=True)]}
    store.publish(METRICS_JSON, pretty_json(done))
    for entry, change in zip(entries, changed, strict=True):
        if known_scores(change.get("baselines")):
            on_event(Note(f"{entry.name}: what tells the label without a detector was measured since; it stands in "
                          f"{store.join(METRICS_JSON)} now"))  # fmt: skip
    return done


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 90 else text[:87] + "..."


def _part_path(loaded: LoadedDetector, entry: _DataEntry, options: EvaluateOptions) -> str:
    decided = {**options.record(), "bootstrap": None, "checkpoint": loaded.sha256, "version": SCORES_VERSION}
    decided.pop("margins", None)
    decided |= {"margin": loaded.margin} if loaded.margin != MIN_MARGIN else {}  # parts from before it are as good
    return f"{PARTS}/{sha256_hex(canonical_json({**entry.facts, **decided}))[:32]}.parquet"


def _marks(loaded: LoadedDetector) -> dict[str, str]:
    code = code_version()
    return {
        "lps.checkpoint_sha256": loaded.sha256,
        "lps.code_version": str(code["lps-prep"]),
        "lps.code_commit": str(code.get("commit", "")),
    }


def _scored(
    loaded: LoadedDetector,
    entry: _DataEntry,
    store: Store,
    options: EvaluateOptions,
    on_event: OnEvaluateEvent,
    called: str = "",
) -> ScoredData:
    """Score a data set, or take the part of it that was kept. `called` is its name when it is scored once more."""
    path = _part_path(loaded, entry, options)
    for note in () if called else entry.notes:
        on_event(Note(f"{entry.name}: {note}"))
    called = called or entry.name
    if store.exists(path):
        scores, marks = read_scores(store.read(path), store.join(path))
        on_event(Note(f"{called}: {len(scores)} clips were scored before"))
        return ScoredData(scores.with_entry(entry.number), tuple(parse_json(marks["lps.bad_samples"])))
    on_event(DataSetBegun(called, len(entry.data)))
    part = score_data(loaded, entry.data, options, lambda n_clips: on_event(ClipsScored(n_clips)))
    scores = part.scores.with_entry(entry.number).sorted_by_id()
    store.publish(path, scores_bytes(scores, {**_marks(loaded), "lps.bad_samples": json.dumps(part.bad)}))
    return ScoredData(scores, part.bad)


def _by_margin(
    loaded: LoadedDetector,
    scored: tuple[_DataEntry, ScoredData],
    store: Store,
    options: EvaluateOptions,
    on_event: OnEvaluateEvent,
) -> list[dict[str, Any]]:
    """Return the metrics over all clips of a data set for each margin of `options`."""
    entry, usual = scored
    curve = []
    for margin in options.margins:
        part = usual
        if margin != loaded.margin:
            called = f"{entry.name} at margin {margin:g}"
            part = _scored(replace(loaded, margin=margin), entry, store, options, on_event, called)
        curve.append({"margin": margin, **_levels(part.scores.labelled(), options.bootstrap)})
    return curve


def score_data(
    loaded: LoadedDetector,
    data: ClipData,
    options: EvaluateOptions,
    on_batch: Callable[[int], None] = lambda n_clips: None,
) -> ScoredData:
    """Score all samples of `data`, unlabelled ones too. Raises as the reader and `predict` do."""
    device = choose_device(options.device)
    read = ReadOptions(
        n_frames=loaded.n_frames, train=False, margin=loaded.margin, image_px=loaded.image_px, labelled=False
    )
    work = WorkOptions(
        n_workers=options.n_workers, pin_memory=device.type == "cuda", max_bad_share=options.max_bad_share
    )
    how = PredictOptions(device=device, bf16=options.bf16, svm=loaded.svm)
    with ClipReader(data, read, evaluation_plan(options.batch_size), work) as reader:
        found = predict(loaded.network.to(device), reader.epoch(0), how, on_batch)
        bad = tuple(str(sample) for sample in reader.bad_samples)
    return ScoredData(replace(found, rule=options.video_score).with_sample_columns(data.samples), bad)


def _record(
    loaded: LoadedDetector, request: dict[str, Any], entries: Sequence[_DataEntry], parts: Sequence[ScoredData]
) -> dict[str, Any]:
    bootstrap = Bootstrap(**request["bootstrap"])
    cases = [part.scores.labelled() for part in parts]
    results = [metrics_by_group(each, bootstrap) for each in cases]
    several = {"together": together(cases, results, bootstrap)} if len(entries) > 1 else {}
    return {
        "schema": METRICS_ID,
        "schema_version": METRICS_VERSION,
        "request": request,
        "seed": bootstrap.seed,
        "code": code_version(),
        "checkpoint": {
            "sha256": loaded.sha256,
            "stage": loaded.stage,
            "seed": loaded.config.get("seed"),
            "image_px": loaded.image_px,
            "margin": loaded.margin,
            "n_frames": loaded.n_frames,
            "learnt_from": _learnt_from(loaded),
        },
        "data": [
            _data_record(entry, part, found, bootstrap)
            for entry, part, found in zip(entries, parts, results, strict=True)
        ],
        "matrix": {
            "rows": [f"{loaded.stage} {loaded.sha256[:12]}"],
            "columns": [entry.name for entry in entries],
            **{name: [[found["all"]["video"][name]["value"] for found in results]] for name in MATRIX},
        },
        **several,
    }


def _data_record(entry: _DataEntry, part: ScoredData, found: dict[str, Any], bootstrap: Bootstrap) -> dict[str, Any]:
    videos = part.scores.labelled().by_video()
    shared = [each.record() for each in entry.compared.shared]
    certificate = entry.data.identity.certificate_sha256
    return {
        **entry.facts,
        **({"certificate_sha256": certificate} if certificate else {}),
        "notes": entry.notes,
        **({"leaky": True, "shared_videos": shared} if shared else {}),
        "n_clips": len(part.scores),
        "n_unlabelled_clips": int((part.scores.labels < 0).sum()),
        "n_clips_left_out": entry.data.left_out.n_other_clips,
        "n_bad_samples": len(part.bad),
        "bad_samples": list(part.bad[:MAX_NAMED]),
        **decision_record(videos.labels, videos.p_fake),
        "results": found,
        **({"pooled": SOURCES} if len(found["datasets"]) > 1 else {}),
        "baselines": entry.baselines,
        "pairs": {
            **pairs_of(part.scores, entry.data.samples).record(bootstrap),
            "shared": shared_windows_of(part.scores, entry.data).record(bootstrap, NO_SHARED),
        },
    }


def metrics_by_group(cases: LabelledScores, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the metrics by video and by clip: of all, of each method against all reals, and of the parts of the data.

    Parts are the data sets in it and the compressions of the source videos, each with its own reals and fakes.
    """
    fakes = cases.labels == 1
    methods = np.array([name or UNNAMED for name in cases.method], object)
    groups: dict[str, dict[str, Bools]] = {
        "methods": {name: ~fakes | (methods == name) for name in sorted(set(methods[fakes].tolist()))},
        "datasets": _parts(cases.dataset),
        "compressions": _parts(cases.compression),
    }
    everything = _levels(cases, bootstrap)
    found = {
        kind: {
            name: everything if mask.all() else _levels(cases.select(mask), bootstrap) for name, mask in masks.items()
        }
        for kind, masks in groups.items()
    }
    return {"all": everything, **found}


def _parts(names: NDArray[np.object_]) -> dict[str, Bools]:
    named = np.array([name or UNNAMED for name in names], object)
    return {name: named == name for name in sorted(set(named.tolist()))}


def _levels(clips: LabelledScores, bootstrap: Bootstrap) -> dict[str, Any]:
    return {"video": measure(clips.by_video(), bootstrap).record(), "clip": measure(clips, bootstrap).record()}
