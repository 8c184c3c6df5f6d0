"""Runs a network that is an ONNX graph. Workers get theirs as bytes: they load ONNX Runtime, and not onnx."""

from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[np.float32]
RunNet = Callable[[Array], list[Array]]
"""(B, 3, H, W) float32 -> the outputs of a network."""


def cpu_session(graph: bytes) -> RunNet:
    """Return a function that runs `graph` on one thread of the CPU, in float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(pixels: Array) -> list[Array]:
        found: list[Array] = session.run(None, {"pixels": pixels})
        return found

    return run
