"""Join a Ray cluster, or start a private one that nobody else can join."""

import logging
import os
import secrets
import shutil
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lps.manifests.environment import OWNER, scratch_folder, socket_place
from lps.manifests.errors import Interrupted, LpsError, UnreadableError, first_line
from lps.pipeline.faces.localizers import LocalizerSpec, batch_size_on, onnx_networks
from lps.pipeline.job.cpus import usable_cpus

DEVICE_VERSIONS = ("device", "batch_size")
"""Names in the versions of a plan of what depends on the cluster."""
READY_SECONDS = 600.0
CONNECT_SECONDS = 20.0
POLL_SECONDS = 1.0
"""How long the driver waits for results before it looks at deadlines, and at Ray itself."""
RAY_PROCESSES = {"raylet": "hands out work", "gcs_server": "knows the cluster"}
RAY_SOCKET = "lps-12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
"""Longest path of Ray's sockets below TMPDIR."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is to work with."""

    n_workers: int
    """Videos processed at a time."""
    n_gpus: int

    @property
    def device(self) -> str:
        """`cuda` if the cluster has GPUs, else `cpu`."""
        return "cuda" if self.n_gpus else "cpu"

    @property
    def batch_size(self) -> int:
        """Images per pass of a localizer."""
        return batch_size_on(self.device)

    @property
    def versions(self) -> dict[str, str]:
        """What of it could change bytes, as the plan records it."""
        return dict(zip(DEVICE_VERSIONS, (self.device, str(self.batch_size)), strict=True))


@contextmanager
def ray_cluster(address: str | None, n_workers: int | None) -> Iterator[Cluster]:
    """Connect to `address`, or start a private local cluster of `n_workers` CPUs (default: all that we may use).

    For the address `auto`, RAY_ADDRESS says which cluster is meant, as for `ray job submit`. A program that has called
    `ray.init` itself stays connected as it is: its cluster is taken, with the workers that its earlier jobs left there,
    and what they have loaded. Raises UnreadableError where the address does not answer, or is not that of the
    program's cluster, or Ray does not start.
    """
    import ray

    named = os.environ.pop("RAY_ADDRESS", "")
    if address == "auto" and named:
        address = named
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Workers start when there is work for them: by default Ray starts one a CPU at once, and one more for every actor.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # The pool reads every job's error; a video's second reference repeats it, and Ray would print it with traceback.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if ray.is_initialized():
        connection = _kept(address)
    else:
        connection = _joined(address) if address else _started(n_workers or usable_cpus())
    with connection:
        require_ray()
        resources = ray.cluster_resources()
        cpus = int(resources.get("CPU", 1))
        yield Cluster(n_workers=n_workers or max(1, cpus), n_gpus=int(resources.get("GPU", 0)))


@contextmanager
def _kept(address: str | None) -> Iterator[None]:
    import ray

    here = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", here):
        raise UnreadableError(f"no Ray cluster at '{address}': this process is connected to the one at '{here}'")
    yield


@contextmanager
def _joined(address: str) -> Iterator[None]:
    _require_listener(address)
    with _ray(f"no Ray cluster at '{address}'", address=address):
        yield


def _remove_reborn(place: Path) -> None:
    """Remove what workers of killed runs made that were still starting when the folder of their cluster was removed."""
    for folder in place.glob("lps-????????"):
        if not (folder / OWNER).exists() and any(folder.glob("session_*")):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(n_cpus: int) -> Iterator[None]:
    """Start a cluster that no other process finds, in a folder of its own, and end it."""
    with ExitStack() as opened:
        place = socket_place(RAY_SOCKET)
        _remove_reborn(Path(place))
        try:
            folder = opened.enter_context(scratch_folder("lps-", place))
        except OSError as e:
            raise UnreadableError(f"no folder for Ray's sockets: {first_line(e)}: {e.filename}") from e
        _use_own_token()
        # Nobody reads the metrics of a private cluster, and the driver would keep some for every name of a task.
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        with _ray(
            "Ray does not start on this machine",
            address="local",
            num_cpus=n_cpus,
            include_dashboard=False,
            _temp_dir=str(folder),
        ):
            yield


@contextmanager
def _ray(otherwise: str, **where: Any) -> Iterator[None]:
    """Initialise Ray, and shut it down. Raises UnreadableError, which begins with `otherwise`."""
    import ray

    on_term = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own notices about its defaults
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **where)
        except SystemExit as e:  # how Ray takes SIGTERM while it starts
            raise Interrupted("", signal.SIGTERM) from e
        except Exception as e:  # noqa: BLE001  Ray raises errors of all kinds here, bare Exceptions among them
            about = f": {e.filename}" if isinstance(e, OSError) and e.filename else ""
            raise UnreadableError(f"{otherwise}: {first_line(e)}{about}") from e
    with _unprinted():  # until Ray's threads have ended
        try:
            _handle_sigterm(on_term)
            yield
        finally:
            _kill_rest()
            ray.shutdown()


@contextmanager
def _unprinted() -> Iterator[None]:
    """Keep Ray from printing to stdout how its processes die, with pages of their logs: the pool says what matters."""
    from ray._private import worker

    usual = getattr(worker, "print_to_stdstream", None)
    if usual is None:  # it is not public: other releases may have none
        yield
        return
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = usual


