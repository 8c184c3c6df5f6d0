"""The code of docs/readers.md, as it stands there, on a small data set with a split set besides that of its shards.

Blocks whose packages are not installed are skipped.
"""

import ast
import io
import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec, SplitSet

PAGE = Path(__file__).parents[3] / "docs/readers.md"
HEADED = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = {title: "\n".join(BLOCK.findall(text)) for title, text in HEADED.findall(PAGE.read_text())}
BLOCKS = {title: code for title, code in BLOCKS.items() if code}
PRELUDE = BLOCKS.pop("Which clips a split has")
CLIPS = ("webdataset", "HF datasets", "torchdata nodes", "Megatron-Energon")
TABLES = ("DuckDB", "polars", "pandas")
MOVED = {"train-a": "val", "val-a": "val", "test-b": "val", "train-c": "val"}
"""Videos of the split `val` of the other split set: of three splits of the shards."""
LEFT_OUT = "test-a"


@pytest.fixture(scope="module")
def specs(spec: "type[Spec]") -> "list[list[Spec]]":
    """Return clips of 101 frames: names of files, sorted as text, are not in order of time."""
    labels = {"a": 0, "b": 1, "c": None}
    return [
        [
            spec(video=f"{split}-{name}", label=label, split=split, n_frames=101, start_frame=start, px=8)
            for name, label in labels.items()
            for start in (0, 200)
        ]
        for split in ("train", "val", "test")
    ]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    maker: "type[Maker]",
    split_set: "type[SplitSet]",
    specs: "list[list[Spec]]",
) -> Path:
    """Return a folder with the data set `out` and the module that the page has its readers save."""
    folder = tmp_path_factory.mktemp("readers")
    videos = {spec.video for shard in specs for spec in shard} - {LEFT_OUT}
    ranked = split_set({video: MOVED.get(video, "train") for video in videos})
    maker(folder).data_set(specs, split_sets={"ranked": ranked}).rename(folder / "out")
    (folder / "lps_clips.py").write_text(PRELUDE)
    return folder


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Return what runs a block of the page in that folder and gives its names."""

    def block(title: str) -> dict[str, Any]:
        require_packages(BLOCKS[title])
        monkeypatch.chdir(place)
        monkeypatch.syspath_prepend(str(place))
        monkeypatch.delitem(sys.modules, "lps_clips", raising=False)
        names: dict[str, Any] = {"__name__": f"block_of_{len(title)}"}
        monkeypatch.setitem(sys.modules, names["__name__"], sys)  # dataclasses look their module up
        exec(compile(BLOCKS[title], f"{PAGE.name}: {title}", "exec"), names)
        return names

    return block


def require_packages(code: str) -> None:
    """Skip where a package that a block imports is not installed."""
    imported = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imported if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imported if isinstance(node, ast.ImportFrom)}
    missing = {name for name in names - {"lps_clips"} if find_spec(name.partition(".")[0]) is None}
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing))}")


def wanted(specs: "list[list[Spec]]") -> "dict[str, Spec]":
    return {spec.key: spec for shard in specs for spec in shard if spec.video in MOVED}


def decoded(spec: "Spec", number: int) -> Any:
    return np.asarray(Image.open(io.BytesIO(spec.members()[f"{number:02d}.jpg"])))


def check_clips(found: list[Any], specs: "list[list[Spec]]") -> None:
    """Compare every clip with its files: once, whole, in order, no other one."""
    rows = [(row["key"], row["frames"], row["label"]) if isinstance(row, dict) else row for row in found]
    expected = wanted(specs)
    assert sorted(key for key, _, _ in rows) == sorted(expected)
    for key, frames, label in rows:
        spec = expected[key]
        assert int(label) == (-1 if spec.label is None else spec.label)
        assert np.asarray(frames).dtype == np.uint8
        np.testing.assert_array_equal(np.asarray(frames), [decoded(spec, k) for k in range(spec.n_frames)])


def test_every_block_of_the_page_is_tried_or_said_not_to_be() -> None:
    assert {*BLOCKS} == {*CLIPS, *TABLES, "Ray Data", "One frame by byte offset"}


@pytest.mark.filterwarnings("default")  # of libraries that are not ours
@pytest.mark.parametrize("title", CLIPS)
def test_clips_of_another_split_set(
    title: str, run: Callable[[str], dict[str, Any]], specs: "list[list[Spec]]"
) -> None:
    check_clips(list(run(title)["clips"]), specs)


@pytest.mark.slow
def test_clips_of_another_split_set_by_ray_data(place: Path, specs: "list[list[Spec]]") -> None:
    """In a process of its own, whose workers find `lps_clips` beside its script, on a Ray that nobody else joins."""
    require_packages(f"import pandas\n{BLOCKS['Ray Data']}")  # Ray Data asks for pandas where it first needs it
    start = 'import ray\nray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)\n'
    end = '\nimport pickle\nopen("clips.pickle", "wb").write(pickle.dumps(clips))\n'
    (place / "read_by_ray.py").write_text(start + BLOCKS["Ray Data"] + end)
    done = subprocess.run([sys.executable, "read_by_ray.py"], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_clips(pickle.loads((place / "clips.pickle").read_bytes()), specs)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("title", TABLES)
def test_counts_of_another_split_set(
    title: str, run: Callable[[str], dict[str, Any]], specs: "list[list[Spec]]"
) -> None:
    clips = [spec for shard in specs for spec in shard if spec.video != LEFT_OUT]
    expected = Counter((MOVED.get(spec.video, "train"), spec.label) for spec in clips)
    found = {
        (split, None if label is None or label != label else int(label)): n for split, label, n in run(title)["counts"]
    }
    assert found == expected


def test_one_frame_by_its_place(run: Callable[[str], dict[str, Any]], specs: "list[list[Spec]]") -> None:
    names = run("One frame by byte offset")
    np.testing.assert_array_equal(names["frame"], decoded(wanted(specs)[names["key"]], names["number"]))
