"""What is known of a layout besides how to read it: what a user is told, and how its files are recognised."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lps.pipeline.sources.shared.types import Adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLayout:
    """One value of `--dataset`."""

    id: str
    title: str
    adapter: Adapter
    tree: str
    """What SOURCE holds, as a user sees it, a line a kind of file."""
    counts: str
    """Videos of the whole release."""
    labels: str
    """What the labels are taken from."""
    splits: str
    """What is published as split; `none` where nothing is."""
    leakage: str
    """Who may be on both sides of a split, and which other data sets have the same videos or people."""
    page: str
    """Where the owner gives licence and access; empty for what is the user's own."""
    sign: re.Pattern[str] | None = None
    """Paths that only this layout has; None for what is never guessed."""
    sign_files: re.Pattern[str] | None = None
    """Paths of which one must be there, too."""
    also: re.Pattern[str] | None = None
    """More of its paths, which others may have, too."""
    n_most: int | None = None
    """No copy has more paths of this sign."""
    beats: tuple[str, ...] = ()
    """Layouts whose signs such a tree has, too."""
    without: re.Pattern[str] | None = None
    """Paths that no source of this layout has."""
    has_sequences: bool = False
    """Whether its videos are folders of images: its adapter is given these as `folder/`, not the images."""

    def found_in(self, paths: Sequence[str]) -> tuple[int, str]:
        """Count the paths that speak for this layout, and name one; `(0, "")` where the source has another."""
        lists = [path for path in paths if self.sign_files and self.sign_files.fullmatch(path)]
        if self.sign is None or (self.sign_files and not lists):
            return 0, ""
        if self.without is not None and any(map(self.without.fullmatch, paths)):
            return 0, ""
        found = [path for path in paths if self.sign.fullmatch(path)]
        is_too_many = self.n_most is not None and len(found) > self.n_most
        return (len(found), min(lists or found)) if found and not is_too_many else (0, "")

    def has(self, path: str) -> bool:
        """Tell whether a path may be one of this layout."""
        return any(pattern is not None and pattern.fullmatch(path) for pattern in (self.sign, self.also))
