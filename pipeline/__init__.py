"""Video to aligned face clips to shards, on Ray.

    from lps import pipeline
    request = pipeline.PrepRequest(source="videos/", out="out/", params=pipeline.Params(localizer="mtcnn"))
    summary = pipeline.run_job(request, on_event=print)

What is named here is loaded when it is first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lps.pipeline.clips.process import process_video as process_video
    from lps.pipeline.config.params import ALL_CLIPS as ALL_CLIPS
    from lps.pipeline.config.params import Limits as Limits
    from lps.pipeline.config.params import LocalizeParams as LocalizeParams
    from lps.pipeline.config.params import Params as Params
    from lps.pipeline.faces.localizers import load_localizer as load_localizer
    from lps.pipeline.job.events import PrepEvent as PrepEvent
    from lps.pipeline.job.events import ShardCommitted as ShardCommitted
    from lps.pipeline.job.events import VideoDone as VideoDone
    from lps.pipeline.job.request import PrepRequest as PrepRequest
    from lps.pipeline.job.request import RunOptions as RunOptions
    from lps.pipeline.job.run import plan_job as plan_job
    from lps.pipeline.job.run import run_job as run_job
    from lps.pipeline.job.split_sets import add_split_set as add_split_set
    from lps.pipeline.job.status import read_status as read_status

_MODULES = {
    "clips.process": ("process_video",),
    "config.params": ("ALL_CLIPS", "Limits", "LocalizeParams", "Params"),
    "faces.localizers": ("load_localizer",),
    "job.events": ("PrepEvent", "ShardCommitted", "VideoDone"),
    "job.request": ("PrepRequest", "RunOptions"),
    "job.run": ("plan_job", "run_job"),
    "job.split_sets": ("add_split_set",),
    "job.status": ("read_status",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  ruff wants a list that it can read


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULE_OF]
