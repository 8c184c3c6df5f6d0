"""The fast forms equal the plain ones: outputs, losses, gradients and batch-norm statistics, in training and not."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.context_net import NetParams
from lps.model.networks.convgru import ConvGRU
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.encoder import Act
from lps.model.networks.losses import contrastive
from lps.model.networks.predictive_net import PredictiveNet, PretrainParams, pretrain_loss
from lps.model.networks.resnet2d3d import ResNet2d3d

pytestmark = pytest.mark.usefixtures("one_thread")

N = 5
SMALL = NetParams(width=4, n_blocks=N, block_frames=3, gru_dropout=0.0)
TEACHER = PretrainParams(n_slots=8, min_context=2)
RECURSIVE = PretrainParams(n_slots=8, rollout="recursive", pred_step=2)
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
EXACT = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Largest difference as a share of the largest value."""


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(11)


def clips(b: int = 2, px: int = 40) -> Tensor:
    return torch.randn(b, N, 3, 3, px, px + 8, dtype=torch.float64)


def same(ours: Tensor, plain: Tensor, name: str = "") -> None:
    ours, plain = ours.detach(), plain.detach()
    assert ours.shape == plain.shape, name
    assert ours.dtype == plain.dtype, name
    if plain.numel():
        largest = float(plain.abs().max())
        assert float((ours - plain).abs().max()) <= EXACT.get(plain.dtype, 0.0) * max(largest, 1e-3), name


def pair(ours: nn.Module, plain: nn.Module, training: bool) -> tuple[Any, Any]:  # noqa: FBT001
    """Give both the same random weights, signs of scales included."""
    for name, value in ours.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point():
            value.normal_(0, 1 if value.ndim < 2 else value[0].numel() ** -0.5)
    plain.load_state_dict(ours.state_dict())
    return ours.double().train(training), plain.double().train(training)


def same_step(ours: nn.Module, plain: nn.Module, losses: tuple[Tensor, Tensor]) -> None:
    """Assert equal losses, gradients of all parameters, and buffers."""
    same(*losses)
    mine, theirs = dict(ours.named_parameters()), dict(plain.named_parameters())
    assert list(mine) == [name for name in mine if name in theirs]
    assert len(mine) == len(theirs)
    order = list(mine)
    gradients = [
        torch.autograd.grad(loss, [named[name] for name in order])
        for loss, named in zip(losses, (mine, theirs), strict=True)
    ]
    for name, a, b in zip(order, *gradients, strict=True):
        same(a, b, name)
    buffers = dict(plain.named_buffers())
    for name, value in ours.named_buffers():
        same(value, buffers[name], name)


@MODES
@pytest.mark.parametrize("depth", [18, 34])
def test_encoder(plain_form: ModuleType, depth: int, training: bool) -> None:  # noqa: FBT001
    ours, plain = pair(ResNet2d3d(depth, 4), plain_form.PlainResNet(depth, 4), training)
    blocks = clips().flatten(0, 1).requires_grad_()
    acts: tuple[Act, ...] = ("pool_relu", "relu_pool")
    for act in acts:
        a, b = ours(blocks, act), plain(blocks, act)
        same(a, b)
        weights = torch.randn_like(a)
        same_step(ours, plain, ((a * weights).sum(), (b * weights).sum()))
        to_frames = [torch.autograd.grad((net(blocks, act) * weights).sum(), blocks)[0] for net in (ours, plain)]
        same(to_frames[0], to_frames[1])


@MODES
def test_encoder_in_single_precision(plain_form: ModuleType, training: bool) -> None:  # noqa: FBT001
    ours, plain = (net.float() for net in pair(ResNet2d3d(18, 4), plain_form.PlainResNet(18, 4), training))
    blocks = clips(4).float().flatten(0, 1)
    a, b = ours(blocks), plain(blocks)
    same(a, b)
    for (name, value), other in zip(ours.named_buffers(), plain.buffers(), strict=True):
        same(value, other, name)


def test_encoder_without_gradients(plain_form: ModuleType) -> None:
    """Training mode without a graph has forms of its own."""
    ours, plain = pair(ResNet2d3d(18, 4), plain_form.PlainResNet(18, 4), training=True)
    blocks = clips().flatten(0, 1)
    with torch.no_grad():
        same(ours(blocks), plain(blocks))


@MODES
def test_encoder_of_any_memory_layout(plain_form: ModuleType, training: bool) -> None:  # noqa: FBT001
    ours, plain = pair(ResNet2d3d(18, 4), plain_form.PlainResNet(18, 4), training)
    blocks = clips().flatten(0, 1)
    wanted = plain(blocks)
    same(ours(blocks.contiguous(memory_format=torch.channels_last_3d)), wanted)
    ours.to(memory_format=torch.channels_last_3d)
    same(ours(blocks), plain(blocks))


