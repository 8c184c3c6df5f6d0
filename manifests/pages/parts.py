"""Records that pages of the audit and of the trainer share."""

from dataclasses import dataclass
from typing import Any

from lps.manifests.schemas import Row


@dataclass(frozen=True, slots=True)
class Mark:
    """How a state or verdict looks: a word, a sign and a tone, so that none depends on the others."""

    word: str
    symbol: str
    tone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineView:
    """A row of numbers with its name."""

    title: str = ""
    label: str = ""
    method: str = ""
    cells: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileView:
    """A clip or a video with its caption."""

    label: str
    lines: tuple[str, ...]
    uri: str
    image: str = ""
    """A data URI."""
    blank: str = ""
    """What stands in place of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTile:
    """One clip, as it is captioned. Its frame may be missing."""

    row: Row
    """TILE_COLUMNS of the manifest `clips`."""
    uri: str
