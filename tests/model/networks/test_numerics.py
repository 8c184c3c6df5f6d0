"""Precision, memory and several processes change nothing that matters in the numbers."""

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.context_net import NetParams
from lps.model.networks.conv import Conv3d
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.i3d import I3D
from lps.model.networks.losses import DistillParams, contrastive, selective_distillation
from lps.model.networks.memory_bank import recall
from lps.model.networks.predictive_net import PredictiveNet, PretrainParams, pretrain_loss
from lps.model.networks.resnet2d3d import ResNet2d3d, frozen_statistics

pytestmark = pytest.mark.usefixtures("one_thread")

N = 4
SMALL = NetParams(width=4, n_blocks=N, block_frames=2, gru_dropout=0.0)
PRETRAIN = PretrainParams(n_slots=8, min_context=2)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(13)


def clips(b: int = 2) -> Tensor:
    return torch.randn(b, N, 3, 2, 40, 40)


def bf16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


# ---- bfloat16 ------------------------------------------------------------------------------------------------------


def test_scores_of_a_hundred_under_autocast() -> None:
    """Two candidates score 100 and 100.2, which are the same number in bfloat16, whose steps there are 0.5."""
    predicted = torch.tensor([[10.0, 0.0], [10.0, 0.02]])
    target = torch.tensor([[10.0, 0.0], [10.0, 10.0]])
    scores = predicted.double() @ target.double().t()
    assert float(scores.abs().max()) == pytest.approx(100.2)
    wanted = F.cross_entropy(scores, torch.arange(2)).item()
    with bf16():
        assert (predicted @ target.t()).tolist() == [[100.0, 100.0]] * 2
        found = contrastive(predicted, target)
        chunked = contrastive(predicted, target, chunk_rows=1)
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(wanted, abs=2e-5)
    assert chunked.loss.item() == found.loss.item()
    assert found.loss.item() != pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-3)


def test_loss_of_large_scores_is_finite_and_right() -> None:
    predicted, target = torch.randn(40, 256), torch.randn(40, 256)
    scale = 100 / float((predicted @ target.t()).abs().max())
    predicted = (predicted * scale).requires_grad_()
    with bf16():
        found = contrastive(predicted, target)
    (gradient,) = torch.autograd.grad(found.loss, predicted)
    exact = predicted.detach().double().requires_grad_()
    wanted = contrastive(exact, target.double())
    (exact_gradient,) = torch.autograd.grad(wanted.loss, exact)
    assert float((exact.detach() @ target.double().t()).abs().max()) == pytest.approx(100)
    assert found.loss.item() == pytest.approx(wanted.loss.item(), rel=1e-6)
    assert torch.allclose(gradient.double(), exact_gradient, atol=1e-5 * float(exact_gradient.abs().max()))


def test_half_precision_inputs_are_compared_in_single() -> None:
    predicted, target = torch.randn(9, 64).bfloat16(), torch.randn(9, 64).bfloat16()
    with bf16():
        found = contrastive(predicted, target)
    wanted = contrastive(predicted.double(), target.double())
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(wanted.loss.item(), rel=1e-6)


def test_probabilities_of_slots_under_autocast() -> None:
    scores, bank = 100 * torch.randn(6, 1024).clamp(-1, 1), torch.randn(1024, 16)
    wanted, exact = recall(scores.double(), bank.double())
    with bf16():
        predicted, p = recall(scores, bank)
    assert predicted.dtype == p.dtype == torch.float32
    assert torch.allclose(p.double(), exact, atol=1e-6)
    assert torch.allclose(predicted.double(), wanted, atol=1e-5)
    assert torch.allclose(p.sum(1), torch.ones(6), atol=1e-6)


def test_distillation_under_autocast() -> None:
    student, teacher = 100 * torch.randn(6, 2), 100 * torch.randn(6, 2)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    wanted = selective_distillation(student.double(), teacher.double(), labels, DistillParams())
    with bf16():
        found = selective_distillation(student, teacher, labels, DistillParams())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


