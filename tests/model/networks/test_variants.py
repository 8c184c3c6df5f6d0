"""Every choice that the paper leaves open does what its docstring says, and values that make no sense are refused."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.context_net import NetParams
from lps.model.networks.conv import Conv3d
from lps.model.networks.convgru import ConvGRU
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.i3d import I3D
from lps.model.networks.losses import DistillParams, contrastive, selective_distillation
from lps.model.networks.predictive_net import PredictiveNet, PretrainParams, pretrain_loss
from lps.model.networks.resnet2d3d import PixelEncoder, ResNet2d3d

pytestmark = pytest.mark.usefixtures("one_thread")

N = 5
SMALL = NetParams(width=4, n_blocks=N, block_frames=2, gru_dropout=0.0)
BARE = HeadParams(final_bn=False, dropout=0.0)
PRETRAIN = PretrainParams(n_slots=8, min_context=2)
Context = Literal["bidir_last", "bidir_mean", "uni_all", "uni_last"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(17)


def maps(b: int = 2, channels: int = 16) -> Tensor:
    return torch.randn(b, N, channels, 2, 3)


def clips(b: int = 2) -> Tensor:
    return torch.randn(b, N, 3, 2, 33, 33)


def pooled_states(net: Detector, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states of both directions, averaged over places: (B, N, hidden) each, in the order of reading."""
    forwards, backwards = net.agg_f(F.relu(z)), net.agg_b(F.relu(z.flip(1)))
    return forwards.mean((-2, -1)), backwards.mean((-2, -1))


# ---- what is predicted (A1, A2, A7, A9) ----------------------------------------------------------------------------


@pytest.mark.parametrize(("min_context", "steps"), [(1, 4), (2, 3), (3, 2), (4, 1)])
def test_teacher_forcing_predicts_one_step_from_true_maps(min_context: int, steps: int) -> None:
    net = PredictiveNet(SMALL, replace(PRETRAIN, min_context=min_context)).eval()
    z = maps()
    forwards = net.predict(z)[0]
    assert forwards.predicted.shape == forwards.target.shape == (2 * steps * 6, 16)
    states = net.agg_f(F.relu(z))
    for k in range(steps):
        context = states[:, min_context - 1 + k]
        wanted = torch.einsum("bkhw,kc->bhwc", net.network_pred(context).softmax(1), net.mb)
        found = forwards.predicted.reshape(2, steps, 2, 3, 16)[:, k]
        assert torch.allclose(found, wanted, atol=1e-6)


def test_paper_predicts_nine_of_twelve_blocks() -> None:
    """From c_3 on: `end` counts blocks (A2)."""
    params = NetParams(width=4, gru_dropout=0.0)
    for rollout, steps in ((PretrainParams(n_slots=8), 9), (PretrainParams(n_slots=8, rollout="recursive"), 3)):
        net = PredictiveNet(params, rollout).eval()
        predictions = net.predict(torch.randn(1, 12, 16, 1, 1))
        assert [len(p.predicted) for p in predictions] == [steps, steps]


@pytest.mark.parametrize("pred_step", [1, 2, 4])
def test_recursion_feeds_predictions_back(pred_step: int) -> None:
    net = PredictiveNet(SMALL, PretrainParams(n_slots=8, rollout="recursive", pred_step=pred_step)).eval()
    z = maps()
    z_hidden = z.clone()
    z_hidden[:, N - pred_step :] = 7.0
    forwards, hidden = net.predict(z)[0], net.predict(z_hidden)[0]
    assert torch.equal(forwards.predicted, hidden.predicted)  # it never sees the maps that it predicts
    state = net.agg_f(F.relu(z[:, :-pred_step]))[:, -1]
    for k in range(pred_step):
        predicted = torch.einsum("bkhw,kc->bchw", net.network_pred(state).softmax(1), net.mb)
        found = forwards.predicted.reshape(2, pred_step, 2, 3, 16)[:, k].permute(0, 3, 1, 2)
        assert torch.allclose(found, predicted, atol=1e-6)
        state = net.agg_f(F.relu(predicted)[:, None], state)[:, -1]


