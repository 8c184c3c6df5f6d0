"""LPS_c (paper, Table 4): a support vector machine over the contexts of a frozen detector.

Fitted by scikit-learn on standardised contexts; kept as tensors and evaluated here, so that a checkpoint stays free of
anything that runs code when it is read. Scores are distances from the boundary; the paper's threshold is 0. As
`p_fake` they go through a sigmoid, which keeps order and threshold and is not a calibrated probability.
"""

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lps.manifests.errors import LpsError, RefusedError
from lps.manifests.names import Kernel
from lps.model.data.clip_data import ClipData
from lps.model.data.epoch_plan import Rank
from lps.model.networks.svm import Floats, Svm, fit_svm
from lps.model.training.build import build_stage
from lps.model.training.checkpoint import Checkpoint, write_checkpoint
from lps.model.training.feed import Feed, open_feed
from lps.model.training.run_folder import BEST, CONFIG, RESULT, lock_run_folder, read_json, require_same, write_json
from lps.model.training.stages import ClassifyStage
from lps.model.training.validate import video_auc

if TYPE_CHECKING:
    from lps.model.training.train import TrainJob


def train_svm(job: "TrainJob", kernel: Kernel = "rbf") -> dict[str, Any]:
    """Freeze the network of `--init`, fit the machine on the training split, and write RUN as a training stage does.

    Raises RefusedError, UnreadableError and IntegrityError as `train` does.
    """
    from lps.model.training.processes import device_of

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RefusedError("a support vector machine is fitted by one process; start it without torchrun")
    record = {**job.record(), "head": "svm", "kernel": kernel}
    require_same(job.out, record)
    if (job.out / RESULT).exists():
        return read_json(job.out / RESULT)
    device = device_of(job.preset)
    if job.preset.run.threads:
        torch.set_num_threads(job.preset.run.threads)
    rank = Rank()
    with lock_run_folder(job.out, rank):
        torch.manual_seed(job.seed)
        stage = build_stage("classify", job.preset, job.init).to(device).eval()
        assert isinstance(stage, ClassifyStage)  # mypy
        with open_feed("classify", job.sources, job.preset, job.seed, rank, job.out) as feed:
            write_json(job.out / CONFIG, record)
            contexts, labels, _ = _contexts(stage, feed, feed.train, device)
            svm = fit_svm(contexts, labels, kernel)
            metrics = _validated(svm, stage, feed, device)
            checkpoint = Checkpoint(
                stage="classify",
                config=record,
                data=feed.identity,
                network={name: value.cpu() for name, value in stage.network.state_dict().items()},
                progress={},
                metrics=metrics,
                extra=svm.state(),
            )
            write_checkpoint(job.out / "checkpoints" / BEST, checkpoint)
            result = {
                "stage": "classify", "head": "svm", "steps": 0, "epochs": 0, "best_step": 0, "best": metrics.get("auc"),
                "last": metrics, "data": feed.identity, "n_bad_samples": len(feed.bad_samples),
                "bad_samples": [str(bad) for bad in feed.bad_samples[:100]],
                "checkpoint": f"checkpoints/{BEST}", "last_checkpoint": f"checkpoints/{BEST}",
            }  # fmt: skip
            write_json(job.out / RESULT, result)
            return result


def _validated(svm: Svm, stage: ClassifyStage, feed: Feed, device: torch.device) -> dict[str, Any]:
    if feed.val is None:
        return {}
    contexts, labels, keys = _contexts(stage, feed, feed.val, device)
    decision = svm.decision(torch.from_numpy(contexts)).tolist()
    rows = zip(keys, labels.tolist(), decision, strict=True)
    return {"auc": video_auc([(feed.video_of[key], label, score) for key, label, score in rows]), "n_clips": len(keys)}


@torch.inference_mode()
def _contexts(
    stage: ClassifyStage, feed: Feed, data: ClipData, device: torch.device
) -> tuple[Floats, NDArray[np.int64], tuple[str, ...]]:
    found: list[Floats] = []
    labels: list[NDArray[np.int64]] = []
    keys: list[str] = []
    with feed.still(data) as reader:
        for batch in reader.epoch(0):
            z = stage.network.encode_clips(stage.blocks(batch.frames.to(device)))
            found.append(stage.network.context(z).cpu().double().numpy())
            labels.append(batch.labels.numpy())
            keys += batch.keys
    if not keys:
        raise RefusedError("no sample could be read")
    contexts = np.concatenate(found)
    if not np.isfinite(contexts).all():
        raise LpsError("contexts are not finite; look at the checkpoint of --init")
    return contexts, np.concatenate(labels).astype(np.int64), tuple(keys)
