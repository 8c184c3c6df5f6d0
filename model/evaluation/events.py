"""What an evaluation reports while it works."""

from collections.abc import Callable
from dataclasses import dataclass

from lps.manifests.records import Note


@dataclass(frozen=True, slots=True)
class DataSetBegun:
    """The clips of a data set are about to be scored."""

    name: str
    n_clips: int


@dataclass(frozen=True, slots=True)
class ClipsScored:
    """A batch of the data set is done."""

    n_clips: int


EvaluateEvent = Note | DataSetBegun | ClipsScored
OnEvaluateEvent = Callable[[EvaluateEvent], None]
