"""A program that ends right after it read a table ends with its exit code, each time.

A thread of Arrow's pool that lets go of a Python object while the interpreter ends aborts the process, in some 8 of a
hundred runs that read so. Children are forks of a process that has imported what they need, and frozen it
(`gc.freeze`): most of the time of an end is the collector's way through every object of every module, and the modules
themselves, which a child therefore leaves alone.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lps.manifests.canonical import digest16
from lps.manifests.codes import Code, Stage
from lps.manifests.storage import Store
from lps.model.evaluation.scores import ScoreRows
from lps.pipeline.config.params import Params
from lps.pipeline.job.finalize import finalize
from lps.pipeline.job.plan import build_plan, publish_plan
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.probe import Probe
from tests.builders import folder_spec, folder_video
from tests.model.report.report_folders import write_evaluation

N_EXITS = 200
READ = """
import sys
import pyarrow.dataset
import pyarrow.parquet as pq
from lps.manifests.schemas import arrow_file

data = open(sys.argv[2], "rb").read()

def act():
    pq.read_table(arrow_file(data))
    sys.exit(3)
"""
COMMAND = """
import contextlib, importlib, json, os, sys
import fsspec

program, words, kept = json.loads(sys.argv[2])
main = importlib.import_module(f"lps.cli.{program}.main").main
for path, file in kept:  # a bucket, as fsspec has one in memory
    fsspec.filesystem("memory").pipe(path, open(file, "rb").read())

def act():
    main(words)

reader, writer = os.pipe()
if not os.fork():
    with contextlib.suppress(SystemExit):
        act()
    os.write(writer, json.dumps(list(sys.modules)).encode())
    os._exit(0)
os.close(writer)
with os.fdopen(reader) as names:
    for name in json.load(names):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
"""
LOOP = """
import atexit, ctypes, gc

kept = []

def keep_modules():
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    for name in list(sys.modules):
        if name.split(".")[0] not in ("atexit", "builtins", "codecs", "encodings", "io", "os", "sys", "threading"):
            kept.append(sys.modules.pop(name))

gc.collect()
gc.freeze()
gc.disable()
codes = []
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        atexit.register(keep_modules)
        act()
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(sorted(set(codes)))
"""


def exit_codes(act: str, argument: str) -> list[int]:
    """Return the different exit codes of many children that end with `act`."""
    words = [sys.executable, "-c", f"import os\n{act}{LOOP}", str(N_EXITS), argument]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return [int(code) for code in json.loads(ended.stdout.splitlines()[-1])]


@pytest.mark.slow
def test_no_thread_aborts_the_end_after_a_table_was_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"label": [0, 1], "p_fake": [0.1, 0.8]}), path)
    assert exit_codes(READ, str(path)) == [3]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set of two videos, one that lacks a column, and two evaluations. Tests only read it.

    The videos gave no clip: what is refused here is refused before clips are looked at.
    """
    place = tmp_path_factory.mktemp("exits")
    videos = [folder_video(f"{kind}/a.mp4", label) for label, kind in enumerate(("real", "fake"))]
    probes = {
        v.uri: Probe(n_bytes=9, sha256="0" * 63 + str(v.label), code=Code.E_PROBE, stage=Stage.PROBE) for v in videos
    }
    plan = build_plan(folder_spec(Params(), shard_bytes=1), videos, Probes.of(probes))
    publish_plan(plan, Store(str(place / "ds")))
    finalize(plan, Store(str(place / "ds")))
    for name, labels in (("single", (0, 1)), ("real", (0, 0))):
        rows = ScoreRows()
        for k, label in enumerate(labels):
            rows.add([digest16(str(k))], [digest16(str(k), "0")], [label], [0.2 + 0.5 * label])
        write_evaluation(place / name, rows.scores())
    shutil.copytree(place / "ds", place / "other")
    table = pq.read_table(place / "other/manifests/clips.parquet")
    pq.write_table(table.drop_columns(["sample_key"]), place / "other/manifests/clips.parquet")
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "words", "code"),
    [
        ("train", ("figure", "stability", "out", "--before", "single", "--after", "single"), 3),
        ("train", ("figure", "roc", "out", "--scores", "LPS=real"), 3),
        ("prep", ("retry", "ds", "--code", "E_TIMEOUT"), 3),
        ("prep", ("split", "memory://ds", "--rule", "official", "--name", "x"), 3),
        ("prep", ("preview", "other"), 4),
        ("audit", ("diff", "ds", "other"), 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_commands_refused_after_a_read_end_with_their_code(
    place: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(place)
    files = [path for path in place.glob("ds/**/*") if path.is_file()]
    kept = [(f"/{path.relative_to(place)}", str(path)) for path in files] if "memory://ds" in words else []
    assert exit_codes(COMMAND, json.dumps([program, words, kept])) == [code]