@torch.no_grad()
def test_all_after_the_encoder_is_the_same_under_autocast() -> None:
    """The encoder runs in bfloat16; given its maps, predictions and logits have the same bits."""
    net, x = PredictiveNet(SMALL, PRETRAIN).eval(), clips()
    judge = Detector(SMALL, HeadParams()).eval()
    with bf16():
        z = net.encode(x)
        assert net.backbone(x.flatten(0, 1)).dtype == torch.bfloat16
        assert z.dtype == torch.float32
        predictions, logits = net.predict(z), judge.classify(z)
    for a, b in zip(predictions, net.predict(z), strict=True):
        assert a.predicted.dtype == a.target.dtype == a.context.dtype == torch.float32
        assert torch.equal(a.predicted, b.predicted)
        assert torch.equal(a.context, b.context)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, judge.classify(z))


def test_a_step_under_autocast_is_near_the_exact_one() -> None:
    net, x = PredictiveNet(SMALL, PRETRAIN), clips()
    with bf16():
        rough = pretrain_loss(net(x), PRETRAIN).total
    exact = pretrain_loss(deepcopy(net)(x), PRETRAIN).total
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    for gradient in torch.autograd.grad(rough, list(net.parameters())):
        assert gradient.dtype == torch.float32
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_gradients_of_3d_convolutions_under_autocast_are_near_the_exact_ones(frames: int) -> None:
    """Some processors' kernels leave part of a weight's gradient unwritten; several passes, so that memory is used."""
    conv, x = Conv3d(16, 16, 3, padding=1), torch.randn(9, 16, frames, 3, 3, requires_grad=True)
    exact = torch.autograd.grad(conv(x).square().sum(), [x, *conv.parameters()])
    for _ in range(3):
        with bf16():
            y = conv(x)
        assert y.dtype == torch.bfloat16
        for found, wanted in zip(
            torch.autograd.grad(y.float().square().sum(), [x, *conv.parameters()]), exact, strict=True
        ):
            assert float((found - wanted).norm()) < 0.02 * float(wanted.norm())


@pytest.mark.parametrize("network", [ResNet2d3d(18, 4), I3D(8)], ids=["resnet", "i3d"])
def test_networks_have_no_other_3d_convolutions(network: nn.Module) -> None:
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.Conv3d)}
    assert kinds == {Conv3d}


# ---- recomputed activations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_recomputing_changes_neither_gradients_nor_statistics(dtype: torch.dtype) -> None:
    """bfloat16 stands for autocast. Momentum, counters and statistics are as after one pass per step."""
    steps = [torch.randn(3, 3, 4, 40, 40) for _ in range(2)]
    results = []
    for recompute in (False, True):
        torch.manual_seed(1)
        net = ResNet2d3d(18, 4, recompute=recompute)
        if dtype == torch.float64:
            net.double()
        for x in steps:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                z = net(x.to(net.bn1.weight.dtype))
            torch.autograd.backward(z.square().sum())
        results.append(net)
    plain, again = results
    for (name, a), b in zip(plain.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(a, b), name
        if name.endswith("num_batches_tracked"):
            assert int(b) == 2
    for (name, p), q in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert torch.equal(p.grad, q.grad), name
    assert {m.momentum for m in again.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)} == {0.1}


