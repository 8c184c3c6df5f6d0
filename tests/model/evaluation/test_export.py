"""Exported detectors give the network's own logits, for any number of clips."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from lps.cli.train.main import main
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.model.evaluation import export as exporting
from lps.model.evaluation.export import export_detector, export_network
from lps.model.evaluation.loading import LoadedDetector
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.svm import Svm
from lps.model.training.checkpoint import write_checkpoint
from lps.model.training.presets import Preset
from tests.builders import detector_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

PX = 32


def random_detector(params: NetParams) -> Detector:
    """Return a detector in evaluation mode whose batch norms have statistics as after training."""
    torch.manual_seed(0)
    network = Detector(params, HeadParams())
    for name, value in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand_like(value) + 0.5)
    return network.eval()


def random_clips(n: int, px: int = PX) -> Tensor:
    return torch.randn(n, 12, 3, 5, px, px)


@dataclass(frozen=True, slots=True)
class Trained:
    """A detector as a run leaves it."""

    network: Detector
    checkpoint: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    preset = Preset(image_px=PX, net=NetParams(width=8))
    network = random_detector(preset.net)
    path = tmp_path_factory.mktemp("run") / "best.pt"
    write_checkpoint(path, detector_checkpoint(network, preset))
    return Trained(network, path)


def loaded(network: Detector, svm: Svm | None = None) -> LoadedDetector:
    return LoadedDetector(
        network=network, image_px=PX, n_frames=60, sha256="0" * 64, stage="classify", config={}, data={}, svm=svm
    )


def run_export(out: Path, trained: Trained) -> Result:
    """Run `lps-train export`."""
    arguments = ["export", str(out), "--checkpoint", str(trained.checkpoint)]
    return CliRunner().invoke(main, arguments, prog_name="lps-train", catch_exceptions=False)


@torch.no_grad()
@pytest.mark.slow
def test_torch_program_from_the_command_line(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "detector.pt2"
    done = run_export(out, trained)
    assert done.exit_code == 0, done.output
    assert "logits within" in done.output
    assert [path.name for path in out.parent.iterdir()] == ["detector.pt2"]
    n_weight_bytes = sum(4 * value.numel() for value in trained.network.state_dict().values())
    assert out.stat().st_size < n_weight_bytes + 1_000_000  # the clips that it was traced with are not in it
    facts = {"lps.json": ""}
    program = torch.export.load(out, extra_files=facts).module()
    for n in (1, 2, 5):
        clips = random_clips(n)
        torch.testing.assert_close(program(clips), trained.network(clips))
        torch.testing.assert_close(program(channels_innermost(clips)), trained.network(clips))
    found = json.loads(facts["lps.json"])
    assert (found["n_blocks"], found["block_frames"], found["image_px"]) == (12, 5, PX)
    assert found["outputs"] == ["real", "fake"]
    assert len(found["checkpoint_sha256"]) == 64
    with pytest.raises(Exception, match=r"shape\[1\] to be equal to 12"):  # the number of blocks is fixed
        program(torch.randn(1, 13, 3, 5, PX, PX))


@torch.no_grad()
@pytest.mark.slow
def test_onnx_from_the_command_line(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "detector.onnx"
    done = run_export(out, trained)
    assert done.exit_code == 0, done.output
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: json.loads(entry.value)["image_px"] for entry in model.metadata_props} == {"lps": PX}
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("clips", ["batch", 12, 3, 5, PX, PX])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("logits", ["batch", 2])]
    for n in (1, 2, 5):
        clips = random_clips(n)
        wanted = trained.network(clips).numpy()
        for given in (clips, channels_innermost(clips)):
            (logits,) = session.run(None, {"clips": given.numpy()})
            np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_onnx_of_full_width(tmp_path: Path) -> None:
    """Exporting itself runs the file on random clips, and refuses to keep it if its logits are others."""
    done = export_network(random_detector(NetParams()), 64, tmp_path / "detector.onnx")
    assert done.difference < 1e-4
    assert done.n_bytes > 4 * 14_847_554


def channels_innermost(clips: Tensor) -> Tensor:
    """Return the same clips as the reader of shards lays them out in memory."""
    return clips.permute(0, 1, 3, 4, 5, 2).contiguous().permute(0, 1, 5, 2, 3, 4)


# ---- what cannot be exported ----------------------------------------------------------------------------------------


def test_other_suffixes_and_machines_are_refused(tmp_path: Path) -> None:
    network = random_detector(NetParams(width=8))
    with pytest.raises(RefusedError, match=r"suffix must be one of \.onnx, \.pt2"):
        export_detector(loaded(network), tmp_path / "detector.pth")
    svm = object.__new__(Svm)
    with pytest.raises(RefusedError, match="support vector machine"):
        export_detector(loaded(network, svm), tmp_path / "detector.onnx")
    with pytest.raises(ValueError, match="evaluation mode"):
        export_network(network.train(), PX, tmp_path / "detector.onnx")
    assert not list(tmp_path.iterdir())


def tiny() -> Detector:
    return Detector(NetParams(width=2, n_blocks=2, block_frames=2), HeadParams()).eval()


def test_missing_packages_are_named(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = run_export(tmp_path / "detector.onnx", trained)
    assert done.exit_code == UnreadableError.exit_code
    assert done.output == "lps-train: export to ONNX needs onnxscript: pip install 'lps-prep[export]'\n"
    assert not list(tmp_path.iterdir())


def test_help_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; from lps.cli.train.main import main; main(['export', '--help'], standalone_mode=False); "
        "assert not {'torch', 'onnx', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_file_that_gives_other_logits_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, run = exporting.WRITERS[".pt2"]
    monkeypatch.setitem(exporting.WRITERS, ".pt2", (write, lambda path, clips: run(path, clips) + 1))
    out = tmp_path / "detector.pt2"
    out.write_bytes(b"the one before")
    with pytest.raises(IntegrityError, match="is not the network"):
        export_network(tiny(), PX, out)
    assert out.read_bytes() == b"the one before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnreadableError, match="cannot write"):
        export_network(tiny(), PX, tmp_path / "file" / "detector.pt2")
