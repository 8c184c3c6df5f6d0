"""SIGTERM and Ctrl-C end a run after its step, with a checkpoint, and the same command goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lps.model.data.clip_data import open_data
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.epoch_plan import PlanOptions
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.processes import StopSignals
from lps.model.training.run_folder import step_checkpoints
from lps.model.training.run_log import read_log
from tests.model.training.test_resume import assert_same, left

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Runner, Spec

    Settings = Callable[..., Path]

RARE = "log_steps = 100\ncheckpoint_steps = 100"


def steps(out: Path) -> list[int]:
    """Return the steps that a run has logged."""
    return [record["step"] for record in read_log(out / "log.jsonl") if record["kind"] == "step"]


@pytest.fixture(scope="module")
def undisturbed(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    ended = lps_train("classify", out, "--data", tiny_data, "--init", "random", "--config", settings(run=RARE))
    assert ended.code == 0, ended.stderr
    return out


@pytest.mark.parametrize(
    ("signum", "code", "by", "event", "step"),
    [
        (signal.SIGTERM, 143, " by SIGTERM", ("self", "StepDone", 2), 3),
        (signal.SIGTERM, 143, " by SIGTERM", ("self", "Validating", 1), 4),
        (signal.SIGINT, 130, "", ("self", "Validating", 1), 4),
    ],
)
def test_stopped_runs_are_saved_and_go_on(
    signum: int, code: int, by: str, event: tuple[str, str, int], step: int,
    lps_train: "Runner", settings: "Settings", tiny_data: Path, undisturbed: Path, tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "run"
    config = settings(run="log_steps = 1\ncheckpoint_steps = 100")
    command = ["classify", out, "--data", tiny_data, "--init", "random", "--config", config]
    stopped = lps_train(*command, kill=event, signum=signum)
    assert stopped.code == code
    saved = out / f"checkpoints/step-{step:08d}.pt"
    assert stopped.last_line == f"lps-train: interrupted{by}; saved {saved}; run the same command again to resume"
    assert read_checkpoint(saved).progress["epoch"] == 0
    assert not (out / "result.json").exists()
    ended = lps_train(*command)
    assert ended.code == 0, ended.stderr
    assert_same(left(out), left(undisturbed))


def test_a_signal_before_the_first_step_says_so(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    command = ["pretrain", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", settings()]
    stopped = lps_train(*command, kill=("self", "RunBegun", 1), signum=signal.SIGTERM)
    assert (stopped.code, stopped.last_line) == (143, "lps-train: interrupted by SIGTERM; run the same command again")


def test_all_ranks_stop_at_one_step_and_another_number_goes_on(
    lps_train: "Runner", settings: "Settings", make: "Maker", family: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    data, out = make.data_set([family("a", 30), family("v", 4, "val")]), tmp_path / "run"
    config = settings("epochs = 2\nbatch_size = 6", run="checkpoint_steps = 100")
    command = ["classify", out, "--data", data, "--init", "random", "--config", config]
    stopped = lps_train(*command, ranks=2, kill=("first", "StepDone", 6), signum=signal.SIGTERM)
    assert stopped.codes == [143, 143], stopped.stderr
    assert stopped.stderr[1] == ""
    assert [path.name for path in step_checkpoints(out / "checkpoints")] == ["step-00000005.pt", "step-00000007.pt"]
    stopped = lps_train(*command, ranks=3, kill=("first", "StepDone", 1), signum=signal.SIGINT)
    assert stopped.codes == [130, 130, 130], stopped.stderr
    ended = lps_train(*command)
    assert ended.code == 0, ended.stderr
    assert "resumed at step 9" in ended.stderr[0]
    assert steps(out) == list(range(1, 11))


@pytest.mark.parametrize("torchrun", [False, True])
def test_a_second_interrupt_does_not_wait(torchrun: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """But torchrun passes on the Ctrl-C that the terminal has sent already."""
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with StopSignals() as stop:
        for signum in (signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), signum)
        assert stop.agreed()
        if torchrun:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_workers_are_deaf_to_what_a_whole_job_is_sent(tiny_data: Path) -> None:
    data = open_data(str(tiny_data), "train")
    work = WorkOptions(n_workers=1, batches_ahead=1)
    with ClipReader(data, ReadOptions(n_frames=8), PlanOptions(batch_size=1), work) as reader:
        batches = reader.epoch(0)
        next(batches)
        for worker in active_children():
            assert worker.pid is not None
            parent = int(
                Path(f"/proc/{worker.pid}/stat").read_text().split()[3]
            )  # which forked it, and is not this one
            for pid in (parent, worker.pid):
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGINT)
        assert len(list(batches)) == len(data) - 1


@pytest.mark.slow
def test_torchrun_passes_signals_on(settings: "Settings", tiny_data: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("lps-train")
    launch = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    args = ["pretrain", "run", "--data", tiny_data, "--init", "random", "--config"]
    args.append(settings("epochs = 100000", run="workers = 1"))
    with subprocess.Popen(
        [*launch, "--no-python", str(program), *map(str, args)], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        said = []
        for line in running.stderr:
            said.append(line)
            if line.startswith("epoch 1,"):
                running.send_signal(signal.SIGTERM)
    assert running.returncode == 1
    last = step_checkpoints(tmp_path / "run/checkpoints")[-1].relative_to(tmp_path)
    assert f"lps-train: interrupted by SIGTERM; saved {last}; run the same command again to resume\n" in said
