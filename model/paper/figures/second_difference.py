"""Second-order differences of a face recognizer's features over three frames (Figures 1 and 2, section 3.1).

F(x1) - 2 F(x2) + F(x3), where F is the map of the network's last convolution, averaged over channels: 5x5 for FaceNet.
What moves evenly or stays as it is cancels out, what flickers stays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lps.manifests.arrays import Floats, Ints, Pixels
from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError
from lps.manifests.storage import open_store
from lps.model.data.clip_data import ClipData
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.epoch_plan import PlanOptions
from lps.model.evaluation.metrics import LEVEL, N_DRAWS, draw_counts, percentile_interval
from lps.model.paper.figures.clips import some_of_each
from lps.model.paper.figures.features import chosen
from lps.model.paper.figures.style import COLOURS, FAKE, MARKS, REAL, figure, picture
from lps.model.paper.recognizer import INPUT_PX, Recognizer

N_FRAMES = 3
N_EXAMPLES = 2
"""Videos of each class in the picture of Figure 1."""
CLASSES = (("real", 0), ("fake", 1))
STATISTICS = {
    "strength": "mean of |d| over the places of the map",
    "spread": "standard deviation of d over the places",
    "centre": "mean of |d| in the middle of the map over its mean everywhere; 1 is even",
    "likeness": "cosine of |d| and the mean |d| of the other videos of its class",
}
"""Statistics of a video with the map d. The paper has fakes alike, centred, and values further apart than in reals."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """The second differences of a recognizer's features on a data set, one map a video."""

    recognizer: Recognizer
    data_name: str
    maps: Floats
    """(n, h, w), signed."""
    labels: Ints
    keys: tuple[str, ...]

    def of(self, label: int) -> Floats:
        """Return the maps of one class."""
        return np.asarray(self.maps[self.labels == label], np.float64)