def _use_own_token() -> None:
    """Give a private cluster a token, if the user has none: Ray would write one to HOME, which may not be there."""
    with suppress(RuntimeError):  # no home at all
        if os.access(Path.home() / ".ray" / "auth_token", os.R_OK):
            return
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _handle_sigterm(handler: Any) -> None:
    """Let this program handle SIGTERM as before Ray, whose own way is a native stack dump and exit code 1."""
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _require_listener(address: str) -> None:
    """Raise UnreadableError if nothing listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError) as e:
            raise UnreadableError(f"no Ray cluster at '{address}': {getattr(e, 'strerror', None) or e}") from e


def require_ray() -> None:
    """Raise LpsError where a process of our own private Ray has ended: Ray would wait, or end us without a word."""
    ended = [name for name, process in _own_processes() if process.poll() is not None]
    if ended:
        raise ray_ended(ended[0])


def _own_processes() -> list[tuple[str, Any]]:
    """Return name and `Popen` of what a private Ray cannot do without; none of a cluster that was joined."""
    from ray._private.worker import global_worker

    started = getattr(global_worker.node, "all_processes", {})  # not public: other releases may have none
    return [(name, info.process) for name in RAY_PROCESSES for info in started.get(name, ())]


def _kill_rest() -> None:
    """Kill what is left of our own Ray where a process of it has ended: it waits for that, and we would wait for it."""
    processes = [process for _, process in _own_processes()]
    if any(process.poll() is not None for process in processes):
        for process in processes:
            process.kill()


def ray_ended(name: str) -> LpsError:
    """Return the error that says that a process of our own private Ray has ended."""
    return LpsError(
        f"the process of Ray on this machine that {RAY_PROCESSES[name]} ({name}) has ended; committed shards are kept, "
        "run the same command again to resume"
    )


def start_detectors(cluster: Cluster, localizer: str, weights_dir: Path | None, n_detectors: int | None) -> list[Any]:
    """Return what finds the faces: actors that have loaded their weights, or on CPUs the workers themselves.

    An actor serves many workers, so that a GPU sees full batches: one a GPU. On CPUs a worker would only wait for it
    and copy images to it, so each loads the localizer for itself, unless `n_detectors` actors are asked for. The
    results are the same. Raises UnreadableError or IntegrityError for the weights, UnreadableError when actors do not
    come up.
    """
    import ray
    from ray import exceptions as rx

    from lps.pipeline.job.tasks import LocalizerActor

    require_ray()  # without it the first call of all would wait until Ray ends this process
    spec = LocalizerSpec(localizer, weights_dir, cluster.device, cluster.batch_size)
    n = n_detectors or cluster.n_gpus
    if not n:
        return [_with_graphs(spec)]
    # num_cpus=0: a detector that took a node's only core would keep the workers that feed it from starting
    remote = ray.remote(
        num_cpus=0,
        num_gpus=min(1.0, cluster.n_gpus / n) if cluster.n_gpus else 0,
        max_restarts=-1,
        max_task_retries=0,
        scheduling_strategy="SPREAD",
    )(LocalizerActor)
    # they read the weights themselves: an actor that starts again after the loss of a node waits for ever for arguments
    # that lie in the object store
    actors = [remote.remote(spec.load, cluster.batch_size) for _ in range(n)]
    try:
        refs = [actor.ready.remote() for actor in actors]
        _ready(refs)
        ray.get(refs, timeout=POLL_SECONDS)
    except rx.RayTaskError as e:
        raise _not_started(localizer, e.cause) from e
    except rx.RayError as e:
        reason = _reason(e)
        raise UnreadableError(f"localizer '{localizer}' does not start: {reason}") from e
    return actors


def _with_graphs(spec: LocalizerSpec) -> LocalizerSpec:
    """Return `spec` with its networks as ONNX, where there are such, made by a worker that ends with its torch.

    Other workers then have 200 MB less each, and start in two seconds of CPU less.
    """
    import ray
    from ray import exceptions as rx

    convert = ray.remote(num_cpus=1, max_retries=3, max_calls=1)(onnx_networks)
    try:
        return replace(spec, graphs=ray.get(_ready([convert.remote(spec)]))[0])
    except rx.RayTaskError as e:
        raise _not_started(spec.name, e.cause) from e
    except (rx.RayError, IndexError):
        return spec  # workers read the weights themselves, and say what is wrong


def load_workers(spec: LocalizerSpec, n_workers: int) -> None:
    """Let `n_workers` workers load the localizer before they are given videos.

    What keeps it from loading is then said once and charged to no video: raises UnreadableError or IntegrityError. A
    worker that is lost meanwhile is no matter; another one loads what it needs when it is needed.
    """
    import ray
    from ray import exceptions as rx

    from lps.pipeline.job.tasks import run_load

    load = ray.remote(num_cpus=1, max_retries=0)(run_load)
    shared = ray.put(spec)
    refs = [load.remote(shared) for _ in range(n_workers)]
    for ref in _ready(refs):
        try:
            ray.get(ref)
        except rx.RayTaskError as e:
            raise _not_started(spec.name, e.cause) from e
        except rx.RayError:
            continue


def _ready(refs: list[Any]) -> list[Any]:
    """Return those that have a result within READY_SECONDS. Raises LpsError where our own Ray ends meanwhile."""
    import ray

    until = time.monotonic() + READY_SECONDS
    ready: list[Any] = []
    while len(ready) < len(refs) and time.monotonic() < until:
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=POLL_SECONDS)
        require_ray()
    return ready


def _not_started(localizer: str, cause: BaseException) -> LpsError:
    return cause if isinstance(cause, LpsError) else UnreadableError(f"localizer '{localizer}' does not start: {cause}")


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
