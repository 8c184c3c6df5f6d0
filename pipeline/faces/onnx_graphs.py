"""The face networks as ONNX graphs, for CPUs: ONNX Runtime takes about half of torch's time for the same numbers.

Graphs are written from the state dicts of the published networks, with what the runtime is fast at: batch norms folded
into the convolutions before them, channels filled up with zeros to whole blocks, heads of one map in one convolution,
and PReLU in terms of what it can fuse. Any batch size and any image size may be run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lps.manifests.errors import UnreadableError
from lps.pipeline.faces.onnx_session import Array

State = Mapping[str, Array]

OPSET, IR_VERSION = 17, 8
"""Versions of 2022, which every allowed release of ONNX Runtime reads."""
BLOCK = 16
"""Channels that a processor with AVX-512 works on at once; those with AVX2 take 8."""
NORM_EPSILON = 1e-5
LEAK = 0.1
N_HEAD = 16
"""Values of an anchor: two logits, four of the box, ten of the points."""

_STAGES = {"stage1": (2, 1, 2, 1, 2, 1), "stage2": (2, 1, 1, 1, 1, 1), "stage3": (2, 1)}
"""Strides of the blocks of MobileNet-0.25: one convolution, then pairs of a depthwise and a pointwise one."""
_MTCNN_LAYERS = {
    "pnet": (("conv1", 2), ("conv2", 0), ("conv3", 0)),
    "rnet": (("conv1", 3), ("conv2", 3), ("conv3", 0)),
    "onet": (("conv1", 3), ("conv2", 3), ("conv3", 2), ("conv4", 0)),
}
"""Convolutions of each net, and the side of the pooling after each."""
_MTCNN_HEADS = {
    "pnet": ("conv4_1", "conv4_2"),
    "rnet": ("dense5_1", "dense5_2"),
    "onet": ("dense6_1", "dense6_2", "dense6_3"),
}
"""Class logits, box, and of the last net points."""


def retinaface_graph(state: State, levels: int) -> bytes:
    """Return RetinaFace with MobileNet-0.25: BGR minus means, (B, 3, H, W), to the anchors of the coarsest `levels`.

    The output is (B, anchors, 16): two logits, box code, code of the five points. Raises UnreadableError where `state`
    is not that network's.
    """
    weights = _Weights(state, "retinaface-mobilenet")
    graph = _Graph()
    x, maps = "pixels", []
    for stage, strides in _STAGES.items():
        for k, stride in enumerate(strides):
            block = f"body.{stage}.{k}"
            first = weights.normed(f"{block}.0", f"{block}.1")
            if first[0].shape[1] == 1:
                x = graph.leaky(graph.conv(x, *first, stride=stride, depthwise=True))
                x = graph.leaky(graph.conv(x, *weights.normed(f"{block}.3", f"{block}.4")))
            else:
                x = graph.leaky(graph.conv(x, *first, stride=stride))
        maps.append(x)
    merged = [
        graph.leaky(graph.conv(x, *weights.normed(f"fpn.output{k}.0", f"fpn.output{k}.1")))
        for k, x in enumerate(maps, 1)
    ]
    for k in (1, 0):
        x = graph.op("Add", merged[k], graph.doubled(merged[k + 1]))
        merged[k] = graph.leaky(graph.conv(x, *weights.normed(f"fpn.merge{k + 1}.0", f"fpn.merge{k + 1}.1")))
    heads = [_retinaface_head(graph, weights, k, merged[k]) for k in range(3)][-levels:]
    weights.require_all_taken()
    return graph.finished({"heads": graph.op("Concat", *heads, axis=1)})


def _retinaface_head(graph: "_Graph", weights: "_Weights", k: int, x: str) -> str:
    """Add the context module and the heads of level `k`. Return their output, (B, anchors, 16)."""

    def conv(x: str, name: str) -> str:
        return graph.conv(x, *weights.normed(f"ssh{k + 1}.{name}.0", f"ssh{k + 1}.{name}.1"))

    middle = graph.leaky(conv(x, "conv5X5_1"))
    last = graph.leaky(conv(middle, "conv7X7_2"))
    parts = [conv(x, "conv3X3"), conv(middle, "conv5X5_2"), conv(last, "conv7x7_3")]
    context = graph.op("Concat", *[graph.op("Relu", part) for part in parts], axis=1)
    heads = [weights.plain(f"{name}.{k}.conv1x1") for name in ("ClassHead", "BboxHead", "LandmarkHead")]
    # two anchors a place, whose channels are together
    weight, bias = (np.concatenate([each[i].reshape(2, -1, *each[i].shape[1:]) for each in heads], 1) for i in (0, 1))
    codes = graph.conv(context, weight.reshape(2 * N_HEAD, -1, 1, 1), bias.reshape(2 * N_HEAD))
    return graph.op(
        "Reshape", graph.op("Transpose", codes, perm=[0, 2, 3, 1]), graph.constant([0, -1, N_HEAD], np.int64)
    )


def mtcnn_graph(name: str, state: State) -> bytes:
    """Return a net of MTCNN, `pnet`, `rnet` or `onet`: (B, 3, H, W) of -1 to 1 to class shares, box and, last, points.

    Raises UnreadableError where `state` is not that net's.
    """
    weights = _Weights(state, f"mtcnn-{name}")
    graph = _Graph()
    x = "pixels"
    for layer, pool in _MTCNN_LAYERS[name]:
        weight, bias = weights.plain(layer)
        slope = weights.take(layer.replace("conv", "prelu") + ".weight", 1)
        x = graph.prelu(graph.conv(x, weight, bias, padding=0), slope)
        if pool:
            x = graph.op("MaxPool", x, kernel_shape=[pool] * 2, strides=[2, 2], ceil_mode=1)
    dense = name != "pnet"
    if dense:
        k = len(_MTCNN_LAYERS[name]) + 1
        x = graph.op("Flatten", graph.op("Transpose", x, perm=[0, 3, 2, 1]))
        x = graph.dense(x, *weights.plain(f"dense{k}"))
        x = graph.op("PRelu", x, graph.constant(weights.take(f"prelu{k}.weight", 1)))
    outputs = []
    for head in _MTCNN_HEADS[name]:
        weight, bias = weights.plain(head)
        outputs.append(graph.dense(x, weight, bias) if dense else graph.conv(x, weight, bias, padding=0, whole=False))
    weights.require_all_taken()
    shares = graph.op("Softmax", outputs[0], axis=1)
    return graph.finished(dict(zip(("shares", "box", "points"), [shares, *outputs[1:]], strict=False)))


class _Weights:
    """A state dict of which every tensor is taken once."""

    def __init__(self, state: State, what: str) -> None:
        self._left = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        self._what = what

    def take(self, name: str, n_dims: int) -> Array:
        """Return the tensor `name` as float32. Raises UnreadableError if it is not there or has other dimensions."""
        found = self._left.pop(name, None)
        if found is None or found.ndim != n_dims:
            raise self._misfit(f"{name} is {'missing' if found is None else f'of shape {found.shape}'}")
        return np.asarray(found, np.float32)

    def plain(self, layer: str) -> tuple[Array, Array]:
        """Return weight and bias of a convolution or, with `dense` in its name, of a linear layer."""
        return self.take(f"{layer}.weight", 2 if "dense" in layer else 4), self.take(f"{layer}.bias", 1)

    def normed(self, conv: str, norm: str) -> tuple[Array, Array]:
        """Return weight and bias of a convolution with the batch norm after it folded in."""
        weight = self.take(f"{conv}.weight", 4).astype(np.float64)
        names = ("weight", "bias", "running_mean", "running_var")
        scale, shift, mean, variance = (self.take(f"{norm}.{name}", 1).astype(np.float64) for name in names)
        scale = scale / np.sqrt(variance + NORM_EPSILON)
        folded = weight * scale[:, None, None, None]
        return folded.astype(np.float32), (shift - mean * scale).astype(np.float32)

    def require_all_taken(self) -> None:
        """Raise UnreadableError if `state` has more than the network."""
        if self._left:
            raise self._misfit(f"{next(iter(self._left))} is not part of it")

    def _misfit(self, why: str) -> UnreadableError:
        return UnreadableError(f"the weights of {self._what} do not fit its network: {why}")


class _Graph:
    """The nodes of a graph whose input is `pixels`."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        """Add a constant and return its name."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values, kind), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(
        self, x: str, weight: Array, bias: Array, *, stride: int = 1, padding: int = -1, depthwise: bool = False,
        whole: bool = True,
    ) -> str:  # fmt: skip
        """Add a convolution. Padding keeps the size, or is as given; outputs are filled up to `whole` blocks."""
        n_out = -(-len(weight) // BLOCK) * BLOCK if whole else len(weight)
        n_in = weight.shape[1] if weight.shape[1] in (1, 3) else -(-weight.shape[1] // BLOCK) * BLOCK
        filled = np.zeros((n_out, n_in, *weight.shape[2:]), np.float32)
        filled[: len(weight), : weight.shape[1]] = weight
        bias = np.pad(bias, (0, n_out - len(bias)))
        padding = weight.shape[2] // 2 if padding < 0 else padding
        return self.op(
            "Conv", x, self.constant(filled), self.constant(bias),
            pads=[padding] * 4, strides=[stride] * 2, group=n_out if depthwise else 1,
        )  # fmt: skip

    def doubled(self, x: str) -> str:
        """Add a doubling of both sides, by the nearest neighbour."""
        return self.op(
            "Resize", x, "", self.constant([1, 1, 2, 2]),
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip

    def leaky(self, x: str) -> str:
        """Add a leaky ReLU, which the runtime fuses into the convolution before."""
        return self.op("LeakyRelu", x, alpha=LEAK)

    def prelu(self, x: str, slope: Array) -> str:
        """Add x + (1 - slope) relu(-x), which is PReLU, with depthwise convolutions: those the runtime fuses."""
        n = -(-len(slope) // BLOCK) * BLOCK
        minus = self.constant(np.full((n, 1, 1, 1), -1.0))
        rest = self.constant(np.pad(1 - slope, (0, n - len(slope))).reshape(n, 1, 1, 1))
        negative = self.op("Relu", self.op("Conv", x, minus, group=n))
        return self.op("Add", self.op("Conv", negative, rest, group=n), x)

    def dense(self, x: str, weight: Array, bias: Array) -> str:
        """Add a linear layer."""
        return self.op("Gemm", x, self.constant(weight), self.constant(bias), transB=1)

    def finished(self, outputs: Mapping[str, str]) -> bytes:
        """Return the graph as a model, its outputs named, without nodes that none of them needs."""
        needed = set(outputs.values())
        nodes = [helper.make_node("Identity", [x], [name]) for name, x in outputs.items()]
        for node in reversed(self._nodes):
            if node.output[0] in needed:
                nodes.insert(0, node)
                needed |= set(node.input)
        shape: Sequence[Any] = ("b", 3, "h", "w")
        graph = helper.make_graph(
            nodes,
            "faces",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [constant for constant in self._constants if constant.name in needed],
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        return bytes(model.SerializeToString())
