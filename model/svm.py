"""LPS_c (paper, Table 4): a support vector machine over the contexts of a frozen detector.

Fitted by scikit-learn on standardised contexts; kept as tensors and evaluated here, so that a checkpoint stays free of
anything that runs code when it is read. Scores are distances from the boundary; the paper's threshold is 0. As
`p_fake` they go through a sigmoid, which keeps order and threshold and is not a calibrated probability.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lps.manifests.errors import LpsError, RefusedError
from lps.model.checkpoint import Checkpoint, State, write_checkpoint
from lps.model.data import ClipData
from lps.model.plan import Place
from lps.model.run_folder import BEST, CONFIG, RESULT, alone_in, read_json, require_same, write_json
from lps.model.setup import Feed, build_stage, open_feed
from lps.model.stages import ClassifyStage
from lps.model.validate import video_auc

if TYPE_CHECKING:
    from lps.model.train import Job

Floats = NDArray[np.float64]
Kernel = Literal["rbf", "linear"]


@dataclass(frozen=True, slots=True)
class Svm:
    """A fitted machine; all float64."""

    mean: Tensor
    scale: Tensor
    """(F,): of the standardisation."""
    vectors: Tensor
    """(V, F): support vectors; for a linear kernel the one normal vector, with a dual of 1."""
    duals: Tensor
    """(V,)."""
    intercept: Tensor
    gamma: Tensor
    """Of the RBF kernel; 0 for a linear one."""

    def decision(self, contexts: Tensor) -> Tensor:
        """(B, F) contexts -> (B,) signed distances, above 0 fake."""
        x = (contexts.double() - self.mean) / self.scale
        if float(self.gamma) == 0:
            return x @ self.vectors.t() @ self.duals + self.intercept
        return torch.exp(-self.gamma * torch.cdist(x, self.vectors) ** 2) @ self.duals + self.intercept

    def p_fake(self, contexts: Tensor) -> Tensor:
        """(B, F) contexts -> (B,) in (0, 1), above 0.5 fake."""
        return torch.sigmoid(self.decision(contexts)).float()

    def state(self) -> State:
        """Return its tensors by name."""
        return {name: getattr(self, name) for name in NAMES}


NAMES = ("mean", "scale", "vectors", "duals", "intercept", "gamma")


def svm_from_state(state: State) -> Svm:
    """Return the machine that `Svm.state` gave."""
    return Svm(**{name: state[name] for name in NAMES})


def fit_svm(contexts: Floats, labels: NDArray[np.int64], kernel: Kernel = "rbf") -> Svm:
    """Fit on (n, F) contexts and labels (0 real, 1 fake), C = 1. Raises RefusedError with only one class."""
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if len(set(labels.tolist())) < 2:
        raise RefusedError("a support vector machine needs both classes")
    scaler = StandardScaler().fit(contexts)
    machine = SVC(C=1.0, kernel=kernel).fit(scaler.transform(contexts), labels)

    def tensor(values: Any) -> Tensor:
        return torch.tensor(np.asarray(values, np.float64))

    return Svm(
        mean=tensor(scaler.mean_),
        scale=tensor(scaler.scale_),
        vectors=tensor(machine.coef_ if kernel == "linear" else machine.support_vectors_),
        duals=tensor([1.0] if kernel == "linear" else machine.dual_coef_[0]),
        intercept=tensor(machine.intercept_[0]),
        gamma=tensor(0.0 if kernel == "linear" else machine._gamma),
    )


def train_svm(job: "Job", kernel: Kernel = "rbf") -> dict[str, Any]:
    """Freeze the network of `--init`, fit the machine on the training split, and write RUN as a training stage does.

    Raises RefusedError, UnreadableError and IntegrityError as `train` does.
    """
    from lps.model.train import device_of

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RefusedError("a support vector machine is fitted by one process; start it without torchrun")
    record = {**job.record(), "head": "svm", "kernel": kernel}
    require_same(job.out, record)
    if (job.out / RESULT).exists():
        return read_json(job.out / RESULT)
    device = device_of(job.preset)
    if job.preset.run.threads:
        torch.set_num_threads(job.preset.run.threads)
    place = Place()
    with alone_in(job.out, place):
        torch.manual_seed(job.seed)
        stage = build_stage("classify", job.preset, job.init).to(device).eval()
        assert isinstance(stage, ClassifyStage)  # mypy
        with open_feed("classify", job.sources, job.preset, job.seed, place, job.out) as feed:
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
