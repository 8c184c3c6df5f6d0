"""Floating-point operations of a call, and what GPUs can do at most."""

from collections.abc import Callable

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362}
"""Dense bfloat16, from the makers' data sheets."""


def count_flops(call: Callable[[], object]) -> int:
    """Return the floating-point operations of a call, two for each multiplication and addition."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
