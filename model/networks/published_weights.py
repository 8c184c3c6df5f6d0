"""Published weights: build the network that a MemDPC, LPS or I3D checkpoint belongs to, and say what did not match.

    found = lps.model.load_reference("k400_mem_r2d3d34.pth.tar")
    print(found.summary())
    found.network                 # a PredictiveNet or Detector with these weights, in evaluation mode

or put those of a network of torchvision into an encoder: `load_encoder_weights`.

Tensors are known by their reference names. A file tells its network by them and by their shapes; what they cannot tell
(number of blocks, rollout, order of ReLU and pooling) has this project's defaults.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lps.manifests.canonical import file_sha256, open_regular
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError, first_line
from lps.manifests.storage import refuse_compressed
from lps.model.networks.context_net import NetParams, StateDict
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.encoder import PROJECTION, Act, Encoder
from lps.model.networks.i3d import I3D
from lps.model.networks.predictive_net import PredictiveNet, PretrainParams
from lps.model.networks.resnet2d3d import STAGES
from lps.model.networks.torchvision_encoder import HEAD

Shape = tuple[int, ...]
Kind = Literal["pretraining", "detector", "encoder"]
"""`encoder`: a bare I3D or ResNet, which goes into a detector whose other parts are new."""

ALIAS = re.compile(r"^(agg_\w+)\.cell_list\.(\d+)\.")
"""MemDPC registers each cell twice, so that its state dicts hold the same tensors under two names."""
COUNTER = "num_batches_tracked"
"""Counter of batch norms; nothing here reads it, and older files lack it."""
N_LISTED = 8
"""Names that a summary prints of each sort."""

_SCALARS: list[Any] = [
    np.dtype,
    *(type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8", "bool")),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]
"""What a NumPy number is pickled as: trainers put one beside the weights as their best accuracy. It runs no code."""


@dataclass(frozen=True, slots=True)
class WrongShape:
    """A tensor of the file that has the right name only; the network keeps its own."""

    name: str
    wanted: Shape
    found: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A network with published weights, and how well they fitted."""

    path: Path
    kind: Kind
    network: PredictiveNet | Detector
    """In evaluation mode, on the CPU."""
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """Names in the network and not in the file: these keep their random initial values."""
    unexpected: tuple[str, ...]
    """Names in the file and not in the network."""
    wrong_shape: tuple[WrongShape, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network came from the file and none was left over."""
        return not (self.missing or self.unexpected or self.wrong_shape)

    def summary(self) -> str:
        """Return a few lines: what it is, and everything that did not match."""
        params = self.network.params
        size = f"width {params.width}, " if params.encoder.startswith("resnet") else ""
        what = f"{self.path.name}: {self.kind}, {params.encoder}, {size}context {self.network.n_context}"
        if isinstance(self.network, PredictiveNet):
            what += f", memory {self.network.pretrain.n_slots} x {self.network.n_feature}"
        else:
            what += f", feature_act {self.network.head.feature_act}"
        total = len(self.loaded) + len(self.missing) + len(self.wrong_shape)
        lines = [what, f"{len(self.loaded)} of {total} tensors loaded" + ("; all match" if self.complete else "")]
        if self.missing:
            lines.append(f"not in the file, left random ({len(self.missing)}): {_listed(self.missing)}")
        if self.wrong_shape:
            shapes = [f"{w.name} {_shown(w.found)}, not {_shown(w.wanted)}" for w in self.wrong_shape]
            lines.append(f"of another shape, left random ({len(shapes)}): {_listed(shapes)}")
        if self.unexpected:
            lines.append(f"in the file, not used ({len(self.unexpected)}): {_listed(self.unexpected)}")
        return "\n".join(lines)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    more = f", and {len(names) - N_LISTED} more" if len(names) > N_LISTED else ""
    return ", ".join(names[:N_LISTED]) + more


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def load_reference(path: Path | str, *, feature_act: Act = "pool_relu") -> Reference:
    """Load a published checkpoint into the network that it belongs to.

    `feature_act` is for detectors: MemDPC trained its own classifiers with `relu_pool` (A5). Raises UnreadableError if
    the file is not there, is no checkpoint, needs code to be run to be read, or holds nothing of these networks.
    """
    path = Path(path)
    state, kind = _with_prefix(_without_aliases(_state_of(path)))
    network = _build(state, kind, path, feature_act)
    own = network.state_dict()
    fitting = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    loaded = tuple(name for name in fitting if not name.endswith(COUNTER))
    if not loaded:
        raise UnreadableError(
            f"{path} holds {len(state)} tensors, none of them of a MemDPC, LPS or I3D network (the first: "
            f"{next(iter(state))})"
        )
    network.load_state_dict(fitting, strict=False)
    shapes = [
        WrongShape(name, tuple(own[name].shape), tuple(state[name].shape))
        for name in own
        if name in state and name not in fitting
    ]
    return Reference(
        path=path,
        kind=kind,
        network=network.eval(),
        loaded=loaded,
        missing=tuple(name for name in own if name not in state and not name.endswith(COUNTER)),
        unexpected=tuple(name for name in state if name not in own),
        wrong_shape=tuple(shapes),
    )


def load_encoder_weights(encoder: Encoder, path: Path, sha256: str) -> None:
    """Put the weights of a file into an encoder of torchvision; its projection keeps its own.

    Names and shapes must be those of the network, whose head may be among them. Raises UnreadableError if the file
    cannot be read, IntegrityError if its digest is another one, RefusedError if it is of another network.
    """
    try:
        found = file_sha256(path)
    except OSError as e:
        raise UnreadableError(f"cannot read {path}: {e.strerror or e}") from e
    if found != sha256.lower():
        raise IntegrityError(f"{path} has the SHA-256 {found}, net.weights_sha256 is {sha256}; get the file again")
    state = {name: value for name, value in _without_aliases(_state_of(path)).items() if name.split(".")[0] not in HEAD}
    own = {name: value for name, value in encoder.state_dict().items() if name.split(".")[0] != PROJECTION}
    needed = [name for name in own if not name.endswith(COUNTER)]
    missing = [name for name in needed if name not in state]
    wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    if missing or wrong:
        parts = [f"{len(missing)} of its {len(needed)} tensors are missing ({missing[0]})"] if missing else []
        parts += [f"{len(wrong)} are of other names or shapes ({wrong[0]})"] if wrong else []
        raise RefusedError(f"{path} does not hold the weights of this encoder: {', '.join(parts)}")
    encoder.load_state_dict(state, strict=False)


def _state_of(path: Path) -> StateDict:
    """Return the named tensors of a file."""
    try:
        with torch.serialization.safe_globals(_SCALARS), warnings.catch_warnings():
            # a plain pickle of a newer protocol is refused below, in one line
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            with open_regular(path) as file:
                refuse_compressed(file)
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise UnreadableError(f"cannot read {path}: {e.strerror or e}") from e
    except zipfile.BadZipFile as e:
        raise UnreadableError(f"{path} is not a checkpoint that torch wrote: {e}") from e
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as e:
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(e))
        if unsafe:
            raise UnreadableError(
                f"{path} needs pickle to run {unsafe[1]}, which may execute anything; save its state dict by itself, "
                "where you trust it, and load that"
            ) from e
        raise UnreadableError(f"{path} is not a checkpoint that torch can read, or not a whole one") from e
    if isinstance(found, Mapping) and "format" in found and "network" in found:
        raise UnreadableError(f"{path} is a checkpoint of lps-train; load it with lps.model.training.checkpoint")
    inner = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(inner, Mapping):
        raise UnreadableError(f"{path} is not a checkpoint: it holds a {type(found).__name__}, not named tensors")
    state = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        raise UnreadableError(f"{path} is not a checkpoint: it holds no named tensors")
    return state


def _without_aliases(state: StateDict) -> StateDict:
    """Strip `module.` of parallel training, and name each cell of an aggregator once."""
    found: StateDict = {}
    aliases: StateDict = {}
    for name, value in state.items():
        while name.startswith("module."):
            name = name.removeprefix("module.")
        plain = ALIAS.sub(lambda m: f"{m[1]}.ConvGRUCell_{int(m[2]):02d}.", name)
        (found if plain == name else aliases)[plain] = value
    return found | {name: value for name, value in aliases.items() if name not in found}


def _with_prefix(state: StateDict) -> tuple[StateDict, Kind]:
    """Say what a file is, and give a bare encoder the name that it has inside a network."""
    if any(name.startswith(("backbone.", "agg_f.")) for name in state):
        return state, "pretraining" if any(n == "mb" or n.startswith("network_pred.") for n in state) else "detector"
    if any(name.split(".")[0] in ("Conv3d_1a_7x7", "Mixed_3b", "conv1", "layer1") for name in state):
        return {f"backbone.{name}": value for name, value in state.items()}, "encoder"
    return state, "detector"


def _build(state: StateDict, kind: Kind, path: Path, feature_act: Act) -> PredictiveNet | Detector:
    try:
        params = _net_params(state)
        if kind == "pretraining":
            return PredictiveNet(params, PretrainParams(n_slots=_n_slots(state)))
        both = "agg_b.ConvGRUCell_00.reset_gate.weight" in state or kind == "encoder"
        head = HeadParams(
            context="bidir_last" if both else "uni_last",
            feature_act=feature_act,
            final_bn=kind == "encoder" or "final_bn.weight" in state,
        )
        return Detector(params, head)
    except (ValueError, IndexError) as e:
        raise UnreadableError(f"{path} holds no network of this kind: {first_line(e)}") from e


def _net_params(state: StateDict) -> NetParams:
    """Read the shape of encoder and aggregator off their tensors."""
    gate = _shape(state, "agg_f.ConvGRUCell_00.reset_gate.weight")
    default = NetParams()
    encoder: Literal["resnet18", "resnet34", "i3d"]
    if any(name.startswith(("backbone.Conv3d_", "backbone.Mixed_")) for name in state):
        encoder = "i3d"
    else:
        encoder = "resnet34" if _is_deep(state) else "resnet18"
    proj = _shape(state, "backbone.proj.0.weight")
    n_feature = gate[1] - gate[0] if gate else None
    stem = _shape(state, "backbone.conv1.weight") or _shape(state, "backbone.bn1.weight")
    return NetParams(
        encoder=encoder,
        width=stem[0] if stem and encoder != "i3d" else default.width,
        proj_dim=proj[0] if proj else None if n_feature == I3D.CHANNELS else default.proj_dim,
        hidden=gate[0] if gate else None,
        bidirectional=not gate or any(name.startswith("agg_b.") for name in state),
    )


def _is_deep(state: StateDict) -> bool:
    """Whether a stage has more blocks than depth 18 has."""
    for name in state:
        found = re.match(r"backbone\.layer([1-4])\.(\d+)\.", name)
        if found and int(found[2]) >= STAGES[18][int(found[1]) - 1]:
            return True
    return False


def _n_slots(state: StateDict) -> int:
    """Slots of the memory bank; 0 where there is none."""
    bank = _shape(state, "mb")
    return bank[0] if bank else 0


def _shape(state: StateDict, name: str) -> Shape:
    return tuple(state[name].shape) if name in state else ()
