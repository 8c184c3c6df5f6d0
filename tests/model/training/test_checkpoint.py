"""Checkpoints: whole or not there, the last few and the best; and one clear line for whatever is not one of ours."""

import errno
import fcntl
import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from lps.manifests.errors import IntegrityError, LpsError, RefusedError, UnreadableError
from lps.model.evaluation.loading import load_detector
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector
from lps.model.networks.published_weights import load_reference
from lps.model.training.checkpoint import FORMAT, Checkpoint, file_sha256, read_checkpoint, write_checkpoint
from lps.model.training.presets import Preset
from lps.model.training.run_folder import prune, step_checkpoints, step_path
from tests.builders import detector_checkpoint

if TYPE_CHECKING:
    from tests.model.conftest import Runner

    Settings = Callable[..., Path]

PRESET = Preset(image_px=32, net=NetParams(width=2, n_blocks=2, block_frames=2))


@pytest.fixture
def detector() -> Checkpoint:
    """Return a detector's checkpoint."""
    network = Detector(PRESET.net, PRESET.head)
    data = {"index_sha256": "0" * 64, "leaky": False}
    return detector_checkpoint(network, PRESET, data=data, progress={"step": 3})


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return one.network.keys() == other.network.keys() and all(
        torch.equal(value, other.network[name]) for name, value in one.network.items()
    )


def test_what_is_written_is_read(detector: Checkpoint, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "new/best.pt", detector)
    found = read_checkpoint(tmp_path / "new/best.pt")
    assert same(found, detector)
    assert (found.stage, found.config, found.data) == (detector.stage, detector.config, detector.data)
    assert found.code["torch"] == torch.__version__
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["best.pt"]


def test_checkpoints_have_the_rights_of_other_files(detector: Checkpoint, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pt", detector)
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "best.pt").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_detector_loads_with_its_origin(detector: Checkpoint, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pt", detector)
    loaded = load_detector(tmp_path / "best.pt")
    assert (loaded.image_px, loaded.n_frames, loaded.stage, loaded.svm) == (32, 4, "classify", None)
    assert re.fullmatch("[0-9a-f]{64}", loaded.sha256)
    assert not loaded.network.training
    clips = torch.randn(2, 2, 3, 2, 32, 32)
    network = Detector(PRESET.net, PRESET.head).eval()
    network.load_state_dict(detector.network)
    assert torch.equal(loaded.network(clips), network(clips))


def test_last_few_are_kept_with_the_best(detector: Checkpoint, tmp_path: Path) -> None:
    for step in (5, 40, 300, 2000):
        write_checkpoint(step_path(tmp_path, step), detector)
    write_checkpoint(tmp_path / "best.pt", detector)
    (tmp_path / ".step-00002001.pt.0123abcd.tmp").write_bytes(b"half")
    prune(tmp_path, 2, 200)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "b"))) == ["best.pt"]
    assert step_checkpoints(tmp_path) == [step_path(tmp_path, step) for step in (40, 300, 2000)]  # 40: the epoch before
    prune(tmp_path, 2, 2000)
    assert step_checkpoints(tmp_path) == [step_path(tmp_path, 300), step_path(tmp_path, 2000)]


@pytest.mark.slow
def test_runs_keep_what_they_are_asked_to(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run", "--data", tiny_data, "--init", "random"]
    ended = lps_train(*command, "--config", settings(run="keep_checkpoints = 3\ncheckpoint_steps = 1"))
    assert ended.code == 0
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["best.pt", *(f"step-{step:08d}.pt" for step in (6, 7, 8))]


# ---- no room ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("[enforce fail at inline_container] .")]
)
def test_failed_write_leaves_what_was_there(
    fault: Exception, detector: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.pt"
    write_checkpoint(path, detector)
    before = path.read_bytes()

    def full(values: object, file: io.BufferedWriter) -> None:
        file.write(b"PK half of it")
        raise fault

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UnreadableError, match=r"cannot write .*best\.pt: .*make room") as error:
        write_checkpoint(path, detector)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["best.pt"]


