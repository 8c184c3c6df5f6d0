"""LPS_c (paper, Table 4): a support vector machine over the contexts of a frozen detector.

Fitted by scikit-learn on standardised contexts; kept as tensors and evaluated here, so that a checkpoint stays free of
anything that runs code when it is read. Scores are distances from the boundary; the paper's threshold is 0. As
`p_fake` they go through a sigmoid, which keeps order and threshold and is not a calibrated probability.
"""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lps.manifests.arrays import Floats, Ints
from lps.manifests.errors import LpsError, RefusedError
from lps.manifests.names import Kernel
from lps.manifests.records import Note
from lps.manifests.splits.learnt import LEARNT_PARQUET
from lps.model.data.clip_data import ClipData
from lps.model.data.epoch_plan import Rank
from lps.model.data.mix import part_name
from lps.model.data.sample import BadSample
from lps.model.networks.svm import Svm, fit_svm
from lps.model.training.build import build_stage, check_stage_bf16
from lps.model.training.checkpoint import Checkpoint, learnt_tensor, write_checkpoint
from lps.model.training.events import OnTrainEvent
from lps.model.training.feed import RunData, open_run_data, still_reader
from lps.model.training.job import TrainJob
from lps.model.training.learnt import learnt_by, learnt_record
from lps.model.training.processes import choose_device
from lps.model.training.resume import finished, full_record, with_digests
from lps.model.training.run_folder import BEST, CONFIG, RESULT, lock_run_folder, require_same, write_file, write_json
from lps.model.training.stages import ClassifyStage
from lps.model.training.validate import Tally, metrics_of


@dataclass(frozen=True, slots=True)
class _Contexts:
    """What the network makes of some clips."""

    rows: Floats
    """(clips, F)."""
    labels: Ints
    keys: tuple[str, ...]
    bad: tuple[BadSample, ...]


def train_svm(job: TrainJob, kernel: Kernel = "rbf", on_event: OnTrainEvent = lambda event: None) -> dict[str, Any]:
    """Freeze the network of `--init`, fit the machine on the training split, and write RUN as a training stage does.

    Raises RefusedError, UnreadableError and IntegrityError as `train` does.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RefusedError("a support vector machine is fitted by one process; start it without torchrun")
    if job.preset.makes_fakes("classify"):
        raise RefusedError(
            "a support vector machine is fitted to each clip once, as it is stored, and to no self-blends: set "
            'fakes.kind = "none"'
        )
    machine = {"head": "svm", "kernel": kernel}
    done = finished(job, machine)
    if done is not None:
        return done
    record = {**full_record(job), **machine}
    require_same(job.out, record)
    device = choose_device(job.preset.run.device)
    if job.preset.run.threads:
        torch.set_num_threads(job.preset.run.threads)
    with lock_run_folder(job.out, Rank()):
        torch.manual_seed(job.seed)
        stage = build_stage("classify", job.preset, job.init).to(device).eval()
        if not isinstance(stage, ClassifyStage):
            raise RefusedError(f"'{job.preset.net.encoder}' judges single frames and has no context for --head svm")
        if job.preset.run.precision == "bf16":
            for note in check_stage_bf16(stage, job.preset, device, world_size=1):
                on_event(Note(note))
        data = open_run_data(job)
        record = with_digests(record, data.identity)
        everything = learnt_by(job, data)
        file = learnt_tensor(everything)
        write_json(job.out / CONFIG, record)
        write_file(job.out / LEARNT_PARQUET, file.numpy().tobytes())
        learnt = _contexts(job, stage, data.train, device)
        svm = fit_svm(learnt.rows, learnt.labels, kernel)
        held_out = _contexts(job, stage, data.val, device) if data.val is not None else None
        metrics = _validated(svm, held_out, data) if held_out is not None else {}
        bad = list(dict.fromkeys([*learnt.bad, *(held_out.bad if held_out is not None else ())]))
        checkpoint = Checkpoint(
            stage="classify",
            config=record,
            data=data.identity,
            network={name: value.cpu() for name, value in stage.network.state_dict().items()},
            progress={},
            metrics=metrics,
            extra=svm.state(),
            learnt=file,
        )
        write_checkpoint(job.out / "checkpoints" / BEST, checkpoint)
        result = {
            "stage": "classify", "head": "svm", "steps": 0, "epochs": 0, "best_step": 0, "best": metrics.get("auc"),
            "last": metrics, "data": data.identity, "learnt": learnt_record(everything, file),
            "n_bad_samples": len(bad), "bad_samples": [str(each) for each in bad[:100]],
            "checkpoint": f"checkpoints/{BEST}", "last_checkpoint": f"checkpoints/{BEST}",
        }  # fmt: skip
        write_json(job.out / RESULT, result)
        return result


def _validated(svm: Svm, found: _Contexts, data: RunData) -> dict[str, Any]:
    tallies: dict[str, Tally] = {}
    decision = svm.decision(torch.from_numpy(found.rows)).tolist()
    for key, label, score in zip(found.keys, found.labels.tolist(), decision, strict=True):
        tally = tallies.setdefault(part_name(key) if data.val_sets else "", Tally())
        tally.scores.append((data.face_of[key], label, score))
        tally.n_clips += 1
    return metrics_of([tallies], data.val_sets)


@torch.inference_mode()
def _contexts(job: TrainJob, stage: ClassifyStage, data: ClipData, device: torch.device) -> _Contexts:
    rows: list[Floats] = []
    labels: list[Ints] = []
    keys: list[str] = []
    with still_reader(job, data) as reader:
        for batch in reader.epoch(0):
            with torch.autocast(device.type, torch.bfloat16, enabled=job.preset.run.precision == "bf16"):
                z = stage.network.encode_clips(stage.blocks(batch.frames.to(device)))
            rows.append(stage.network.context(z).cpu().double().numpy())
            labels.append(batch.labels.numpy())
            keys += batch.keys
        bad = tuple(reader.bad_samples)
    if not keys:
        raise RefusedError("no sample could be read")
    contexts = np.concatenate(rows)
    if not np.isfinite(contexts).all():
        raise LpsError("contexts are not finite; look at the checkpoint of --init")
    return _Contexts(contexts, np.concatenate(labels).astype(np.int64), tuple(keys), bad)
