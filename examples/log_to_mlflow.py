"""Send the log of a run of lps-train, finished or under way, to MLflow: python examples/log_to_mlflow.py RUN

For wandb: `wandb.init(name=run.name, config=...)` and `wandb.log(numbers, step=record["step"])` in the same places.
"""

import json
import sys
import time
from pathlib import Path

import mlflow

from lps.model.training.run_folder import CONFIG, RESULT, result_settings
from lps.model.training.run_log import LOG, read_log

run, n_sent, finished = Path(sys.argv[1]), 0, False
with mlflow.start_run(run_name=run.name):
    mlflow.log_params(result_settings(json.loads((run / CONFIG).read_bytes())))
    while not finished:
        finished = (run / RESULT).exists()  # written after the last line of the log
        for record in read_log(run / LOG)[n_sent:]:
            numbers = {f"{record['kind']}/{name}": v for name, v in record.items() if isinstance(v, int | float)}
            mlflow.log_metrics(numbers, step=record["step"])
            n_sent += 1
        time.sleep(0 if finished else 10)