def test_run_without_room_ends_in_one_line_and_goes_on_with_room(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    def command(name: str) -> list[object]:
        return [
            "classify",
            tmp_path / name,
            "--data",
            tiny_data,
            "--init",
            "random",
            "--config",
            settings("epochs = 1"),
        ]

    assert lps_train(*command("undisturbed")).code == 0
    size = step_checkpoints(tmp_path / "undisturbed/checkpoints")[-1].stat().st_size
    ended = lps_train(*command("run"), max_bytes=size - 1000)
    assert ended.code == 4
    assert ended.last_line.startswith("lps-train: cannot write ")
    assert "File too large; make room and run the same command again" in ended.last_line
    assert "Traceback" not in ended.stderr[0]
    assert list((tmp_path / "run/checkpoints").iterdir()) == []
    tight = lps_train(*command("run"), max_bytes=300)
    assert (tight.code, "Traceback" in tight.stderr[0]) == (4, False)
    assert lps_train(*command("run")).code == 0
    names = ("checkpoints/best.pt", "checkpoints/step-00000004.pt")
    assert all(same(*(read_checkpoint(tmp_path / run / name) for run in ("run", "undisturbed"))) for name in names)


# ---- not ours, not whole, not now ------------------------------------------------------------------------------------


def spoilt(detector: Checkpoint, path: Path, how: str) -> Path:
    """Write a file that is no good checkpoint."""
    write_checkpoint(path, detector)
    data = path.read_bytes()
    values = torch.load(path, weights_only=True)
    written = {
        "missing": None,
        "empty": b"",
        "text": b"hello\n" * 100,
        "cut off": data[: len(data) // 2],
        "one bit": data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        "end lost": data[:-100],
    }
    if how in written:
        path.unlink()
        if written[how] is not None:
            path.write_bytes(written[how] or b"")
        return path
    changed: dict[str, Callable[[], object]] = {
        "code": lambda: {**values, "config": Path("/")},
        "weights alone": lambda: values["network"],
        "other format": lambda: {"format": "pt", "state_dict": values["network"]},
        "a list": lambda: [1, 2],
        "newer": lambda: {**values, "format": FORMAT + 1},
        "lacking": lambda: {name: value for name, value in values.items() if name != "progress"},
    }
    torch.save(changed[how](), path)
    return path


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("missing", UnreadableError, "cannot read checkpoint .*No such file"),
        ("empty", UnreadableError, "is not a checkpoint of lps-train"),
        ("text", UnreadableError, "is not a checkpoint of lps-train"),
        ("cut off", IntegrityError, "is cut off or damaged.*copy it again"),
        ("end lost", IntegrityError, "is cut off or damaged"),
        ("one bit", IntegrityError, "damaged: the checksum of"),
        ("code", UnreadableError, "is not a checkpoint of lps-train"),
        ("weights alone", UnreadableError, "is not a checkpoint of lps-train"),
        ("other format", UnreadableError, "is not a checkpoint of lps-train"),
        ("a list", UnreadableError, "is not a checkpoint of lps-train"),
        ("newer", UnreadableError, f"has format {FORMAT + 1}, this version reads up to {FORMAT}; update lps-prep"),
        ("lacking", IntegrityError, "lacks progress"),
    ],
)
def test_bad_checkpoints_are_told_in_one_line(
    how: str, kind: type[LpsError], says: str, detector: Checkpoint, tmp_path: Path
) -> None:
    path = spoilt(detector, tmp_path / "best.pt", how)
    with pytest.raises(kind, match=says) as error:
        load_detector(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_compressed_checkpoints_are_not_unfolded(detector: Checkpoint, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.pt", detector)
    with zipfile.ZipFile(tmp_path / "c.pt") as stored, zipfile.ZipFile(tmp_path / "d.pt", "w") as folded:
        for name in stored.namelist():
            folded.writestr(name, stored.read(name), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(IntegrityError, match=r"d.pt .*: its members are compressed, as torch.save never writes them"):
        read_checkpoint(tmp_path / "d.pt")
    with pytest.raises(UnreadableError, match=r"d.pt .*its members are compressed"):
        load_reference(tmp_path / "d.pt")


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    os.mkfifo(path)
    for read in (read_checkpoint, file_sha256, load_reference):
        with pytest.raises(UnreadableError, match=r"c.pt: it is no regular file"):
            read(path)


@pytest.mark.parametrize(
    "changes",
    [{"config": []}, {"network": {"a": 1}}, {"progress": 3}, {"stage": None}, {"data": {1: 2}}, {"learnt": 5}],
)
def test_parts_of_another_kind(detector: Checkpoint, tmp_path: Path, changes: dict[str, Any]) -> None:
    write_checkpoint(tmp_path / "c.pt", replace(detector, **changes))
    with pytest.raises(IntegrityError, match=f"c.pt is damaged: its {next(iter(changes))} is a"):
        read_checkpoint(tmp_path / "c.pt")


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.write_bytes, (tmp_path / "sprung", b"")

    torch.save({"format": FORMAT, "network": Trap()}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(UnreadableError):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_detectors_of_other_stages_settings_and_shapes_are_refused(detector: Checkpoint, tmp_path: Path) -> None:
    def loaded(**changes: Any) -> None:
        write_checkpoint(tmp_path / "x.pt", replace(detector, **changes))
        load_detector(tmp_path / "x.pt")

    with pytest.raises(RefusedError, match="is of stage 'pretrain', which has no detector"):
        loaded(stage="pretrain")
    record = PRESET.record()
    with pytest.raises(UnreadableError, match="settings that this version does not know: .*net.colour"):
        loaded(config={"preset": {**record, "net": {**record["net"], "colour": 3}}})
    with pytest.raises(UnreadableError, match="settings that this version does not know"):
        loaded(config={})
    with pytest.raises(IntegrityError, match="does not hold the network that it says"):
        loaded(config={"preset": {**record, "net": {**record["net"], "width": 3}}})
    with pytest.raises(IntegrityError, match="does not hold the network that it says"):
        loaded(extra={"mean": torch.zeros(3)})


@pytest.mark.parametrize(
    ("train", "tables", "named"),
    [
        ("lr = 0.002", {}, "train.lr was 0.001 and is 0.002"),
        ("", {"net": "width = 6"}, "net.width was 4 and is 6"),
        ("", {"run": "validate_epochs = 2"}, "run.validate_epochs was 1 and is 2"),
        ("", {"run": 'precision = "bf16"'}, "run.precision was 'fp32' and is 'bf16'"),
    ],
)
def test_another_configuration_in_the_same_folder_is_refused(
    train: str,
    tables: dict[str, str],
    named: str,
    lps_train: "Runner",
    settings: "Settings",
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    command = ["pretrain", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config"]
    assert lps_train(*command, settings(), kill=("self", "CheckpointWritten", 1)).code == -9
    refused = lps_train(*command, settings(train, **tables))
    assert refused.code == 3
    assert f"holds a run with another configuration: {named}; use another folder" in refused.last_line
    assert lps_train(*command, settings(run="log_steps = 5"), "--seed", 1).code == 3
    assert lps_train(*command, settings(run="log_steps = 5\nkeep_checkpoints = 1")).code == 0


def test_damaged_checkpoint_of_a_run_can_be_deleted(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    command = ["pretrain", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", settings()]
    assert lps_train(*command, kill=("self", "CheckpointWritten", 2)).code == -9
    last = step_checkpoints(tmp_path / "run/checkpoints")[-1]
    last.write_bytes(last.read_bytes()[:-5000])
    ended = lps_train(*command)
    assert ended.code == 5
    assert "is cut off or damaged" in ended.last_line
    assert "or delete it to resume from the one before" in ended.last_line
    last.unlink()
    ended = lps_train(*command)
    assert ended.code == 0
    assert "resumed at step 2" in ended.stderr[0]


def test_two_processes_cannot_train_in_one_folder(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    command = ["pretrain", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", settings()]
    with (tmp_path / "run/.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = lps_train(*command)
    assert ended.code == 3
    assert "another process is training in" in ended.last_line
    assert lps_train(*command).code == 0
