"""What must hold for the networks whatever their weights are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lps.model.networks import predictive_net as pretrainer
from lps.model.networks.context_net import NetParams
from lps.model.networks.convgru import ConvGRU
from lps.model.networks.detector import AggPart, Detector, HeadParams
from lps.model.networks.i3d import I3D
from lps.model.networks.losses import DistillParams, contrastive, selective_distillation
from lps.model.networks.memory_bank import recall
from lps.model.networks.predictive_net import (
    Prediction,
    PredictiveNet,
    PretrainParams,
    copy_baseline,
    mistakes,
    pretrain_loss,
)
from lps.model.networks.resnet2d3d import PixelEncoder, ResNet2d3d

pytestmark = pytest.mark.usefixtures("one_thread")

N = 5
SMALL = NetParams(width=4, n_blocks=N, block_frames=2, gru_dropout=0.0)
TEACHER = PretrainParams(n_slots=8, min_context=2)
RECURSIVE = PretrainParams(n_slots=8, rollout="recursive", pred_step=2)
HEAD = HeadParams(dropout=0.0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def clips(b: int = 2, n: int = N, px: int = 33) -> Tensor:
    return torch.randn(b, n, 3, 2, px, px, dtype=torch.float64)


def scramble(network: nn.Module) -> None:
    """Draw every parameter and buffer anew, so that no initial value hides anything."""
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if value.ndim < 2:
            value.uniform_(0.5, 1.5)
        else:
            value.normal_(0, value[0].numel() ** -0.5)


def detector(params: NetParams = SMALL, head: HeadParams = HEAD) -> Detector:
    net = Detector(params, head).double().eval()
    scramble(net)
    return net


def predictor(pretrain: PretrainParams = TEACHER, params: NetParams = SMALL) -> PredictiveNet:
    net = PredictiveNet(params, pretrain).double().eval()
    scramble(net)
    return net


# ---- what depends on what ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_context_does_not_see_later_blocks() -> None:
    net, x = predictor(), clips()
    changed = x.clone()
    changed[:, 3:] = clips()[:, 3:]
    a, b = (net.contexts(net.directed(net.encode(v))) for v in (x, changed))
    assert torch.equal(a[0, :3], b[0, :3])
    assert not torch.isclose(a[0, 3:], b[0, 3:]).all(-1).any()
    assert not torch.isclose(a[1], b[1]).all(-1).any()  # backwards, the changed blocks come first


@torch.no_grad()
def test_prediction_does_not_see_its_target() -> None:
    net, x = predictor(), clips()
    changed = x.clone()
    changed[:, -1] = clips()[:, -1]
    a, b = net(x)[0], net(changed)[0]
    assert torch.equal(a.predicted, b.predicted)
    assert not torch.equal(a.target, b.target)


@torch.no_grad()
def test_map_depends_on_its_own_block_only() -> None:
    net, x = detector(), clips()
    changed = x.clone()
    changed[:, 2] = clips()[:, 2]
    same = torch.isclose(net.encode(x), net.encode(changed), rtol=1e-12).flatten(2).all(2)
    assert same.tolist() == [[True, True, False, True, True]] * 2


@torch.no_grad()
def test_places_of_the_aggregator_are_apart() -> None:
    gru = ConvGRU(3, 4).double().eval()
    x, h0 = torch.randn(2, 6, 3, 2, 5, dtype=torch.float64), torch.randn(2, 4, 2, 5, dtype=torch.float64)
    order = torch.randperm(10)

    def shuffled(v: Tensor) -> Tensor:
        return v.flatten(-2)[..., order].reshape(v.shape)

    assert torch.allclose(shuffled(gru(x, h0)), gru(shuffled(x), shuffled(h0)), rtol=1e-12)


@torch.no_grad()
def test_frames_are_apart_up_to_the_second_stage() -> None:
    net = ResNet2d3d(18, 4).double().eval()
    frames, order = torch.randn(6, 3, 33, 33, dtype=torch.float64), torch.randperm(6)
    assert torch.allclose(net.frames(frames)[order], net.frames(frames[order]), rtol=1e-12)
    block = frames.transpose(0, 1)[None]
    assert not torch.allclose(net(block), net(block[:, :, order]))


@torch.no_grad()
@pytest.mark.parametrize("pretrain", [TEACHER, RECURSIVE], ids=["teacher_forced", "recursive"])
def test_backwards_is_forwards_on_the_reversed_clip(pretrain: PretrainParams) -> None:
    net, other, x = predictor(pretrain), predictor(pretrain), clips()
    state = net.state_dict()
    swap = {"agg_f": "agg_b", "agg_b": "agg_f"}
    other.load_state_dict({swap.get(name[:5], name[:5]) + name[5:]: value for name, value in state.items()})
    forwards, backwards = net(x)
    mirrored = other(x.flip(1))
    for a, b in ((forwards, mirrored[1]), (backwards, mirrored[0])):
        assert torch.allclose(a.predicted, b.predicted, rtol=1e-10)
        assert torch.allclose(a.target, b.target, rtol=1e-10)
        assert torch.allclose(a.context, b.context, rtol=1e-10)


@torch.no_grad()
def test_last_step_of_teacher_forcing_is_one_recursive_step() -> None:
    net = predictor(replace(TEACHER, min_context=N - 1))
    other = predictor(replace(RECURSIVE, pred_step=1))
    other.load_state_dict(net.state_dict())
    x = clips()
    for a, b in zip(net(x), other(x), strict=True):
        assert torch.allclose(a.predicted, b.predicted, rtol=1e-12)
        assert torch.equal(a.target, b.target)
        assert torch.allclose(a.context, b.context, rtol=1e-12)


@torch.no_grad()
def test_last_rows_of_teacher_forcing_do_not_depend_on_how_many_there_are() -> None:
    net, few = predictor(), predictor(replace(TEACHER, min_context=N - 1))
    few.load_state_dict(net.state_dict())
    x = clips()
    many = net(x)[0].predicted.reshape(2, N - 2, 4, -1)
    assert torch.allclose(many[:, -1].flatten(0, 1), few(x)[0].predicted, rtol=1e-12)


# ---- shapes and batches --------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 4, 5, 8])
@pytest.mark.parametrize(("px", "side"), [(32, 1), (33, 2), (80, 3)])
def test_any_size_of_blocks(frames: int, px: int, side: int) -> None:
    blocks = torch.randn(1, 3, frames, px, px + 32)
    net = ResNet2d3d(18, 4).eval()
    assert net.stem_to_layer4(blocks).shape == (1, 16, -(-frames // 4), side, side + 1)
    assert net(blocks).shape == (1, 16, side, side + 1)


@torch.no_grad()
def test_any_size_of_blocks_in_the_other_encoders() -> None:
    blocks = torch.randn(1, 3, 4, 40, 33)
    assert PixelEncoder(4)(blocks).shape == (1, 768, 7, 7)
    assert I3D(None).eval().mixed_5c(blocks).shape == (1, 1024, 1, 2, 2)


@torch.no_grad()
def test_rows_are_ordered_by_clip_step_and_place() -> None:
    net, x = predictor(), clips()
    z = net.encode(x)
    forwards, backwards = net.predict(z)
    rows = [z[b, n, :, y, c] for b in range(2) for n in range(2, N) for y in range(2) for c in range(2)]
    assert torch.equal(forwards.target, torch.stack(rows))
    rows = [z[b, n, :, y, c] for b in range(2) for n in (2, 1, 0) for y in range(2) for c in range(2)]
    assert torch.equal(backwards.target, torch.stack(rows))


@torch.no_grad()
def test_batch_in_evaluation_is_its_clips_one_by_one() -> None:
    net, x = detector(), clips(3)
    assert torch.allclose(net(x), torch.cat([net(clip[None]) for clip in x]), rtol=1e-10)
    pre = predictor()
    whole, single = pre(x)[1].predicted, [pre(clip[None])[1].predicted for clip in x]
    assert torch.allclose(whole, torch.cat(single), rtol=1e-10)


def test_smaller_batch_after_a_larger_one() -> None:
    net = predictor().train()
    for b in (3, 1, 2):
        loss = pretrain_loss(net(clips(b)), TEACHER)
        assert loss.directions[0].n_candidates == b * (N - 2) * 4
        assert torch.isfinite(loss.total.detach())


@torch.no_grad()
def test_probabilities_of_slots_sum_to_one() -> None:
    """Over the slots, for each place; the predictor's second layer has one output per slot."""
    net = predictor()
    context = torch.randn(2, 7, net.n_context, dtype=torch.float64)
    scores = net.network_pred.rows(context)
    assert scores.shape == (2, 7, 8)
    predicted, p = recall(scores, net.mb)
    assert torch.allclose(p.sum(-1), torch.ones(2, 7, dtype=torch.float64), rtol=1e-12)
    assert torch.equal(predicted, net.next_rows(context))
    low, high = net.mb.min(0).values, net.mb.max(0).values
    assert bool(((predicted >= low) & (predicted <= high)).all())


