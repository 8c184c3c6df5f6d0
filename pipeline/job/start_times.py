"""The actor of the start times: queueing must not count against a deadline.

A file of its own, which imports next to nothing: the actor is a process of its own in every run.
"""

import time
from collections.abc import Sequence
from typing import Any


class StartTimes:
    """When each attempt began on its worker."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def started(self, label: str) -> None:
        """Note that the attempt `label` begins now."""
        self._started[label] = time.monotonic()

    def ages(self, labels: Sequence[str]) -> dict[str, float]:
        """Return the seconds since each of `labels` began, and forget all others."""
        now, kept = time.monotonic(), set(labels)
        self._started = {label: t for label, t in self._started.items() if label in kept}
        return {label: now - t for label, t in self._started.items()}


def start_times_actor() -> Any:
    """Start the actor on the driver's own node, where it lives as long as the driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(StartTimes).remote()
