"""How many CPUs a process may use, by what its machine, its container and its scheduler say."""

import os
from pathlib import Path

import pytest

from lps.pipeline.job.cpus import usable_cpus

V1 = "4:memory:/job\n3:cpu,cpuacct:{}\n0::/\n"


@pytest.fixture(autouse=True)
def machine_of_64_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)


def root_with(folder: Path, groups: str, **files: str) -> Path:
    """Make proc/self/cgroup and files of sys/fs/cgroup, whose names have __ for a slash."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return folder


def test_without_limits_it_is_the_affinity_not_the_machine(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 64


@pytest.mark.parametrize(
    ("groups", "files", "n"),
    [
        ("0::/\n", {"cpu_max": "800000 100000"}, 8),
        ("0::/\n", {"cpu_max": "max 100000"}, 64),
        ("0::/\n", {"cpu_max": "50000 100000"}, 1),
        ("0::/\n", {"cpu_max": "250000 100000"}, 3),
        ("0::/a/b\n", {"a__cpu_max": "200000 100000", "a__b__cpu_max": "max 100000"}, 2),
        ("0::/a/b\n", {"a__cpu_max": "400000 100000", "a__b__cpu_max": "300000 100000"}, 3),
        ("0::/host/only\n", {"cpu_max": "400000 100000"}, 4),
        ("0::/\n", {"cpu_max": "nonsense"}, 64),
        (V1.format("/"), {"cpu__cpu_cfs_quota_us": "600000", "cpu__cpu_cfs_period_us": "100000"}, 6),
        (V1.format("/"), {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, 64),
        (V1.format("/a/b"), {"cpu__a__cpu_cfs_quota_us": "70000", "cpu__a__cpu_cfs_period_us": "10000"}, 7),
        (V1.format("/host/only"), {"cpu__cpu_cfs_quota_us": "500000", "cpu__cpu_cfs_period_us": "100000"}, 5),
    ],
)
def test_quotas_of_control_groups_count(tmp_path: Path, groups: str, files: dict[str, str], n: int) -> None:
    assert usable_cpus(root_with(tmp_path, groups, **files)) == n


@pytest.mark.parametrize(("asked", "n"), [("4", 4), ("200", 64), ("0", 1), ("", 64), ("many", 64)])
def test_slurm_says_what_a_task_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str, n: int) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", asked)
    assert usable_cpus(tmp_path) == n
