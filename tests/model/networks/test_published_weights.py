"""Published weights find their network, and what does not match is said."""

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import lps.model
from lps.manifests.errors import UnreadableError
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.predictive_net import PredictiveNet, PretrainParams
from lps.model.networks.published_weights import load_reference

SMALL = NetParams(width=8)
PRETRAIN = PretrainParams(n_slots=24)
SHAPES_ONLY = torch.device("meta")
"""Networks built on it have no values, which take longest to draw."""

State = dict[str, Tensor]


def weights(network: torch.nn.Module, seed: int = 0) -> State:
    """Return a random state dict of a network."""
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=rng) + 0.1 if value.is_floating_point() else torch.tensor(0)
        for name, value in network.state_dict().items()
    }


def as_published(state: State) -> State:
    """Return it as MemDPC saves it: of parallel training, and each cell of an aggregator under a second name."""
    named = dict(state)
    for name, value in state.items():
        if "ConvGRUCell_00" in name:
            named[name.replace("ConvGRUCell_00", "cell_list.0")] = value
    return {f"module.{name}": value for name, value in named.items()}


def saved(folder: Path, state: State, **beside: object) -> Path:
    """Write a checkpoint as trainers do and return its path."""
    path = folder / "model_best.pth.tar"
    torch.save({"epoch": 3, "state_dict": state, **beside}, path)
    return path


def all_equal(network: torch.nn.Module, state: State) -> bool:
    own = network.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items())


def test_pretraining_of_full_width_loads_whole(tmp_path: Path) -> None:
    with SHAPES_ONLY:
        network = PredictiveNet(NetParams(encoder="resnet34"), PretrainParams())
    state = weights(network)
    names = as_published(state)
    found = lps.model.load_reference(saved(tmp_path, names))
    assert found.kind == "pretraining"
    assert found.complete
    assert isinstance(found.network, PredictiveNet)
    assert found.network.params.encoder == "resnet34"
    assert found.network.pretrain.n_slots == 1024
    assert not found.network.training
    assert all_equal(found.network, state)
    assert sum(p.numel() for p in found.network.parameters()) == 33_801_280
    assert "all match" in found.summary()


def test_names_of_published_files(tmp_path: Path) -> None:
    """149 for 18 layers, 20 of them the counters of batch norms."""
    with SHAPES_ONLY:
        network = PredictiveNet(NetParams(), PretrainParams())
    names = as_published(weights(network))
    assert len([name for name in names if not name.endswith("num_batches_tracked")]) == 129
    assert len(names) == 149
    assert load_reference(saved(tmp_path, names)).complete


@pytest.mark.parametrize("wrapped", [True, False])
def test_detector(tmp_path: Path, wrapped: bool) -> None:
    network = Detector(SMALL, HeadParams())
    state = weights(network)
    path = saved(tmp_path, as_published(state), best_acc=np.float64(0.5), optimizer={"state": {}})
    if not wrapped:
        torch.save(state, path)
    found = load_reference(path)
    assert found.kind == "detector"
    assert found.complete
    assert isinstance(found.network, Detector)
    assert found.network.params == replace(SMALL, hidden=32)
    clips = torch.randn(2, 3, 3, 5, 32, 32)
    network.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(found.network(clips), network.eval()(clips))
    other = load_reference(path, feature_act="relu_pool").network
    assert isinstance(other, Detector)
    assert other.head.feature_act == "relu_pool"


@pytest.mark.parametrize(
    "head",
    [HeadParams(final_bn=False), HeadParams(context="uni_last"), HeadParams(context="uni_last", final_bn=False)],
)
def test_other_heads(tmp_path: Path, head: HeadParams) -> None:
    params = replace(SMALL, bidirectional=head.context.startswith("bidir"), hidden=20)
    state = weights(Detector(params, head))
    found = load_reference(saved(tmp_path, state))
    assert found.complete
    assert found.network.params == params
    assert found.network.head == head
    assert all_equal(found.network, state)


