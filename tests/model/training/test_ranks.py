"""Several processes train one network: in step over uneven data, on the same weights, with one set of files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.run_folder import step_checkpoints
from lps.model.training.run_log import read_log
from tests.model.board_events import without_times

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Members, Runner, Spec

    Settings = Callable[..., Path]

GLOBAL = {"pretrain": 'negatives = "global"'}


@pytest.fixture(scope="module")
def uneven_data(
    tmp_path_factory: pytest.TempPathFactory, maker: "type[Maker]", family: "Callable[..., list[Spec]]"
) -> Path:
    """Return a data set whose samples no two processes can share evenly: shards of 1, 2 and 8, and 5 to validate."""
    shards = [family("a", 1), family("b", 2), family("c", 8), family("v", 5, "val")]
    return maker(tmp_path_factory.mktemp("uneven")).data_set(shards)


def seen(out: Path) -> object:
    """Return log and best weights of a run."""
    return without_times(out / "log.jsonl"), read_checkpoint(out / "checkpoints/best.pt").network


def assert_equal(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())


@pytest.mark.parametrize(
    ("stage", "train", "tables"),
    [
        ("pretrain", 'augment = "strong"\naccumulate = 2', GLOBAL),
        ("classify", 'augment = "strong"\nema_decay = 0.7\npatience_epochs = 1', {}),
    ],
)
def test_ranks_stay_in_step_and_resume(
    stage: str,
    train: str,
    tables: dict[str, str],
    lps_train: "Runner",
    settings: "Settings",
    uneven_data: Path,
    tmp_path: Path,
) -> None:
    def command(name: str) -> list[object]:
        return [
            stage,
            tmp_path / name,
            "--data",
            uneven_data,
            "--init",
            "random",
            "--config",
            settings(train, **tables),
        ]

    ended = lps_train(*command("undisturbed"), ranks=2)
    assert ended.codes == [0, 0], ended.stderr
    assert ended.stdout[1] == ended.stderr[1] == ""
    steps = [r["step"] for r in read_log(tmp_path / "undisturbed/log.jsonl") if r["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert read_log(tmp_path / "undisturbed/log.jsonl")[-1]["n_clips"] == 5
    for kill in (("outside", "StepDone", 2), ("self", "CheckpointWritten", 1)):
        assert -9 in lps_train(*command("killed"), ranks=2, kill=kill).codes
    assert lps_train(*command("killed"), ranks=2).codes == [0, 0]
    assert_equal(seen(tmp_path / "killed"), seen(tmp_path / "undisturbed"))
    assert not list((tmp_path / "killed/checkpoints").glob(".*"))


def test_pairs_of_the_same_frames_go_on_after_kills_with_any_number_of_ranks(
    lps_train: "Runner", settings: "Settings", make: "Maker", family: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    """12 pairs that share their window, in batches of four; of the others nothing is read."""
    shared = family("a", 24, pair_mode="shared")
    data = make.data_set([shared[:9], [*family("b", 4, pair_mode="fallback"), *shared[9:]], family("v", 4, "val")])
    config = settings('sampling = "shared_pairs"\naugment = "strong"\nbatch_size = 8', run="checkpoint_steps = 1")

    def command(name: str) -> list[object]:
        return ["classify", tmp_path / name, "--data", data, "--init", "random", "--config", config]

    undisturbed = lps_train(*command("undisturbed"), ranks=2)
    assert undisturbed.codes == [0, 0], undisturbed.stderr
    assert "12 pairs of a fake and its original, 12 of them of the same frames; 2 fake and 2 real" in " ".join(
        undisturbed.stderr[0].split()
    )
    assert -9 in lps_train(*command("killed"), ranks=2, kill=("outside", "CheckpointWritten", 2)).codes
    assert lps_train(*command("killed"), ranks=2).codes == [0, 0]
    assert_equal(seen(tmp_path / "killed"), seen(tmp_path / "undisturbed"))
    assert -9 in lps_train(*command("elastic"), ranks=2, kill=("self", "CheckpointWritten", 1)).codes
    assert -9 in lps_train(*command("elastic"), ranks=4, kill=("self", "CheckpointWritten", 2)).codes
    ended = lps_train(*command("elastic"))
    assert ended.code == 0, ended.stderr
    steps = [r["step"] for r in read_log(tmp_path / "elastic/log.jsonl") if r["kind"] == "step"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_self_blends_go_on_after_kills_with_any_number_of_ranks(
    lps_train: "Runner", settings: "Settings", make: "Maker", spec: "type[Spec]", tmp_path: Path
) -> None:
    """Eight real clips, each beside its self-blend; nothing else, and real clips only to validate with."""
    reals = [spec(video=f"r{k}", n_frames=8) for k in range(8)]
    data = make.data_set([reals[:3], reals[3:], [spec(video="v", n_frames=8, split="val")]])
    config = settings(
        'sampling = "pairs"\naugment = "strong"\nbatch_size = 8',
        run="checkpoint_steps = 1",
        fakes='kind = "self-blend"',
    )

    def command(name: str) -> list[object]:
        return ["classify", tmp_path / name, "--data", data, "--init", "random", "--config", config]

    undisturbed = lps_train(*command("undisturbed"), ranks=2)
    assert undisturbed.codes == [0, 0], undisturbed.stderr
    said = " ".join(undisturbed.stderr[0].split())
    assert "8 real clips are made into self-blends while they are read" in said
    assert "nothing to validate with but real clips" in said
    assert -9 in lps_train(*command("killed"), ranks=2, kill=("outside", "CheckpointWritten", 2)).codes
    assert lps_train(*command("killed"), ranks=2).codes == [0, 0]
    assert_equal(seen(tmp_path / "killed"), seen(tmp_path / "undisturbed"))
    assert -9 in lps_train(*command("elastic"), ranks=2, kill=("self", "CheckpointWritten", 1)).codes
    assert -9 in lps_train(*command("elastic"), ranks=4, kill=("self", "CheckpointWritten", 2)).codes
    ended = lps_train(*command("elastic"))
    assert ended.code == 0, ended.stderr
    steps = [r["step"] for r in read_log(tmp_path / "elastic/log.jsonl") if r["kind"] == "step"]
    assert steps == [1, 2, 3, 4]


def test_two_ranks_learn_as_one_does(
    lps_train: "Runner", settings: "Settings", make: "Maker", family: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    """Without batch norm's dependence on the batch in the head, and with a loss that is a mean, only digits differ."""
    data = make.data_set([family("a", 8), family("v", 4, "val")])
    config = settings("epochs = 1", head="final_bn = false\ndropout = 0.0", net="gru_dropout = 0.0")
    for ranks in (1, 2):
        command = ["classify", tmp_path / f"{ranks}", "--data", data, "--init", "random", "--config", config]
        assert set(lps_train(*command, ranks=ranks).codes) == {0}
    one, two = (read_log(tmp_path / f"{ranks}/log.jsonl")[0] for ranks in (1, 2))
    assert two["loss"] == pytest.approx(one["loss"], rel=0.2)  # the encoder's batch norms see half a batch each


