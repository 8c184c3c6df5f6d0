"""LPS_c (paper, Table 4): a support vector machine over the contexts of a frozen detector.

Fitted by scikit-learn on standardised contexts; kept as tensors and evaluated here, so that a checkpoint stays free of
anything that runs code when it is read. Scores are distances from the boundary; the paper's threshold is 0. As
`p_fake` they go through a sigmoid, which keeps order and threshold and is not a calibrated probability.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError
from lps.model.checkpoint import Checkpoint, State, write_checkpoint
from lps.model.setup import Feed, build_stage, open_feed
from lps.model.stages import ClassifyStage
from lps.model.validate import video_auc

if TYPE_CHECKING:
    from lps.model.train import Job

Floats = NDArray[np.float64]


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


def fit_svm(contexts: Floats, labels: NDArray[np.int64], kernel: Literal["rbf", "linear"] = "rbf") -> Svm:
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


def train_svm(job: "Job") -> dict[str, Any]:
    """Freeze the network of `--init`, fit the machine on the training split, and write RUN/checkpoints/best.pt.

    Raises RefusedError, UnreadableError and IntegrityError as a training stage does.
    """
    from lps.model.plan import Place

    device = torch.device("cuda" if torch.cuda.is_available() and job.preset.run.device != "cpu" else "cpu")
    torch.manual_seed(job.seed)
    stage = build_stage("classify", job.preset, job.init).to(device).eval()
    assert isinstance(stage, ClassifyStage)  # mypy
    with open_feed("classify", job.sources, job.preset, job.seed, Place(), job.out) as feed:
        feed.open(stage, device)
        contexts, labels, _ = _contexts(stage, feed.still(feed.train), device)
        svm = fit_svm(contexts, labels)
        metrics = _validated(svm, stage, feed, device)
        checkpoint = Checkpoint(
            stage="classify",
            config={**job.record(), "head": "svm"},
            data=feed.identity,
            network={name: value.cpu() for name, value in stage.network.state_dict().items()},
            progress={},
            metrics=metrics,
            extra=svm.state(),
        )
        write_checkpoint(job.out / "checkpoints" / "best.pt", checkpoint)
        result = {
            "stage": "classify", "head": "svm", "steps": 0, "epochs": 0, "best_step": 0, "last": metrics,
            "data": feed.identity, "n_bad_samples": len(feed.bad_samples), "checkpoint": "checkpoints/best.pt",
        }  # fmt: skip
        (job.out / "result.json").write_bytes(pretty_json(result))
        return result


def _validated(svm: Svm, stage: ClassifyStage, feed: Feed, device: torch.device) -> dict[str, Any]:
    if feed.val is None:
        return {}
    contexts, labels, keys = _contexts(stage, feed.still(feed.val), device)
    p = svm.p_fake(torch.from_numpy(contexts)).tolist()
    scores = [(feed.video_of[key], label, score) for key, label, score in zip(keys, labels.tolist(), p, strict=True)]
    return {"auc": video_auc(scores)}


@torch.inference_mode()
def _contexts(
    stage: ClassifyStage, reader: Any, device: torch.device
) -> tuple[Floats, NDArray[np.int64], tuple[str, ...]]:
    found, labels, keys = [], [], []
    for batch in reader.epoch(0):
        z = stage.network.encode_clips(stage.blocks(batch.frames.to(device)))
        found.append(stage.network.context(z).cpu().double().numpy())
        labels.append(batch.labels.numpy())
        keys += batch.keys
    reader.close()
    return np.concatenate(found), np.concatenate(labels).astype(np.int64), tuple(keys)
