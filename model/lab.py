"""The bench that experiments share: trained networks by data set and variant, made once and then reused.

OUT/runs/<data set>/<variant>/{encoder,pretrain,classify,random,svm,distill…}   one folder a run, as `lps-train` makes
OUT/evals/<model>/<data sets>                                                    one folder an evaluation
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lps.model.checkpoint import load_detector
from lps.model.evaluate import EvaluateOptions, evaluate
from lps.model.presets import Preset, StageName, preset_for
from lps.model.setup import RANDOM, Sources
from lps.model.train import Job, train

VARIANTS: dict[str, dict[str, Any]] = {
    "lps": {},
    "i3d": {"net": {"encoder": "i3d"}},
    "no-encoder": {"net": {"encoder": "none"}},
    "no-aggregator": {"net": {"aggregator": "none"}},
    "no-memory": {"pretrain": {"n_slots": 0}},
}
"""What a variant changes of the preset; the ablations are those of Figure 8."""

SMOKE: dict[str, Any] = {
    "image_px": 32,
    "net": {"width": 4, "n_blocks": 4, "proj_dim": 16, "pixel_side": 16},
    "pretrain": {"n_slots": 16},
    "train": {"epochs": 1, "batch_size": 4},
    "run": {"workers": 0, "threads": 1, "device": "cpu"},
}
"""Settings of `--smoke`: shows that an experiment runs, and nothing else."""

OnEvent = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class DataSet:
    """One prepared data set and the name that it goes by."""

    name: str
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """Where experiments work, and with what."""

    out: Path
    data: tuple[DataSet, ...]
    preset: str = "paper"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    split_set: str | None = None
    allow_leaky: bool = False
    smoke: bool = False
    on_event: OnEvent = lambda kind, facts: None

    def configuration(self, stage: StageName, *changes: Mapping[str, Any]) -> Preset:
        """Return the preset of a stage with the settings and then further changes."""
        settings: dict[str, Any] = {}
        for layer in (self.settings, SMOKE if self.smoke else {}, *changes):
            settings = merged(settings, layer)
        return preset_for(self.preset, stage, settings)

    def sources(self, data: DataSet, split: str = "train") -> Sources:
        """Return a split of a data set."""
        return Sources(
            data=data.location, split=split, split_set=self.split_set, allow_leaky=self.allow_leaky,
            val_split="val" if split == "train" else None,
        )  # fmt: skip

    def run(self, data: DataSet, name: str, stage: StageName, init: str, *changes: Mapping[str, Any]) -> Path:
        """Train a stage, or find it trained, in runs/<data set>/<name>; returns its best checkpoint."""
        out = self.out / "runs" / data.name / name
        self.on_event("note", {"text": f"{data.name}: {name}"})
        job = Job(
            stage=stage, out=out, sources=self.sources(data), preset=self.configuration(stage, *changes), init=init,
            seed=self.seed,
        )  # fmt: skip
        result = train(job, self.on_event)
        return out / str(result["checkpoint"])

    def pretrained(self, data: DataSet, variant: str = "lps") -> Path:
        """Return the pretraining checkpoint of a variant; I3D goes through stage 0 first."""
        changes = VARIANTS[variant]
        init = str(self.run(data, f"{variant}/encoder", "encoder", RANDOM, changes)) if variant == "i3d" else RANDOM
        return self.run(data, f"{variant}/pretrain", "pretrain", init, changes)

    def detector(self, data: DataSet, variant: str = "lps") -> Path:
        """Return the detector of a variant, LPS by default."""
        init = str(self.pretrained(data, variant))
        return self.run(data, f"{variant}/classify", "classify", init, VARIANTS[variant])

    def random_detector(self, data: DataSet) -> Path:
        """Return LPS_ri: the same network, not pretrained."""
        return self.run(data, "lps/random", "classify", RANDOM)

    def distilled(self, data: DataSet, weight: float | None = None, temperature: float | None = None) -> Path:
        """Return LPS_ssd, or a member of Table 5's sweep. All of them share one cache of feature maps."""
        teacher = str(self.detector(data))
        if weight is None or temperature is None:
            return self.run(data, "lps/distill", "distill", teacher)
        change = {"distill": {"weight": weight, "temperature": temperature}}
        return self.run(data, f"lps/sweep/lambda-{weight:g}-T-{temperature:g}", "distill", teacher, change)

    def svm(self, data: DataSet) -> Path:
        """Return LPS_c: a support vector machine on the contexts of LPS."""
        from lps.model.svm import train_svm

        out = self.out / "runs" / data.name / "lps" / "svm"
        job = Job(
            stage="classify", out=out, sources=self.sources(data), preset=self.configuration("classify"),
            init=str(self.detector(data)), seed=self.seed,
        )  # fmt: skip
        best = out / "checkpoints" / "best.pt"
        if not best.exists():
            train_svm(job)
        return best

    def judged(self, checkpoint: Path, data: Sequence[DataSet], split: str = "test") -> list[dict[str, Any]]:
        """Evaluate on the data sets, or find it done; returns one record each, as in metrics.json."""
        run = checkpoint.parents[1].relative_to(self.out / "runs").as_posix().replace("/", "-")
        out = self.out / "evals" / run / ("-".join(d.name for d in data) + f"-{split}")
        options = EvaluateOptions(n_workers=0 if self.smoke else 2, device="cpu" if self.smoke else "auto")
        record = evaluate(
            load_detector(checkpoint), [self.sources(d, split) for d in data], out, options, self.on_event
        )
        return list(record["data"])


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with some replaced."""
    result = dict(base)
    for name, value in changes.items():
        inner = result.get(name)
        result[name] = merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return result
