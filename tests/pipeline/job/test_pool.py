"""The driver's policy: what is retried, what is charged, what stops the run; every job ends exactly once."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import ray
from ray import ObjectRef, cloudpickle, exceptions
from ray.actor import ActorHandle

from lps.manifests.codes import Code
from lps.manifests.errors import LpsError, RefusedError, UnreadableError
from lps.pipeline.job import pool as engine
from lps.pipeline.job.cluster import ray_cluster
from lps.pipeline.job.events import JobCharged, JobQuarantined, JobRetried, PrepEvent
from lps.pipeline.job.pool import (
    Done,
    End,
    Job,
    LostInputs,
    Pool,
    ProbeJob,
    Quarantined,
    file_ends,
    file_jobs,
)
from lps.pipeline.job.start_times import start_times_actor
from lps.pipeline.job.tasks import leave_when_grown

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = pytest.mark.slow
LONG = 600.0
"""Deadline in seconds of jobs that must not run into it."""
Act = Callable[[int], object]
"""What a worker does at attempt number 1, 2, ... of a job."""


@pytest.fixture(scope="module")
def start_times(cluster_address: str) -> Iterator[ActorHandle]:
    """Connect to the shared cluster and start the actor of the start times."""
    with ray_cluster(cluster_address, 2):
        yield start_times_actor()


@pytest.fixture
def events() -> list[PrepEvent]:
    """Collect what a pool reports."""
    return []


@pytest.fixture
def pool(start_times: ActorHandle, events: list[PrepEvent]) -> Pool:
    """Return a pool that does not pause for long."""
    return Pool(width=2, start_times=start_times, on_event=events.append, pause_seconds=0.01)


def attempt(start_times: ActorHandle, label: str, number: int, act: Act) -> object:
    """Run on a worker."""
    start_times.started.remote(label)
    return act(number)


def job(
    start_times: ActorHandle, name: str, act: Act, *, deadline: float = LONG, cpus: float = 1, inputs: bool = False
) -> Job:
    """Return a job that does `act` on a worker."""
    task = ray.remote(num_cpus=cpus, max_retries=0)(attempt)
    count = iter(range(1, 1000))
    return Job(
        ProbeJob(name), lambda label: task.remote(start_times, label, next(count), act), deadline, has_inputs=inputs
    )


def failing_until(number: int, fail: Callable[[], object]) -> Act:
    """Return an act that fails at every attempt before `number`."""
    return lambda n: n if n >= number else fail()


def crash() -> None:
    """Die as by a fault of a native library."""
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(_: int = 0) -> None:
    """Never return."""
    while True:
        time.sleep(1)


def throw(error: Exception) -> Callable[[], object]:
    """Return a function that raises `error`."""

    def act() -> None:
        raise error

    return act


def summary(ends: list[End]) -> dict[str, object]:
    """Return job name -> value, code or kind of its end; fails where a job ended twice."""
    found: dict[str, object] = {}
    for end in ends:
        assert end.job.name not in found
        found[end.job.name] = end.value if isinstance(end, Done) else getattr(end, "code", type(end).__name__)
    return found


def wait_for(path: Path) -> str:
    """Return the content of a file once it is there and not empty."""
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    return path.read_text()


# ---- order and number ----------------------------------------------------------------------------------------------


def test_results_come_in_order_of_completion(pool: Pool, start_times: ActorHandle, tmp_path: Path) -> None:
    released = tmp_path / "released"
    jobs = [job(start_times, "first", lambda _: wait_for(released)), job(start_times, "second", lambda _: "done")]
    names = []
    for end in pool.run(iter(jobs)):
        names.append(end.job.name)
        released.write_text("go")
    assert names == ["second", "first"]


def test_no_more_jobs_are_out_than_the_pool_is_wide(pool: Pool, start_times: ActorHandle) -> None:
    n_out = 0

    def supply() -> Iterator[Job]:
        nonlocal n_out
        for i in range(8):
            n_out += 1
            assert n_out <= pool.width
            yield job(start_times, str(i), lambda n: n)

    for _ in pool.run(supply()):
        n_out -= 1
    assert n_out == 0


def test_every_job_ends_exactly_once(pool: Pool, start_times: ActorHandle) -> None:
    acts: list[tuple[Act, object]] = [
        (lambda n: n, 1),
        (failing_until(2, crash), 2),
        (failing_until(3, throw(exceptions.NodeDiedError("gone"))), 3),
        (failing_until(9, crash), Code.E_WORKER_LOST),
        (failing_until(9, throw(KeyError("x"))), Code.E_INTERNAL),
    ]
    jobs = {f"{i}-{k}": (job(start_times, f"{i}-{k}", act), end) for k in range(2) for i, (act, end) in enumerate(acts)}
    ends = list(pool.run(one for one, _ in jobs.values()))
    assert summary(ends) == {name: end for name, (_, end) in jobs.items()}


def test_jobs_that_appear_while_others_run_are_taken(pool: Pool, start_times: ActorHandle) -> None:
    class Growing:
        """An iterator that is empty for a while."""

        waiting = [job(start_times, "a", lambda n: n)]

        def __iter__(self) -> Iterator[Job]:
            return self

        def __next__(self) -> Job:
            if not self.waiting:
                raise StopIteration
            return self.waiting.pop()

    supply = Growing()
    names = []
    for end in pool.run(supply):
        names.append(end.job.name)
        if end.job.name != "aaa":
            supply.waiting.append(job(start_times, end.job.name + "a", lambda n: n))
    assert names == ["a", "aa", "aaa"]


# ---- charges -------------------------------------------------------------------------------------------------------


def out_of_memory() -> None:
    """Fail as an allocation does."""
    raise MemoryError


CHARGED = {
    "a crash": (crash, Code.E_WORKER_LOST, "the worker process died"),
    "an exit": (lambda: os._exit(3), Code.E_WORKER_LOST, "the worker process died"),
    "memory": (out_of_memory, Code.E_OOM, "memory limit reached"),
    "the host's memory": (throw(exceptions.OutOfMemoryError("x")), Code.E_OOM, "memory limit reached"),
    "a bug": (throw(KeyError("frame 7\nmore")), Code.E_INTERNAL, r"KeyError: 'frame 7\nmore'"),
}


@pytest.mark.parametrize("name", CHARGED)
def test_the_second_charge_quarantines(
    pool: Pool, start_times: ActorHandle, events: list[PrepEvent], name: str
) -> None:
    fail, code, detail = CHARGED[name]
    (end,) = pool.run(iter([job(start_times, "video", failing_until(99, fail))]))
    assert isinstance(end, Quarantined)
    assert (end.code, end.detail) == (code, detail)
    assert events == [JobCharged("video", str(code), detail, 1), JobQuarantined("video", str(code), detail, 2)]


def test_one_charge_is_forgiven(pool: Pool, start_times: ActorHandle, events: list[PrepEvent]) -> None:
    (end,) = pool.run(iter([job(start_times, "video", failing_until(2, crash))]))
    assert summary([end]) == {"video": 2}
    assert [event.kind for event in events] == ["charge"]


# ---- deadlines -----------------------------------------------------------------------------------------------------


def test_a_hanging_job_times_out_though_others_keep_finishing(
    pool: Pool, start_times: ActorHandle, events: list[PrepEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "POLL_SECONDS", 0.3)
    ended: list[str] = []

    def supply() -> Iterator[Job]:
        yield job(start_times, "hanging", hang, deadline=0.2)
        for i in range(3000):
            if "hanging" in ended:
                return
            yield job(start_times, f"quick-{i}", lambda n: n)

    for end in pool.run(supply()):
        ended.append(end.job.name)
        if end.job.name == "hanging":
            assert isinstance(end, Quarantined)
            assert (end.code, end.detail) == (Code.E_TIMEOUT, "no result after 0 s")
    assert "hanging" in ended
    assert len(ended) < 3000
    assert [event.kind for event in events] == ["charge", "quarantine"]


def test_waiting_for_a_free_core_does_not_count_against_a_deadline(
    pool: Pool, start_times: ActorHandle, events: list[PrepEvent], tmp_path: Path
) -> None:
    all_cores, deadline = 4, 4.0
    released, began = tmp_path / "released", time.monotonic()
    holder = job(start_times, "holder", lambda _: wait_for(released), cpus=all_cores)
    queued = job(start_times, "queued", lambda n: n, cpus=all_cores, deadline=deadline)
    pool.start_times = _Telling(
        start_times, lambda: time.monotonic() - began > deadline + 1 and released.write_text("go")
    )
    ends = list(pool.run(iter([holder, queued])))
    assert summary(ends) == {"holder": "go", "queued": 1}
    assert events == []
    assert time.monotonic() - began > deadline  # it did wait


class _Telling:
    """Start times that call back whenever the driver has looked at the deadlines."""

    def __init__(self, start_times: ActorHandle, looked: Callable[[], object]) -> None:
        self.start_times, self.looked = start_times, looked
        self.ages = self

    def remote(self, labels: list[str]) -> ObjectRef:
        """Ask for the ages."""
        self.looked()
        return self.start_times.ages.remote(labels)


# ---- several files in a task ---------------------------------------------------------------------------------------


def test_files_of_one_task_that_fails_are_read_one_by_one(
    pool: Pool, start_times: ActorHandle, events: list[PrepEvent], tmp_path: Path
) -> None:
    task = ray.remote(num_cpus=1, max_retries=0)(attempt)
    acts = {"crashing": lambda: crash(), "hanging": hang, "refusing": throw(KeyError("x"))}
    tasks: list[Sequence[str]] = []

    def submit(label: str, uris: Sequence[str]) -> ObjectRef:
        def read(_: int) -> list[str]:
            for uri in uris:
                acts.get(uri.partition(".")[0], lambda: None)()
            return [f"value of {uri}" for uri in uris]

        tasks.append(uris)
        return task.remote(start_times, label, 0, read)

    files = [f"{name}.{k}" for name in ("good", *acts) for k in range(2)]
    ends = list(file_ends(pool.run(file_jobs(dict.fromkeys(files, 1), submit, 1, deadline_seconds=1.5))))
    codes = {"crashing": Code.E_WORKER_LOST, "hanging": Code.E_TIMEOUT, "refusing": Code.E_INTERNAL}
    assert {uri: end.value if isinstance(end, Done) else end.code for uri, end in ends} == {
        uri: codes.get(uri.partition(".")[0], f"value of {uri}") for uri in files
    }
    assert len(ends) == len(files)
    assert [len(uris) for uris in tasks].count(2) == 4
    # what failed in company is charged for what it does alone
    assert {(event.job, event.charges) for event in events if isinstance(event, JobCharged)} == {
        (uri, 1) for uri in files if not uri.startswith("good")
    }


def test_a_worker_that_has_grown_ends_after_its_result(start_times: ActorHandle) -> None:
    def read(max_growth_bytes: int) -> tuple[int, bytes]:
        leave_when_grown(max_growth_bytes)
        return os.getpid(), bytes(1 << 20)

    task = ray.remote(num_cpus=1, max_retries=0, max_calls=1000)(read)
    pid, _ = ray.get(task.remote(1 << 40))
    assert Path(f"/proc/{pid}/cmdline").read_bytes()
    pid, data = ray.get(task.remote(-(1 << 40)))
    assert len(data) == 1 << 20
    _wait_for_end(pid)


# ---- losses --------------------------------------------------------------------------------------------------------

LOSSES = {
    "node": exceptions.NodeDiedError("x"),
    "actor": exceptions.ActorDiedError(),
    "busy actor": exceptions.ActorUnavailableError("x", b"0" * 16),
    "object": exceptions.ObjectLostError("0" * 56, "", ""),
    "disk for spilled objects": exceptions.OutOfDiskError("x"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_retried_after_growing_pauses_and_never_charged(
    pool: Pool, start_times: ActorHandle, events: list[PrepEvent], name: str
) -> None:
    (end,) = pool.run(iter([job(start_times, "video", failing_until(5, throw(LOSSES[name])))]))
    assert summary([end]) == {"video": 5}
    assert events == [JobRetried("video", type(LOSSES[name]).__name__, 0.01 * 2**k) for k in range(4)]


def test_a_cluster_that_keeps_losing_a_job_stops_the_run(
    pool: Pool, start_times: ActorHandle, events: list[PrepEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAX_LOSSES", 3)
    with pytest.raises(LpsError, match=r"the cluster lost 'video' 4 times \(NodeDiedError\); giving up"):
        list(pool.run(iter([job(start_times, "video", failing_until(99, throw(exceptions.NodeDiedError("x"))))])))
    assert [event.kind for event in events] == ["retry"] * 3


def test_lost_inputs_go_back_to_who_made_them(pool: Pool, start_times: ActorHandle, events: list[PrepEvent]) -> None:
    lost = failing_until(99, throw(exceptions.ObjectLostError("0" * 56, "", "")))
    (end,) = pool.run(iter([job(start_times, "commit", lost, inputs=True)]))
    assert isinstance(end, LostInputs)
    assert end.job.name == "commit"
    assert events == []


# ---- errors on purpose ---------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_an_error_on_purpose_stops_the_run_and_what_still_runs(
    pool: Pool, start_times: ActorHandle, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"

    def linger(_: int) -> None:
        pid_file.write_text(str(os.getpid()))
        hang()

    def refuse(_: int) -> None:
        wait_for(pid_file)
        raise RefusedError("source changed: a.mp4")

    with pytest.raises(RefusedError, match="^source changed: a.mp4$"):
        list(pool.run(iter([job(start_times, "lingering", linger), job(start_times, "refusing", refuse)])))
    _wait_for_end(int(pid_file.read_text()))


def _wait_for_end(pid: int) -> None:
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        time.sleep(0.02)


def test_a_store_is_asked_three_times(pool: Pool, start_times: ActorHandle, events: list[PrepEvent]) -> None:
    fail = throw(UnreadableError("cannot read s3://bucket/a.mp4: no answer"))
    assert summary(list(pool.run(iter([job(start_times, "patient", failing_until(3, fail))])))) == {"patient": 3}
    with pytest.raises(UnreadableError, match="^cannot read s3://bucket/a.mp4: no answer$"):
        list(pool.run(iter([job(start_times, "impatient", failing_until(4, fail))])))
    assert [event.job for event in events if isinstance(event, JobRetried)] == ["patient"] * 2 + ["impatient"] * 2
