"""Runs `lps-prep` and `lps-audit` in forks of a process that has everything imported, and kills them at any write.

One JSON request a line on stdin, one JSON answer a line on stdout. Python tells of every file that a process opens to
write, renames or removes (`sys.addaudithook`); just before the n-th of these below a folder, the process kills itself.
So every state that files can be left in comes about, whatever code writes them. Of Ray there is what the driver sees of
it: tasks run in this process, when they are asked for.
"""

import gc
import json
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from typing import Any, TypedDict

import fsspec
import ray
from fsspec.implementations.local import LocalFileSystem
from ray import exceptions as rx

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main as prep
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.records import Outcome, VideoResult
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.faces.localizers import LocalizerSpec, batch_size_on
from lps.pipeline.faces.track import DetectFaces
from lps.pipeline.job.request import RunOptions
from lps.pipeline.job.shards import ShardVideo
from lps.pipeline.job.tasks import run_load
from lps.pipeline.video import kept_probes
from tests.builders import still_clip

COMMANDS = {"lps-prep": prep, "lps-audit": audit}
HEAVY = (
    "PIL.features", "pandas", "pyarrow.csv", "rich.progress", "rich.table", "lps.cli.prep.progress",
    "lps.manifests.audit.core.seal", "lps.pipeline.job.run", "lps.pipeline.job.split_sets", "lps.pipeline.job.status",
)  # fmt: skip
"""What commands import when they run."""


class Asked(TypedDict):
    """A command line, the folder whose writes count, the number of the write to die at (0: none), and broken tasks."""

    command: list[str]
    watch: str
    kill_at: int
    crash: str
    """Tasks with this in their name lose their worker; empty for none."""
    max_bytes: int
    """Writes beyond so many bytes into a file fail, as on a full disk; 0: none does."""
    pause_ms: int
    """So long every write waits, as on a slow disk."""
    seconds: int
    """After as many SIGALRM ends the command; 0: never."""


class Ended(TypedDict):
    """How it ended: exit code, below 0 for a signal; every write as (what, path); the last line on stderr."""

    code: int
    writes: list[tuple[str, str]]
    says: str
    stderr: str


# ---- videos that take no time ----------------------------------------------------------------------------------------


def instant_clip(source: Store, video: ShardVideo, detect: DetectFaces, params: Params) -> VideoResult:
    """Return one clip of a few bytes, or none for a video whose name says so."""
    video_id = video.source.video_id
    if "faceless" in video.source.uri:
        outcome = Outcome(status=Status.FAILED, code=Code.E_NO_FACE, stage=Stage.DETECT, n_frames_decoded=2)
        return VideoResult(video_id=video_id, outcome=outcome)
    frames = tuple(sha256(video_id + bytes([k])).digest() for k in range(params.clip_frames))
    outcome = Outcome(status=Status.OK, n_frames_decoded=params.clip_frames)
    return VideoResult(video_id=video_id, outcome=outcome, clips=(still_clip(params.clip_frames, frames=frames),))


