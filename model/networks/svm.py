"""A support vector machine over contexts (LPS_c; paper, Table 4), kept as tensors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lps.manifests.arrays import Floats, Ints
from lps.manifests.errors import RefusedError
from lps.manifests.names import Kernel
from lps.model.networks.context_net import StateDict


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
    """Coefficient of the RBF kernel; 0 for a linear one."""

    def decision(self, contexts: Tensor) -> Tensor:
        """(B, F) contexts -> (B,) signed distances, above 0 fake."""
        x = (contexts.double() - self.mean) / self.scale
        if float(self.gamma) == 0:
            return x @ self.vectors.t() @ self.duals + self.intercept
        return torch.exp(-self.gamma * torch.cdist(x, self.vectors) ** 2) @ self.duals + self.intercept

    def p_fake(self, contexts: Tensor) -> Tensor:
        """(B, F) contexts -> (B,) in (0, 1), above 0.5 fake."""
        return torch.sigmoid(self.decision(contexts)).float()

    def state(self) -> StateDict:
        """Return its tensors by name."""
        return {name: getattr(self, name) for name in NAMES}


NAMES = ("mean", "scale", "vectors", "duals", "intercept", "gamma")


def svm_from_state(state: StateDict) -> Svm:
    """Return the machine that `Svm.state` gave."""
    return Svm(**{name: state[name] for name in NAMES})


def fit_svm(contexts: Floats, labels: Ints, kernel: Kernel = "rbf") -> Svm:
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
