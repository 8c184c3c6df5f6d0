"""Losses, memory and recurrence where the answer is known on paper."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.convgru import ConvGRU
from lps.model.networks.losses import DistillParams, contrastive, selective_distillation
from lps.model.networks.memory_bank import recall

pytestmark = pytest.mark.usefixtures("one_thread")

Q, C = 12, 16


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def draw(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=rng, dtype=torch.float64)


# ---- contrast ------------------------------------------------------------------------------------------------------


def test_equal_targets_leave_chance(rng: torch.Generator) -> None:
    found = contrastive(draw(rng, Q, C), draw(rng, 1, C).expand(Q, C))
    assert found.loss.item() == pytest.approx(math.log(Q), rel=1e-12)


def test_zero_predictions_leave_chance(rng: torch.Generator) -> None:
    found = contrastive(torch.zeros(Q, C, dtype=torch.float64), draw(rng, Q, C))
    assert found.loss.item() == pytest.approx(math.log(Q), rel=1e-12)
    assert found.top1.item() == found.top5.item() == 0  # ties are no success


def test_equal_predictions_are_no_better_than_chance(rng: torch.Generator) -> None:
    found = contrastive(draw(rng, 1, C).expand(Q, C), draw(rng, Q, C))
    assert found.loss.item() >= math.log(Q)
    assert found.top1.item() == pytest.approx(1 / Q)
    assert found.top5.item() == pytest.approx(5 / Q)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_orthogonal_features_found_again(scale: float) -> None:
    """z = z-hat = s e_i gives log(1 + (Q - 1) exp(-s^2))."""
    rows = scale * torch.eye(Q, dtype=torch.float64)
    found = contrastive(rows, rows)
    assert found.loss.item() == pytest.approx(math.log(1 + (Q - 1) * math.exp(-(scale**2))), rel=1e-12)
    assert found.top1.item() == 1


def test_order_of_pairs_does_not_matter(rng: torch.Generator) -> None:
    predicted, target = draw(rng, Q, C), draw(rng, Q, C)
    order = torch.randperm(Q, generator=rng)
    a, b = contrastive(predicted, target), contrastive(predicted[order], target[order])
    assert a.loss.item() == pytest.approx(b.loss.item(), rel=1e-12)
    assert (a.top1, a.top5) == (b.top1, b.top5)


def test_what_all_targets_share_does_not_matter(rng: torch.Generator) -> None:
    predicted, target = draw(rng, Q, C), draw(rng, Q, C)
    a, b = contrastive(predicted, target), contrastive(predicted, target + draw(rng, 1, C))
    assert a.loss.item() == pytest.approx(b.loss.item(), rel=1e-12)


def test_no_normalisation_and_no_temperature(rng: torch.Generator) -> None:
    predicted, target = draw(rng, Q, C), draw(rng, Q, C)
    scores = [[math.fsum((p * t).tolist()) for t in target] for p in predicted]
    wanted = [math.log(sum(math.exp(s) for s in row)) - row[k] for k, row in enumerate(scores)]
    assert contrastive(predicted, target).loss.item() == pytest.approx(sum(wanted) / Q, rel=1e-12)
    assert contrastive(predicted, target, reduction="sum").loss.item() == pytest.approx(sum(wanted), rel=1e-12)


def test_rank_counts_only_candidates_that_are_better() -> None:
    predicted = torch.ones(7, 1, dtype=torch.float64)
    found = contrastive(predicted, torch.arange(7.0, dtype=torch.float64)[:, None])
    assert found.top1.item() == pytest.approx(1 / 7)
    assert found.top5.item() == pytest.approx(5 / 7)
    assert found.n_candidates == 7


# ---- memory --------------------------------------------------------------------------------------------------------


def test_uniform_probabilities_recall_the_mean_slot(rng: torch.Generator) -> None:
    bank = draw(rng, 9, C)
    predicted, p = recall(torch.full((2, 3, 9), 4.0, dtype=torch.float64), bank)
    assert torch.allclose(p, torch.full_like(p, 1 / 9), rtol=1e-12)
    assert torch.allclose(predicted, bank.mean(0).expand(2, 3, C), rtol=1e-12)


def test_one_certain_slot_is_recalled(rng: torch.Generator) -> None:
    bank = draw(rng, 9, C)
    scores = torch.zeros(9, 9, dtype=torch.float64).fill_diagonal_(1e4)
    predicted, _ = recall(scores, bank)
    assert torch.equal(predicted, bank)


# ---- recurrence ----------------------------------------------------------------------------------------------------


def test_zero_weights_halve_the_state(rng: torch.Generator) -> None:
    """sigmoid(0) = 1/2 and tanh(0) = 0, so h_t = h_0 / 2^t."""
    gru = ConvGRU(3, 4).double().eval()
    for parameter in gru.parameters():
        torch.nn.init.zeros_(parameter)
    h0 = draw(rng, 2, 4, 2, 3)
    states = gru(draw(rng, 2, 5, 3, 2, 3), h0)
    for t in range(5):
        assert torch.equal(states[:, t], h0 / 2 ** (t + 1))


def test_one_step_by_hand() -> None:
    """One channel in, one hidden: every gate is a line through x and h."""
    gru = ConvGRU(1, 1).double().eval()
    reset, update, out = ((0.3, -0.4, 0.1), (0.5, 0.2, -0.3), (0.7, 0.9, 0.2))
    cell = gru.cell
    for gate, (wx, wh, bias) in zip(
        (cell.reset_gate, cell.update_gate, cell.out_gate), (reset, update, out), strict=True
    ):
        assert gate.bias is not None  # mypy
        torch.nn.init.constant_(gate.bias, bias)
        gate.weight.data[:] = torch.tensor([wx, wh], dtype=torch.float64)[None, :, None, None]
    x, h = 1.5, -0.8
    found = gru(torch.full((1, 1, 1, 1, 1), x, dtype=torch.float64), torch.full((1, 1, 1, 1), h, dtype=torch.float64))
    r = 1 / (1 + math.exp(-(reset[0] * x + reset[1] * h + reset[2])))
    u = 1 / (1 + math.exp(-(update[0] * x + update[1] * h + update[2])))
    o = math.tanh(out[0] * x + out[1] * r * h + out[2])
    assert found.item() == pytest.approx((1 - u) * h + u * o, rel=1e-12)


def test_state_stays_within_one(rng: torch.Generator) -> None:
    gru = ConvGRU(3, 4, gain=5.0).double().eval().requires_grad_(False)  # noqa: FBT003
    assert float(gru(10 * draw(rng, 2, 30, 3, 1, 1)).abs().max()) <= 1


# ---- distillation --------------------------------------------------------------------------------------------------


def logits(*p_fake: float) -> Tensor:
    return torch.tensor([[math.log(1 - p), math.log(p)] for p in p_fake], dtype=torch.float64)


SOFT = DistillParams(weight=0.0)


def test_teacher_that_is_always_wrong_teaches_nothing(rng: torch.Generator) -> None:
    student = draw(rng, 6, 2).requires_grad_()
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    wrong = F.one_hot(1 - labels, 2).double()
    loss = selective_distillation(student, wrong, labels, DistillParams(weight=0.7))
    assert loss.item() == pytest.approx(0.7 * F.cross_entropy(student, labels).item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(selective_distillation(student, wrong, labels, SOFT), student)
    assert torch.count_nonzero(gradient) == 0


@pytest.mark.parametrize("direction", ["teacher_student", "student_teacher"])
def test_student_equal_to_teacher_diverges_by_nothing(rng: torch.Generator, direction: str) -> None:
    same = draw(rng, 6, 2)
    labels = same.argmax(1)
    params = DistillParams(weight=0.0, direction=direction)  # type: ignore[arg-type]
    assert selective_distillation(same, same, labels, params).item() == pytest.approx(0, abs=1e-15)
    both = DistillParams(weight=0.7, direction=direction)  # type: ignore[arg-type]
    wanted = 0.7 * F.cross_entropy(same, labels).item()
    assert selective_distillation(same, same, labels, both).item() == pytest.approx(wanted, rel=1e-12)


def test_weight_of_one_is_cross_entropy(rng: torch.Generator) -> None:
    student, teacher, labels = draw(rng, 6, 2), draw(rng, 6, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    loss = selective_distillation(student, teacher, labels, DistillParams(weight=1.0))
    assert loss.item() == pytest.approx(F.cross_entropy(student, labels).item(), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_temperature_is_a_root_of_the_probabilities(rng: torch.Generator, temperature: float) -> None:
    """p^(1/T), normalised again, is softmax(logits / T): the loss has either form."""
    student, teacher = draw(rng, 5, 2), draw(rng, 5, 2)
    labels = teacher.argmax(1)
    root = teacher.softmax(1) ** (1 / temperature)
    p = root / root.sum(1, keepdim=True)
    assert torch.allclose(p, (teacher / temperature).softmax(1), rtol=1e-12)
    wanted = (p * (p.log() - student.log_softmax(1))).sum() / 5
    found = selective_distillation(student, teacher, labels, DistillParams(weight=0.0, temperature=temperature))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)


def test_divergence_of_two_coins() -> None:
    """s = (.25, .75) and t = (.5, .5): 0.143841 one way, 0.130812 the other."""
    student, teacher = logits(0.75), logits(0.5) + torch.tensor([0, 1e-12])
    label = teacher.argmax(1)
    forward = selective_distillation(student, teacher, label, SOFT)
    back = selective_distillation(student, teacher, label, DistillParams(weight=0.0, direction="student_teacher"))
    assert forward.item() == pytest.approx(0.143841, abs=5e-7)
    assert back.item() == pytest.approx(0.130812, abs=5e-7)
