"""The table of crash windows in docs/guarantees.md: what is written where, and which test kills there."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/guarantees.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
"""How the page names a test."""
_ROW = re.compile(r"\| *\d+ *\|")


@dataclass(frozen=True, slots=True)
class Window:
    """One row: the moment between a write and the one before it."""

    number: int
    paths: tuple[str, ...]
    """As the row names them, below OUT, with `<shard>` and the like for what differs."""
    tests: tuple[tuple[str, str], ...]
    """(file, function) of each test that kills there."""

    def holds(self, path: str) -> bool:
        """Tell whether a file that was written is one of the row."""
        return any(re.fullmatch(re.sub("<\\w+>", "[^/]+", re.escape(each)), path) for each in self.paths)


def windows() -> list[Window]:
    """Return the rows of all tables whose first column is a number."""
    found = []
    for line in PAGE.read_text().splitlines():
        if _ROW.match(line):
            number, written, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            paths = tuple(path.removeprefix("OUT/") for path in re.findall("`([^`]+)`", written))
            found.append(Window(int(number), paths, tuple(TEST.findall(" ".join(rest)))))
    return found
