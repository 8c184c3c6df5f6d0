"""Time per module (the paper's efficiency paragraph): per video of 180 frames, and per frame."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lps.model.detector import Detector
from lps.model.losses import contrastive
from lps.model.presets import Preset
from lps.model.pretrainer import PredictiveNet

VIDEO_FRAMES = 180
WARM_UP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of one module for one video of VIDEO_FRAMES frames."""

    module: str
    median_s: float
    p95_s: float
    n_runs: int

    @property
    def per_frame_ms(self) -> float:
        """Milliseconds per frame."""
        return 1000 * self.median_s / VIDEO_FRAMES


def time_modules(preset: Preset, device: torch.device, n_videos: int, *, bf16: bool = False) -> list[Timing]:
    """Time encoder, aggregator, classifier, predictor and the update of the memory bank, on random frames.

    After a warm-up and with the device synchronised around each; `n_videos` runs each. Values do not depend on what
    the frames show.
    """
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

    modules: list[tuple[str, Callable[[], None]]] = [
        ("encoder", encode),
        ("aggregator", aggregate),
        ("classifier", classify),
        ("predictor", predict),
        ("memory update", update),
    ]
    return [measure(name, work, device, n_videos) for name, work in modules]


def measure(name: str, work: Callable[[], None], device: torch.device, n_runs: int) -> Timing:
    """Run something often and return its median and 95th percentile."""
    seconds = []
    for k in range(WARM_UP + n_runs):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        if k >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    return Timing(
        module=name, median_s=float(np.median(seconds)), p95_s=float(np.percentile(seconds, 95)), n_runs=n_runs
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
