from .audit.core.database import open_dataset as open_dataset
from .audit.core.policy import Policy as Policy
from .audit.core.policy import read_policy as read_policy
from .audit.core.seal import read_seals as read_seals
from .audit.core.seal import seal_dataset as seal_dataset
from .audit.core.seal import verify_seal as verify_seal
from .audit.diff import diff_datasets as diff_datasets
from .audit.run import base_suite as base_suite
from .audit.run import run_audit as run_audit
from .columns import read_columns as read_columns
from .columns import read_rows as read_rows
from .errors import (
    IntegrityError as IntegrityError,
)
from .errors import (
    LpsError as LpsError,
)
from .errors import (
    RefusedError as RefusedError,
)
from .errors import (
    UnreadableError as UnreadableError,
)
from .index import read_index as read_index
from .index import read_plan as read_plan
from .index import read_rule as read_rule
from .index import split_sets as split_sets
from .names import Level as Level
from .records import SourceVideo as SourceVideo
from .splits.leakage import measure_leakage as measure_leakage
from .splits.records import SplitParams as SplitParams
from .splits.table import split_table as split_table
from .storage import Store as Store
from .storage import open_store as open_store
