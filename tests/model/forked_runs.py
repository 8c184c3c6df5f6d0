"""Runs `lps-train` in forks of a process that has everything imported: a second each instead of five.

One JSON request a line on stdin, one JSON answer a line on stdout. A run can be killed as by the kernel, or get another
signal: at an event of its own, by another process after an event, or in the middle of writing a file. It can be given a
full disk.
"""

import io
import json
import os
import resource
import signal
import socket
import sys
import warnings
from contextlib import suppress
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from lps.cli.train.progress import TrainProgress
    from lps.model.training.events import TrainEvent

# Not at the top: workers import this file, too. Optimisers import torch._dynamo, which takes two seconds.
HEAVY = (
    "sklearn.metrics",
    "sklearn.svm",
    "torch._dynamo",
    "lps.cli.train.main",
    "lps.cli.train.progress",
    "lps.model.training.train",
)


class RunRequest(TypedDict):
    """One run: its arguments, the number of processes, how it dies, and the folder for what it says."""

    args: list[str]
    ranks: int
    kill: tuple[str, str, int] | None
    signum: int
    max_bytes: int
    folder: str
    port: NotRequired[int]
    seconds: NotRequired[int]
    """After as many SIGALRM ends each process; 0: never."""


def warm_up() -> None:
    """Import and ask once for all what every run needs."""
    for name in HEAVY:
        import_module(name)
    from lps.model.training.checkpoint import code_version

    code_version()  # asks git


def run_rank(request: RunRequest, rank: int, told: int) -> int:
    """Be one process of a run; returns its exit code."""
    import torch

    from lps.cli.train import main as train

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if request["ranks"] > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(request["ranks"])}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(request["port"])}
    for name in ("stdout", "stderr"):
        with Path(request["folder"], f"{name}-{rank}").open("w") as file:
            os.dup2(file.fileno(), getattr(sys, name).fileno())
    signal.alarm(request.get("seconds", 0))
    if request["max_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["max_bytes"],) * 2)
    arrange_death(request["kill"], request["signum"], told)
    try:
        train.main(request["args"], prog_name="lps-train")
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def arrange_death(kill: tuple[str, str, int] | None, signum: int, told: int) -> None:
    """Let this process get a signal at the n-th event of a class, or in its n-th call of `torch.save`.

    `self` is every rank by itself, `first` the first one, and `outside` all of them by another process. `name` and
    `remove` are SIGKILL just before a file that has been written gets the name `kind`, or before it is removed, for the
    n-th time.
    """
    if kill is None:
        return
    if kill[0] in ("name", "remove"):
        die_at_write(*kill)
        return
    import torch

    from lps.cli.train import progress as train_progress

    how, kind, n_left = kill
    usual_event, usual_save = train_progress.TrainProgress.on_event, torch.save

    def on_event(self: "TrainProgress", event: "TrainEvent") -> None:
        nonlocal n_left
        usual_event(self, event)
        n_left -= type(event).__name__ == kind
        if n_left == 0 and type(event).__name__ == kind:
            if how == "self" or (how == "first" and os.environ.get("RANK") == "0"):
                os.kill(os.getpid(), signum)
            if how == "outside":
                os.write(told, b".")

    def save(values: object, file: IO[bytes]) -> None:
        nonlocal n_left
        n_left -= 1
        whole = io.BytesIO()
        usual_save(values, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // (2 if n_left == 0 else 1)])
        if n_left == 0:
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "save":
        torch.save = save  # type: ignore[assignment]
    else:
        train_progress.TrainProgress.on_event = on_event  # type: ignore[method-assign]


def die_at_write(what: str, name: str, n_left: int) -> None:
    """Let this process be killed at the n-th write of a file, whose name may be a pattern. Python tells before it."""
    place = {"name": ("os.rename", 1), "remove": ("os.remove", 0)}[what]

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal n_left
        if event == place[0] and fnmatch(Path(os.fspath(args[place[1]])).name, name):  # type: ignore[call-overload]
            n_left -= 1
            if n_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(request: RunRequest) -> dict[str, object]:
    """Fork the processes of a run and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        request["port"] = free.getsockname()[1]
    waiting, told = os.pipe()
    ranks = []
    for rank in range(request["ranks"]):
        pid = os.fork()
        if pid == 0:
            os.close(waiting)
            os.setpgid(0, 0)
            code = 99
            try:
                code = run_rank(request, rank, told)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        ranks.append(pid)
    os.close(told)
    if os.read(waiting, 1):  # empty when all have ended
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)
    os.close(waiting)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]
    for pid in ranks:  # workers outlive a rank that was killed
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    folder = Path(request["folder"])
    said = [(folder / f"{name}-{rank}").read_text() for name in ("stdout", "stderr") for rank in range(len(ranks))]
    return {"codes": codes, "stdout": said[: len(ranks)], "stderr": said[len(ranks) :]}


if __name__ == "__main__":
    warm_up()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()
