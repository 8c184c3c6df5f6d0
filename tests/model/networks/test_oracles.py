"""The networks give the numbers of an independent reference, in float64.

Every file of the oracle folder is compared; its name says with what, and of which size it is. Weights are not stored:
each tensor is drawn from a stream seeded with its reference name.
"""

import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.context_net import NetParams
from lps.model.networks.convgru import ConvGRU
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.encoder import Act
from lps.model.networks.i3d import I3D
from lps.model.networks.losses import DistillParams, contrastive, selective_distillation
from lps.model.networks.predictive_net import Prediction, PredictiveNet, PretrainParams, pretrain_loss
from lps.model.networks.resnet2d3d import ResNet2d3d

pytestmark = pytest.mark.usefixtures("one_thread")

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("LPS_SHARED_DIR", REPOSITORY.parent / "shared"))
FOLDER = Path(os.environ.get("LPS_ORACLE_DIR", SHARED / "oracle"))
FILES = sorted(FOLDER.glob("*.pt"))
TOLERANCE = 1e-9
LAST_DIGIT = 1e-6
"""Evaluations in files from elsewhere: running variances are drawn as exponentials in single precision; processors
do not agree on the last digit: outputs differ by 1e-8 to 7e-7. Training uses none of them: there `TOLERANCE` holds."""

Oracle = Mapping[str, Any]
Network = TypeVar("Network", bound=nn.Module)


# ---- weights and comparisons ---------------------------------------------------------------------------------------


@cache
def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the reference's value of a parameter or buffer."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if leaf == "running_var":
        return torch.from_numpy((0.1 * z).astype(np.float32)).exp()
    if leaf == "running_mean":
        z = 0.1 * z
    elif leaf == "bias":
        z = 0.05 * z
    elif leaf != "mb" and len(shape) == 1:  # scale of a batch norm
        z = 0.1 * z + 1
    elif leaf != "mb":
        z *= (8.0 if name.startswith("network_pred.2") else 1.4) / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(z, np.float32))


def filled(build: Callable[[], Network], prefix: str = "") -> Network:
    """Build a network with the reference's weights, in float64 and evaluation mode; its own are never drawn."""
    with torch.device("meta"):
        network = build()
    network.double().to_empty(device="cpu")
    for name, value in network.state_dict().items():
        value.copy_(drawn(prefix + name, tuple(value.shape)))
    return network.eval()


