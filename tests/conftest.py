"""Fixtures that tests of all parts share."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lps.pipeline.sources import SourceFile, SourceListing, SourceOptions, list_videos

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return a function that finds a file of the shared folder by its path there.

    A test that needs a file which is not there skips; with LPS_REQUIRE_MEDIA=1 it fails.
    """
    root = Path(os.environ.get("LPS_SHARED_DIR", REPOSITORY.parent / "shared"))

    def find(path: str) -> Path:
        found = root / path
        if not found.exists():
            give_up = pytest.fail if os.environ.get("LPS_REQUIRE_MEDIA") == "1" else pytest.skip
            give_up(f"no {path} in LPS_SHARED_DIR")
        return found

    return find


@pytest.fixture(scope="session")
def list_tree() -> Callable[..., SourceListing]:
    """Return a function that lists a source tree given as a mapping from path to content."""

    def listing(
        dataset: str, tree: Mapping[str, bytes], *, splits: Mapping[str, bytes] | None = None, table: str = ""
    ) -> SourceListing:
        def read(path: str) -> bytes:
            if path not in tree:
                raise FileNotFoundError(2, "No such file", path)
            return tree[path]

        files = [SourceFile(path=path, n_bytes=len(data)) for path, data in tree.items()]
        given = splits.get if splits is not None else None
        return list_videos(dataset, files, SourceOptions(read_bytes=read, splits_dir_read=given, table_path=table))

    return listing