def draw_second_difference(
    recognizers: Sequence[Recognizer], data: Mapping[str, ClipData], out: Path, n_each: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Write OUT/second-diff.png (Figure 2), second-diff-frames.png (Figure 1), second-diff.npz and .json.

    At most `n_each` videos of each class of each data set, three consecutive frames of each, drawn by the seed. Returns
    the statistics, one record for each recognizer and data set. Raises RefusedError for a data set without one class.
    """
    used = {name: some_of_each(whole, n_each, seed) for name, whole in data.items()}
    for name, some in used.items():
        if set(some.labels.tolist()) != {0, 1}:
            raise RefusedError(f"data set '{name}' does not have both real and fake videos, so nothing can be compared")
    found = [second_differences(each, name, some, seed) for each in recognizers for name, some in used.items()]
    records = [
        {
            "recognizer": each.recognizer.name,
            "recognizer_sha256": each.recognizer.sha256,
            "data": each.data_name,
            "index_sha256": data[each.data_name].identity.index_sha256,
            "map": list(each.maps.shape[1:]),
            "n_real": len(each.of(0)),
            "n_fake": len(each.of(1)),
            "statistics": compared(each, seed),
        }
        for each in found
    ]
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for each in found:
        name = f"{each.recognizer.name}-{each.data_name}"
        arrays |= {f"{name}-maps": each.maps.astype(np.float32), f"{name}-labels": each.labels.astype(np.int8)}
        arrays[f"{name}-keys"] = np.array(each.keys)
    np.savez_compressed(out / "second-diff.npz", **arrays)
    facts = {"seed": seed, "level": LEVEL, "n_draws": N_DRAWS, "meaning": STATISTICS, "results": records}
    open_store(str(out)).publish("second-diff.json", pretty_json(facts))
    draw_patterns(found, records, out / "second-diff.png")
    draw_examples(found, used, out / "second-diff-frames.png", seed)
    return records


def second_differences(recognizer: Recognizer, name: str, data: ClipData, seed: int) -> Patterns:
    """Return the second difference of the maps of every sample's three frames.

    Raises as the reader does, and RefusedError where no sample of a class can be read.
    """
    maps, labels, keys = [], [], []
    for frames, label, key in _triples(data, recognizer.image_px, seed):
        first, second, third = recognizer.semantic_maps(frames)
        maps.append(first - 2 * second + third)
        labels.append(label)
        keys.append(key)
    if {*labels} != {0, 1}:
        raise RefusedError(f"data set '{name}' has no readable clip of one class; look at it with lps-audit")
    return Patterns(recognizer, name, np.stack(maps), np.array(labels, np.int64), tuple(keys))


def _triples(data: ClipData, image_px: int, seed: int) -> Iterator[tuple[Pixels, int, str]]:
    """Yield three consecutive frames of every sample, its label and its key; the same frames for the same seed."""
    read = ReadOptions(n_frames=N_FRAMES, train=True, image_px=image_px)  # which draws the first of them
    plan = PlanOptions(batch_size=1, shuffle=False, equal_steps=False, seed=seed)
    with ClipReader(data, read, plan, WorkOptions(max_bad_share=1.0)) as reader:
        for batch in reader.epoch(0):
            yield batch.frames[0].numpy(), int(batch.labels[0]), batch.keys[0]


def statistics(maps: Floats) -> dict[str, Floats]:
    """Return the statistics of every video of one class, (n,) each, NaN where they are not defined. Maps (n, h, w)."""
    size = np.abs(maps)
    strength = size.mean((1, 2))
    (top, bottom), (left, right) = (_middle(side) for side in maps.shape[1:])
    others = size.sum(0) - size
    with np.errstate(invalid="ignore", divide="ignore"):  # frames without any change
        centre = size[:, top:bottom, left:right].mean((1, 2)) / strength
        lengths = np.linalg.norm(size, axis=(1, 2)) * np.linalg.norm(others, axis=(1, 2))
        likeness = (size * others).sum((1, 2)) / lengths
    return {"strength": strength, "spread": maps.std((1, 2)), "centre": centre, "likeness": likeness}


def _middle(side: int) -> tuple[int, int]:
    """Return where the middle begins and ends: 3 places of 5 or 7, 4 of 8."""
    width = side // 2 + (side // 2 - side) % 2
    return (side - width) // 2, (side + width) // 2


def compared(patterns: Patterns, seed: int) -> dict[str, Any]:
    """Return for every statistic the mean of each class and fake over real, with bootstrap intervals over videos."""
    real, fake = statistics(patterns.of(0)), statistics(patterns.of(1))
    found: dict[str, Any] = {}
    for name in STATISTICS:
        values = {"real": real[name][~np.isnan(real[name])], "fake": fake[name][~np.isnan(fake[name])]}
        rng = np.random.default_rng(seed)
        draws = {kind: _drawn_means(each, rng) for kind, each in values.items()}
        found[name] = {kind: _figure(each.mean() if len(each) else None, draws[kind]) for kind, each in values.items()}
        low, high = found[name]["real"]["value"], found[name]["fake"]["value"]
        usable = bool(low) and high is not None and draws["real"].min(initial=np.inf) > 0
        ratios = draws["fake"] / draws["real"] if usable and len(draws["fake"]) == len(draws["real"]) else np.empty(0)
        found[name]["fake_over_real"] = _figure(high / low if usable else None, ratios)
    return found


def _drawn_means(values: Floats, rng: np.random.Generator) -> Floats:
    """Return the means of drawings with replacement, none of fewer than two values."""
    if len(values) < 2:
        return np.empty(0)
    return np.concatenate([drawn @ values / len(values) for drawn in draw_counts(len(values), N_DRAWS, rng)])


def _figure(value: float | None, draws: Floats) -> dict[str, float | None]:
    low, high = percentile_interval(draws) if len(draws) else (None, None)
    return {"value": None if value is None else float(value), "low": low, "high": high}


def draw_patterns(found: Sequence[Patterns], records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the mean of |d| of each class, a row for each recognizer, and how fakes compare with reals.

    Each map has its own scale, or reals would look empty beside fakes; the scale is written above it.
    """
    networks = list(dict.fromkeys(each.recognizer.name for each in found))
    n_maps = 2 * len({each.data_name for each in found})
    with figure(path, 1.4 * n_maps + 3.6, 1.95 * len(networks) + 0.3) as drawn:
        drawn.set_layout_engine("constrained")
        axes = drawn.subplots(len(networks), n_maps + 1, squeeze=False, width_ratios=[1.0] * n_maps + [2.0])
        for line, network in zip(axes, networks, strict=True):
            mine = [each for each in found if each.recognizer.name == network]
            shown = [(each, kind, label) for each in mine for kind, label in CLASSES]
            for ax, (each, kind, label) in zip(line, shown, strict=False):
                mean = np.abs(each.of(label)).mean(0)
                picture(ax, mean, colours="Blues", smooth=False)
                ax.set_title(f"{each.data_name}, {len(each.of(label))} {kind}\n{_span(mean)}", fontsize=7.5,
                             color=FAKE if label else REAL)  # fmt: skip
            line[0].set_ylabel(network)
            _compare(line[-1], [record for record in records if record["recognizer"] == network])
        axes[-1][0].set_xlabel("|d|, darker is more", loc="left", fontsize=7.5)
        axes[-1][-1].set_xlabel(f"fake over real, {LEVEL:.0%} interval", fontsize=8)
        if n_maps > 2:
            axes[0][-1].legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=n_maps // 2, fontsize=7)


def _span(values: Floats) -> str:
    return f"{values.min():.2g} to {values.max():.2g}"


def _compare(ax: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """Draw fake over real with intervals, a line for each statistic, a mark for each data set."""
    for k, record in enumerate(records):
        colour, mark = COLOURS[2 + k % 5], MARKS[k % len(MARKS)]
        for y, name in enumerate(STATISTICS):
            ratio = record["statistics"][name]["fake_over_real"]
            if ratio["value"] is None:
                continue
            at = y + 0.24 * (k - (len(records) - 1) / 2)
            if ratio["low"] is not None:
                ax.plot([ratio["low"], ratio["high"]], [at, at], "-", color=colour, linewidth=1.4)
            ax.plot([ratio["value"]], [at], mark, color=colour, markersize=4.5, label=record["data"] if not y else None)
    ax.axvline(1.0, color="#555555", linewidth=0.8)
    ax.set_yticks(range(len(STATISTICS)), list(STATISTICS))
    ax.set_ylim(len(STATISTICS) - 0.5, -0.5)


def draw_examples(found: Sequence[Patterns], data: Mapping[str, ClipData], path: Path, seed: int) -> None:
    """Draw three frames of some videos beside |d| of each recognizer: those of middling strength in their class.

    Each map has its own scale, from nothing in black to white at the value that is written under it.
    """
    networks = list(dict.fromkeys(each.recognizer.name for each in found))
    rows: list[tuple[str, str, int]] = []
    for each in found:
        if each.recognizer.name == networks[0]:
            rows += [(each.data_name, key, label) for _, label in CLASSES for key in _middling(each, label)]
    frames = {
        (name, key): triple
        for name, whole in data.items()
        for triple, _, key in _triples(chosen(whole, [k for n, k, _ in rows if n == name]), INPUT_PX, seed)
    }
    maps = {
        (each.recognizer.name, each.data_name, key): np.abs(d)
        for each in found
        for key, d in zip(each.keys, each.maps, strict=True)
    }
    with figure(path, 1.15 * (N_FRAMES + len(networks)) + 0.5, 1.27 * len(rows) + 0.3) as drawn:
        axes = drawn.subplots(
            len(rows), N_FRAMES + len(networks), squeeze=False, gridspec_kw={"hspace": 0.16, "wspace": 0.05}
        )
        for line, (name, key, label) in zip(axes, rows, strict=True):
            for ax, frame in zip(line, frames[name, key], strict=False):
                picture(ax, frame)
            for ax, network in zip(line[N_FRAMES:], networks, strict=True):
                found_map = maps[network, name, key]
                picture(ax, found_map, 0.0, found_map.max() or 1.0)
                ax.set_xlabel(f"up to {found_map.max():.2g}", fontsize=6, labelpad=2)
            line[0].set_ylabel(f"{name}\n{'fake' if label else 'real'}", color=FAKE if label else REAL, fontsize=8)
        for k in range(N_FRAMES):
            axes[0][k].set_title(f"frame {k + 1}", fontsize=8)
        for ax, network in zip(axes[0][N_FRAMES:], networks, strict=True):
            ax.set_title(f"|d|, {network}", fontsize=8)


def _middling(patterns: Patterns, label: int) -> list[str]:
    """Return the keys of the videos of a class whose strength is nearest to the median."""
    keys = [key for key, each in zip(patterns.keys, patterns.labels, strict=True) if each == label]
    strength = np.abs(patterns.of(label)).mean((1, 2))
    order = np.argsort(np.abs(strength - np.median(strength)), kind="stable")
    return [keys[k] for k in order[:N_EXAMPLES]]