class Bucket(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Stands for an object store, at `bucket:///folder`: no names that change, a file is there when it is complete."""

    protocol = "bucket"

    def __init__(self, **options: Any) -> None:
        super().__init__(auto_mkdir=True, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("bucket://")))


# ---- Ray as the driver sees it ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What a task gave, or the error that it ended with."""

    value: Any


class Remote:
    """A task, or an actor's class or method."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], crash: str) -> None:
        self.function, self.set, self.crash = function, options, crash

    def options(self, **changes: Any) -> "Remote":
        """Return the same with other options."""
        return Remote(self.function, {**self.set, **changes}, self.crash)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Run it at once."""
        n_results = self.set.get("num_returns", 1)
        try:
            if self.crash and self.crash in self.set.get("name", ""):
                raise rx.WorkerCrashedError
            found = self.function(*[value_of(each) for each in args], **kwargs)
            if not isinstance(self.function, type):
                found = pickle.loads(pickle.dumps(found, protocol=5))  # what goes through the object store
        except rx.RayError as e:
            found = [e] * n_results if n_results > 1 else e
        except Exception as e:  # noqa: BLE001  as Ray does
            error = rx.RayTaskError(self.function.__name__, str(e), e)
            found = [error] * n_results if n_results > 1 else error
        if isinstance(self.function, type):
            return Actor(found)
        return [Reference(each) for each in found] if n_results > 1 else Reference(found)


class Actor:
    """An object whose methods are asked for as tasks."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Remote:
        return Remote(getattr(self.inner, name), {}, "")


def value_of(found: Any) -> Any:
    """Return what a reference, or each of a list of them, stands for; raise what its task ended with."""
    if isinstance(found, list):
        return [value_of(each) for each in found]
    value = found.value if isinstance(found, Reference) else found
    if isinstance(value, rx.RayError):
        raise value
    return value


class Context:
    """What a driver knows of itself."""

    gcs_address = "127.0.0.1:1"

    def get_node_id(self) -> str:
        """Return an id of the right length."""
        return "0" * 56


def replace_ray(crash: str) -> None:
    """Let this process, which ends soon, see a cluster with one worker that it is connected to."""

    def remote(*functions: Any, **options: Any) -> Any:
        return Remote(functions[0], {}, crash) if functions else lambda function: Remote(function, options, crash)

    def wait(refs: Sequence[Reference], num_returns: int = 1, **_: Any) -> tuple[list[Reference], list[Reference]]:
        return list(refs[:num_returns]), list(refs[num_returns:])

    stands_for: dict[str, Callable[..., Any]] = {
        "cancel": lambda *_, **__: None,
        "cluster_resources": lambda: {"CPU": 1.0},
        "get": lambda found, **_: value_of(found),
        "get_runtime_context": Context,
        "is_initialized": lambda: True,
        "put": Reference,
        "remote": remote,
        "wait": wait,
    }
    for name, stand_in in stands_for.items():
        setattr(ray, name, stand_in)


# ---- death at a write ------------------------------------------------------------------------------------------------


def watch_writes(root: str, kill_at: int, log: int, pause_ms: int) -> None:
    """Log every write below a folder to a descriptor, wait a little, and get killed just before the one of a number."""
    n_seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal n_seen
        what = write_of(event, args, root)
        if what is not None:
            n_seen += 1
            if n_seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(log, json.dumps(what).encode() + b"\n")
            time.sleep(pause_ms / 1000)

    sys.addaudithook(hook)


def write_of(event: str, args: tuple[Any, ...], root: str) -> tuple[str, str] | None:
    """Return what a process is about to do to which file below `root`, None for anything else."""
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    if event == "open" and isinstance(args[0], str) and args[2] & writes:
        what, path = "begin", args[0]
    elif event == "os.rename":
        what, path = "name", os.fspath(args[1])
    elif event == "os.remove" and os.path.lexists(args[0]):  # noqa: PTH110  of what is there
        what, path = "remove", os.fspath(args[0])
    else:
        return None
    return (what, path.removeprefix(f"{root}/")) if path.startswith(f"{root}/") else None


def run(asked: Asked) -> Ended:
    """Run a command in a fork. What it says comes by pipes, which no limit to the size of files cuts off."""
    (log_end, log), (said_end, said) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(said, 2)
            signal.alarm(asked["seconds"])
            replace_ray(asked["crash"])
            watch_writes(asked["watch"], asked["kill_at"], log, asked["pause_ms"])
            if asked["max_bytes"]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (asked["max_bytes"],) * 2)
            program, *words = asked["command"]
            COMMANDS[program](words, prog_name=program)
        except SystemExit as e:
            code = int(e.code or 0)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(log)
    os.close(said)
    writes, stderr = _heard(pid, log_end, said_end)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    last = stderr.strip().rpartition("\n")[2]
    return Ended(code=code, writes=[json.loads(line) for line in writes.splitlines()], says=last, stderr=stderr)


def _heard(pid: int, *ends: int) -> list[str]:
    """Return what comes from pipes until a process ends; what it started may hold them open for longer."""
    heard, ended = {end: bytearray() for end in ends}, os.pidfd_open(pid)
    is_over, silent = False, set[int]()
    for end in ends:
        os.set_blocking(end, False)
    while not is_over:
        is_over = ended in select.select([ended, *(heard.keys() - silent)], [], [])[0]
        for end, data in heard.items():
            with suppress(BlockingIOError):
                while part := os.read(end, 1 << 16):
                    data += part
                silent.add(end)
    for end in (*ends, ended):
        os.close(end)
    return [data.decode(errors="backslashreplace") for data in heard.values()]


def main() -> None:
    """Answer requests until there are no more."""
    for name in HEAVY:
        import_module(name)
    fsspec.register_implementation("bucket", Bucket)
    setattr(os, "fsync", lambda handle: None)  # noqa: B010  the kernel, and what it holds of files, outlives who is killed here
    kept_probes.PAUSE_SECONDS = 1e9  # writes are counted: none may depend on the time
    defaults: dict[str, Any] = RunOptions.__init__.__kwdefaults__  # type: ignore[assignment]
    defaults["process"] = instant_clip
    run_load(LocalizerSpec("mtcnn", None, "cpu", batch_size_on("cpu")))
    gc.disable()
    gc.freeze()  # what forks do not touch they need not copy
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