def test_no_memory_predicts_the_map_itself() -> None:
    net = PredictiveNet(SMALL, replace(PRETRAIN, n_slots=0)).eval()
    assert "mb" not in net.state_dict()
    z = maps()
    wanted = net.network_pred(net.agg_f(F.relu(z))[:, -2])
    found = net.predict(z)[0].predicted.reshape(2, N - 2, 2, 3, 16)[:, -1]
    assert torch.allclose(found.permute(0, 3, 1, 2), wanted, atol=1e-6)


def test_sum_is_mean_times_rows() -> None:
    net = PredictiveNet(SMALL, PRETRAIN).eval()
    predictions = net.predict(maps())
    mean, total = (pretrain_loss(predictions, replace(PRETRAIN, reduction=r)) for r in ("mean", "sum"))
    assert total.total.item() == pytest.approx(mean.total.item() * len(predictions[0].target), rel=1e-5)
    assert mean.total.item() == pytest.approx(sum(c.loss.item() for c in mean.directions), rel=1e-6)


def test_initial_weights_of_pretraining_are_small() -> None:
    """Orthogonal with a gain of 0.1, where the detector has 1 (MemDPC)."""
    pre, judge = PredictiveNet(SMALL, PRETRAIN), Detector(SMALL, BARE)
    for net, gain in ((pre, 0.1), (judge, 1.0)):
        for gate in ("reset_gate", "update_gate", "out_gate"):
            weight = net.agg_b.get_parameter(f"ConvGRUCell_00.{gate}.weight").flatten(1)
            assert torch.allclose(weight @ weight.t(), gain**2 * torch.eye(16), atol=1e-5)
    last = judge.get_parameter("final_fc.1.weight")
    assert torch.allclose(last @ last.t(), torch.eye(2), atol=1e-5)
    assert float(pre.mb.detach().std()) == pytest.approx(1, abs=0.3)


# ---- directions and state (A4) -------------------------------------------------------------------------------------


def test_one_direction_only() -> None:
    net = PredictiveNet(replace(SMALL, bidirectional=False), PRETRAIN).eval()
    assert len(net.grus) == 1
    assert not [name for name in net.state_dict() if name.startswith("agg_b")]
    (forwards,) = net.predict(maps())
    assert len(pretrain_loss([forwards], PRETRAIN).directions) == 1


def test_width_of_a_context_is_free() -> None:
    net = PredictiveNet(replace(SMALL, hidden=6), PRETRAIN).eval()
    assert net.predict(maps())[0].context.shape == (2, 6, 2, 3)
    assert net.predict(maps())[0].predicted.shape[1] == 16
    assert Detector(replace(SMALL, hidden=6), BARE).get_parameter("final_fc.1.weight").shape == (2, 12)


def test_dropout_of_the_state_is_carried_on() -> None:
    """With almost everything dropped at each step, nothing accumulates; in evaluation nothing is dropped."""
    gru = ConvGRU(3, 200, dropout=0.5)
    x = torch.ones(1, 4, 3, 1, 1)
    states = gru(x)
    assert 50 < int((states[0, -1] == 0).sum()) < 150
    # Where a state was dropped, the next step starts from zero: from zeros, it would be the first step's.
    nn.init.zeros_(gru.cell.out_gate.weight)
    dropped = gru(torch.zeros(1, 2, 3, 1, 1), torch.ones(1, 200, 1, 1)).flatten(2)[0]
    assert set(dropped[1][dropped[0] == 0].flatten().tolist()) == {0.0}
    gru.eval()
    assert torch.equal(gru(x), gru(x))
    assert int((gru(torch.zeros(1, 2, 3, 1, 1), torch.ones(1, 200, 1, 1)) == 0).sum()) == 0


# ---- encoders (A5, A15) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoder", [ResNet2d3d(18, 4), I3D(16), I3D(None), PixelEncoder(2, 16)], ids=lambda e: type(e).__name__
)
@torch.no_grad()
def test_order_of_pooling_and_relu(encoder: nn.Module) -> None:
    """Pooled first, a map has both signs and is left to the aggregator; the other way round none is negative."""
    blocks = torch.randn(2, 3, 2, 64, 64)
    raw, clipped = encoder.eval()(blocks, "pool_relu"), encoder(blocks, "relu_pool")
    assert torch.equal(encoder(blocks), raw)
    assert float(clipped.min()) >= 0
    assert bool((clipped >= F.relu(raw) - 1e-5).all())  # Jensen
    assert encoder.out_channels == raw.shape[1]
    if not isinstance(encoder, I3D) or encoder.out_channels == 16:
        assert float(raw.min()) < 0
    else:
        assert torch.equal(raw, clipped)  # Mixed_5c ends in a ReLU


