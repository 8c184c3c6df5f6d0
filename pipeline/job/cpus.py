"""How many CPUs this process may use, which in a container or a job of a scheduler are fewer than the machine has."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the least of affinity, CPU quotas of the control groups (versions 1 and 2) and SLURM_CPUS_PER_TASK.

    A quota of part of a CPU counts as a whole one. `root` is where proc/ and sys/ are looked for.
    """
    limits = [len(os.sched_getaffinity(0)), *(math.ceil(quota) for quota in _quotas(root))]
    asked = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min([*limits, *([int(asked)] if asked.isdecimal() else [])]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in CPUs, of the groups that this process is in and of all groups above them.

    Without a namespace of its own a container sees the path of its group on the host, but the group mounted as the top
    of the tree: what is not there is passed over on the way up.
    """
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        version, top = (1, "sys/fs/cgroup/cpu") if controllers else (2, "sys/fs/cgroup")
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            with suppress(OSError, ValueError, ZeroDivisionError):
                quota, period = _quota_and_period(root / top / str(group).strip("/"), version)
                if quota > 0:
                    yield quota / period


def _quota_and_period(group: Path, version: int) -> tuple[int, int]:
    """Return both in microseconds. Raises OSError or ValueError where the group has none ("max"); -1 is none, too."""
    if version == 1:
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    else:
        quota, period = (group / "cpu.max").read_text().split()
    return int(quota), int(period)
