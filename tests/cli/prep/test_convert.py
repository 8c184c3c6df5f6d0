"""lps-prep convert as its users meet it: what it says, and its exit codes."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lps.cli.prep.main import main
from lps.manifests.storage import Store
from tests.builders import manifest_rows
from tests.pipeline.tools.convert_data import ffpp_videos, make_data_set


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, args)))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(make_data_set(tmp_path / "out", ffpp_videos(2)).url)


def test_it_says_in_plain_lines_what_it_made(out: Path, tmp_path: Path) -> None:
    done = call("convert", out, tmp_path / "to", "--to", "deepfakebench")
    assert done.exit_code == 0, done.output
    assert re.search(r"^converting: 8/8 .* clips/s", done.stderr, re.MULTILINE)
    lists = [line.removeprefix("list: ") for line in done.stdout.splitlines() if line.startswith("list: ")]
    assert [Path(line).stem for line in lists] == ["FF-DF", "FF-NT", "FaceForensics++", "FaceShifter"]
    assert all(Path(line).is_file() for line in lists)
    assert f"8 clips in {tmp_path / 'to'}, 8 of them made now" in done.stdout
    assert "8 clips in" in (again := call("convert", out, tmp_path / "to", "--to", "deepfakebench")).stdout
    assert "0 of them made now" in again.stdout


def test_what_is_refused_is_one_line_and_exit_code_3(out: Path, tmp_path: Path) -> None:
    assert call("convert", out, tmp_path / "to", "--to", "frames", "--limit", "1").exit_code == 0
    for words in ((tmp_path / "to", "--to", "frames"), (out / "to", "--to", "frames"), (tmp_path, "--to", "mp4")):
        done = call("convert", out, *words)
        assert done.exit_code == 3, done.output
        assert len(done.stderr.splitlines()) == 1


def test_wrong_bytes_are_one_line_and_exit_code_5(out: Path, tmp_path: Path) -> None:
    row = manifest_rows(out, "clips")[0]
    tar = out / f"shards/{row['split']}/{row['shard_id']}.tar"
    data = bytearray(tar.read_bytes())
    data[row["members"][0]["offset"]] ^= 255
    tar.write_bytes(data)
    done = call("convert", out, tmp_path / "to", "--to", "mp4")
    assert done.exit_code == 5, done.output
    assert row["sample_key"] in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.output


def test_a_data_set_in_a_bucket_gives_the_same_files(out: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in out.rglob("*"):
        if path.is_file():
            memory.pipe(f"/convert/{path.relative_to(out)}", path.read_bytes())
    assert call("convert", out, tmp_path / "a", "--to", "mp4").exit_code == 0
    done = call("convert", "memory://convert", tmp_path / "b", "--to", "mp4")
    assert done.exit_code == 0, done.output
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(names) == 10
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert Store("memory://convert").exists("index.json")
