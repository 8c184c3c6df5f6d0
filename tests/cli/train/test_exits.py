"""A program that ends right after it read a table ends with its exit code, each time."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lps.manifests.canonical import digest16
from lps.model.evaluation.scores import ScoreRows
from tests.model.report.report_folders import write_evaluation

PLAIN = """
import os, sys
import pyarrow.dataset
import pyarrow.parquet as pq
from lps.manifests.schemas import arrow_file

data = open(sys.argv[2], "rb").read()
codes = []
for _ in range(int(sys.argv[1])):
    child = os.fork()  # imports once; each child ends as a program does
    if not child:
        pq.read_table(arrow_file(data))
        sys.exit(3)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(sorted(set(codes)))
"""

REFUSED = """
import contextlib, importlib, json, os, sys
from lps.cli.train.main import main

commands = [json.loads(word) for word in sys.argv[2:]]
for command in commands:  # what a command imports, the parent imports once
    reader, writer = os.pipe()
    if not os.fork():
        with contextlib.suppress(SystemExit):
            main(command)
        os.write(writer, json.dumps(list(sys.modules)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as names:
        for name in json.load(names):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
codes = []
for k in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        main(commands[k % len(commands)])
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(sorted(set(codes)))
"""


@pytest.mark.slow
def test_no_thread_aborts_the_end_after_a_table_was_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"label": [0, 1], "p_fake": [0.1, 0.8]}), path)
    words = [sys.executable, "-c", PLAIN, "200", str(path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "[3]\n"), ended.stderr


@pytest.mark.slow
def test_figures_that_are_refused_after_their_scores_were_read_end_with_3(tmp_path: Path) -> None:
    single, real = tmp_path / "single", tmp_path / "real"
    for folder, labels in ((single, (0, 1)), (real, (0, 0))):
        rows = ScoreRows()
        for k, label in enumerate(labels):
            rows.add([digest16(str(k))], [digest16(str(k), "0")], [label], [0.2 + 0.5 * label])
        write_evaluation(folder, rows.scores())
    refused = (
        ["figure", "stability", str(tmp_path / "out"), "--before", str(single), "--after", str(single)],
        ["figure", "roc", str(tmp_path / "out"), "--scores", f"LPS={real}"],
    )
    words = [sys.executable, "-c", REFUSED, "20", *map(json.dumps, refused)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "[3]\n"), ended.stderr