def test_saved_weights_are_those_that_were_validated(
    lps_train: "Runner", settings: "Settings", uneven_data: Path, tmp_path: Path
) -> None:
    """Each process has batch-norm statistics of its own; what is evaluated and kept are those of the first."""
    head = {"head": "final_bn = false"}
    command = ["--data", uneven_data, "--config", settings("epochs = 1", **head), "--init"]
    assert lps_train("classify", tmp_path / "run", *command, "random", ranks=2).codes == [0, 0]
    validated = read_log(tmp_path / "run/log.jsonl")[-1]
    # One process, and a learning rate too small to change a weight: validation of what was saved.
    still = settings("epochs = 1\nlr = 1e-30\nmin_lr = 0.0", run="cache_maps = false", distill="weight = 1.0", **head)
    command = ["--data", uneven_data, "--config", still, "--init", tmp_path / "run/checkpoints/best.pt"]
    assert lps_train("distill", tmp_path / "again", *command).code == 0
    again = read_log(tmp_path / "again/log.jsonl")[-1]
    assert again["loss"] == pytest.approx(validated["loss"], rel=1e-5)


def halved(members: "Members") -> None:
    members["01.jpg"] = members["01.jpg"][: len(members["01.jpg"]) // 2]


def test_bad_samples_of_all_ranks_are_counted(
    lps_train: "Runner", settings: "Settings", make: "Maker", family: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    data = make.data_set([family("a", 9), family("v", 4, "val")], spoil={f"a{x}": halved for x in ("r0", "f1", "r3")})
    config = settings(run="max_bad_share = 0.9", **GLOBAL)
    command = ["pretrain", tmp_path / "run", "--data", data, "--init", "random", "--config", config]
    ended = lps_train(*command, ranks=2)
    assert ended.codes == [0, 0], ended.stderr
    assert json.loads((tmp_path / "run/result.json").read_text())["n_bad_samples"] == 3


def test_distillation_shares_one_set_of_maps(
    lps_train: "Runner", settings: "Settings", uneven_data: Path, tmp_path: Path
) -> None:
    start = ["--data", uneven_data, "--config", settings("epochs = 1"), "--init"]
    assert lps_train("classify", tmp_path / "cls", *start, "random").code == 0
    ended = lps_train("distill", tmp_path / "ssd", *start, tmp_path / "cls/checkpoints/best.pt", ranks=2)
    assert ended.codes == [0, 0], ended.stderr
    assert len(list((tmp_path / "ssd/maps").iterdir())) == 2
    assert json.loads((tmp_path / "ssd/result.json").read_text())["last"]["n_clips"] == 5


def test_all_ranks_name_the_samples_of_a_bad_loss(
    lps_train: "Runner", settings: "Settings", uneven_data: Path, tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run", "--data", uneven_data, "--init", "random", "--config"]
    ended = lps_train(*command, settings("lr = 1e30\nmin_lr = 0.0\nweight_decay = 0.0"), ranks=2)
    assert ended.codes == [4, 4]
    assert "is nan at step" in ended.last_line
    assert ended.stderr[1].splitlines() == [ended.last_line]


def test_batch_that_cannot_be_shared_is_refused(
    lps_train: "Runner", settings: "Settings", uneven_data: Path, tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run", "--data", uneven_data, "--init", "random", "--config"]
    ended = lps_train(*command, settings("batch_size = 3"), ranks=2)
    assert 3 in ended.codes
    assert "a batch of 3 cannot be shared by 2 processes; change train.batch_size" in "".join(ended.stderr)
    ended = lps_train(*command, settings('batch_size = 2\nsampling = "pairs"'), ranks=2)
    assert "without dividing pairs" in "".join(ended.stderr)
    alone = lps_train(*command, settings(), "--head", "svm", ranks=2)
    assert alone.codes == [3, 3]


def test_a_rank_that_dies_ends_the_others_in_one_line(
    lps_train: "Runner", settings: "Settings", uneven_data: Path, tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run", "--data", uneven_data, "--init", "random", "--config", settings()]
    ended = lps_train(*command, ranks=2, kill=("first", "StepDone", 2))
    assert ended.codes == [-9, 4]
    assert ended.stderr[1] == "lps-train: another process of this run ended; what it says tells why\n"


@pytest.mark.slow
def test_torchrun_starts_it(settings: "Settings", uneven_data: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("lps-train")
    launch = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    args = ["pretrain", "run", "--data", uneven_data, "--init", "random", "--config", settings("epochs = 1", **GLOBAL)]
    done = subprocess.run([*launch, "--no-python", str(program), *map(str, args)], cwd=tmp_path, capture_output=True,
                          text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best checkpoint: run/checkpoints/best.pt") == 1
    assert len(step_checkpoints(tmp_path / "run/checkpoints")) == 2