@pytest.mark.parametrize("pretrain", [PretrainParams(n_slots=0), PRETRAIN])
@pytest.mark.parametrize("params", [SMALL, NetParams(width=4, bidirectional=False, hidden=12)])
def test_other_pretraining(tmp_path: Path, params: NetParams, pretrain: PretrainParams) -> None:
    state = weights(PredictiveNet(params, pretrain))
    found = load_reference(saved(tmp_path, as_published(state)))
    assert found.complete
    assert found.network.params == replace(params, hidden=params.hidden or 32)
    assert found.network.pretrain == pretrain


def test_bare_i3d_goes_into_a_detector(tmp_path: Path) -> None:
    with SHAPES_ONLY:
        network = Detector(NetParams(encoder="i3d"), HeadParams())
    prefix = "backbone."
    state = {
        name.removeprefix(prefix): value
        for name, value in weights(network).items()
        if name.startswith(prefix) and not name.startswith("backbone.proj")
    }
    state |= {"logits.conv3d.weight": torch.zeros(400, 1024, 1, 1, 1), "logits.conv3d.bias": torch.zeros(400)}
    path = tmp_path / "rgb_imagenet.pt"
    torch.save(state, path)
    found = load_reference(path)
    assert found.kind == "encoder"
    assert found.network.params == NetParams(encoder="i3d")
    assert found.unexpected == ("backbone.logits.conv3d.weight", "backbone.logits.conv3d.bias")
    assert {name.split(".")[0] for name in found.missing} == {"backbone", "agg_f", "agg_b", "final_bn", "final_fc"}
    assert all(name.startswith("backbone.proj") for name in found.missing if name.startswith(prefix))
    assert not found.wrong_shape
    own = found.network.backbone.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("logits"))


def test_projected_and_unprojected_i3d(tmp_path: Path) -> None:
    for proj_dim in (32, None):
        params = NetParams(encoder="i3d", proj_dim=proj_dim, hidden=8)
        with SHAPES_ONLY:
            network = Detector(params, HeadParams())
        path = saved(tmp_path, weights(network))
        found = load_reference(path)
        assert found.complete
        assert found.network.params == params


def test_partial_file_says_what_is_missing(tmp_path: Path) -> None:
    state = weights(PredictiveNet(SMALL, PRETRAIN))
    kept = {name: value for name, value in state.items() if not name.startswith(("agg_b", "backbone.layer4"))}
    kept["agg_b.ConvGRUCell_00.reset_gate.bias"] = state["agg_b.ConvGRUCell_00.reset_gate.bias"]
    kept["classifier.weight"] = torch.zeros(3)
    found = load_reference(saved(tmp_path, as_published(kept)))
    assert "agg_b.ConvGRUCell_00.reset_gate.weight" in found.missing
    assert any(name.startswith("backbone.layer4") for name in found.missing)
    assert not any(name.endswith("num_batches_tracked") for name in found.missing)
    assert found.unexpected == ("classifier.weight",)
    assert set(found.loaded) | set(found.missing) == {n for n in state if not n.endswith("num_batches_tracked")}
    text = found.summary()
    assert f"left random ({len(found.missing)})" in text
    assert ", and 22 more" in text
    assert "not used (1): classifier.weight" in text


def test_other_shapes_are_told_and_not_loaded(tmp_path: Path) -> None:
    network = Detector(SMALL, HeadParams())
    state = weights(network)
    state |= {"final_fc.1.weight": torch.zeros(101, 64), "final_fc.1.bias": torch.zeros(101)}
    found = load_reference(saved(tmp_path, state))
    assert [(w.name, w.wanted, w.found) for w in found.wrong_shape] == [
        ("final_fc.1.weight", (2, 64), (101, 64)),
        ("final_fc.1.bias", (2,), (101,)),
    ]
    assert not set(found.loaded) & {"final_fc.1.weight", "final_fc.1.bias"}
    assert "final_fc.1.weight 101x64, not 2x64" in found.summary()
    assert not found.complete


def test_only_the_second_names(tmp_path: Path) -> None:
    state = weights(PredictiveNet(SMALL, PRETRAIN))
    renamed = {name.replace("ConvGRUCell_00", "cell_list.0"): value for name, value in state.items()}
    found = load_reference(saved(tmp_path, renamed))
    assert found.complete
    assert all_equal(found.network, state)


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    state = {n: v.half() if v.is_floating_point() else v for n, v in weights(Detector(SMALL, HeadParams())).items()}
    found = load_reference(saved(tmp_path, state))
    assert found.complete
    assert next(found.network.parameters()).dtype == torch.float32


