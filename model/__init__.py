"""Networks, losses, shard reader, trainer and evaluation of Latent Pattern Sensing.

    from lps import model as m

    with m.ClipReader(m.open_data("out/", "train")) as reader:
        for batch in reader.epoch(0):
            print(batch.frames.shape, batch.labels)

What is named here is loaded when it is first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lps.model.data.clip_data import ClipData as ClipData
    from lps.model.data.clip_data import open_data as open_data
    from lps.model.data.clip_decoder import Batch as Batch
    from lps.model.data.clip_decoder import ReadOptions as ReadOptions
    from lps.model.data.clip_reader import ClipReader as ClipReader
    from lps.model.data.clip_reader import WorkOptions as WorkOptions
    from lps.model.data.epoch_plan import PlanOptions as PlanOptions
    from lps.model.data.epoch_plan import Rank as Rank
    from lps.model.data.epoch_plan import evaluation_plan as evaluation_plan
    from lps.model.data.frames import frames_to_blocks as frames_to_blocks
    from lps.model.data.shard_cache import ShardCache as ShardCache
    from lps.model.data.shard_index import open_shards as open_shards
    from lps.model.data.sources import Sources as Sources
    from lps.model.evaluation.loading import LoadedDetector as LoadedDetector
    from lps.model.evaluation.loading import load_detector as load_detector
    from lps.model.evaluation.predict import PredictOptions as PredictOptions
    from lps.model.evaluation.predict import predict as predict
    from lps.model.networks.published_weights import load_reference as load_reference
    from lps.model.training.job import TrainJob as TrainJob
    from lps.model.training.presets import Preset as Preset
    from lps.model.training.presets import preset_for as preset_for
    from lps.model.training.processes import choose_device as choose_device
    from lps.model.training.train import train as train

_MODULES = {
    "data.clip_data": ("ClipData", "open_data"),
    "data.clip_decoder": ("Batch", "ReadOptions"),
    "data.clip_reader": ("ClipReader", "WorkOptions"),
    "data.epoch_plan": ("PlanOptions", "Rank", "evaluation_plan"),
    "data.frames": ("frames_to_blocks",),
    "data.shard_cache": ("ShardCache",),
    "data.shard_index": ("open_shards",),
    "data.sources": ("Sources",),
    "evaluation.loading": ("LoadedDetector", "load_detector"),
    "evaluation.predict": ("PredictOptions", "predict"),
    "networks.published_weights": ("load_reference",),
    "training.job": ("TrainJob",),
    "training.presets": ("Preset", "preset_for"),
    "training.processes": ("choose_device",),
    "training.train": ("train",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  ruff wants a list that it can read


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
