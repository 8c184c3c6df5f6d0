"""What long work tells whoever started it: frozen dataclasses, each with the name of its kind in a log."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know; the work continues."""

    kind: ClassVar[str] = "note"
    text: str
