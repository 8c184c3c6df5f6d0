"""The settings file: what it may hold, and one line for what it may not."""

import re
from pathlib import Path

import pytest

from lps.manifests.errors import UnreadableError
from lps.manifests.splits.records import SplitParams
from lps.pipeline.config.params import Limits, LocalizeParams, Params
from lps.pipeline.config.settings import read_settings
from lps.pipeline.job.request import RunOptions

DOCS = Path(__file__).resolve().parents[3] / "docs" / "prep.md"

FULL = """
clip_frames = 30
template_scale = 1
[localize]
bound_px = 1.5
faces = "all"
[limits]
max_seconds = 600
[split]
ratios = [0.7, 0.2, 0.1]
giant = "component"
tries = 4
aliases = [["ffpp/seq/043", "ffpp/seq/343"]]
[run]
shard_mb = 64
detectors = 2
memory_mb = 2048
deadline_seconds = 60
deadline_seconds_per_frame = 0.25
scratch = "scratch"
source_cache_mb = 512.5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "params.toml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(UnreadableError) as caught:
        read_settings(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_everything(tmp_path: Path) -> None:
    found = read_settings(write(tmp_path, FULL))
    assert found.params == Params(
        clip_frames=30,
        template_scale=1.0,
        localize=LocalizeParams(bound_px=1.5, faces="all"),
        limits=Limits(max_seconds=600.0),
    )
    assert found.split == {
        "ratios": (0.7, 0.2, 0.1),
        "giant": "component",
        "tries": 4,
        "aliases": (("ffpp/seq/043", "ffpp/seq/343"),),
    }
    assert found.run == {
        "detectors": 2,
        "memory_mb": 2048,
        "deadline_seconds": 60.0,
        "deadline_seconds_per_frame": 0.25,
        "scratch": "scratch",
        "source_cache_mb": 512.5,
    }
    assert found.shard_mb == 64
    assert SplitParams(**found.split).tries == 4
    assert RunOptions(**found.run).detectors == 2


def test_nothing(tmp_path: Path) -> None:
    found = read_settings(None)
    assert found == read_settings(write(tmp_path, ""))
    assert (found.params, found.split) == (Params(), {})
    assert RunOptions(**found.run) == RunOptions()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip_frame = 60", "unknown name 'clip_frame'"),
        ("[localize]\nstride = 8", "unknown name 'localize.stride'"),
        ("[run]\nworkers = 8", "unknown name 'run.workers'; known ones: detectors, scratch"),
        ("[split]\nrule = 'random'", "unknown name 'split.rule'; known ones: ratios"),
        ("[other]\na = 1", "unknown name 'other'"),
        ("seed = 1", "'seed' is set by its own option"),
        ("localizer = 'mtcnn'", "'localizer' is set by its own option"),
        ("codec = 'png'", "'codec' is set by its own option"),
        ("clip_frames = 61", "the settings are not usable: clip_frames"),
        ("clip_frames = '60'", "'clip_frames' must be a whole number, got '60'"),
        ("[localize]\nbound_px = true", "'localize.bound_px' must be a number, got True"),
        ("[localize]\nfaces = 'two'", "'localize.faces' must be one of largest, all, single, got 'two'"),
        ("localize = 5", "[localize] must be a table, got 5"),
        ("run = 5", "[run] must be a table, got 5"),
        ("split = []", "[split] must be a table, got []"),
        ("[run]\ndetectors = 1.5", "'run.detectors' must be a whole number, got 1.5"),
        ("[run]\ndetectors = 0", "[run] is not usable: detectors must be above zero, got 0"),
        ("[run]\nshard_mb = -1", "[run] is not usable: shard_mb must be above zero, got -1"),
        ("[run]\nmemory_mb = '4 GB'", "'run.memory_mb' must be a whole number, got '4 GB'"),
        ("[run]\nscratch = 5", "'run.scratch' must be a text, got 5"),
        ("[run]\ndeadline_seconds = nan", "'run.deadline_seconds' must be a number, got nan"),
        ("[split]\nratios = 0.6", "'split.ratios' must be a list, got 0.6"),
        ("[split]\nratios = ['a', 'b', 'c']", "'split.ratios' must be a number, got 'a'"),
        ("[split]\naliases = [['a']]", "'split.aliases' must be a list of 2, got ['a']"),
        ("[split]\naliases = ['ab']", "'split.aliases' must be a list, got 'ab'"),
        ("[split]\naliases = [[1, 2]]", "'split.aliases' must be a text, got 1"),
        ("clip_frames = ", "not a readable TOML file"),
        ("a = 1\na = 2", "not a readable TOML file"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text).startswith(message)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    for path in (tmp_path / "missing.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(UnreadableError, match="not a readable TOML file"):
            read_settings(path)


def test_the_documented_file_holds_the_defaults(tmp_path: Path) -> None:
    """The reference in docs/prep.md names every parameter that a file may set, with its default."""
    text = next(block for block in re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.S) if "[localize]" in block)
    found = read_settings(write(tmp_path, text))
    assert found.params == Params()
    for defaults in (LocalizeParams(), Limits()):
        for name in defaults.__dataclass_fields__:
            assert re.search(rf"^{name} = ", text, re.M), name
    assert found.split.get("ratios") == SplitParams().ratios