# ---- what is no checkpoint -------------------------------------------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(b"no checkpoint at all" * 20)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", "y")


def cut_short(path: Path) -> None:
    torch.save({"a": torch.zeros(500)}, path)
    path.write_bytes(path.read_bytes()[:900])


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


def whole_module(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def one_tensor(path: Path) -> None:
    torch.save(torch.zeros(3), path)


def no_tensors(path: Path) -> None:
    torch.save({"state_dict": {"epoch": 3}}, path)


def of_this_package(path: Path) -> None:
    torch.save({"format": 1, "network": {"a": torch.zeros(3)}}, path)


def other_network(path: Path) -> None:
    torch.save({"fc6.weight": torch.zeros(3, 3)}, path)


def absurd_network(path: Path) -> None:
    torch.save({"backbone.conv1.weight": torch.zeros(0, 3, 1, 7, 7)}, path)


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (garbage, "not a checkpoint that torch can read"),
        (empty, "not a checkpoint that torch can read"),
        (other_zip, "not a checkpoint that torch can read"),
        (cut_short, "not a checkpoint that torch can read"),
        (plain_pickle, "not a checkpoint"),
        (whole_module, r"needs pickle to run torch\.nn\.modules\.linear\.Linear"),
        (one_tensor, "holds a Tensor"),
        (no_tensors, "no named tensors"),
        (of_this_package, "checkpoint of lps-train"),
        (other_network, r"holds 1 tensors, none of them .* fc6\.weight"),
        (absurd_network, "no network of this kind"),
    ],
)
def test_what_is_no_reference_fails_in_one_line(tmp_path: Path, write: Callable[[Path], None], match: str) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    with pytest.raises(UnreadableError, match=match) as caught:
        load_reference(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_absent_file_and_folder_fail(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pt"):
        with pytest.raises(UnreadableError, match="cannot read"):
            load_reference(path)


# ---- with the weights of the oracles --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fill(shared: Callable[[str], Path]) -> ModuleType:
    """Return the module that makes weights from names."""
    spec = spec_from_file_location("fill", shared("oracle/fill.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_regenerated_memdpc_gives_the_reference_loss(
    tmp_path: Path, fill: ModuleType, shared: Callable[[str], Path]
) -> None:
    from lps.model.networks.predictive_net import pretrain_loss

    oracle = torch.load(shared("oracle/memdpc_32px_N12_P3.pt"), weights_only=True)
    with SHAPES_ONLY:
        shapes = PredictiveNet(NetParams(), PretrainParams()).state_dict()
    state = {name: fill.value(name, tuple(value.shape)) for name, value in shapes.items()}
    found = load_reference(saved(tmp_path, as_published(state)))
    assert found.complete
    with SHAPES_ONLY:
        rolled = PredictiveNet(NetParams(), PretrainParams(rollout="recursive"))
    rolled.load_state_dict(found.network.state_dict(), assign=True)
    with torch.no_grad():
        loss = pretrain_loss(rolled.eval()(oracle["x"].float()), rolled.pretrain).total
    assert float(loss) == pytest.approx(float(oracle["eval_loss"]), rel=1e-4)


def test_regenerated_detector_gives_the_reference_logits(
    tmp_path: Path, fill: ModuleType, shared: Callable[[str], Path]
) -> None:
    oracle = torch.load(shared("oracle/lc_32px_N8.pt"), weights_only=True)
    with SHAPES_ONLY:
        shapes = Detector(NetParams(), HeadParams()).state_dict()
    state = {name: fill.value(name, tuple(value.shape)) for name, value in shapes.items()}
    path = saved(tmp_path, as_published(state))
    wanted = {"relu_pool": oracle["eval_logits"].flatten(1), "pool_relu": oracle["pool_relu_logits"].flatten(1)}
    for act, logits in wanted.items():
        found = load_reference(path, feature_act=act)  # type: ignore[arg-type]
        assert found.complete
        with torch.no_grad():
            torch.testing.assert_close(found.network(oracle["x"].float()).double(), logits, rtol=1e-3, atol=1e-4)
