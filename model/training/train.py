"""Train one stage: data, network, optimiser, then epochs until done. Started again, it resumes.

RUN/config.json              what was asked for, resolved
RUN/learnt.parquet           the videos and clips that it and its starts have seen
RUN/log.jsonl, tensorboard/  every step and every validation
RUN/checkpoints/             the last steps, to resume from, and best.pt
RUN/maps/                    distillation: feature maps of the frozen encoder
RUN/result.json              last: the run is finished
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lps.manifests.errors import IntegrityError, Interrupted, RefusedError, UnreadableError, first_line
from lps.manifests.records import Note
from lps.manifests.splits.learnt import LEARNT_PARQUET, Learnt
from lps.model.data.epoch_plan import Rank
from lps.model.data.feature_maps import MapReader
from lps.model.data.sample import BadSample
from lps.model.networks.encoder import keep_channels_innermost
from lps.model.training.build import build_stage, check_stage_bf16
from lps.model.training.checkpoint import Checkpoint, learnt_tensor, read_checkpoint, write_checkpoint
from lps.model.training.engine import WAIT_SHARE, WAIT_STEPS, Learner, Pace, RunProgress, nan_to_none, train_one_epoch
from lps.model.training.events import (
    CheckpointWritten,
    OnTrainEvent,
    RunBegun,
    SpeedMeasured,
    StepDone,
    Validated,
    Validating,
)
from lps.model.training.feed import Feed, RunData, open_feed, open_run_data, own_cores, waiting_note
from lps.model.training.job import TrainJob
from lps.model.training.learnt import learnt_by, learnt_record
from lps.model.training.presets import Preset
from lps.model.training.processes import StopSignals, all_gather_list, process_group
from lps.model.training.resume import finished, full_record, require_same_samples, with_digests
from lps.model.training.run_folder import (
    BEST,
    CONFIG,
    DATA_SHA256,
    RESULT,
    lock_run_folder,
    prune,
    require_same,
    result_settings,
    step_checkpoints,
    step_path,
    write_file,
    write_json,
)
from lps.model.training.run_log import RunLog
from lps.model.training.stages import TrainingStage
from lps.model.training.validate import share_buffers, validate

PLATEAU_FACTOR = 0.1
BEST_METRICS = ("best/auc", "best/loss")
"""What TensorBoard compares runs by; stages without labels have no AUC."""


@dataclass(slots=True)
class TrainRun:
    """A job under way."""

    job: TrainJob
    record: dict[str, Any]
    """The job's, with the digests of the checkpoint that it starts from and of the data."""
    data: RunData
    learnt: Learnt
    learnt_file: torch.Tensor
    """The same, as files hold it."""
    feed: Feed
    learner: Learner
    plateau: ReduceLROnPlateau | None
    on_event: OnTrainEvent
    log: RunLog | None = None
    """None in all processes but the first."""
    progress: RunProgress = field(default_factory=RunProgress)
    metrics: dict[str, Any] = field(default_factory=dict)
    stop: StopSignals = field(default_factory=StopSignals)
    waited_s: float = 0.0
    """Since the start, all counted steps together, as the next two."""
    took_s: float = 0.0
    n_timed: int = 0
    told_waiting: bool = False
    bad_before: list[BadSample] = field(default_factory=list)
    """Samples that were unusable before this run was resumed."""

    @property
    def folder(self) -> Path:
        return self.job.out / "checkpoints"


def train(job: TrainJob, on_event: OnTrainEvent = lambda event: None) -> dict[str, Any]:
    """Train a stage to its end and return its result record.

    Raises RefusedError (another configuration in this folder, unusable data), UnreadableError, IntegrityError, LpsError
    where a loss is not finite, and Interrupted by SIGTERM or Ctrl-C, when the step under way is done and saved.
    """
    done = finished(job)
    if done is not None:
        return done
    record = full_record(job)
    require_same(job.out, record)
    if job.preset.run.threads:
        torch.set_num_threads(job.preset.run.threads)
    with process_group(job.preset.run.device) as (rank, device), lock_run_folder(job.out, rank):
        torch.manual_seed(job.seed)  # initial weights are the same on all ranks
        data = open_run_data(job)
        record = with_digests(record, data.identity)
        _emit_notes(data.notes, on_event)
        resuming = bool(step_checkpoints(job.out / "checkpoints"))
        stage = build_stage(job.stage, job.preset, job.init, keep_head=job.keep_head, resuming=resuming).to(device)
        _emit_notes(stage.notes, on_event)
        if job.preset.run.precision == "bf16":
            _emit_notes(check_stage_bf16(stage, job.preset, device, rank.world_size), on_event)
        learnt = learnt_by(job, data)
        _emit_notes(learnt.gaps, on_event)
        with open_feed(job, data, stage, device, rank) as feed:
            _emit_notes(feed.notes, on_event)
            if feed.pairs is not None:
                data = replace(data, identity={**data.identity, "pairs": feed.pairs.record()})
            learner = _learner(job, stage, feed.train.n_steps, device, rank)
            plateau = _plateau(learner, job.preset)
            run = TrainRun(job, record, data, learnt, learnt_tensor(learnt), feed, learner, plateau, on_event)
            _begin(run)
            with run.log or nullcontext(), run.stop:
                return _epochs(run)


