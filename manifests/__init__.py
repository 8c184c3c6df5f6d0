"""Records, schemas, splits and integrity of a prepared data set. Imports nothing from the other packages.

    import lps.manifests as manifests
    store = manifests.open_store("out/")
    clips = manifests.read_columns(store, "clips", ("clip_id", "label"))

What is named here is loaded when it is first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lps.manifests.audit.core.database import open_dataset as open_dataset
    from lps.manifests.audit.core.policy import Policy as Policy
    from lps.manifests.audit.core.policy import read_policy as read_policy
    from lps.manifests.audit.core.seal import read_seals as read_seals
    from lps.manifests.audit.core.seal import seal_dataset as seal_dataset
    from lps.manifests.audit.core.seal import verify_seal as verify_seal
    from lps.manifests.audit.diff import diff_datasets as diff_datasets
    from lps.manifests.audit.run import base_suite as base_suite
    from lps.manifests.audit.run import run_audit as run_audit
    from lps.manifests.columns import read_columns as read_columns
    from lps.manifests.columns import read_rows as read_rows
    from lps.manifests.errors import IntegrityError as IntegrityError
    from lps.manifests.errors import LpsError as LpsError
    from lps.manifests.errors import RefusedError as RefusedError
    from lps.manifests.errors import UnreadableError as UnreadableError
    from lps.manifests.index import read_index as read_index
    from lps.manifests.index import read_plan as read_plan
    from lps.manifests.index import read_rule as read_rule
    from lps.manifests.index import split_sets as split_sets
    from lps.manifests.names import Level as Level
    from lps.manifests.records import SourceVideo as SourceVideo
    from lps.manifests.splits.leakage import measure_leakage as measure_leakage
    from lps.manifests.splits.records import SplitParams as SplitParams
    from lps.manifests.splits.table import split_table as split_table
    from lps.manifests.storage import Store as Store
    from lps.manifests.storage import open_store as open_store

_MODULES = {
    "audit.core.database": ("open_dataset",),
    "audit.core.policy": ("Policy", "read_policy"),
    "audit.core.seal": ("read_seals", "seal_dataset", "verify_seal"),
    "audit.diff": ("diff_datasets",),
    "audit.run": ("base_suite", "run_audit"),
    "columns": ("read_columns", "read_rows"),
    "errors": ("IntegrityError", "LpsError", "RefusedError", "UnreadableError"),
    "index": ("read_index", "read_plan", "read_rule", "split_sets"),
    "names": ("Level",),
    "records": ("SourceVideo",),
    "splits.leakage": ("measure_leakage",),
    "splits.records": ("SplitParams",),
    "splits.table": ("split_table",),
    "storage": ("Store", "open_store"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  ruff wants a list that it can read


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULE_OF]