def test_recomputing_keeps_less() -> None:
    def kept(*, recompute: bool) -> int:
        net, sizes = ResNet2d3d(18, 4, recompute=recompute), dict[int, int]()

        def keep(x: Tensor) -> Tensor:
            if not isinstance(x, nn.Parameter):
                sizes[x.data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            z = net(blocks)
        assert z.requires_grad
        return sum(sizes.values()) - blocks.numel()

    blocks = torch.randn(2, 3, 5, 96, 96)
    assert kept(recompute=True) < 0.2 * kept(recompute=False)


def test_statistics_are_let_go_after_an_error() -> None:
    net = ResNet2d3d(18, 4)
    with pytest.raises(RuntimeError), frozen_statistics(net):
        net.frames(torch.randn(1, 4, 32, 32))
    before = net.bn1.running_mean
    assert before is not None  # mypy
    before = before.clone()
    net.frames(torch.randn(2, 3, 32, 32))
    assert net.bn1.running_mean is not None
    assert not torch.equal(before, net.bn1.running_mean)
    assert int(net.bn1.num_batches_tracked) == 1  # type: ignore[arg-type]


# ---- several processes ---------------------------------------------------------------------------------------------

RANK = """
import os
import sys
import torch
import torch.distributed as dist
from lps.model.networks.context_net import NetParams
from lps.model.networks.predictive_net import PredictiveNet, PretrainParams, pretrain_loss

torch.set_num_threads(1)
folder = sys.argv[1]
child = os.fork()
rank = 1 if child else 0
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt", weights_only=True)
found = {}
for name, (negatives, chunk_rows, stop_grad) in {
    "global": ("global", 0, False),
    "chunked": ("global", 5, False),
    "stopped": ("global", 0, True),
    "local": ("local", 0, False),
}.items():
    params = PretrainParams(
        n_slots=8, min_context=2, negatives=negatives, chunk_rows=chunk_rows, stop_grad=stop_grad
    )
    net = PredictiveNet(NetParams(**given["net"]), params).double().eval()
    net.load_state_dict(given["state"])
    loss = pretrain_loss(net(given["clips"].chunk(2)[rank]), params)
    loss.total.backward()
    found[name] = {
        "loss": loss.total.detach(),
        "top1": torch.stack([c.top1 for c in loss.directions]),
        "n_candidates": loss.directions[0].n_candidates,
        "gradients": {name: p.grad for name, p in net.named_parameters()},
    }
torch.save(found, f"{folder}/rank{rank}.pt")
dist.destroy_process_group()
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""
"""Becomes two processes, once the imports are done that take longer than the rest."""


@pytest.mark.slow
def test_gathered_negatives_of_two_processes_equal_one_process(tmp_path: Path) -> None:
    net, x = PredictiveNet(SMALL, PRETRAIN).double().eval(), clips(4).double()
    sizes = {"width": 4, "n_blocks": N, "block_frames": 2, "gru_dropout": 0.0}
    torch.save({"state": net.state_dict(), "clips": x, "net": sizes}, tmp_path / "given.pt")
    command = [sys.executable, "-W", "ignore", "-c", RANK, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]

    def gradients(of: Tensor) -> dict[str, Tensor]:
        named = dict(net.named_parameters())
        found = torch.autograd.grad(of, list(named.values()))
        return dict(zip(named, found, strict=True))

    for name in ("global", "chunked", "stopped"):
        net.pretrain = replace(PRETRAIN, stop_grad=name == "stopped")
        one = pretrain_loss(net(x), net.pretrain)
        both = [rank[name] for rank in ranks]
        assert {r["n_candidates"] for r in both} == {one.directions[0].n_candidates}
        assert float(sum(r["loss"] for r in both)) / 2 == pytest.approx(one.total.item(), rel=1e-12)
        top1 = torch.stack([c.top1 for c in one.directions])
        assert torch.allclose((both[0]["top1"] + both[1]["top1"]) / 2, top1)
        for parameter, wanted in gradients(one.total).items():
            mean = (both[0]["gradients"][parameter] + both[1]["gradients"][parameter]) / 2
            assert torch.allclose(mean, wanted, atol=1e-10 * float(wanted.abs().max())), parameter
    for rank, part in zip(ranks, x.chunk(2), strict=True):
        net.pretrain = PRETRAIN
        alone = pretrain_loss(net(part), PRETRAIN)
        assert float(rank["local"]["loss"]) == pytest.approx(alone.total.item(), rel=1e-12)
        for parameter, wanted in gradients(alone.total).items():
            assert torch.allclose(
                rank["local"]["gradients"][parameter], wanted, atol=1e-10 * float(wanted.abs().max())
            ), parameter


def test_global_negatives_of_one_process_are_its_own() -> None:
    predicted, target = torch.randn(8, 4), torch.randn(8, 4)
    a, b = contrastive(predicted, target), contrastive(predicted, target, global_negatives=True)
    assert a.loss == b.loss
    assert a.n_candidates == b.n_candidates