@torch.no_grad()
def test_predictor_is_its_convolutions() -> None:
    net = predictor()
    maps = torch.randn(2, net.n_context, 3, 2, dtype=torch.float64)
    rows = net.network_pred.rows(maps.permute(0, 2, 3, 1))
    assert torch.allclose(net.network_pred(maps).permute(0, 2, 3, 1), rows, rtol=1e-10)


# ---- gradients and state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pretrain", [TEACHER, RECURSIVE], ids=["teacher_forced", "recursive"])
def test_gradient_reaches_every_parameter(pretrain: PretrainParams) -> None:
    net = predictor(pretrain).train()
    torch.autograd.backward(pretrain_loss(net(clips()), pretrain).total)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.count_nonzero(parameter.grad) > 0, name


def test_gradient_through_targets_can_be_stopped() -> None:
    x, found = clips(), []
    for stop in (False, True):
        torch.manual_seed(0)
        pretrain = replace(TEACHER, stop_grad=stop)
        net = predictor(pretrain).train()
        predictions = net(x)
        assert all(p.target.requires_grad is not stop for p in predictions)
        loss = pretrain_loss(predictions, pretrain).total
        found.append((loss.item(), torch.autograd.grad(loss, [net.backbone.get_parameter("conv1.weight"), net.mb])))
    assert found[0][0] == found[1][0]
    assert not torch.allclose(found[0][1][0], found[1][1][0])
    assert torch.allclose(found[0][1][1], found[1][1][1], rtol=1e-10)  # the memory is in no target


