"""Whether a folder holds the run that is asked for: finished, to be gone on with, or another one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lps.manifests.errors import RefusedError
from lps.model.training.build import RANDOM
from lps.model.training.checkpoint import file_sha256
from lps.model.training.feed import open_run_data
from lps.model.training.job import TrainJob
from lps.model.training.run_folder import (
    BEST,
    DATA_SHA256,
    RESULT,
    read_json,
    recorded,
    require_same,
    step_checkpoints,
)

SAMPLES = ("samples_sha256", "val_samples_sha256")
DIGESTS = ("index_sha256", *SAMPLES)


def full_record(job: TrainJob) -> dict[str, Any]:
    """Return the record of a job with the digest of the checkpoint that it starts from. Raises UnreadableError."""
    return {**job.record(), "init_sha256": "" if job.init == RANDOM else file_sha256(Path(job.init))}


def with_digests(record: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a job with the digests of its data; of several data sets, those of each by its name."""
    found = _digests(identity)
    sets = {each["name"]: _digests(each) for each in identity.get("sets", ())}
    return {**record, DATA_SHA256: {**found, **({"sets": sets} if sets else {})}}


def _digests(identity: Mapping[str, Any]) -> dict[str, str]:
    return {name: identity[name] for name in DIGESTS if identity.get(name)}


def finished(job: TrainJob, more: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return the result of a run that is finished, None for any other and where more epochs are asked for.

    `more` is what the record of the run has besides the job's. Sources and start that are spelled as they were are
    taken at their word, and need not be there any more; others are opened and compared by digest. Raises RefusedError
    for another job's folder, and for more epochs of a run that cannot go on.
    """
    path = job.out / RESULT
    if not path.exists():
        return None
    record = {**job.record(), **(more or {})}
    require_same(job.out, record)
    theirs, result = recorded(job.out), read_json(path)
    if job.sources.require_certificate:
        _require_certified(job.out, result["data"])
    if theirs is None:
        return result
    if theirs.get("init") != job.init:
        require_same(job.out, {**full_record(job), **(more or {})})
    if theirs.get("data") != json.loads(json.dumps(record["data"])):
        require_same_samples(result["data"], open_run_data(job).identity, job.out / "checkpoints" / BEST)
    n_epochs = theirs["preset"]["train"]["epochs"]
    if job.preset.train.epochs <= n_epochs or more is not None:
        return result
    _require_more(job, result, n_epochs)
    return None


def _require_certified(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise RefusedError where a finished run learnt from a data set that had no certificate then."""
    for each in identity.get("sets") or [identity]:
        if not each.get("certificate_sha256"):
            data = f"the data set {each['name']}" if "name" in each else "its data set"
            raise RefusedError(
                f"{folder} is a finished run, and {data} had no certificate that fits when it was trained"
            )


def _require_more(job: TrainJob, result: Mapping[str, Any], n_epochs: int) -> None:
    """Raise RefusedError where a finished run cannot go on to more epochs than the `n_epochs` that it was given."""
    keep = " --keep-head" if job.stage == "classify" else ""
    instead = f"learn on in another folder, with --init {job.out / 'checkpoints' / BEST}{keep}"
    if result["epochs"] < n_epochs:
        raise RefusedError(
            f"{job.out} stopped after {result['epochs']} epochs, because validation did not get better "
            f"(train.stop_epochs): more epochs change nothing; {instead}"
        )
    if not step_checkpoints(job.out / "checkpoints"):
        raise RefusedError(f"{job.out} has no checkpoint to go on from any more; {instead}")


def require_same_samples(old: Mapping[str, Any], new: Mapping[str, Any], checkpoint: Path) -> None:
    """Compare identities of data by the digests of their samples. Raises RefusedError that offers the checkpoint."""
    instead = f"use another folder, and --init {checkpoint} if it should learn on from here"
    before, now = ({each["name"]: each for each in identity.get("sets", ())} for identity in (old, new))
    if [*before] != [*now]:
        raise RefusedError(f"this run began with {_named(before)} and is given {_named(now)}; {instead}")
    for name, each in now.items():
        if each["weight"] != before[name]["weight"]:
            weights = f"{before[name]['weight']:g} and is {each['weight']:g}"
            raise RefusedError(f"the weight of {name} in this run was {weights} (mix.{name}); {instead}")
    changed = [name for name in DIGESTS if old.get(name) != new.get(name)]
    if {*changed} & {*SAMPLES}:
        others = [name for name, each in now.items() if any(each.get(k) != before[name].get(k) for k in SAMPLES)]
        of = f" of {', '.join(others)}" if others else ""
        raise RefusedError(
            f"the samples{of} are not those that this run began with ({', '.join(changed)} changed); {instead}"
        )


def _named(sets: Mapping[str, Any]) -> str:
    return f"the data {'sets' if len(sets) > 1 else 'set'} {', '.join(sets)}" if sets else "data without a name"