@torch.no_grad()
def test_order_of_pooling_and_relu_in_the_detector() -> None:
    a = Detector(SMALL, BARE).eval()
    b = Detector(SMALL, replace(BARE, feature_act="relu_pool")).eval()
    b.load_state_dict(a.state_dict())
    x = torch.randn(2, N, 3, 8, 33, 33)  # eight frames leave two after the last stage, so that the order matters
    for net, act in ((a, "pool_relu"), (b, "relu_pool")):
        z = net.backbone(x.flatten(0, 1), act).reshape(2, N, 16, 2, 2)
        assert torch.allclose(net(x), net.classify(z), atol=1e-6)
    assert not torch.allclose(a(x), b(x))


@torch.no_grad()
def test_projection_of_i3d() -> None:
    params = replace(SMALL, encoder="i3d", proj_dim=24)
    net = Detector(params, BARE).eval()
    assert (net.n_feature, net.n_context) == (24, 24)
    assert net(torch.randn(1, N, 3, 2, 32, 32)).shape == (1, 2)
    assert isinstance(net.backbone, I3D)
    assert isinstance(net.backbone.proj, nn.Sequential)
    assert [type(layer) for layer in net.backbone.proj] == [Conv3d, nn.BatchNorm3d]
    whole = PredictiveNet(replace(params, proj_dim=None, hidden=8), PRETRAIN)
    assert whole.mb.shape == (8, 1024)
    paper = PredictiveNet(NetParams(encoder="i3d"), PretrainParams())
    assert (paper.n_feature, tuple(paper.mb.shape)) == (256, (1024, 256))