def test_saved_detector_gives_the_same_logits(tmp_path: Path) -> None:
    net, x = detector().train(), clips()
    net(x)  # moves statistics
    net.eval()
    torch.save(net.state_dict(), tmp_path / "detector.pt")
    other = detector()
    other.load_state_dict(torch.load(tmp_path / "detector.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(net(x), other(x))


def test_detector_starts_from_pretraining() -> None:
    """Encoder and aggregator have the same names in both; nothing else is shared."""
    pre, net = predictor(), detector()
    shared = set(pre.state_dict()) & set(net.state_dict())
    assert {name.partition(".")[0] for name in shared} == {"backbone", "agg_f", "agg_b"}
    assert {name.partition(".")[0] for name in set(pre.state_dict()) - shared} == {"network_pred", "mb"}
    assert {name.partition(".")[0] for name in set(net.state_dict()) - shared} == {"final_bn", "final_fc"}


def test_numbers_of_parameters() -> None:
    """Those of the reference."""

    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    net = PredictiveNet(NetParams(), PretrainParams())
    parts = (net.backbone, net.agg_f, net.agg_b, net.network_pred)
    assert [count(part) for part in parts] == [14_057_536, 393_984, 393_984, 328_960]
    assert count(net) == 15_436_608
    assert count(Detector(NetParams(), HeadParams())) == 14_847_554
    assert count(ResNet2d3d(34)) == 32_422_208
    assert count(I3D(None)) == 12_287_264


@torch.no_grad()
def test_copy_baseline_contrasts_a_map_with_the_one_before() -> None:
    z = torch.randn(2, N, 6, 2, 2, dtype=torch.float64)
    z[:, 1:] = z[:, :1]
    still = copy_baseline(z, 2)
    assert still.n_candidates == 2 * (N - 2) * 4
    assert still.top1.item() == 0  # all steps of a clip tie
    steps = torch.eye(N, dtype=torch.float64) + torch.eye(N, dtype=torch.float64).roll(1, 1)
    assert copy_baseline(20 * steps[None, :, :, None, None], 2).top1.item() == pytest.approx(1 / (N - 2))


@pytest.mark.parametrize("at_a_time", [5, 1024])
def test_mistakes_are_told_apart(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clips, 3 steps and 4 places: each row looks for a candidate of which it is known what it is."""
    monkeypatch.setattr(pretrainer, "ROWS_AT_A_TIME", at_a_time)
    candidates = torch.eye(24)
    row = torch.arange(24)
    clip, step, place = row // 12, row // 4 % 3, row % 4
    taken = {
        "right": row,
        "wrong_step": clip * 12 + (step + 1) % 3 * 4 + place,
        "wrong_place": clip * 12 + (step + 1) % 3 * 4 + (place + 1) % 4,
        "wrong_clip": (1 - clip) * 12 + step * 4 + place,
    }
    for kind, best in taken.items():
        found = mistakes(Prediction(candidates[best], candidates, torch.zeros(2, 5, 2, 2)))
        assert {name for name, share in found.items() if share == 1} == {kind} - {"right"}
        assert sum(found.values()) == (kind != "right")
    predicted, target = torch.randn(24, 6), torch.randn(24, 6)
    target[3] = target[2]  # a tie is no success
    shares = mistakes(Prediction(predicted, target, torch.zeros(2, 5, 2, 2)))
    top1 = contrastive(predicted, target).top1
    assert sum(shares.values(), top1).item() == pytest.approx(1)


# ---- distillation --------------------------------------------------------------------------------------------------

TRAINED: dict[AggPart, tuple[str, ...]] = {
    "out_gate": ("agg_f.ConvGRUCell_00.out_gate", "agg_b.ConvGRUCell_00.out_gate"),
    "gates": tuple(f"agg_{d}.ConvGRUCell_00.{gate}_gate" for d in "fb" for gate in ("reset", "update")),
    "forward": ("agg_f",),
    "all": ("agg_f", "agg_b"),
    "none": (),
}


@pytest.mark.parametrize("part", TRAINED)
def test_distillation_moves_only_what_was_chosen(part: AggPart) -> None:
    net = detector(replace(SMALL, gru_dropout=0.1), HeadParams())
    net.train()
    net.freeze(part)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    x, labels = clips(4), torch.tensor([0, 1, 1, 0])
    for _ in range(2):
        net.train()  # as at the beginning of an epoch
        optimiser.zero_grad()
        torch.autograd.backward(selective_distillation(net(x), torch.randn(4, 2), labels, DistillParams()))
        optimiser.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    wanted = {name for name in before if name.startswith(("final_", *TRAINED[part]))}
    assert moved == wanted
    assert not net.backbone.training
    assert net.final_bn.training


def test_distillation_starts_at_the_hard_labels() -> None:
    """Student and teacher have the same weights: without dropout only the share of the labels is left."""
    teacher, x, labels = detector(), clips(4), torch.tensor([0, 1, 1, 0])
    student = detector()
    student.load_state_dict(teacher.state_dict())
    student.freeze("out_gate")
    with torch.no_grad():
        z = teacher.encode_clips(x)
        assert torch.equal(z, student.encode_clips(x))
        logits = student.classify(z)
        loss = selective_distillation(logits, teacher.classify(z), labels, DistillParams())
    assert loss.item() == pytest.approx(0.7 * nn.functional.cross_entropy(logits, labels).item(), rel=1e-12)
