"""What a run learns from: its own clips, and all that the checkpoint it starts from has seen."""

from pathlib import Path
from typing import Any

from torch import Tensor

from lps.manifests.canonical import sha256_hex
from lps.manifests.names import Role
from lps.manifests.splits.learnt import LEARNT, Learnt, learnt_from, merge_learnt
from lps.model.training.build import RANDOM
from lps.model.training.checkpoint import learnt_of, read_checkpoint
from lps.model.training.feed import RunData
from lps.model.training.job import TrainJob


def learnt_by(job: TrainJob, data: RunData) -> Learnt:
    """Return what the checkpoints of this run have seen. Raises as reading that of `--init` does.

    What it starts from (an encoder, pretraining, another detector, the teacher of a distillation) passes all of its own
    on.
    """
    role = Role.FRAMES if job.stage == "pretrain" else Role.LABELS
    parts = [learnt_from(role, data.train.samples)]
    if data.val is not None:
        parts.append(learnt_from(Role.VALIDATION, data.val.samples))
    if job.init != RANDOM:
        parts.append(_learnt_before(Path(job.init)))
    elif job.preset.net.weights is not None:
        gap = f"its encoder began with {Path(job.preset.net.weights).name}, which does not say what it learnt from"
        parts.append(Learnt(LEARNT.empty_table(), (gap,)))
    return merge_learnt(parts)


def _learnt_before(path: Path) -> Learnt:
    start = read_checkpoint(path)
    found = learnt_of(start, path)
    gap = f"it started from a checkpoint of {start.stage} that does not say what it learnt from (of an older version)"
    return Learnt(LEARNT.empty_table(), (gap,)) if found is None else found


def learnt_record(learnt: Learnt, file: Tensor) -> dict[str, Any]:
    """Return what the result of a run says of `learnt` and its `file` in the run's folder."""
    digest = sha256_hex(file.numpy().tobytes())
    return {"sha256": digest, "videos": learnt.n_videos(), "gaps": list(learnt.gaps)}