@torch.no_grad()
def test_no_encoder_arranges_pixels() -> None:
    encoder, blocks = PixelEncoder(2, 16), torch.randn(3, 3, 2, 16, 16)
    z = encoder(blocks)
    assert z.shape == (3, 384, 2, 2)
    assert not list(encoder.parameters())
    assert torch.allclose(z.flatten(1).mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(z.flatten(1).std(1, correction=0), torch.ones(3), atol=1e-3)
    patch = blocks[0, :, :, 8:, :8].transpose(0, 1)  # row 1, column 0, of both frames
    deviation, mean = blocks[0].std(correction=0), blocks[0].mean()
    assert torch.allclose(z[0, :, 1, 0].sort().values, ((patch - mean) / deviation).flatten().sort().values, atol=1e-4)


@torch.no_grad()
def test_sizes_without_encoder() -> None:
    """As the paper's: 960 channels on 7 x 7 places, and a context of 256."""
    net = PredictiveNet(NetParams(encoder="none"), PretrainParams()).eval()
    assert net.encode(torch.randn(1, 4, 3, 5, 60, 70)).shape == (1, 4, 960, 7, 7)
    assert (net.n_feature, net.n_context, tuple(net.mb.shape)) == (960, 256, (1024, 960))
    judge = Detector(replace(SMALL, encoder="none", pixel_side=16), BARE).eval()
    assert judge(clips()).shape == (2, 2)
    assert judge.encode(clips()).shape == (2, N, 384, 2, 2)


# ---- without aggregator --------------------------------------------------------------------------------------------


def test_no_aggregator_predicts_from_the_map() -> None:
    net = PredictiveNet(replace(SMALL, aggregator="none"), PRETRAIN).eval()
    assert not [name for name in net.state_dict() if name.startswith("agg")]
    z = maps()
    forwards, backwards = net.predict(z)
    assert torch.equal(forwards.context, F.relu(z[:, -2]))
    assert torch.equal(backwards.context, F.relu(z[:, 1]))
    wanted = torch.einsum("bkhw,kc->bhwc", net.network_pred(F.relu(z[:, 1])).softmax(1), net.mb)
    assert torch.allclose(forwards.predicted.reshape(2, N - 2, 2, 3, 16)[:, 0], wanted, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("how", "n_in"), [("concat", 16 * N), ("mean", 16)])
def test_no_aggregator_judges_pooled_maps(how: Literal["concat", "mean"], n_in: int) -> None:
    net = Detector(replace(SMALL, aggregator="none"), replace(BARE, no_aggregator=how)).eval()
    z = maps()
    pooled = F.relu(z).mean((-2, -1))
    wanted = pooled.flatten(1) if how == "concat" else pooled.mean(1)
    assert net.get_parameter("final_fc.1.weight").shape == (2, n_in)
    assert torch.allclose(net.classify(z), net.final_fc(wanted), atol=1e-6)


# ---- the head (A3, A6) ---------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("context", ["bidir_last", "bidir_mean", "uni_all", "uni_last"])
def test_what_of_the_contexts_is_judged(context: Context) -> None:
    net = Detector(SMALL, replace(BARE, context=context)).eval()
    z = maps()
    f, b = pooled_states(net, z)
    wanted = {
        "bidir_last": torch.cat([f[:, -1], b[:, -1]], 1),
        "bidir_mean": torch.cat([f.mean(1), b.mean(1)], 1),
        "uni_all": f.flatten(1),
        "uni_last": f[:, -1],
    }[context]
    assert torch.allclose(net.context(z), wanted, atol=1e-6)
    assert net.get_parameter("final_fc.1.weight").shape == (2, wanted.shape[1])


@torch.no_grad()
@pytest.mark.parametrize("context", ["uni_all", "uni_last"])
def test_one_direction_is_enough_for_forward_contexts(context: Context) -> None:
    net = Detector(replace(SMALL, bidirectional=False), replace(BARE, context=context)).eval()
    assert net(clips()).shape == (2, 2)


@torch.no_grad()
def test_size_of_the_paper() -> None:
    assert Detector(NetParams(), HeadParams()).get_parameter("final_fc.1.weight").shape == (2, 512)
    sizes = {"bidir_mean": 512, "uni_all": 12 * 256, "uni_last": 256}
    for context, n_in in sizes.items():
        net = Detector(NetParams(), HeadParams(context=context))  # type: ignore[arg-type]
        assert net.get_parameter("final_fc.1.weight").shape == (2, n_in)


def test_norm_and_dropout_of_the_head() -> None:
    z = maps(8)
    full = Detector(SMALL, HeadParams(dropout=0.5)).train()
    assert isinstance(full.final_bn, nn.BatchNorm1d)
    assert not torch.equal(full.classify(z), full.classify(z))
    seen = full.final_bn(full.context(z))
    assert torch.allclose(seen.mean(0), torch.zeros(32), atol=1e-5)
    bare = Detector(SMALL, BARE).train()
    assert {name for name in bare.state_dict() if name.startswith("final")} == {"final_fc.1.weight", "final_fc.1.bias"}
    assert torch.equal(bare.classify(z), bare.classify(z))
    assert torch.allclose(
        bare.classify(z), F.linear(bare.context(z), bare.get_parameter("final_fc.1.weight")), atol=1e-6
    )


# ---- distillation (A11, A12, A13) ----------------------------------------------------------------------------------


def test_distillation_flags() -> None:
    """Each against the formula written out, on clips of which the teacher is right about two of three."""
    student, teacher = torch.randn(3, 2, dtype=torch.float64), 3 * torch.randn(3, 2, dtype=torch.float64)
    labels = teacher.argmax(1)
    labels[1] = 1 - labels[1]
    hard = F.cross_entropy(student, labels)

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return (p * (p / q).log()).sum()

    def soft(t_teacher: float, t_student: float, *, turned: bool = False) -> Tensor:
        t, s = (teacher / t_teacher).softmax(1)[[0, 2]], (student / t_student).softmax(1)[[0, 2]]
        return kl(s, t) if turned else kl(t, s)

    cases: list[tuple[dict[str, Any], Tensor]] = [
        ({}, soft(2, 1) / 3),
        ({"soften": "both"}, soft(2, 2) / 3),
        ({"t_squared": True}, 4 * soft(2, 1) / 3),
        ({"normaliser": "selected"}, soft(2, 1) / 2),
        ({"direction": "student_teacher"}, soft(2, 1, turned=True) / 3),
        ({"temperature": 1.0}, soft(1, 1) / 3),
        ({"temperature": 1.0, "soften": "both", "t_squared": True}, soft(1, 1) / 3),
    ]
    for changes, wanted in cases:
        params = DistillParams(**{"weight": 0.3, "temperature": 2.0, **changes})
        found = selective_distillation(student, teacher, labels, params)
        assert found.item() == pytest.approx((0.3 * hard + 0.7 * wanted).item(), rel=1e-12), changes


def test_no_clip_selected_divides_by_one() -> None:
    teacher = torch.tensor([[2.0, -2.0]])
    loss = selective_distillation(torch.zeros(1, 2), teacher, torch.tensor([1]), DistillParams(normaliser="selected"))
    assert loss.item() == pytest.approx(0.7 * torch.log(torch.tensor(2.0)).item())


def test_teacher_gets_no_gradient() -> None:
    student, teacher = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    loss = selective_distillation(student, teacher, teacher.argmax(1), DistillParams())
    assert torch.autograd.grad(loss, [student, teacher], allow_unused=True)[1] is None


# ---- values that make no sense -------------------------------------------------------------------------------------

REFUSED: list[tuple[type, dict[str, object], str]] = [
    (NetParams, {"width": 0}, "sizes must be above zero: self.width = 0"),
    (NetParams, {"n_blocks": 0}, "self.n_blocks = 0"),
    (NetParams, {"block_frames": -1}, "self.block_frames = -1"),
    (NetParams, {"gru_dropout": 1.0}, r"self.gru_dropout = 1.0 is not in \[0, 1\)"),
    (NetParams, {"gru_dropout": -0.1}, "self.gru_dropout = -0.1"),
    (NetParams, {"hidden": 0}, "channels must be above zero: self.hidden = 0"),
    (NetParams, {"proj_dim": 0}, "self.proj_dim = 0"),
    (NetParams, {"pixel_side": 60}, "self.pixel_side = 60 is not a multiple of 8"),
    (NetParams, {"pixel_side": 0}, "self.pixel_side = 0 is not a multiple of 8"),
    (PretrainParams, {"min_context": 0}, "steps must be above zero: self.min_context = 0"),
    (PretrainParams, {"pred_step": 0}, "self.pred_step = 0"),
    (PretrainParams, {"n_slots": -1}, "sizes must not be negative: self.n_slots = -1"),
    (PretrainParams, {"chunk_rows": -1}, "self.chunk_rows = -1"),
    (HeadParams, {"dropout": 1.0}, r"self.dropout = 1.0 is not in \[0, 1\)"),
    (DistillParams, {"weight": 1.5}, r"distillation weight 1.5 is not in \[0, 1\]"),
    (DistillParams, {"temperature": 0.0}, "temperature 0.0 is not above 0"),
]


@pytest.mark.parametrize(("kind", "values", "message"), REFUSED)
def test_senseless_value_fails(kind: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    ("net", "pretrain", "message"),
    [
        ({}, {"min_context": 5}, "nothing to predict: 5 blocks of context in clips of 5 blocks"),
        ({}, {"rollout": "recursive", "pred_step": 5}, "nothing to predict: 0 blocks of context"),
        ({"aggregator": "none"}, {"rollout": "recursive", "pred_step": 1}, "recursive prediction needs an aggregator"),
        ({"encoder": "resnet50"}, {}, "no encoder 'resnet50' here; did you mean"),
    ],
)
def test_senseless_combination_fails(net: dict[str, Any], pretrain: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PredictiveNet(replace(SMALL, **net), replace(PRETRAIN, **pretrain))


@pytest.mark.parametrize("context", ["bidir_last", "bidir_mean"])
def test_two_directions_of_a_network_with_one_fail(context: Context) -> None:
    with pytest.raises(ValueError, match=f"context '{context}' needs a bidirectional aggregator"):
        Detector(replace(SMALL, bidirectional=False), replace(BARE, context=context))


def test_part_of_no_aggregator_fails() -> None:
    net = Detector(replace(SMALL, aggregator="none"), BARE)
    with pytest.raises(ValueError, match="no aggregator, so no part 'gates' of it"):
        net.freeze("gates")
    net.freeze("all")
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {"final_fc.1.weight", "final_fc.1.bias"}


@pytest.mark.parametrize("shape", [(2, 3), (4, 5)])
def test_predictions_without_their_targets_fail(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="predictions and targets do not match: predicted.shape ="):
        contrastive(torch.randn(4, 3), torch.randn(shape))


def test_further_targets_are_further_candidates() -> None:
    predicted, target = torch.randn(2, 3), torch.randn(6, 3)
    found = contrastive(predicted, target)
    assert found.n_candidates == 6
    assert found.loss.item() == pytest.approx(F.cross_entropy(predicted @ target.t(), torch.arange(2)).item())
