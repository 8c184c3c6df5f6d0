"""Figures of features and clips: feature maps over frames (Figure 9), t-SNE (10), confident errors (11)."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F  # noqa: N812

from lps.manifests.arrays import Floats, Ints, Pixels
from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError
from lps.manifests.names import Channel
from lps.manifests.storage import open_store
from lps.model.data.clip_data import ClipData, with_labels
from lps.model.data.clip_decoder import Batch, ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.epoch_plan import evaluation_plan
from lps.model.data.frames import frames_to_blocks
from lps.model.evaluation.loading import LoadedDetector
from lps.model.evaluation.scores import Scores, worst_errors
from lps.model.paper.figures.style import FAKE, REAL, figure, picture

PERPLEXITY = 30
SHOWN_FRAMES = 6
TIGHT = {"wspace": 0.04, "hspace": 0.06}
"""Between pictures, in their sizes."""


def _batches(loaded: LoadedDetector, data: ClipData) -> Iterator[Batch]:
    """Yield one clip at a time, as evaluation sees it."""
    read = ReadOptions(n_frames=loaded.n_frames, train=False, margin=loaded.margin, image_px=loaded.image_px)
    with ClipReader(data, read, evaluation_plan(1), WorkOptions(max_bad_share=1.0)) as reader:
        yield from reader.epoch(0)


def chosen(data: ClipData, keys: Sequence[str]) -> ClipData:
    """Return some samples by key. Raises RefusedError for one that is not there."""
    mask = np.isin(np.array(data.samples["key"].to_pylist()), np.array(keys))
    if int(mask.sum()) < len(set(keys)):
        raise RefusedError("a sample asked for is not in this split")
    return data.select(mask, data.left_out)


@torch.inference_mode()
def _maps(loaded: LoadedDetector, batch: Batch) -> torch.Tensor:
    blocks = frames_to_blocks(batch.frames, loaded.network.params.block_frames)
    return loaded.network.encode_clips(blocks.contiguous())


def draw_feature_maps(loaded: LoadedDetector, data: ClipData, out: Path, *, channel: Channel, seed: int = 0) -> None:
    """Write OUT/featmap.png and .npz: frames of clips and one channel of the encoder's map of their blocks.

    `random` draws the channel, as the paper does; `maxvar` takes the one that varies most over places.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[Pixels, Floats, int, int]] = []
    random = np.random.default_rng(seed)
    for batch in _batches(loaded, data):
        z = F.relu(_maps(loaded, batch)[0]).numpy()  # (N, C, h, w)
        picked = int(z.var(axis=(2, 3)).mean(0).argmax()) if channel == "maxvar" else int(random.integers(z.shape[1]))
        rows.append((batch.frames[0].numpy(), z[:, picked].astype(np.float64), picked, int(batch.labels[0])))
    if not rows:
        raise RefusedError("no clip to show")
    rows.sort(key=lambda row: row[3])
    n_blocks = len(rows[0][1])
    blocks = np.unique(np.linspace(0, n_blocks - 1, min(SHOWN_FRAMES, n_blocks)).astype(int))
    with figure(out / "featmap.png", 1.1 * len(blocks) + 0.3, 2.2 * len(rows) + 0.4) as drawn:
        axes = drawn.subplots(2 * len(rows), len(blocks), squeeze=False, gridspec_kw=TIGHT)
        for k, (frames, maps, picked, label) in enumerate(rows):
            for j, block in enumerate(blocks):
                picture(axes[2 * k][j], frames[block * len(frames) // n_blocks])
                picture(axes[2 * k + 1][j], maps[block], maps.min(), maps.max())
            axes[2 * k][0].set_ylabel("fake" if label else "real", color=FAKE if label else REAL)
            axes[2 * k + 1][0].set_ylabel(f"channel {picked}", fontsize=8)
        for ax, block in zip(axes[0], blocks, strict=True):
            ax.set_title(f"block {block + 1}", fontsize=8)
    arrays: dict[str, Any] = {f"maps_{k}": row[1] for k, row in enumerate(rows)}
    np.savez_compressed(out / "featmap.npz", **arrays)


@dataclass(frozen=True, slots=True)
class Features:
    """Features of clips, one row each."""

    spatial: Floats
    """(n, C): maps, averaged over places and blocks."""
    context: Floats
    """(n, 512) for the default head."""
    labels: Ints
    keys: tuple[str, ...]


@torch.inference_mode()
def features_of(loaded: LoadedDetector, data: ClipData) -> Features:
    """Return the spatial and the context features of all labelled clips of `data`."""
    spatial, context, labels, keys = [], [], [], []
    for batch in _batches(loaded, with_labels(data)):
        z = _maps(loaded, batch)
        spatial.append(z.mean((1, 3, 4))[0].double().numpy())
        context.append(loaded.network.context(z)[0].double().numpy())
        labels.append(int(batch.labels[0]))
        keys.append(batch.keys[0])
    if not keys:
        raise RefusedError("no labelled clip to show")
    return Features(np.stack(spatial), np.stack(context), np.array(labels), tuple(keys))


def draw_tsne(features: Features, out: Path, seed: int = 0) -> dict[str, Any]:
    """Write OUT/tsne.png, .parquet (key, label, x and y of both) and .json with silhouettes.

    t-SNE keeps neighbours, not distances; the silhouette, computed on the features themselves, is what to compare.
    """
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    if len(features.keys) < 5:
        raise RefusedError(f"t-SNE needs at least 5 clips, there are {len(features.keys)}")
    out.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {"sample_key": list(features.keys), "label": pa.array(features.labels, pa.int8())}
    facts: dict[str, Any] = {"n_clips": len(features.keys), "seed": seed}
    with figure(out / "tsne.png", 6.6, 3.2) as drawn:
        axes = drawn.subplots(1, 2)
        for ax, (name, values) in zip(
            axes, (("spatial", features.spatial), ("context", features.context)), strict=True
        ):
            perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
            xy = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(values)
            columns |= {f"{name}_x": xy[:, 0], f"{name}_y": xy[:, 1]}
            both = len(set(features.labels.tolist())) > 1
            facts[f"{name}_silhouette"] = float(silhouette_score(values, features.labels)) if both else None
            for label, colour, mark, word in ((0, REAL, "o", "real"), (1, FAKE, "s", "fake")):
                mine = features.labels == label
                ax.plot(xy[mine, 0], xy[mine, 1], mark, color=colour, markersize=3.5, alpha=0.8, label=word)
            ax.set(title=f"{name} features", xticks=[], yticks=[])
        axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    pq.write_table(pa.table(columns), out / "tsne.parquet")
    open_store(str(out)).publish("tsne.json", pretty_json(facts))
    return facts


def draw_failures(scores: Scores, data: ClipData, loaded: LoadedDetector, out: Path, n: int = 8) -> int:
    """Write OUT/failures.png and .csv: frames of the most confident errors. Returns how many there are to show."""
    worst = worst_errors(scores, n)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "failures.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video_id", "clip_id", "label", "p_fake", "method", "start_s"])
        for row in worst:
            ids = [row["video_id"].hex(), row["clip_id"].hex()]
            table.writerow([*ids, row["label"], f"{row['p_fake']:.4f}", row["method"] or "", row["start_s"]])
    if not worst:
        return 0
    key_of = dict(zip(data.samples["clip_id"].to_pylist(), data.samples["key"].to_pylist(), strict=True))
    missing = [row for row in worst if row["clip_id"] not in key_of]
    if missing:
        raise RefusedError("the scores are of another split or data set than the clips")
    clips = {
        batch.clip_ids[0]: batch for batch in _batches(loaded, chosen(data, [key_of[r["clip_id"]] for r in worst]))
    }
    with figure(out / "failures.png", 1.2 * SHOWN_FRAMES, 1.2 * len(worst)) as drawn:
        axes = drawn.subplots(len(worst), SHOWN_FRAMES, squeeze=False, gridspec_kw=TIGHT)
        for line, row in zip(axes, worst, strict=True):
            frames = clips[row["clip_id"]].frames[0].numpy()
            for ax, k in zip(line, np.linspace(0, len(frames) - 1, SHOWN_FRAMES).astype(int), strict=True):
                picture(ax, frames[k])
            label = "fake" if row["label"] else "real"
            line[0].set_ylabel(f"{label}\np_fake {row['p_fake']:.2f}", color=FAKE if row["label"] else REAL, fontsize=7)
    return len(worst)
