"""The two losses of the paper: contrastive prediction (Eq. 4) and selective self-distillation (Eq. 6)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

Reduction = Literal["mean", "sum"]
"""A7. Eq. 4 sums; MemDPC takes the mean. A scale, to which Adam is blind but for weight decay and epsilon."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A contrastive loss and how often the right candidate came out on top."""

    loss: Tensor
    """Scalar, float32; at chance log(number of candidates)."""
    top1: Tensor
    top5: Tensor
    """Share of rows whose own target is the best, or among the best five, candidate."""
    n_candidates: int


def contrastive(
    predicted: Tensor,
    target: Tensor,
    *,
    reduction: Reduction = "mean",
    global_negatives: bool = False,
    chunk_rows: int = 0,
) -> Contrast:
    """InfoNCE (Eq. 4): every prediction must find its own target among all targets.

    `predicted` and `target` (Q, C), rows in the same order; targets beyond the last prediction are further candidates,
    and fewer raise ValueError. Scores are plain dot products: no normalisation, no
    temperature. Nothing is masked: other steps and places of the clip and other clips are all negatives.
    `global_negatives` (A8) adds the targets of the other processes; default, as in MemDPC, is each process its own.
    `chunk_rows` bounds memory: that many rows of the score matrix exist at a time, and are computed again for the
    gradient. Everything in float32, whatever autocast says: scores reach the hundreds, where bfloat16 steps by a half.
    """
    if predicted.shape[1] != target.shape[1] or predicted.shape[0] > target.shape[0]:
        raise ValueError(f"predictions and targets do not match: {predicted.shape = }, {target.shape = }")
    with torch.autocast(predicted.device.type, enabled=False):
        exact = torch.float64 if predicted.dtype == torch.float64 else torch.float32
        rows, candidates = predicted.to(exact), target.to(exact)
        first = 0
        if global_negatives and dist.is_initialized():
            first = dist.get_rank() * len(candidates)
            candidates = _AllGather.apply(candidates)
        wanted = torch.arange(first, first + len(rows), device=rows.device)
        n = chunk_rows or len(rows)
        pieces = list(zip(torch.split(rows, n), torch.split(wanted, n), strict=True))
        again = len(pieces) > 1 and torch.is_grad_enabled()
        outs = [
            checkpoint(_rows, part, candidates, labels, use_reentrant=False)
            if again
            else _rows(part, candidates, labels)
            for part, labels in pieces
        ]
        losses, ranks = (torch.cat(parts) for parts in zip(*outs, strict=True))
        return Contrast(
            loss=losses.mean() if reduction == "mean" else losses.sum(),
            top1=(ranks < 1).to(exact).mean(),
            top5=(ranks < 5).to(exact).mean(),
            n_candidates=len(candidates),
        )


def _rows(rows: Tensor, candidates: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of each row, (Q,), and the number of other candidates as good as the wanted one or better, (Q,).

    A tie counts against the row: features that have all become the same must not look like a perfect prediction.
    """
    scores = rows @ candidates.t()
    own = scores.detach().gather(1, wanted[:, None])
    return F.cross_entropy(scores, wanted, reduction="none"), (scores.detach() >= own).sum(1) - 1


class _AllGather(torch.autograd.Function):
    """Concatenate over processes; the gradient of a slice is the sum over all processes that used it."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


@dataclass(frozen=True, slots=True)
class DistillParams:
    """Selective self-distillation, paper section 3.4 and Eq. 6."""

    weight: float = 0.7
    """Lambda: share of the hard labels; the teacher has the rest. The paper's best."""
    temperature: float = 1.0
    """T: softens the teacher. The paper's best; at 1 the variants of A12 coincide."""
    direction: Literal["teacher_student", "student_teacher"] = "teacher_student"
    """A11: KL(teacher || student), as in Hinton's practice; Eq. 6 lists the student first, as PyTorch's kl_div does."""
    soften: Literal["teacher", "both"] = "teacher"
    """A12: Eq. 6 softens the teacher's scores only."""
    t_squared: bool = False
    """A12: multiply by T squared, which keeps the size of the gradient; not in Eq. 6."""
    normaliser: Literal["batch", "selected"] = "batch"
    """A13: what the sum over selected clips is divided by; Eq. 6 has one T for both sums."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"distillation weight {self.weight} is not in [0, 1]")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature} is not above 0")


def selective_distillation(student: Tensor, teacher: Tensor, labels: Tensor, params: DistillParams) -> Tensor:
    """Return the loss of Eq. 6: hard labels for all clips, the teacher's scores only where the teacher is right.

    `student` and `teacher` (B, 2) logits of the same clips, `labels` (B,) 0 real, 1 fake. Returns a scalar, float32.
    """
    with torch.autocast(student.device.type, enabled=False):
        exact = torch.float64 if student.dtype == torch.float64 else torch.float32
        hard = F.cross_entropy(student.to(exact), labels)
        soft, selected = soft_terms(student, teacher, labels, params)
        count = selected.sum().clamp(min=1) if params.normaliser == "selected" else len(labels)
        return params.weight * hard + (1 - params.weight) * soft.sum() / count


def soft_terms(student: Tensor, teacher: Tensor, labels: Tensor, params: DistillParams) -> tuple[Tensor, Tensor]:
    """Return the divergence of every clip, (B,) and 0 where the teacher is wrong, and where it is right, (B,) bool."""
    exact = torch.float64 if student.dtype == torch.float64 else torch.float32
    s, t = student.to(exact), teacher.detach().to(exact)
    temperature = params.temperature
    log_t = F.log_softmax(t / temperature, 1)
    log_s = F.log_softmax(s / temperature if params.soften == "both" else s, 1)
    p, log_p, log_q = log_t.exp(), log_t, log_s
    if params.direction == "student_teacher":
        p, log_p, log_q = log_s.exp(), log_s, log_t
    divergence = (p * (log_p - log_q)).sum(1)
    selected = t.argmax(1) == labels
    scale = temperature**2 if params.t_squared else 1.0
    return scale * divergence * selected, selected
