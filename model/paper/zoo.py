"""The models that experiments share: trained networks by data set and variant, made once and then reused.

OUT/runs/<data>/<variant>/{encoder,pretrain,classify,random,svm,distill…}   one folder a run, as `lps-train` makes
OUT/runs/<data>/lps/maps                                                     feature maps that distillations share
OUT/evals/<model>/<data set>-<split>                                         one folder an evaluation

<data> is the name of a data set or of a mix.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.errors import RefusedError
from lps.manifests.names import SPLITS, STAGES, StageName
from lps.manifests.records import Note
from lps.model.data.clip_data import compared_videos
from lps.model.data.mix import NamedData, compare_learning
from lps.model.data.sources import Sources, data_identity, open_split
from lps.model.evaluation.evaluate import EvaluateOptions, evaluate
from lps.model.evaluation.events import DataSetBegun, EvaluateEvent
from lps.model.evaluation.loading import load_detector
from lps.model.training.build import RANDOM
from lps.model.training.events import OnTrainEvent
from lps.model.training.job import TrainJob
from lps.model.training.presets import Preset, preset_for
from lps.model.training.resume import finished
from lps.model.training.run_folder import result_settings
from lps.model.training.train import train

WHOLE = {"weights": None, "weights_sha256": None, "frozen": None, "tune": "all"}
"""An encoder with random weights, all of which learn, whatever is set of the one in its place."""

VARIANTS: dict[str, dict[str, Any]] = {
    "lps": {},
    "i3d": {"net": {"encoder": "i3d", **WHOLE}},
    "no-encoder": {"net": {"encoder": "none", **WHOLE}},
    "no-aggregator": {"net": {"aggregator": "none"}},
    "no-memory": {"pretrain": {"n_slots": 0}},
}
"""What a variant changes of the preset; the ablations are those of Figure 8."""

FRAME_BASELINES = {"MesoNet-4": "mesonet4", "MesoInception-4": "mesoinception4"}
"""Detectors of single frames that are run here, not cited, by the names of their paper."""

SMOKE: dict[str, Any] = {
    "image_px": 32,
    "net": {"width": 4, "n_blocks": 4, "proj_dim": 16, "pixel_side": 16},
    "pretrain": {"n_slots": 16},
    "train": {"epochs": 1, "batch_size": 4},
    "run": {"workers": 0, "threads": 1, "device": "cpu"},
}
"""Settings of `--smoke`: shows that an experiment runs, and nothing else."""


def _require_folder_name(name: str, what: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RefusedError(f"'{name}' cannot name {what}; use letters, digits, dots and dashes")


@dataclass(frozen=True, slots=True)
class DataSet:
    """One prepared data set and the name that it goes by."""

    name: str
    location: str

    def __post_init__(self) -> None:
        _require_folder_name(self.name, "a data set")


@dataclass(frozen=True, slots=True)
class TrainingMix:
    """Several data sets to train on together, and the name that they go by."""

    name: str
    parts: tuple[NamedData, ...]

    def __post_init__(self) -> None:
        _require_folder_name(self.name, "a mix")
        if len(self.parts) < 2:
            raise RefusedError(f"the mix '{self.name}' has fewer than two data sets")


TrainingData = DataSet | TrainingMix


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelZoo:
    """Where experiments work, and with what."""

    out: Path
    data: tuple[DataSet, ...]
    mixes: tuple[TrainingMix, ...] = ()
    """Trained on besides each data set alone, by `cross`."""
    preset: str = "paper"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    n_seeds: int | None = None
    """Seeds of each arm in `pairing` and `leak`, from `seed` on; None is their default."""
    split_set: str | None = None
    allow_leaky: bool = False
    require_certificate: bool = False
    """Refuse data without a certificate that fits them."""
    smoke: bool = False
    on_event: OnTrainEvent = lambda event: None

    def __post_init__(self) -> None:
        names = [each.name for each in self.data]
        if len({*names}) < len(names):
            raise RefusedError("two data sets have the same name; results of one would be taken for the other's")
        names += [each.name for each in self.mixes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise RefusedError(f"the name '{twice}' of a mix is taken; call it otherwise: --mix NAME=SET,SET")

    def configuration(self, stage: StageName, *changes: Mapping[str, Any]) -> Preset:
        """Return the preset of a stage with the settings and then further changes."""
        settings: dict[str, Any] = {}
        for layer in (self.settings, SMOKE if self.smoke else {}, *changes):
            settings = merged(settings, layer)
        return preset_for(self.preset, stage, settings)

    def sources(self, data: TrainingData, split: str = "train") -> Sources:
        """Return a split of a data set, or of all of a mix."""
        location, parts = (data.location, ()) if isinstance(data, DataSet) else (None, data.parts)
        return Sources(
            data=location, sets=parts, split=split,
            split_set=self.split_set, allow_leaky=self.allow_leaky, val_split="val" if split == "train" else None,
            require_certificate=self.require_certificate,
        )  # fmt: skip

    def config_sha256(self) -> str:
        """Return the SHA-256, in hex, of all settings that decide results."""
        stages = {stage: result_settings({"preset": self.configuration(stage).record()}) for stage in STAGES}
        return sha256_hex(canonical_json(stages))

    def identity(self, data: DataSet) -> dict[str, Any]:
        """Return what results say about a data set: its index, split set and stamp, preparation, and samples."""
        opened = {split: open_split(self.sources(data, split), split) for split in SPLITS}
        found = data_identity(self.sources(data), opened["train"])
        facts = {
            **{name: found[name] for name in ("index_sha256", "split_set", "leaky", "datasets")},
            "prep_sha256": sha256_hex(canonical_json(found["prep"])) if found["prep"] else None,
            "samples_sha256": {split: each.digest() for split, each in opened.items()},
        }
        certificate = {name: found[name] for name in ("certificate_sha256",) if name in found}
        return {**facts, **certificate, "sha256": sha256_hex(canonical_json(facts))}

    def require_apart(self) -> None:
        """Raise RefusedError where trainings and evaluations of all would be refused for what data sets share.

        That is looked for before anything is trained: a test split that gives something away of what another data set
        learns from, and for a mix any other split of its data sets.
        """
        if self.allow_leaky:
            return
        train = {each.name: open_split(self.sources(each), "train") for each in self.data}
        videos = {
            each.name: compared_videos(each.location, train[each.name].identity.split_set, each.name)
            for each in self.data
        }
        groups = [(tuple(train), "test"), *((tuple(part.name for part in mix.parts), "") for mix in self.mixes)]
        for names, held in groups:
            found = compare_learning([train[name] for name in names], [videos[name] for name in names], held)
            if found.shared:
                raise RefusedError(
                    f"{found.refusal()}: results there would say little; use split sets that agree (`lps-prep split`), "
                    "leave a data set out, or allow it with --allow-leaky. Nothing was trained"
                )

    def job(self, data: TrainingData, name: str, stage: StageName, init: str, *changes: Mapping[str, Any]) -> TrainJob:
        """Return the training of a stage in runs/<data>/<name>."""
        return TrainJob(
            stage=stage, out=self.out / "runs" / data.name / name, sources=self.sources(data),
            preset=self.configuration(stage, *changes), init=init, seed=self.seed,
        )  # fmt: skip

    def trained(self, job: TrainJob) -> Path:
        """Train a stage, or find it trained; returns its best checkpoint."""
        if finished(job) is None:
            self.on_event(Note(job.out.relative_to(self.out).as_posix()))
        return job.out / str(train(job, self.on_event)["checkpoint"])

    def run(self, data: TrainingData, name: str, stage: StageName, init: str, *changes: Mapping[str, Any]) -> Path:
        """Return the best checkpoint of a stage, trained if it is not there."""
        return self.trained(self.job(data, name, stage, init, *changes))

    def pretrained(self, data: TrainingData, variant: str = "lps") -> Path:
        """Return the pretraining checkpoint of a variant; I3D goes through stage 0 first."""
        changes = VARIANTS[variant]
        init = str(self.run(data, f"{variant}/encoder", "encoder", RANDOM, changes)) if variant == "i3d" else RANDOM
        return self.run(data, f"{variant}/pretrain", "pretrain", init, changes)

    def detector(self, data: TrainingData, variant: str = "lps") -> Path:
        """Return the detector of a variant, LPS by default."""
        init = str(self.pretrained(data, variant))
        return self.run(data, f"{variant}/classify", "classify", init, VARIANTS[variant])

    def random_detector(self, data: DataSet) -> Path:
        """Return LPS_ri: the same network, not pretrained."""
        return self.run(data, "lps/random", "classify", RANDOM)

    def frame_baseline(self, data: DataSet, encoder: str) -> Path:
        """Return a detector of single frames, trained by the same recipe; `encoder` is one of `FRAME_DETECTORS`."""
        return self.run(data, f"{encoder}/classify", "classify", RANDOM, {"net": {"encoder": encoder, **WHOLE}})

    def distilled(self, data: TrainingData) -> Path:
        """Return LPS_ssd."""
        return self.run(data, "lps/distill", "distill", str(self.detector(data)), self._shared_maps(data))

    def sweep_job(self, data: DataSet, weight: float, temperature: float) -> TrainJob:
        """Return the distillation with another lambda and T. All of them share one cache of feature maps."""
        change = {"distill": {"weight": weight, "temperature": temperature}}
        name = f"lps/sweep/lambda-{weight:g}-T-{temperature:g}"
        return self.job(data, name, "distill", str(self.detector(data)), self._shared_maps(data), change)

    def _shared_maps(self, data: TrainingData) -> dict[str, Any]:
        chosen = self.configuration("distill").run.maps_folder
        return {"run": {"maps_folder": chosen or str(self.out / "runs" / data.name / "lps" / "maps")}}

    def svm(self, data: DataSet) -> Path:
        """Return LPS_c: a support vector machine on the contexts of LPS."""
        from lps.model.training.train_svm import train_svm

        job = self.job(data, "lps/svm", "classify", str(self.detector(data)))
        return job.out / str(train_svm(job, on_event=self.on_event)["checkpoint"])

    def evaluated(self, checkpoint: Path, data: DataSet) -> dict[str, Any]:
        """Evaluate on the test split of a data set, or find it done; returns what metrics.json says."""
        run = checkpoint.parents[1].relative_to(self.out / "runs").as_posix().replace("/", "-")
        how = self.configuration("classify").run
        options = EvaluateOptions(
            n_workers=how.workers, device=how.device, bf16=how.precision == "bf16", max_bad_share=how.max_bad_share
        )
        out = self.out / "evals" / run / f"{data.name}-test"

        def on_event(event: EvaluateEvent) -> None:
            match event:
                case DataSetBegun(n_clips=n_clips):
                    self.on_event(Note(f"evaluating {run} on {data.name}: {n_clips} clips"))
                case Note():
                    self.on_event(event)

        return evaluate(load_detector(checkpoint), [self.sources(data, "test")], out, options, on_event)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with some replaced."""
    result = dict(base)
    for name, value in changes.items():
        inner = result.get(name)
        result[name] = merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return result