def test_aggregator(plain_form: ModuleType) -> None:
    ours, plain = pair(ConvGRU(6, 5, 0.0), plain_form.PlainGRU(6, 5, 0.0), training=True)
    x, h0 = torch.randn(2, 7, 6, 3, 2, dtype=torch.float64), torch.randn(2, 5, 3, 2, dtype=torch.float64)
    for start in (None, h0):
        a, b = ours(x, start), plain(x, start)
        same(a, b)
        weights = torch.randn_like(a)
        same_step(ours, plain, ((a * weights).sum(), (b * weights).sum()))


@MODES
@pytest.mark.parametrize(
    ("pretrain", "net"),
    [
        (TEACHER, SMALL),
        (RECURSIVE, SMALL),
        (replace(TEACHER, n_slots=0), SMALL),
        (replace(RECURSIVE, n_slots=0, pred_step=1), SMALL),
        (replace(TEACHER, stop_grad=True), SMALL),
        (TEACHER, replace(SMALL, bidirectional=False)),
        (RECURSIVE, replace(SMALL, hidden=6)),
        (TEACHER, replace(SMALL, recompute=True)),
    ],
    ids=["teacher_forced", "recursive", "no_memory", "one_step", "stop_grad", "forwards", "hidden", "recompute"],
)
def test_pretraining(plain_form: ModuleType, pretrain: PretrainParams, net: NetParams, training: bool) -> None:  # noqa: FBT001
    ours, plain = pair(PredictiveNet(net, pretrain), plain_form.PlainPredictive(net, pretrain), training)
    x = clips()
    mine, theirs = ours(x), plain(x)
    assert len(mine) == len(theirs) == (2 if net.bidirectional else 1)
    for a, b in zip(mine, theirs, strict=True):
        same(a.predicted, b.predicted)
        same(a.target, b.target)
        same(a.context, b.context)
    found = pretrain_loss(mine, pretrain)
    same_step(ours, plain, (found.total, plain_form.plain_loss(theirs)))


@MODES
@pytest.mark.parametrize("act", ["pool_relu", "relu_pool"])
@pytest.mark.parametrize("final_bn", [True, False], ids=["norm", "bare"])
def test_detector(plain_form: ModuleType, act: Act, final_bn: bool, training: bool) -> None:  # noqa: FBT001
    head = HeadParams(feature_act=act, final_bn=final_bn, dropout=0.0)
    ours, plain = pair(Detector(SMALL, head), plain_form.PlainDetector(SMALL, head), training)
    x, labels = clips(3), torch.tensor([0, 1, 1])
    a, b = ours(x), plain(x)
    same(a, b)
    same_step(ours, plain, (F.cross_entropy(a, labels), F.cross_entropy(b, labels)))


def test_loss_by_einsum(plain_form: ModuleType) -> None:
    predicted, target = (torch.randn(30, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def gradients(loss: Tensor) -> tuple[Tensor, ...]:
        return (loss.detach(), *torch.autograd.grad(loss, [predicted, target]))

    prediction = plain_form.Prediction(predicted, target, target)
    wanted = gradients(plain_form.plain_loss([prediction]))
    for chunk_rows in (0, 1, 7, 30, 100):
        found = contrastive(predicted, target, chunk_rows=chunk_rows)
        for a, b in zip(gradients(found.loss), wanted, strict=True):
            same(a, b)
        assert found.top5 == contrastive(predicted, target).top5
        assert found.top1 == contrastive(predicted, target).top1


def test_chunks_keep_no_scores() -> None:
    """What is kept for the gradient does not grow with the square of the rows."""

    def kept(chunk_rows: int) -> int:
        sizes = []
        predicted, target = (torch.randn(200, 4, requires_grad=True) for _ in range(2))

        def keep(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            contrastive(predicted, target, chunk_rows=chunk_rows)
        return max(sizes)

    assert kept(0) == 200 * 200
    assert kept(10) <= 200 * 4


def test_no_plain_form_of_variants(plain_form: ModuleType) -> None:
    with pytest.raises(ValueError, match="no plain form of params.encoder = 'none'"):
        plain_form.PlainNet(replace(SMALL, encoder="none"))
    with pytest.raises(ValueError, match="no plain form of head.context = 'uni_last'"):
        plain_form.PlainDetector(SMALL, HeadParams(context="uni_last"))
