"""Time per module (the paper's efficiency paragraph): per video of 180 frames, and per frame."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.errors import RefusedError
from lps.model.evaluation.metrics import N_DRAWS, draw_counts, percentile_interval
from lps.model.networks.detector import Detector
from lps.model.networks.losses import contrastive
from lps.model.networks.predictive_net import PredictiveNet
from lps.model.training.presets import Preset
from lps.model.training.run_folder import read_json, write_json

VIDEO_FRAMES = 180
WARM_UP = 2
MODULES = ("encoder", "aggregator", "classifier", "predictor", "memory update")


TIMINGS = "timings.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of one module for one video of VIDEO_FRAMES frames."""

    module: str
    median_s: float
    interval_s: tuple[float, float]
    """95 % of the median, by drawing runs again."""
    p95_s: float
    n_runs: int


def kept_timings(folder: Path, preset: Preset, device: torch.device, where: str, n_videos: int) -> list[Timing]:
    """Time every module that `folder` has no timing of, for the same configuration, device and torch.

    Timings are kept as they are made, so that an interrupted command resumes. Raises UnreadableError, and RefusedError
    for a configuration without such a network.
    """
    wanted = {"device": where, "n_videos": n_videos, "torch": torch.__version__, "preset": preset.record()}
    identity = sha256_hex(canonical_json(wanted))
    path = folder / TIMINGS
    found = read_json(path) if path.exists() else {}
    timings = [_timing(each) for each in found.get("timings", [])] if found.get("identity") == identity else []
    missing = [name for name in MODULES if name not in {timing.module for timing in timings}]
    try:
        work = _modules(preset, device, bf16=preset.run.precision == "bf16") if missing else {}
    except ValueError as e:  # what the networks refuse
        raise RefusedError(f"this configuration has no network: {e}") from e
    for name in missing:
        timings.append(measure(name, work[name], device, n_videos))
        write_json(path, {"identity": identity, "timings": [asdict(timing) for timing in timings]})
    return sorted(timings, key=lambda timing: MODULES.index(timing.module))


def _timing(record: dict[str, Any]) -> Timing:
    low, high = record["interval_s"]
    return Timing(**{**record, "interval_s": (low, high)})


def _modules(preset: Preset, device: torch.device, *, bf16: bool) -> dict[str, Callable[[], None]]:
    """Return the work of each of MODULES on one video of random frames. Times do not depend on what frames show."""
    torch.manual_seed(0)
    clips = VIDEO_FRAMES // preset.n_frames or 1
    shape = (clips, preset.net.n_blocks, 3, preset.net.block_frames, preset.image_px, preset.image_px)
    frames = torch.randn(shape, device=device)
    detector = Detector(preset.net, preset.head).to(device).eval()
    predictive = PredictiveNet(preset.net, preset.pretrain).to(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        z = detector.encode_clips(frames)
        context = detector.context(z)
    z = z.clone()

    def encode() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            detector.encode_clips(frames)

    def aggregate() -> None:
        with torch.inference_mode():
            detector.context(z)

    def classify() -> None:
        with torch.inference_mode():
            detector.final_fc(detector.final_bn(context)).softmax(1)

    def predict() -> None:
        with torch.inference_mode():
            predictive.predict(z)

    bank = [predictive.mb] if preset.pretrain.n_slots else []
    optimizer = torch.optim.Adam([*predictive.network_pred.parameters(), *bank])

    def update() -> None:
        prediction = predictive.predict(z)[0]
        optimizer.zero_grad()
        loss: Any = contrastive(prediction.predicted, prediction.target).loss
        loss.backward()
        optimizer.step()

    return dict(zip(MODULES, (encode, aggregate, classify, predict, update), strict=True))


def measure(name: str, work: Callable[[], None], device: torch.device, n_runs: int) -> Timing:
    """Run something often, after a warm-up and with the device synchronised around each run."""
    seconds = []
    for k in range(WARM_UP + n_runs):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        if k >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    low, high = _interval(seconds)
    return Timing(
        module=name, median_s=float(np.median(seconds)), interval_s=(low, high),
        p95_s=float(np.percentile(seconds, 95)), n_runs=n_runs,
    )  # fmt: skip


def _interval(seconds: Sequence[float]) -> tuple[float, float]:
    counts = draw_counts(len(seconds), N_DRAWS, np.random.default_rng(0))
    return percentile_interval(np.array([np.median(np.repeat(seconds, row)) for drawn in counts for row in drawn]))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
