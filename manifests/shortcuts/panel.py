"""The panel itself: every kind of shortcut measured alone, by the same folds, over the same sample of videos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from lps.manifests.arrays import Floats, Ints
from lps.manifests.audit.core.types import AuditContext
from lps.manifests.shortcuts.held_out import (
    GroupFold,
    HeldOut,
    auc_interval,
    group_folds,
    n_values,
    one_thread,
    plain_auc,
    told_by_logistic,
    told_by_nearest,
    told_by_trees,
)
from lps.manifests.shortcuts.pictures import BAND, THUMBNAIL_PX, PictureFeatures, band_power, read_features
from lps.manifests.shortcuts.records import (
    ProbeModel,
    ShortcutPanel,
    ShortcutScore,
    TellingFeature,
    panel_digests,
)
from lps.manifests.shortcuts.sample import VideoSample, draw_sample
from lps.manifests.shortcuts.tables import (
    FeatureTable,
    face_features,
    file_features,
    geometry_features,
    name_features,
    order_features,
    sampled_clips,
)

MAX_CLIPS = 4000
N_TOP = 5
DIGITS = 4
TINY_WEIGHT = 0.005
TELLS_ALONE = 0.1
"""Distance from 0.5 of the AUC of one feature."""
MODELS: dict[ProbeModel, Callable[[Floats, Ints, list[GroupFold]], HeldOut]] = {
    "trees": told_by_trees,
    "logistic": told_by_logistic,
    "nearest": told_by_nearest,
}


@dataclass(frozen=True, slots=True)
class ShortcutProbe:
    """One kind of feature, and the model that looks for the label in it."""

    name: str
    what: str
    model: ProbeModel


PROBES = (
    ShortcutProbe("metadata", "codec, size, frame rate, bit rate, duration and other fields of the file", "trees"),
    ShortcutProbe("bit-rate", "bit rate of the file", "trees"),
    ShortcutProbe("names", "characters of the file's name, and its place in the sorted list", "trees"),
    ShortcutProbe("order", "shard, place in the shard and order of the key", "trees"),
    ShortcutProbe("face-size", "size of the face in source px", "trees"),
    ShortcutProbe("geometry", "size, place and motion of boxes, landmarks in them", "trees"),
    ShortcutProbe("thumbnail-1nn", f"{THUMBNAIL_PX}x{THUMBNAIL_PX} mean thumbnail, nearest neighbour", "nearest"),
    ShortcutProbe("thumbnail-logistic", f"{THUMBNAIL_PX}x{THUMBNAIL_PX} mean thumbnail", "logistic"),
    ShortcutProbe("spectrum", "power spectrum, averaged over directions", "logistic"),
    ShortcutProbe("band-power", f"power in the radial band {BAND[0]}-{BAND[1]}", "trees"),
    ShortcutProbe("first-frame", "thumbnail and spectrum of the first frame alone", "logistic"),
)
PROBE_NAMES = tuple(probe.name for probe in PROBES)
OF_PICTURES = ("thumbnail-1nn", "thumbnail-logistic", "spectrum", "band-power", "first-frame")


@dataclass(frozen=True, slots=True)
class MeasuredPanel:
    """A panel, and what was wrong with the clips whose pictures could not be read."""

    panel: ShortcutPanel
    unread: tuple[str, ...]


def measure_panel(
    ctx: AuditContext, *, max_clips: int = MAX_CLIPS, seed: int = 0, probes: Sequence[ShortcutProbe] = PROBES
) -> MeasuredPanel:
    """Measure how well each kind of feature tells the label of the opened split set's videos.

    The videos of all splits count, at most `max_clips` of them, one clip each. Equal manifests, shards, settings and
    versions of the packages give an equal panel. Too few videos or groups give UNKNOWN, and nothing is read then.
    """
    sample = draw_sample(ctx, max_clips, seed)
    wrong: list[str] = []
    few = sample.too_few()
    if few:
        scores = tuple(_score(probe, sample, few) for probe in probes)
    else:
        tables, wrong = _features(ctx, sample)
        with one_thread():
            folds = group_folds(sample.labels, sample.groups, seed)
            scores = tuple(score_probe(probe, tables.get(probe.name), sample, folds, seed) for probe in probes)
    panel = ShortcutPanel(
        split_set=ctx.split_set,
        seed=seed,
        max_clips=max_clips,
        n_videos=sample.n_all,
        n_sampled=len(sample.labels),
        n_groups=sample.n_groups,
        n_unread=len(wrong),
        scores=scores,
        digests=panel_digests(ctx.index, ctx.split_set),
        versions={name: version(name) for name in ("numpy", "scipy", "scikit-learn", "pillow")},
    )
    return MeasuredPanel(panel, tuple(wrong))


def _features(ctx: AuditContext, sample: VideoSample) -> tuple[dict[str, FeatureTable], list[str]]:
    clips = sampled_clips(ctx, sample)
    files = file_features(ctx, sample)
    bitrate = files.names.index("bitrate")
    pictures, wrong = read_features(ctx.store, clips)
    tables = {
        "metadata": files,
        "bit-rate": FeatureTable(names=("bitrate",), values=files.values[:, [bitrate]]),
        "names": name_features(ctx, sample),
        "order": order_features(ctx, sample),
        "face-size": face_features(clips),
        "geometry": geometry_features(clips),
        **picture_tables(pictures),
    }
    return tables, wrong


def picture_tables(pictures: list[PictureFeatures | None]) -> dict[str, FeatureTable]:
    """Return the tables of what was seen in the pictures; rows of clips that were not read are NaN."""
    read = [each for each in pictures if each is not None]
    if not read:
        return {}
    n_radii = min(len(each.spectrum) for each in read)
    cells = range(THUMBNAIL_PX)
    colours = ("red", "green", "blue")
    cell_names = tuple(f"row {r + 1} column {c + 1} {k}" for r in cells for c in cells for k in colours)
    radius_names = tuple(f"radius {k + 1}" for k in range(n_radii))

    def table(names: tuple[str, ...], rows: list[Floats]) -> FeatureTable:
        values = np.full((len(pictures), len(names)), np.nan)
        values[[each is not None for each in pictures]] = rows
        return FeatureTable(names=names, values=values)

    thumbnails = table(cell_names, [each.thumbnail for each in read])
    spectra = table(radius_names, [each.spectrum[:n_radii] for each in read])
    first = [np.concatenate([each.first_thumbnail, each.first_spectrum[:n_radii]]) for each in read]
    found = {
        "thumbnail-1nn": thumbnails,
        "thumbnail-logistic": thumbnails,
        "spectrum": spectra,
        "first-frame": table((*cell_names, *radius_names), first),
    }
    band = band_power(spectra.values)
    if band is not None:
        found["band-power"] = FeatureTable(names=(f"power at {BAND[0]}-{BAND[1]}",), values=band[:, None])
    return found


def score_probe(
    probe: ShortcutProbe, table: FeatureTable | None, sample: VideoSample, folds: list[GroupFold], seed: int
) -> ShortcutScore:
    """Return what a model gets out of one table of features."""
    if table is None:
        small = f"pictures are smaller than the {2 * BAND[1]} px that the band needs"
        return _score(probe, sample, small if probe.name == "band-power" else "no picture could be read")
    if probe.name in OF_PICTURES:
        there = np.asarray(np.isfinite(table.values).any(axis=1), np.bool_)
        if not there.all():
            sample = sample.select(there)
            few = sample.too_few()
            if few:
                return _score(probe, sample, f"of clips whose pictures can be read {few}")
            table = FeatureTable(names=table.names, values=table.values[there])
            folds = group_folds(sample.labels, sample.groups, seed)
    return _score_rows(probe, table, sample, folds, seed)


def _score_rows(
    probe: ShortcutProbe, table: FeatureTable, sample: VideoSample, folds: list[GroupFold], seed: int
) -> ShortcutScore:
    known = np.isfinite(table.values)
    if not known.any():
        return _score(probe, sample, "the manifests hold none of it")
    if not folds:
        return _score(probe, sample, "no fold of groups holds both classes")
    varied = np.flatnonzero([n_values(row) > 1 for row in table.values.T])
    if not len(varied):
        return _score(probe, sample, "every feature has one value", (0.5, 0.5, 0.5))
    table = FeatureTable(names=tuple(table.names[i] for i in varied), values=table.values[:, varied])
    held = MODELS[probe.model](table.values, sample.labels, folds)
    if not (held.fold >= 0).any():
        return _score(probe, sample, "no fold of groups leaves a feature with two values")
    auc, low, high = (round(value, DIGITS) for value in auc_interval(held, sample.labels, sample.groups, seed))
    features = _telling(table, sample.labels, held.weights) if low > 0.5 else ()
    return _score(probe, sample, "", (auc, low, high), features)


def _score(
    probe: ShortcutProbe,
    sample: VideoSample,
    note: str,
    values: tuple[float, float, float] | None = None,
    features: tuple[TellingFeature, ...] = (),
) -> ShortcutScore:
    """Return the score of a shortcut; without `values` nothing can be said of it."""
    auc, low, high = values or (None, None, None)
    return ShortcutScore(
        name=probe.name,
        what=probe.what,
        model=probe.model,
        auc=auc,
        low=low,
        high=high,
        n_real=int((sample.labels == 0).sum()),
        n_fake=int((sample.labels == 1).sum()),
        n_groups=sample.n_groups,
        features=features,
        note=note,
    )


def _telling(table: FeatureTable, labels: Ints, weights: Floats) -> tuple[TellingFeature, ...]:
    """Return the features that the model leans on most, then those that tell most alone: of twins it uses one."""
    aucs = [_alone(values, labels) for values in table.values.T]
    alone = np.array([0.0 if auc is None else abs(auc - 0.5) for auc in aucs])
    leant = [i for i in np.argsort(-weights, kind="stable").tolist() if weights[i] > TINY_WEIGHT]
    told = [i for i in np.argsort(-alone, kind="stable").tolist() if alone[i] > TELLS_ALONE]
    order = list(dict.fromkeys((*leant, *told)))[:N_TOP]
    return tuple(
        TellingFeature(name=table.names[i], auc=aucs[i], weight=round(float(weights[i]), DIGITS)) for i in order
    )


def _alone(values: Floats, labels: Ints) -> float | None:
    known = np.isfinite(values)
    if len(np.unique(labels[known])) < 2 or n_values(values) < 2:
        return None
    return round(plain_auc(labels[known], values[known]), DIGITS)
