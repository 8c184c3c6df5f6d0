"""How a stage is trained, and how the work is done."""

from dataclasses import dataclass
from typing import Literal

from lps.manifests.arrays import check_margin
from lps.manifests.names import DeviceName, FakesKind
from lps.model.data.changes.augment import Augmentation
from lps.model.data.epoch_plan import IN_PAIRS, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainParams:
    """Recipe of one stage (paper, section 4.1: Adam, 1e-3 falling to 1e-4, batches of 16, 500 epochs)."""

    epochs: int = 500
    batch_size: int = 16
    """Clips per step over all processes."""
    accumulate: int = 1
    """Parts in which each process takes its clips of a step, one after another, to save memory. Their gradients are
    averaged; batch norm and contrast see a part at a time."""
    lr: float = 1e-3
    schedule: Literal["plateau", "cosine", "constant"] = "plateau"
    """`plateau`: a tenth when the validation loss has not fallen for `patience_epochs` (without validation it never
    falls); `cosine`: down to `min_lr` over all steps of the run."""
    min_lr: float = 1e-4
    patience_epochs: int = 10
    weight_decay: float = 1e-5
    """Not in the paper; MemDPC's for pretraining."""
    grad_clip: float | None = None
    """Largest norm of the gradient."""
    ema_decay: float | None = None
    """Decay of a moving average of the weights, which then is what is validated and kept."""
    stop_epochs: int | None = None
    """Stop when validation has not improved for this many epochs."""
    sampling: Sampling = "natural"
    """`balanced` draws real and fake equally often; `pairs` puts each fake next to its own original, under the same
    augmentation; `shared_pairs` takes only those that show the same frames."""
    augment: Augmentation = "none"
    eval_clips: int = 1
    """Clips per video in validation; 3 are the paper's 180 frames."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.accumulate, self.eval_clips, self.patience_epochs) < 1:
            raise ValueError("epochs, batch_size, accumulate, eval_clips and patience_epochs must be above zero")
        if self.accumulate > self.batch_size:
            raise ValueError(f"{self.accumulate = } parts of a batch of {self.batch_size} clips leave some empty")
        if not 0 <= self.min_lr <= self.lr or self.lr <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"learning rates do not make sense: {self.lr = }, {self.min_lr = }, {self.weight_decay = }"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"{self.ema_decay = } is not between 0 and 1")
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ValueError(f"{self.grad_clip = } is not above 0")
        if self.stop_epochs is not None and self.stop_epochs < 1:
            raise ValueError(f"{self.stop_epochs = } is not above 0")
        if self.sampling in IN_PAIRS and self.batch_size % 2:
            raise ValueError(f"a batch of pairs has an even size, got {self.batch_size = }")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakesParams:
    """Fakes that are made of the real clips while these are read, for stages that learn from labels."""

    kind: FakesKind = "none"
    """`self-blend`: a clip blended with a changed copy of itself inside the face."""
    share: float = 0.5
    """Share of them among the fakes that are read; 1 leaves the fakes of the data out. Data without fakes have one of
    every real clip."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"{self.share = } is not above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParams:
    """What is cut out of the stored clips."""

    margin: float = 1.0
    """Side of the square, in sides of the aligned face, 1 to 2. Above 1 it needs clips that `[crop] margin` of
    `lps-prep` stored with more around the face. Evaluation, export and scoring cut the same."""

    def __post_init__(self) -> None:
        check_margin("margin", self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentParams:
    """Augmentation with values of its own, besides `train.augment`."""

    margins: tuple[float, float] | None = None
    """Least and largest margin: one is drawn for every clip and epoch in training, in place of `data.margin`."""

    def __post_init__(self) -> None:
        for margin in self.margins or ():
            check_margin("margins", margin)
        if self.margins is not None and self.margins[0] > self.margins[1]:
            raise ValueError(f"margins are the least and the largest, got {list(self.margins)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParams:
    """How the work is done.

    `RESULT_FIELDS` change results, so a run resumes only with the same. The device, `compile`, `channels_last`,
    `threads` and the number of processes change last digits, so that only the same ones give the same bits. The rest
    changes nothing.
    """

    device: DeviceName = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 in the encoder only; aggregator, scores and losses stay in fp32."""
    compile: bool = False
    """Compile the encoder with torch.compile."""
    channels_last: bool = False
    workers: int = 2
    """Decoding processes per rank."""
    threads: int | None = None
    """Threads of torch on the CPU, per rank; the same number gives the same bits."""
    checkpoint_steps: int = 500
    """Steps between two checkpoints, rounded up to `log_steps`; there is one after each validation, too."""
    keep_checkpoints: int = 2
    validate_epochs: int = 1
    """Epochs between two validations; there is one after the last epoch, too."""
    log_steps: int = 10
    """Steps between two looks at the losses; each look waits for the device."""
    verify_shards: bool = False
    """Compare every shard with its sha256 in the manifest before the first epoch."""
    max_bad_share: float = 0.01
    """Share of an epoch's samples that may be unusable."""
    cache_maps: bool = True
    """Distillation: keep the frozen encoder's feature maps on disk, so that an epoch takes seconds. They are of the
    middle of each clip, not augmented, in half precision."""
    maps_folder: str | None = None
    """Where they are kept; runs with the same encoder and samples then share them. None is `maps/` of the run."""

    def __post_init__(self) -> None:
        counts = (self.checkpoint_steps, self.keep_checkpoints, self.log_steps, self.validate_epochs)
        if min(counts) < 1 or self.workers < 0 or (self.threads is not None and self.threads < 1):
            raise ValueError("counts of steps, epochs, checkpoints and threads must be above zero, workers not below")
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"{self.max_bad_share = } is not between 0 and 1")


RESULT_FIELDS = ("precision", "validate_epochs", "cache_maps")
"""Fields of RunParams that change results, so that a run cannot resume with others."""
