"""examples/log_to_mlflow.py with a module that stands for MLflow and writes down what it is given."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples/log_to_mlflow.py"
STUB = """
import contextlib, json
def note(*given):
    with open("given.jsonl", "a") as file:
        file.write(json.dumps(given) + "\\n")
@contextlib.contextmanager
def start_run(run_name):
    note("run", run_name)
    yield
def log_params(values):
    note("params", values)
def log_metrics(values, step):
    note("metrics", step, values)
"""


def test_every_record_of_a_log_is_sent_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").write_text(STUB)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps({"stage": "classify", "preset": {"train": {"lr": 0.1}}}))
    lines = [{"kind": "step", "step": 1, "loss": 0.5}, {"kind": "step", "step": 2, "loss": None}]
    lines.append({"kind": "validation", "step": 2, "auc": 0.75})
    (tmp_path / "run/log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "run/result.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "run"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in (tmp_path / "given.jsonl").read_text().splitlines()] == [
        ["run", "run"],
        ["params", {"stage": "classify", "train.lr": 0.1}],
        ["metrics", 1, {"step/loss": 0.5, "step/step": 1}],
        ["metrics", 2, {"step/step": 2}],
        ["metrics", 2, {"validation/auc": 0.75, "validation/step": 2}],
    ]
