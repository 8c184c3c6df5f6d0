"""A program that ends right after it read a table ends with its exit code, each time."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PROGRAM = """
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


@pytest.mark.slow
def test_no_thread_aborts_the_end_after_a_table_was_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"label": [0, 1], "p_fake": [0.1, 0.8]}), path)
    words = [sys.executable, "-c", PROGRAM, "200", str(path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "[3]\n"), ended.stderr