def equal(ours: Tensor, reference: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Return whether two tensors are equal to within a share of the largest value."""
    ours, reference = ours.detach().double(), reference.detach().double()
    if ours.shape != reference.shape:
        return False
    return bool((ours - reference).abs().max() <= tolerance * reference.abs().max())


def same(ours: Tensor, reference: Tensor, tolerance: float = TOLERANCE) -> None:
    """Assert that two tensors are equal."""
    assert ours.shape == reference.shape
    assert equal(ours, reference, tolerance), f"differ by {float((ours.detach() - reference).abs().max())}"


def same_fingerprint(ours: Tensor, wanted: Mapping[str, Any], tolerance: float = TOLERANCE) -> None:
    """Assert that a tensor has a fingerprint: every field, each relative to what went into its sum."""
    flat = ours.detach().double().flatten()
    n = wanted["shape_numel"]
    assert len(flat) == n
    first = flat[: len(wanted["first"])].tolist()
    size = wanted["absmean"]
    found = {
        "sum": (float(flat.sum()), size * n),
        "absmean": (float(flat.abs().mean()), size),
        "l2": (float(flat.norm()), wanted["l2"]),
        "ramp": (float(flat @ torch.linspace(-1, 1, n, dtype=torch.float64)), size * n),
    }
    assert set(wanted) == {*found, "shape_numel", "first"}
    for field, (value, scale) in found.items():
        assert value == pytest.approx(wanted[field], rel=tolerance, abs=tolerance * scale), field
    assert first == pytest.approx(wanted["first"], rel=tolerance, abs=tolerance * float(flat.abs().max()))


# ---- one comparison per kind of file -------------------------------------------------------------------------------
# `evaluated` is the tolerance of what depends on running variances.


def check_encoder(oracle: Oracle, evaluated: float, depth: str, px: str, frames: str) -> None:
    x = oracle["x"].double()
    assert x.shape[1:] == (3, int(frames), int(px), int(px))
    net = filled(lambda: ResNet2d3d(int(depth)), "backbone.")
    seen = {name: net.get_submodule(name) for name in ("layer1", "layer2", "layer3", "layer4")}
    with torch.no_grad(), outputs(seen) as stages:
        hook = net.layer1.register_forward_pre_hook(lambda _, inputs: stages.update(stem=inputs[0]))
        same(net(x), oracle["z"].squeeze(2), evaluated)
        hook.remove()
        stages["stem_prepool"] = F.relu(net.bn1(net.conv1(x.transpose(1, 2).flatten(0, 1))))
    for name in ("stem_prepool", "stem", "layer1", "layer2"):  # of frames, not of blocks
        y = stages[name]
        stages[name] = y.reshape(len(x), -1, *y.shape[1:]).transpose(1, 2)
    same(stages["layer4"], oracle["eval_layer4"], evaluated)
    same_stages(stages, oracle, evaluated)
    with torch.no_grad():
        same(net.train().stem_to_layer4(x), oracle["train_layer4"])


@contextmanager
def outputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect what each module returns."""
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        found[name] = value

    hooks = [m.register_forward_hook(lambda _m, _i, out, name=name: keep(name, out)) for name, m in modules.items()]
    yield found
    for hook in hooks:
        hook.remove()


def same_stages(stages: Mapping[str, Tensor], oracle: Oracle, tolerance: float) -> None:
    """Assert that the stages that a fixture knows have its fingerprints and shapes."""
    for name, wanted in oracle.get("stages", {}).items():
        same_fingerprint(stages[name], wanted, tolerance)
    for name, shape in oracle.get("shapes", {}).items():
        assert tuple(stages[name].shape) == tuple(shape)


@torch.no_grad()
def check_gru(oracle: Oracle, _evaluated: float) -> None:
    x, h0 = oracle["x"].double(), oracle["h0"].double()
    gru = filled(lambda: ConvGRU(x.shape[2], h0.shape[2]), "agg_f.")
    out, out_h0 = gru(x), gru(x, h0[0])
    same(out, oracle["out"])
    same(out[:, -1:], oracle["last"])
    same(out_h0, oracle["out_h0"])
    same(out_h0[:, -1:], oracle["last_h0"])


@torch.no_grad()
def check_loss(oracle: Oracle, _evaluated: float) -> None:
    predicted = oracle["pred_BCPHW"].double().permute(0, 2, 3, 4, 1).flatten(0, 3)
    target = oracle["gt_CBPN"].double().flatten(1).t()
    found = contrastive(predicted, target)
    each = contrastive(predicted, target, reduction="sum")
    assert found.loss.item() == pytest.approx(oracle["loss"].item(), rel=TOLERANCE)
    assert each.loss.item() == pytest.approx(oracle["loss_vec"].sum().item(), rel=TOLERANCE)
    same(rows_of_loss(predicted, target), oracle["loss_vec"])
    assert found.top1.item() == pytest.approx(oracle["top1"].item(), abs=1e-6)  # stored in float32
    assert found.top5.item() == pytest.approx(oracle["top5"].item(), abs=1e-6)
    assert found.n_candidates == len(oracle["loss_vec"])


def rows_of_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the loss of each row, (Q,): a call for each, with its own target first."""
    return torch.stack([contrastive(row[None], target.roll(-q, 0)).loss for q, row in enumerate(predicted)])


def check_memdpc(oracle: Oracle, evaluated: float, px: str, blocks: str, steps: str) -> None:
    x = oracle["x"].double()
    assert x.shape[1:3] == (int(blocks), 3)
    assert x.shape[4:] == (int(px), int(px))
    deep = "backbone.layer1.2.conv1.weight" in oracle["grads"]  # the file's name does not say which encoder
    shape = NetParams(
        encoder="resnet34" if deep else "resnet18", n_blocks=int(blocks), block_frames=x.shape[3], gru_dropout=0.0
    )
    params = PretrainParams(rollout="recursive", pred_step=int(steps))
    net = filled(lambda: PredictiveNet(shape, params))
    for mode in ("eval", "train"):
        net.train(mode == "train")
        with torch.set_grad_enabled(net.training):
            predictions = net(x)
            found = pretrain_loss(predictions, params)
        tolerance = TOLERANCE if net.training else evaluated
        assert found.total.item() == pytest.approx(oracle[f"{mode}_loss"].item(), rel=tolerance)
        same(torch.stack([c.loss for c in found.directions]), oracle[f"{mode}_losses"], tolerance)
        if f"{mode}_acc" in oracle:
            ranks = [[c.top1.item(), c.top5.item()] for c in found.directions]
            assert np.allclose(ranks, oracle[f"{mode}_acc"].double(), atol=1e-6)  # stored in float32
        if f"{mode}_ctx" in oracle:
            same(predictions[0].context, oracle[f"{mode}_ctx"].flatten(0, 1), tolerance)
        assert {c.n_candidates for c in found.directions} == {oracle.get("n_classes", len(predictions[0].target))}
    parameters = dict(net.named_parameters())
    assert set(parameters) == set(oracle["grads"])
    gradients = torch.autograd.grad(found.total, list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        same_fingerprint(gradient, oracle["grads"][name])


@torch.no_grad()
def check_detector(oracle: Oracle, evaluated: float, px: str, blocks: str) -> None:
    x = oracle["x"].double()
    assert x.shape[1] == int(blocks)
    assert x.shape[4:] == (int(px), int(px))
    params = NetParams(n_blocks=int(blocks), block_frames=x.shape[3], gru_dropout=0.0)
    cases: tuple[tuple[Act, str, str, str], ...] = (
        ("pool_relu", "eval", "pool_relu_logits", "pool_relu_ctx_before_bn"),
        ("relu_pool", "eval", "eval_logits", "eval_ctx_after_bn"),
        ("relu_pool", "train", "train_logits", "train_ctx"),
    )
    for act, mode, logits, context in cases:
        net = filled(partial(Detector, params, HeadParams(feature_act=act, dropout=0.0))).train(mode == "train")
        tolerance = TOLERANCE if net.training else evaluated
        z = net.encode_clips(x)
        same(net.classify(z), oracle[logits].reshape(len(x), 2), tolerance)
        found = net.context(z)
        if not context.endswith("before_bn"):
            found = net.final_bn(found)
        if context in oracle:
            same(found, oracle[context].reshape(len(x), -1), tolerance)


@torch.no_grad()
def check_i3d(oracle: Oracle, evaluated: float, px: str, frames: str) -> None:
    x = oracle["x"].double()
    assert x.shape[1:] == (3, int(frames), int(px), int(px))
    net = filled(lambda: I3D(None), "i3d.")
    assert set(net.state_dict()) == set(oracle.get("keys", net.state_dict()))
    with outputs({name: net.get_submodule(name) for name in net.layers}) as stages:
        same(net.mixed_5c(x), oracle["mixed_5c"], evaluated)
    same_stages(stages, oracle, evaluated)


def check_distillation(oracle: Oracle, _evaluated: float) -> None:
    assert oracle["cases"]
    for (weight, temperature, direction, both, t_squared), wanted in oracle["cases"].items():
        params = DistillParams(
            weight=weight,
            temperature=temperature,
            direction=direction,
            soften="both" if both else "teacher",
            t_squared=bool(t_squared),
        )
        ours = selective_distillation(oracle["student_logits"], oracle["teacher_logits"], oracle["y"], params)
        assert float(ours) == pytest.approx(float(wanted), rel=1e-12, abs=1e-12), params


@torch.no_grad()
def check_init(oracle: Oracle, _evaluated: float) -> None:
    """At the beginning the loss is a little above that of chance, in the reference and with the same seeds here."""
    for row in oracle["rows"]:
        for recorded in (row["f"], row["b"]):
            assert 0 < recorded - row["logN"] < 0.4
        n_rows = round(math.exp(row["logN"]))
        steps = 3 if n_rows % 3 == 0 else 1
        torch.manual_seed(row["seed"])
        params = PretrainParams(rollout="recursive", pred_step=steps)
        net = PredictiveNet(NetParams(n_blocks=steps + 1, block_frames=2), params)
        with torch.no_grad():
            found = pretrain_loss(net(torch.randn(n_rows // steps, steps + 1, 3, 2, 32, 32)), params)
        for contrast in found.directions:
            assert contrast.n_candidates == n_rows
            assert 0 < contrast.loss.item() - row["logN"] < 0.4


# ---- Algorithm 1: no fixed key names -------------------------------------------------------------------------------

DIRECTIONS = {"f": 0, "fwd": 0, "forward": 0, "0": 0, "b": 1, "bwd": 1, "backward": 1, "1": 1}
KINDS = (("predicted", ("zhat", "hat", "pred")), ("loss", ("loss", "ce")), ("z", ("z", "target", "gt", "true")))
Ours = tuple[Tensor, list[Prediction]]
"""Maps of a clip, and the predictions of each direction."""


@torch.no_grad()
def check_algorithm_1(oracle: Oracle, evaluated: float, px: str, blocks: str) -> None:
    """Compare predictions, maps and the loss of each row, under whatever names and in whatever layout they stand."""
    x = next(value for _, value in leaves(oracle) if value.ndim == 6).double()
    assert x.shape[1] == int(blocks)
    assert x.shape[4:] == (int(px), int(px))
    params = NetParams(n_blocks=int(blocks), block_frames=x.shape[3], gru_dropout=0.0)
    net = filled(lambda: PredictiveNet(params, PretrainParams()))
    ours: dict[bool, Ours] = {}
    seen = set()
    for name, value in leaves(oracle):
        words = re.split(r"[^a-z0-9]+", name.lower().replace("z_hat", "zhat").replace("\u1e91", "zhat"))
        kind = next((kind for kind, marks in KINDS if any(w.startswith(marks) for w in words)), None)
        if kind is None or value.shape == x.shape or (kind == "z" and value.ndim < 2):
            continue
        train = "train" in words
        if train not in ours:
            z = net.train(train).encode(x)
            ours[train] = z, net.predict(z)
        directions = {DIRECTIONS[w] for w in words if w in DIRECTIONS}
        matched = matching(kind, value, ours[train], directions or {0, 1}, TOLERANCE if train else evaluated)
        assert matched, f"{name} is not ours"
        seen |= {(kind, d) for d in matched}
    assert seen >= {("predicted", 0), ("predicted", 1), ("loss", 0), ("loss", 1)}
    assert seen & {("z", 0), ("z", 1)}


def matching(kind: str, value: Tensor, ours: Ours, directions: set[int], tolerance: float) -> set[int]:
    """Return those of the directions for which a tensor of a fixture, or its half, holds our values."""
    both = directions == {0, 1}
    if both and value.ndim and len(value) == 2:  # one after the other
        halves = {d for d in (0, 1) if any(equal(o, value[d], tolerance) for o in layouts(kind, ours, d))}
        if halves == directions:
            return halves
    return {d for d in directions if any(equal(o, value, tolerance) for o in layouts(kind, ours, d))}


def leaves(tree: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a fixture with its path; a list of more than two is one of steps, (B, P, ...)."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{name} {key}")
    elif isinstance(tree, list | tuple) and len(tree) > 2 and all(isinstance(t, Tensor) for t in tree):
        yield name, torch.stack(list(tree), 1 if tree[0].ndim else 0)
    elif isinstance(tree, list | tuple):
        for k, value in enumerate(tree):
            yield from leaves(value, f"{name} {k}")
    elif isinstance(tree, Tensor) and tree.is_floating_point():
        yield name, tree


def layouts(kind: str, ours: Ours, direction: int) -> list[Tensor]:
    """Return our values in every layout that a fixture may have them in."""
    z, predictions = ours
    b, _, c, h, w = z.shape
    p = predictions[direction]
    steps = len(p.predicted) // (b * h * w)
    if kind == "loss":
        rows = rows_of_loss(p.predicted, p.target)
        maps = rows.reshape(b, steps, h, w)
        return [rows, maps, maps.flatten(2), rows.mean(), pretrain_loss(predictions, PretrainParams()).total]
    rows = p.predicted if kind == "predicted" else p.target
    maps = rows.reshape(b, steps, h, w, c).permute(0, 1, 4, 2, 3)
    options = [rows, rows.reshape(b, -1, c), maps, maps.flatten(3), maps.flip(1)]
    options += [maps.permute(order) for order in ((0, 2, 1, 3, 4), (1, 0, 2, 3, 4), (0, 1, 3, 4, 2))]
    options += [maps.permute(2, 0, 1, 3, 4).flatten(3)]
    return options if kind == "predicted" else [*options, z, z.flip(1), z.transpose(1, 2), z.flatten(0, 1)]


# ---- the files -----------------------------------------------------------------------------------------------------

CHECKS: tuple[tuple[str, Callable[..., None]], ...] = (
    (r"encoder_resnet(18|34)_(\d+)px_T(\d+)", check_encoder),
    (r"convgru_1x1", check_gru),
    (r"get_loss", check_loss),
    (r"memdpc_(\d+)px_N(\d+)_P(\d+)", check_memdpc),
    (r"alg1_(\d+)px_N(\d+)", check_algorithm_1),
    (r"lc_(\d+)px_N(\d+)", check_detector),
    (r"i3d_(\d+)px_T(\d+)", check_i3d),
    (r"ssd_cases", check_distillation),
    (r"init_stats", check_init),
)


def compare(path: Path, evaluated: float = TOLERANCE) -> None:
    """Compare one file. Fails for a name that says nothing."""
    for pattern, check in CHECKS:
        found = re.fullmatch(pattern, path.stem)
        if found:
            check(torch.load(path, weights_only=True), evaluated, *found.groups())
            return
    pytest.fail(f"{path.name} is of no known kind")


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_oracle(path: Path) -> None:
    compare(path, evaluated=LAST_DIGIT)


def test_folder_of_oracles_is_there() -> None:
    if not FILES:
        give_up = pytest.fail if os.environ.get("LPS_REQUIRE_MEDIA") == "1" else pytest.skip
        give_up("no files in LPS_ORACLE_DIR")


def test_unknown_kind_fails(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "encoder_resnet50_64px_T5.pt")
    with pytest.raises(pytest.fail.Exception, match="encoder_resnet50_64px_T5.pt is of no known kind"):
        compare(tmp_path / "encoder_resnet50_64px_T5.pt")


# ---- other sizes, from the plain form ------------------------------------------------------------------------------


def fingerprint(x: Tensor) -> dict[str, object]:
    """Return the fingerprint that fixtures have of a tensor."""
    flat = x.detach().flatten()
    return {
        "shape_numel": len(flat),
        "sum": float(flat.sum()),
        "absmean": float(flat.abs().mean()),
        "l2": float(flat.norm()),
        "ramp": float(flat @ torch.linspace(-1, 1, len(flat), dtype=flat.dtype)),
        "first": flat[:8].tolist(),
    }


def clips(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def written(folder: Path, name: str, oracle: Oracle) -> Path:
    torch.save(dict(oracle), folder / f"{name}.pt")
    return folder / f"{name}.pt"


def test_encoder_of_another_size(tmp_path: Path, plain_form: ModuleType) -> None:
    net, x = filled(lambda: plain_form.PlainResNet(34, 64), "backbone."), clips(2, 3, 6, 40, 48)[..., :40]
    with torch.no_grad():
        stages = net.stages(x.double())
        oracle = {"x": x, "eval_layer4": stages["layer4"], "z": stages["layer4"].mean(2, keepdim=True)}
        oracle["train_layer4"] = net.train().stages(x.double())["layer4"]
    oracle["stages"] = {name: fingerprint(value) for name, value in stages.items()}
    compare(written(tmp_path, "encoder_resnet34_40px_T6", oracle))
    oracle["stages"]["layer2"]["ramp"] *= 1 + 1e-6
    with pytest.raises(AssertionError, match="ramp"):
        compare(written(tmp_path, "encoder_resnet34_40px_T6", oracle))


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34"])
def test_pretraining_of_another_size(
    tmp_path: Path, plain_form: ModuleType, encoder: Literal["resnet18", "resnet34"]
) -> None:
    x = clips(2, 4, 3, 2, 33, 33)
    params = PretrainParams(rollout="recursive", pred_step=1)
    net = filled(lambda: plain_form.PlainPredictive(NetParams(encoder=encoder, gru_dropout=0.0), params))
    oracle: dict[str, object] = {"x": x}
    for mode in ("eval", "train"):
        found = net.train(mode == "train")(x.double())
        losses = [plain_form.plain_loss([p]) for p in found]
        oracle |= {f"{mode}_loss": sum(losses).detach(), f"{mode}_losses": torch.stack(losses).detach()}
        oracle[f"{mode}_ctx"] = found[0].context[:, None].detach()
    parameters = dict(net.named_parameters())
    gradients = torch.autograd.grad(sum(losses), list(parameters.values()))
    oracle["grads"] = {name: fingerprint(g) for name, g in zip(parameters, gradients, strict=True)}
    compare(written(tmp_path, "memdpc_33px_N4_P1", oracle))


def test_detector_of_another_size(tmp_path: Path, plain_form: ModuleType) -> None:
    oracle, params = {"x": clips(3, 2, 3, 3, 40, 40)}, NetParams(gru_dropout=0.0)
    for key, act, mode in (
        ("pool_relu", "pool_relu", False),
        ("eval", "relu_pool", False),
        ("train", "relu_pool", True),
    ):
        head = HeadParams(feature_act=act, dropout=0.0)  # type: ignore[arg-type]
        net = filled(partial(plain_form.PlainDetector, params, head))
        with torch.no_grad():
            oracle[f"{key}_logits"] = net.train(mode)(oracle["x"].double())
    compare(written(tmp_path, "lc_40px_N2", oracle))


def test_algorithm_1_in_other_layouts(tmp_path: Path, plain_form: ModuleType) -> None:
    x = clips(2, 5, 3, 2, 33, 33)
    net = filled(lambda: plain_form.PlainPredictive(NetParams(gru_dropout=0.0), PretrainParams()))
    with torch.no_grad():
        z, found = net.encode(x.double()), net(x.double())
    rows = [F.cross_entropy(p.predicted @ p.target.t(), torch.arange(len(p.target)), reduction="none") for p in found]
    maps = [p.predicted.reshape(2, 2, 2, 2, 256).permute(0, 1, 4, 2, 3) for p in found]
    flat = {"x": x, "z": z, "loss": sum(r.mean() for r in rows)}
    for k, d in enumerate("fb"):
        flat |= {f"zhat_{d}": maps[k], f"loss_rows_{d}": rows[k].reshape(2, 2, 2, 2)}
    nested = {"x": x, "forward": {}, "backward": {}, "train": {}}
    for k, d in enumerate(("forward", "backward")):
        nested[d] = {"z_hat": found[k].predicted, "target": found[k].target, "loss_vec": rows[k]}
    stacked = {"x": x, "z": z, "pred": torch.stack(maps), "losses": torch.stack(rows)}
    for oracle in (flat, nested, stacked):
        compare(written(tmp_path, "alg1_33px_N5", oracle))
    stacked["pred"] = stacked["pred"].flip(0)
    with pytest.raises(AssertionError, match="pred is not ours"):
        compare(written(tmp_path, "alg1_33px_N5", stacked))