def _emit_notes(notes: Sequence[str], on_event: OnTrainEvent) -> None:
    for note in notes:
        on_event(Note(note))


def _learner(job: TrainJob, stage: TrainingStage, n_steps: int, device: torch.device, rank: Rank) -> Learner:
    """Return the stage with its optimiser; an epoch has `n_steps` steps."""
    preset, params, network = job.preset, job.preset.train, stage.network
    if preset.run.channels_last and stage.channels_last:
        keep_channels_innermost(network.backbone)  # type: ignore[arg-type]
    trainable = [p for p in stage.parameters() if p.requires_grad]
    learner = Learner(
        model=_wrap_ddp(stage, preset, rank, device),
        network=network,
        optimizer=Adam(trainable, lr=params.lr, weight_decay=params.weight_decay, fused=device.type == "cuda"),
        params=params,
        device=device,
        bf16=preset.run.precision == "bf16",
        rank=rank,
        seed=job.seed,
        total_steps=params.epochs * n_steps,
    )
    if params.ema_decay is not None:
        learner.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(params.ema_decay))  # type: ignore[no-untyped-call]
    return learner


def _wrap_ddp(stage: nn.Module, preset: Preset, rank: Rank, device: torch.device) -> nn.Module:
    if preset.run.compile:
        stage.network.backbone.compile()  # type: ignore[union-attr]
    if rank.world_size == 1:
        return stage
    return DistributedDataParallel(stage, device_ids=[device.index] if device.type == "cuda" else None)


