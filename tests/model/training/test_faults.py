"""Whatever is wrong with data, settings or numbers ends a run in one line that says what, or is counted."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch

from lps.manifests.errors import LpsError, UnreadableError
from lps.model.data.epoch_plan import PlanOptions
from lps.model.data.feature_maps import MapReader, Maps
from lps.model.data.video_score import video_auc
from lps.model.training.checkpoint import read_checkpoint, write_checkpoint
from lps.model.training.engine import Learner, PendingStep, RunProgress, report_losses, train_one_epoch
from lps.model.training.params import RunParams, TrainParams
from lps.model.training.processes import StopSignals
from lps.model.training.run_folder import step_checkpoints
from lps.model.training.run_log import RunLog, read_log
from lps.model.training.stages import StageOutput, TrainingStage
from lps.model.training.validate import validate

if TYPE_CHECKING:
    from tests.model.conftest import Ended, Maker, Members, Runner, Spec, SplitSet

    Settings = Callable[..., Path]


def one_line(ended: "Ended", code: int, *words: str) -> None:
    """Ask for an exit code and for words in the one line that the program ends with."""
    assert ended.code == code, ended.stderr
    assert ended.last_line.startswith("lps-train: ")
    assert "Traceback" not in ended.stderr[0]
    for word in words:
        assert word in ended.last_line


# ---- data ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def classify(lps_train: "Runner", settings: "Settings", tmp_path: Path) -> Callable[..., "Ended"]:
    """Return a function that trains a detector on a data set, with further arguments and settings."""

    def run(data: object, *args: object, train: str = "", **tables: str) -> "Ended":
        config = settings(train, **tables)
        return lps_train("classify", tmp_path / "run", "--data", data, "--init", "random", "--config", config, *args)

    return run


def test_missing_data_set(classify: Callable[..., "Ended"], tmp_path: Path) -> None:
    one_line(classify(tmp_path / "nowhere"), 4, "nowhere")


def test_empty_split(classify: Callable[..., "Ended"], tiny_data: Path) -> None:
    one_line(classify(tiny_data, "--split", "absent"), 4, "no videos in 'absent'; its splits: train, val")


def test_missing_split_of_validation(classify: Callable[..., "Ended"], tiny_data: Path) -> None:
    one_line(classify(tiny_data, "--val-split", "dev"), 4, "validation: ", "no videos in 'dev'", "--val-split")
    ended = classify(tiny_data, "--val-split", "none")
    assert ended.code == 0
    assert "no validation" in ended.stderr[0]


@pytest.mark.parametrize(("label", "what"), [(0, "real"), (1, "fake")])
def test_one_class_only(
    label: int,
    what: str,
    classify: Callable[..., "Ended"],
    make: "Maker",
    family: "Callable[..., list[Spec]]",
    tmp_path: Path,
) -> None:
    data = make.data_set([[each for each in family("a", 8) if each.label == label], family("v", 4, "val")])
    one_line(classify(data), 3, f"split 'train' of {data} has only {what} clips; a detector needs both classes")


def test_one_class_in_validation_is_noted(
    classify: Callable[..., "Ended"], make: "Maker", family: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    data = make.data_set([family("a", 4), family("v", 1, "val")])
    ended = classify(data)
    assert ended.code == 0
    assert "validation has one class only, so no AUC" in ended.stderr[0]
    assert json.loads((tmp_path / "run/result.json").read_text())["last"]["auc"] is None


def test_clips_too_short_for_the_network(
    classify: Callable[..., "Ended"], make: "Maker", family: "Callable[..., list[Spec]]"
) -> None:
    data = make.data_set([family("a", 4, n_frames=7), family("v", 2, "val")])
    one_line(classify(data), 3, "nothing to learn from: of 4 clips, 0 have no label and 4 fewer than 8 frames")


def test_split_set_that_leaks_needs_the_flag(
    classify: Callable[..., "Ended"],
    make: "Maker",
    family: "Callable[..., list[Spec]]",
    split_set: "type[SplitSet]",
    tmp_path: Path,
) -> None:
    specs = [*family("a", 4), *family("v", 4, "val")]
    sets = {"random": split_set({each.video: each.split for each in specs}, leaky=True)}
    data = make.data_set([specs[:4], specs[4:]], split_sets=sets)
    one_line(classify(data, "--split-set", "random"), 3, "stamped leaky")
    ended = classify(data, "--split-set", "random", "--allow-leaky")
    assert ended.code == 0
    assert "on a LEAKY split set" in ended.stdout[0]
    assert json.loads((tmp_path / "run/result.json").read_text())["data"]["leaky"] is True
    assert read_checkpoint(tmp_path / "run/checkpoints/best.pt").data["leaky"] is True


def halved(members: "Members") -> None:
    members["02.jpg"] = members["02.jpg"][: len(members["02.jpg"]) // 2]


def smaller(members: "Members") -> None:
    members["02.jpg"] = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()


def gone(members: "Members") -> None:
    del members["02.jpg"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(halved, "frame 02 is cut off"), (smaller, "frame 02 has 16x16 px, not 32x32"), (gone, "frame 02 is missing")],
)
def test_bad_samples_are_counted_and_named(
    spoil: "Callable[[Members], None]",
    says: str,
    classify: Callable[..., "Ended"],
    make: "Maker",
    family: "Callable[..., list[Spec]]",
    tmp_path: Path,
) -> None:
    data = make.data_set([family("a", 8), family("v", 4, "val")], spoil={"ar1": spoil, "vf0": spoil})
    one_line(classify(data), 5, "1 of 8 samples cannot be used, more than the 1.00% allowed", says)
    ended = classify(data, run="max_bad_share = 0.3")
    assert ended.code == 0
    assert "2 bad samples" in ended.stdout[0]
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["n_bad_samples"] == 2
    assert all(says in bad for bad in result["bad_samples"])
    assert result["last"]["n_clips"] == 3


def test_bad_samples_of_feature_maps_are_counted_also_when_maps_are_kept(
    lps_train: "Runner", settings: "Settings", make: "Maker", family: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    data = make.data_set([family("a", 8), family("v", 4, "val")], spoil={"ar1": halved, "vf0": gone})
    tables = {"run": f'max_bad_share = 0.3\nmaps_folder = "{tmp_path}/maps"'}
    start = ["--init", "random", "--config", settings(**tables)]
    assert lps_train("classify", tmp_path / "cls", "--data", data, *start).code == 0
    for name, train in (("made", ""), ("kept", "lr = 0.002")):
        start = ["--init", tmp_path / "cls/checkpoints/best.pt", "--config", settings(train, **tables)]
        assert lps_train("distill", tmp_path / name, "--data", data, *start).code == 0
        assert json.loads((tmp_path / name / "result.json").read_text())["n_bad_samples"] == 2


def test_bad_samples_found_before_a_run_was_killed_count(
    lps_train: "Runner", settings: "Settings", make: "Maker", family: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    data = make.data_set([family("a", 8), family("v", 4, "val")], spoil={"ar1": halved})
    config = settings("epochs = 1", run="max_bad_share = 0.3\ncheckpoint_steps = 1")
    command = ["classify", tmp_path / "run", "--data", data, "--init", "random", "--config", config]
    assert lps_train(*command, kill=("self", "Validating", 1)).code == -9
    read = read_checkpoint(step_checkpoints(tmp_path / "run/checkpoints")[-1])
    assert lps_train(*command).code == 0
    assert read.progress["position"] == 1
    assert json.loads((tmp_path / "run/result.json").read_text())["n_bad_samples"] == 1


def test_truncated_shard(classify: Callable[..., "Ended"], make: "Maker", family: "Callable[..., list[Spec]]") -> None:
    data = make.data_set([family("a", 4), family("v", 2, "val")])
    shard = next(data.glob("shards/train/*.tar"))
    shard.write_bytes(shard.read_bytes()[:-3000])
    one_line(classify(data), 5, f"shard {shard} has ", "its record says", "found at sample")


def test_changed_shard_is_found_where_asked_for(
    classify: Callable[..., "Ended"], make: "Maker", family: "Callable[..., list[Spec]]"
) -> None:
    data = make.data_set([family("a", 4), family("v", 2, "val")])
    shard = next(data.glob("shards/train/*.tar"))
    held = bytearray(shard.read_bytes())
    held[-1] ^= 1
    shard.write_bytes(held)
    one_line(classify(data, run="verify_shards = true"), 5, str(shard))
    assert classify(data).code == 0


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "tables", "code", "says"),
    [
        ('sampling = "pairs"\nbatch_size = 3', {}, 4, "a batch of pairs has an even size"),
        ("epochs = 0", {}, 4, "must be above zero"),
        ("grad_clip = 0.0", {}, 4, "grad_clip"),
        ("lr = true", {}, 4, "'train.lr' must be a number, got True"),
        ("epoch = 3", {}, 4, "unknown name 'train.epoch'; did you mean 'epochs'?"),
        ("", {"run": "threads = 0"}, 4, "must be above zero"),
        ("", {"run": 'device = "tpu"'}, 4, "'run.device' must be one of auto, cpu, cuda"),
        ("", {"head": 'context = "bidir_last"', "net": "bidirectional = false"}, 3, "needs a bidirectional aggregator"),
        ("", {"top": "image_px = 0"}, 4, "image_px"),
    ],
)
def test_settings_that_make_no_sense(
    train: str,
    tables: dict[str, str],
    code: int,
    says: str,
    classify: Callable[..., "Ended"],
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    one_line(classify(tiny_data, train=train, **tables), code, says)
    assert not (tmp_path / "run/checkpoints").exists()


def test_settings_file_that_is_none(lps_train: "Runner", tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("epochs = = 3")
    command = ["pretrain", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config"]
    one_line(lps_train(*command, tmp_path / "broken.toml"), 4, "not a readable TOML file")


def test_too_few_blocks_for_pretraining(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    command = ["pretrain", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config"]
    one_line(lps_train(*command, settings(net="n_blocks = 2")), 3, "has no network: nothing to predict")


def test_starts_that_do_not_fit(lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path) -> None:
    def run(stage: str, name: str, init: object, *args: object, **tables: str) -> "Ended":
        config = settings("epochs = 1", **tables)
        return lps_train(stage, tmp_path / name, "--data", tiny_data, "--init", init, "--config", config, *args)

    def best(name: str) -> Path:
        return tmp_path / name / "checkpoints/best.pt"

    assert run("pretrain", "pre", "random").code == 0
    assert run("classify", "cls", best("pre")).code == 0
    assert run("classify", "svm", best("pre"), "--head", "svm").code == 0
    one_line(run("distill", "x", "random"), 3, "distillation needs a trained detector")
    one_line(run("distill", "x", best("pre")), 3, "is of stage 'pretrain'; distill starts from classify or distill")
    one_line(run("pretrain", "x", best("cls")), 3, "is of stage 'classify'; pretrain starts from encoder or pretrain")
    one_line(run("distill", "x", best("svm")), 3, "classifies by a support vector machine")
    one_line(run("classify", "x", best("pre"), net="width = 6"), 3, "has net.width = 4, this configuration 6")
    one_line(run("distill", "x", best("cls"), head='context = "bidir_mean"'), 3, "has head.context = 'bidir_last'")
    one_line(run("pretrain", "x", best("pre"), pretrain="n_slots = 16"), 3, "'mb' is (32, 16), this network needs")
    one_line(run("classify", "x", tmp_path / "none.pt"), 4, "No such file")


@pytest.mark.parametrize("train", ['augment = "light"', 'sampling = "pairs"'])
def test_feature_maps_are_neither_augmented_nor_in_pairs(
    train: str, lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    start = ["--data", tiny_data, "--init"]
    assert lps_train("classify", tmp_path / "cls", *start, "random", "--config", settings("epochs = 1")).code == 0
    command = ["distill", tmp_path / "ssd", *start, tmp_path / "cls/checkpoints/best.pt", "--config"]
    one_line(lps_train(*command, settings(train)), 3, "run.cache_maps = false")
    assert lps_train(*command, settings(f"epochs = 1\n{train}", run="cache_maps = false")).code == 0


def test_run_folder_that_cannot_be_written(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    command = ["--data", tiny_data, "--init", "random", "--config", settings()]
    one_line(lps_train("pretrain", tmp_path / "file/run", *command), 4, "cannot write to", "Not a directory")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_bytes(b'{"half')
    one_line(lps_train("pretrain", tmp_path / "run", *command), 4, "cannot read", "config.json")


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_loss_that_is_not_finite_names_the_samples(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config"]
    ended = lps_train(*command, settings("lr = 1e30\nmin_lr = 0.0\nweight_decay = 0.0"))
    one_line(
        ended, 4, "is nan at step", "on the samples", "lower the learning rate (1e+30)", "checkpoints, if any, are"
    )
    keys = set(read_keys(tiny_data))
    named = ended.last_line.split("on the samples ")[1].split(";")[0].split(", ")
    assert set(named) <= keys
    assert len(named) in (1, 2, 3, 4)
    assert not (tmp_path / "run/result.json").exists()


def read_keys(data: Path) -> list[str]:
    """Return all sample keys of a data set."""
    import pyarrow.parquet as pq

    return [str(key) for key in pq.read_table(data / "manifests/clips.parquet")["sample_key"].to_pylist()]


def test_last_checkpoint_before_a_bad_loss_is_good(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    """The state of the optimiser is poisoned after a checkpoint; what was written before stays and goes on."""
    command = ["classify", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", settings()]
    assert lps_train(*command, kill=("self", "CheckpointWritten", 2)).code == -9
    good = step_checkpoints(tmp_path / "run/checkpoints")[-1]
    found = read_checkpoint(good)
    held = good.read_bytes()
    found.training["network"]["backbone.layer4.1.bn2.weight"][0] = math.inf
    write_checkpoint(good, found)
    before = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    one_line(
        lps_train(*command), 4, "is nan at step 5", "on the samples", "; checkpoints, if any, are from before this step"
    )
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == before
    good.write_bytes(held)
    assert lps_train(*command).code == 0
    steps = [r["step"] for r in read_log(tmp_path / "run/log.jsonl") if r["kind"] == "step"]
    assert steps == list(range(1, 9))


class Scripted(TrainingStage):
    """A stage whose loss is its one weight times a factor of the batch."""

    network: torch.nn.Linear

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(1, 1, bias=False), 1)

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> StageOutput:
        factor = inputs.mean()
        loss = self.network.weight.sum() * factor
        return StageOutput(torch.sqrt(loss * 0) if factor == 0 else loss, {})


def factors(*values: float) -> MapReader:
    """Return a reader for it: one batch for each factor."""
    keys = tuple(f"sample-{k}" for k in range(len(values)))
    maps = Maps(np.array(values, np.float16), np.zeros(len(values), np.int64), keys, "factors")
    return MapReader(maps, PlanOptions(batch_size=1, shuffle=False))


@pytest.mark.parametrize(
    ("factor", "says"),
    [(math.nan, "the loss is nan at step 3, on the samples sample-2;"), (0.0, "the gradient's norm is nan at step 3")],
)
@pytest.mark.parametrize("log_steps", [1, 2, 100])
def test_first_bad_step_is_named_however_late_one_looks(factor: float, says: str, log_steps: int) -> None:
    """A finite loss with a gradient that is not spoils the weights, and the next batch would be blamed for it."""
    stage = Scripted()
    optimizer = torch.optim.Adam(stage.parameters())
    learner = Learner(stage, stage.network, optimizer, TrainParams(schedule="constant"), torch.device("cpu"))
    reported: list[int] = []
    with pytest.raises(LpsError, match=says):
        for _ in train_one_epoch(
            learner,
            factors(1, 2, factor, 3, 4),
            RunProgress(),
            log_steps,
            lambda step, _: reported.append(step),
            lambda: False,
        ):
            pass
    assert reported == [1, 2]


def test_validation_that_is_not_finite_names_the_samples() -> None:
    with pytest.raises(LpsError, match="validation is not finite on the samples sample-1; "):
        validate(Scripted(), factors(1.0, math.nan, 2.0).epoch(0), {}, torch.device("cpu"), StopSignals())


def test_values_are_looked_at_once_for_many_steps() -> None:
    taken = [
        PendingStep(k, ("a",), 0.1 * k, {"loss": torch.tensor(k / 3), "grad_norm": torch.tensor(1.0)}) for k in (1, 2)
    ]
    seen: dict[int, dict[str, float]] = {}
    report_losses(taken, lambda step, values: seen.update({step: values}))
    assert seen[2] == {"loss": float(torch.tensor(2 / 3)), "grad_norm": 1.0, "lr": 0.2}


def test_auc_is_over_videos() -> None:
    scores = [("a", 0, 0.9), ("a", 0, 0.1), ("b", 1, 0.6), ("b", 1, 0.7), ("c", 0, 0.65), ("d", 1, 0.3)]
    assert video_auc([((video, 0), label, p) for video, label, p in scores]) == pytest.approx(0.25)
    assert video_auc([(("a", 0), 1, 0.3)]) is None
    two_faces = [(("a", 0), 1, 0.1), (("a", 1), 1, 0.9), (("b", 0), 0, 0.6)]
    assert video_auc(two_faces) == 1.0


# ---- what is left to read --------------------------------------------------------------------------------------------


def test_log_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_open = Path.open
    full = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115  the log closes it
    monkeypatch.setattr(Path, "open", lambda path, mode: full if mode == "ab" else whole_open(path, mode))
    log = RunLog(tmp_path, 0)
    monkeypatch.undo()
    with pytest.raises(UnreadableError, match=r"cannot write .*log\.jsonl: No space left on device; make room"):
        log.write("step", 1, {"loss": 1.0})
    log.__exit__(None, None, None)


def test_torn_lines_of_a_log_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"kind":"step","loss":1.5,"step":1}\n\0\0\0\n{"kind":"step","st')
    with RunLog(tmp_path, 1) as log:
        log.write("step", 2, {"loss": 0.5})
    assert [record["loss"] for record in read_log(tmp_path / "log.jsonl")] == [1.5, 0.5]


def test_parameters_reject_nonsense() -> None:
    wrong: dict[str, Any]
    for wrong in ({"stop_epochs": 0}, {"ema_decay": 1.0}, {"min_lr": 1.0}, {"batch_size": 0}):
        with pytest.raises(ValueError):
            TrainParams(**wrong)
    for wrong in ({"workers": -1}, {"max_bad_share": 2.0}, {"keep_checkpoints": 0}):
        with pytest.raises(ValueError):
            RunParams(**wrong)
