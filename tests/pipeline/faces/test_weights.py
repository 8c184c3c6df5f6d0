"""Weight files: where they are found, which are refused, what is fetched, and what may be read from them."""

import hashlib
import http.server
import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lps.manifests.errors import IntegrityError, NotInstalledError, UnreadableError
from lps.manifests.names import LOCALIZERS
from lps.pipeline.faces.localizers import load_localizer, weight_digests
from lps.pipeline.faces.weights import (
    FAN4,
    LOCALIZER_WEIGHTS,
    MOBILENET,
    PNET,
    RESNET50,
    WEIGHTS_DIR_VARIABLE,
    WeightFile,
    check_weights,
    fetch_weight,
    find_weight,
    list_weights,
    load_state,
    verify_weight,
    weights_folder,
)

CONTENT = b"these are not weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_other_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the user's own weights, and proxies on the way to the loopback server, out of the tests."""
    monkeypatch.delenv(WEIGHTS_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path not in ("/good", "/short"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) + (100 if self.path == "/short" else 0)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    """URL of a loopback server: /good sends CONTENT, /short breaks off before its end."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def weight(url: str = "", sha256: str = DIGEST, *, published: bool = True) -> WeightFile:
    return WeightFile("sample", "sample.pth", url, sha256, len(CONTENT), "MIT", published=published)


def assert_one_line(message: str, *parts: str) -> None:
    assert "\n" not in message
    for part in parts:
        assert part in message


class TestKnownFiles:
    def test_names_are_unique_and_every_localizer_has_files(self) -> None:
        names = [known.name for known in list_weights()]
        assert len(set(names)) == len(names)
        assert tuple(LOCALIZER_WEIGHTS) == LOCALIZERS == ("retinaface-fan", "retinaface-mobilenet", "mtcnn")

    def test_urls_are_those_of_the_installed_packages(self) -> None:
        import retinaface
        from face_alignment.api import models_urls
        from face_alignment.detection.retinaface.retinaface_detector import models_urls as detector_urls

        package = Path(retinaface.__file__).parent  # not imported further: it would load its whole training stack
        assert models_urls["2DFAN-4"] == FAN4.url
        assert detector_urls["retinaface_mobilenet0.25"] == MOBILENET.url
        assert RESNET50.url in (package / "pre_trained_models.py").read_text()

    def test_published_digest_prefixes_stand_in_the_file_names(self) -> None:
        assert FAN4.sha256[:10] in FAN4.file_name
        assert RESNET50.sha256 in RESNET50.file_name

    def test_mtcnn_weights_are_in_the_wheel_and_intact(self) -> None:
        assert weight_digests("mtcnn", None) == {known.name: known.sha256 for known in LOCALIZER_WEIGHTS["mtcnn"]}

    def test_importing_localizers_loads_neither_torch_nor_opencv(self) -> None:
        code = "import sys, lps.pipeline.faces.localizers; print([m for m in ('torch', 'cv2') if m in sys.modules])"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == "[]"

    def test_a_worker_with_graphs_loads_neither_onnx_nor_torch(self) -> None:
        code = (
            "import sys, lps.pipeline.faces.mtcnn, lps.pipeline.faces.onnx_session, lps.pipeline.faces.retinaface\n"
            "print([m for m in ('onnx', 'torch', 'face_alignment') if m in sys.modules])"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == "[]"

    def test_fan_says_how_its_package_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lps.pipeline.faces.localizers.find_spec", lambda name: None)
        with pytest.raises(NotInstalledError, match="pip install --no-deps 'face-alignment>=1.5,<2'$"):
            weight_digests("retinaface-fan", None)
        assert len(weight_digests("mtcnn", None)) == 3

    def test_unknown_names_are_refused(self) -> None:
        with pytest.raises(ValueError, match="known ones: retinaface-fan"):
            load_localizer("nope", weights_dir=None, device="cpu", batch_size=1)


class TestFinding:
    def test_folder_then_variable_then_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        named, cache = tmp_path / "named", tmp_path / "cache" / "lps-prep" / "weights"
        monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(named))
        for folder in (cache, named, tmp_path / "given"):
            folder.mkdir(parents=True)
            (folder / "sample.pth").write_bytes(CONTENT)
            assert verify_weight(weight(), tmp_path / "given").path == folder / "sample.pth"
        assert verify_weight(weight(), None).path == named / "sample.pth"
        assert weights_folder(None) == named
        monkeypatch.delenv(WEIGHTS_DIR_VARIABLE)
        assert weights_folder(None) == cache

    @pytest.mark.parametrize("known", [RESNET50, FAN4, MOBILENET])
    def test_missing_file_says_what_to_put_where(self, known: WeightFile, tmp_path: Path) -> None:
        with pytest.raises(UnreadableError) as caught:
            find_weight(known, tmp_path)
        size = str(known.size_bytes) if known.size_bytes else "size not published"
        assert_one_line(str(caught.value), known.file_name, known.sha256, size, str(tmp_path), "--localizer mtcnn")

    def test_missing_weights_stop_a_localizer(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableError, match="--localizer mtcnn"):
            load_localizer("retinaface-fan", weights_dir=tmp_path, device="cpu", batch_size=1)

    def test_package_without_its_weights(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableError, match="missing from the installed package"):
            verify_weight(replace(PNET, inside="facenet_pytorch/nowhere"), tmp_path)

    def test_both_names_of_the_mobilenet_file(self, shared: Callable[[str], Path], tmp_path: Path) -> None:
        content = shared("weights/retinaface_mobilenet025.pth").read_bytes()
        for name in ("retinaface_mobilenet0.25.pth", "retinaface_mobilenet025.pth"):
            folder = tmp_path / name.removesuffix(".pth")
            folder.mkdir()
            (folder / name).write_bytes(content)
            assert find_weight(MOBILENET, folder) == folder / name
            assert [path.name for path in folder.iterdir()] == [name], "a known digest needs no pin"
            assert weight_digests("retinaface-mobilenet", folder) == {MOBILENET.name: MOBILENET.sha256}


class TestDigests:
    def test_wrong_full_digest(self, tmp_path: Path) -> None:
        (tmp_path / "sample.pth").write_bytes(CONTENT + b"!")
        (tmp_path / "sample.pth.sha256").write_text(hashlib.sha256(CONTENT + b"!").hexdigest())
        with pytest.raises(IntegrityError) as caught:
            verify_weight(weight(), tmp_path)
        assert_one_line(str(caught.value), str(tmp_path / "sample.pth"), DIGEST)

    def test_published_prefix(self, tmp_path: Path) -> None:
        path = tmp_path / "sample.pth"
        path.write_bytes(CONTENT)
        with pytest.raises(IntegrityError, match=f"first digits .*{DIGEST[:9]}.*if you trust it.*sample.pth.sha256"):
            verify_weight(weight(sha256=DIGEST[:9]), tmp_path)
        (tmp_path / "sample.pth.sha256").write_text(f"{DIGEST}  sample.pth\n")
        assert verify_weight(weight(sha256=DIGEST[:9]), tmp_path).sha256 == DIGEST
        path.write_bytes(CONTENT + b"!")
        with pytest.raises(IntegrityError, match="not the one in sample.pth.sha256"):
            verify_weight(weight(sha256=DIGEST[:9]), tmp_path)

    def test_other_copy_of_the_mobilenet_file_is_the_users_decision(self, tmp_path: Path) -> None:
        path = tmp_path / MOBILENET.file_name
        path.write_bytes(CONTENT)
        with pytest.raises(IntegrityError, match=f"has sha256 {DIGEST}, not {MOBILENET.sha256}: if you trust it"):
            find_weight(MOBILENET, tmp_path)
        assert list(tmp_path.iterdir()) == [path], "nothing is trusted on first use"
        (tmp_path / f"{path.name}.sha256").write_text(DIGEST)
        assert find_weight(MOBILENET, tmp_path) == path
        path.write_bytes(CONTENT[:-1])
        with pytest.raises(IntegrityError, match=f"not the one in {path.name}.sha256"):
            find_weight(MOBILENET, tmp_path)

    def test_check_reports_and_changes_nothing(self, tmp_path: Path) -> None:
        (tmp_path / MOBILENET.file_name).write_bytes(CONTENT)
        (tmp_path / FAN4.file_name).write_bytes(CONTENT)
        checks = {check.weight.name: check for check in check_weights(tmp_path)}
        assert list(checks) == [known.name for known in list_weights()]
        assert checks["retinaface-resnet50"].path is None
        assert "missing" in checks["retinaface-resnet50"].note
        assert not checks["fan-2d-4"].ok
        assert not checks["retinaface-mobilenet"].ok
        assert checks["mtcnn-pnet"].ok
        assert not list(tmp_path.glob("*.sha256"))
        assert all("\n" not in check.note for check in checks.values())


class TestFetching:
    def test_good_file_is_fetched_once(self, site: str, tmp_path: Path) -> None:
        check = fetch_weight(weight(f"{site}/good"), tmp_path / "new")
        assert check.path == tmp_path / "new" / "sample.pth"
        assert check.path.read_bytes() == CONTENT
        assert (check.sha256, check.note) == (DIGEST, "")
        assert fetch_weight(weight("http://127.0.0.1:1/unreachable"), tmp_path / "new") == replace(
            check, weight=weight("http://127.0.0.1:1/unreachable")
        )

    @pytest.mark.parametrize(("sha256", "published"), [(DIGEST[:9], True), ("0" * 64, False)])
    def test_digest_that_only_the_user_knows(self, site: str, tmp_path: Path, sha256: str, published: bool) -> None:
        unknown = weight(f"{site}/good", sha256, published=published)
        with pytest.raises((UnreadableError, IntegrityError)) as caught:
            fetch_weight(unknown, tmp_path)
        assert_one_line(str(caught.value), "sha256")
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "sample.pth.sha256").write_text(f"{DIGEST}  sample.pth\n")
        assert fetch_weight(unknown, tmp_path).path == tmp_path / "sample.pth"
        assert verify_weight(unknown, tmp_path).ok

    @pytest.mark.parametrize(
        ("page", "sha256", "error", "message"),
        [
            ("/good", "0" * 64, IntegrityError, "fetched from"),
            ("/short", DIGEST, UnreadableError, f"{len(CONTENT)} bytes read, 100 more expected"),
            ("/none", DIGEST, UnreadableError, "404"),
        ],
    )
    def test_bad_answers_leave_nothing_behind(
        self, site: str, tmp_path: Path, page: str, sha256: str, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message) as caught:
            fetch_weight(weight(site + page, sha256), tmp_path / "new")
        assert_one_line(str(caught.value))
        assert list((tmp_path / "new").iterdir()) == []

    def test_no_network(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableError) as caught:
            fetch_weight(weight("http://127.0.0.1:1/nobody-listens"), tmp_path)
        assert_one_line(str(caught.value), "sample.pth", "--weights-dir", "--localizer mtcnn")

    def test_folder_that_is_a_file(self, site: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UnreadableError, match="cannot write into"):
            fetch_weight(weight(f"{site}/good"), tmp_path / "file")


class TestReading:
    STATE = {"module.conv.weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}

    def assert_read(self, path: Path) -> None:
        state = load_state(path)
        assert list(state) == ["conv.weight", "bias"]
        assert torch.equal(state["conv.weight"], self.STATE["module.conv.weight"])

    @pytest.mark.parametrize("new_format", [True, False])
    def test_torch_file(self, tmp_path: Path, new_format: bool) -> None:
        torch.save(self.STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
        self.assert_read(tmp_path / "a.pth")

    @pytest.mark.parametrize("member", ["a.pth", "../../escaped.pth"])
    @pytest.mark.parametrize("new_format", [True, False])
    def test_zip_of_one_file_is_read_without_unpacking(self, tmp_path: Path, member: str, new_format: bool) -> None:
        content = io.BytesIO()
        torch.save({"state_dict": self.STATE, "epoch": 3}, content, _use_new_zipfile_serialization=new_format)
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, content.getvalue())
        self.assert_read(tmp_path / "a.zip")
        assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]

    def test_bytes_that_are_no_weights(self, tmp_path: Path) -> None:
        torch.save({"a": 1}, tmp_path / "number.pth")
        torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
        (tmp_path / "text.pth").write_bytes(CONTENT)
        (tmp_path / "empty.pth").write_bytes(b"")
        torch.save(self.STATE, tmp_path / "whole.pth")
        (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:500])
        with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
            archive.writestr("a", b"a")
            archive.writestr("b", b"b")
        for name in ("number.pth", "module.pth", "text.pth", "empty.pth", "half.pth", "two.zip", "absent.pth"):
            with pytest.raises(UnreadableError) as caught:
                load_state(tmp_path / name)
            assert_one_line(str(caught.value), name)

    def test_torchscript_is_refused_for_the_code_it_carries(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "script.zip", "w") as archive:
            for name in ("script/data.pkl", "script/constants.pkl", "script/code/__torch__.py"):
                archive.writestr(name, b"")
        with pytest.raises(UnreadableError, match="TorchScript"):
            load_state(tmp_path / "script.zip")