def _plateau(learner: Learner, preset: Preset) -> ReduceLROnPlateau | None:
    params = preset.train
    if params.schedule != "plateau":
        return None
    patience = -(-params.patience_epochs // preset.run.validate_epochs)
    return ReduceLROnPlateau(learner.optimizer, factor=PLATEAU_FACTOR, patience=patience, min_lr=params.min_lr)


def _begin(run: TrainRun) -> None:
    """Resume from the last checkpoint, if there is one, and open the log."""
    resuming = bool(step_checkpoints(run.folder))
    if resuming:
        _resume(run)
    if run.learner.rank.index == 0:
        (run.job.out / RESULT).unlink(missing_ok=True)  # of a finished run that is given more epochs
        write_json(run.job.out / CONFIG, run.record)
        write_file(run.job.out / LEARNT_PARQUET, run.learnt_file.numpy().tobytes())
        run.log = RunLog(run.job.out, run.progress.step)
        settings = {name: v for name, v in result_settings(run.record).items() if not name.startswith(DATA_SHA256)}
        run.log.write_settings(settings, BEST_METRICS)
    run.learner.pace = Pace(run.learner.device, run.learner.total_steps - run.progress.step)
    trainable = run.learner.optimizer.param_groups[0]["params"]
    run.on_event(
        RunBegun(
            stage=run.job.stage,
            step=run.progress.step,
            n_steps=run.learner.total_steps,
            n_clips=run.feed.train.n_samples,
            n_parameters=sum(p.numel() for p in trainable),
            device=str(run.learner.device),
            resumed=resuming,
        )
    )


def _resume(run: TrainRun) -> None:
    """Take up the state of the last checkpoint."""
    path = step_checkpoints(run.folder)[-1]
    try:
        checkpoint = read_checkpoint(path)
    except IntegrityError as e:
        raise IntegrityError(f"{e}, or delete it to resume from the one before") from e
    require_same_samples(checkpoint.data, run.data.identity, path)
    training = checkpoint.training
    try:
        run.learner.network.load_state_dict(training["network"])
        run.learner.optimizer.load_state_dict(training["optimizer"])
        if run.learner.average is not None:
            run.learner.average.load_state_dict(training["average"])
        if run.plateau is not None:
            run.plateau.load_state_dict(training["plateau"])
    except (KeyError, RuntimeError, ValueError) as e:
        raise RefusedError(f"{path} does not fit this configuration: {first_line(e)}; use another folder") from e
    epochs = checkpoint.config["preset"]["train"]["epochs"]
    if run.learner.params.schedule == "cosine" and epochs != run.learner.params.epochs:
        now = run.learner.params.epochs
        run.on_event(Note(f"train.epochs was {epochs} and is {now}: a cosine over {now} epochs has another rate here"))
    run.progress = RunProgress(**checkpoint.progress)
    run.metrics = dict(checkpoint.metrics)
    _complete_best(run, checkpoint)
    run.bad_before = [BadSample(*each) for each in training["bad"]]
    run.feed.check_resume(training["feed"], run.progress)


def _complete_best(run: TrainRun, checkpoint: Checkpoint) -> None:
    """Write the best checkpoint if it is this one's step, and the run was killed after this one was written."""
    path = run.folder / BEST
    if run.learner.rank.index or run.progress.best_step != run.progress.step:
        return
    with suppress(UnreadableError, IntegrityError):
        if read_checkpoint(path).progress.get("step") == run.progress.step:
            return
    write_checkpoint(path, replace(checkpoint, training={}))


def _save(run: TrainRun, *, best: bool = False) -> None:
    """Write a checkpoint to resume from, then a copy without that as the best. All processes call this."""
    bad = _all_bad(run)
    if run.learner.rank.index:
        return
    assert run.log is not None  # rank 0 has one
    run.log.flush()
    average = run.learner.average
    network = run.learner.network.state_dict()
    kept = average.module.state_dict() if average is not None else network
    checkpoint = Checkpoint(
        stage=run.job.stage,
        config=run.record,
        data=run.data.identity,
        network=kept,
        progress=asdict(run.progress),
        metrics=run.metrics,
        learnt=run.learnt_file,
    )
    training = {
        "network": network,
        "optimizer": run.learner.optimizer.state_dict(),
        "average": average.state_dict() if average is not None else {},
        "plateau": run.plateau.state_dict() if run.plateau is not None else {},
        "feed": run.feed.state(run.progress),
        "bad": [(each.key, each.shard, each.reason) for each in bad],
    }
    write_checkpoint(step_path(run.folder, run.progress.step), replace(checkpoint, training=training))
    if best:  # afterwards: the best that a resumed run does not know of would be one that it may not find again
        write_checkpoint(run.folder / BEST, checkpoint)
    prune(run.folder, run.job.preset.run.keep_checkpoints, run.progress.step - run.progress.position)
    run.on_event(CheckpointWritten(step=run.progress.step, best=best))


def _all_bad(run: TrainRun) -> list[BadSample]:
    """Return the bad samples that any process found; all processes call this."""
    return sorted(
        {*all_gather_list([*run.bad_before, *run.feed.bad_samples])}, key=lambda bad: (bad.shard, bad.key, bad.reason)
    )


def _epochs(run: TrainRun) -> dict[str, Any]:
    params, options, progress = run.job.preset.train, run.job.preset.run, run.progress
    saved = progress.step
    while progress.epoch < params.epochs and not _should_stop_early(run):
        for step in train_one_epoch(
            run.learner, run.feed.train, progress, options.log_steps, _reporter(run), run.stop.agreed
        ):
            _look_at_speed(run)
            if run.stop.signum:
                _stop(run)
            if step - saved >= options.checkpoint_steps and progress.position < run.feed.train.n_steps:
                _save(run)
                saved = step
        progress.epoch, progress.position = progress.epoch + 1, 0
        if progress.epoch % options.validate_epochs == 0 or progress.epoch == params.epochs:
            _save(run, best=_validate(run))
            saved = progress.step
    return _finish(run)


def _look_at_speed(run: TrainRun) -> None:
    """Log how long the last steps took, and say once if they wait for data. All processes call this."""
    speed = run.learner.pace.look() if run.learner.pace is not None else None
    if speed is None:
        return
    step, values = run.progress.step, speed.values()
    if run.log is not None:
        run.log.write("speed", step, values)
    run.on_event(SpeedMeasured(step=step, values=values))
    run.n_timed += speed.n_steps
    run.waited_s += speed.wait_s * speed.n_steps
    run.took_s += (speed.wait_s + speed.work_s) * speed.n_steps
    share = run.waited_s / max(run.took_s, 1e-12)
    if run.n_timed >= WAIT_STEPS and share > WAIT_SHARE and not run.told_waiting:
        run.told_waiting = True
        workers, maps = run.job.preset.run.workers, isinstance(run.feed.train, MapReader)
        run.on_event(Note(waiting_note(share, workers, own_cores(), maps=maps)))


def _stop(run: TrainRun) -> NoReturn:
    """Save the state and end the run. All processes call this."""
    _save(run)
    all_gather_list(())  # torchrun ends all processes soon after the first, which has to write
    path = step_path(run.folder, run.progress.step)
    raise Interrupted(f"saved {path}; run the same command again to resume", run.stop.signum)


def _should_stop_early(run: TrainRun) -> bool:
    limit = run.job.preset.train.stop_epochs
    return limit is not None and run.progress.stale_epochs >= limit


def _reporter(run: TrainRun) -> Callable[[int, dict[str, float]], None]:
    def report(step: int, values: dict[str, float]) -> None:
        finite = nan_to_none(values)
        if run.log is not None:
            run.log.write("step", step, {"epoch": run.progress.epoch, **finite})
        run.on_event(StepDone(step=step, epoch=run.progress.epoch, values=finite))

    return report


def _validate(run: TrainRun) -> bool:
    """Validate, move the schedule on, and return whether this is the best so far."""
    progress, learner = run.progress, run.learner
    stage = _stage_of(learner)
    val = run.feed.validation
    found: dict[str, Any] = {}
    if val is not None:
        run.on_event(Validating(step=progress.step, epoch=progress.epoch))
        share_buffers(learner.network if learner.average is None else learner.average)
        try:
            with _averaged(learner), torch.autocast(learner.device.type, torch.bfloat16, enabled=learner.bf16):
                found = validate(stage, val, run.data.face_of, learner.device, run.stop, run.data.val_sets)
        except Interrupted:  # as if it had not begun: the epoch ends when the run is resumed
            progress.epoch, progress.position = progress.epoch - 1, run.feed.train.n_steps
            _stop(run)
    auc, loss = found.get("auc"), found.get("loss")
    # Higher is better for both.
    score = auc if auc is not None else None if loss is None else -loss
    best = progress.improves(score, loss)
    progress.stale_epochs = 0 if best else progress.stale_epochs + run.job.preset.run.validate_epochs
    if best:
        progress.best, progress.best_loss, progress.best_step = score, loss, progress.step
    if run.plateau is not None and loss is not None:
        run.plateau.step(loss)
    run.metrics = nan_to_none({"epoch": progress.epoch, "lr": learner.lr, **found})
    if run.log is not None:
        run.log.write("validation", progress.step, run.metrics)
    run.on_event(Validated(step=progress.step, epoch=progress.epoch, best=best, metrics=run.metrics))
    return best


def _stage_of(learner: Learner) -> Any:
    return getattr(learner.model, "module", learner.model)


@contextmanager
def _averaged(learner: Learner) -> Iterator[None]:
    """Put the averaged weights into the network for as long as the context lasts."""
    if learner.average is None:
        yield
        return
    own = {name: value.clone() for name, value in learner.network.state_dict().items()}
    learner.network.load_state_dict(learner.average.module.state_dict())
    try:
        yield
    finally:
        learner.network.load_state_dict(own)


def _finish(run: TrainRun) -> dict[str, Any]:
    bad, notes = _all_bad(run), _stage_of(run.learner).notes
    result = {
        "stage": run.job.stage,
        "steps": run.progress.step,
        "epochs": run.progress.epoch,
        "best_step": run.progress.best_step,
        "best": run.progress.best,
        "last": run.metrics,
        "data": run.data.identity,
        "learnt": learnt_record(run.learnt, run.learnt_file),
        **({"notes": list(notes)} if notes else {}),
        "n_bad_samples": len(bad),
        "bad_samples": [str(each) for each in bad[:100]],
        "checkpoint": f"checkpoints/{BEST}",
        "last_checkpoint": f"checkpoints/{step_path(Path(), run.progress.step).name}",
    }
    if run.learner.rank.index == 0:
        assert run.log is not None  # rank 0 has one
        run.log.finish(run.progress.best_step, run.progress.step)
        write_json(run.job.out / RESULT, result)
    return result
