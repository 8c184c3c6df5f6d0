"""What a mutant is, the clean twins that mutants are made from, and a copy that is spoilt."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lps.manifests.audit.core.policy import Policy, Require
from lps.manifests.audit.core.seal import read_seals, seal_dataset, sign_seal
from lps.manifests.canonical import sha256_hex
from lps.manifests.names import Role
from lps.manifests.schemas import Row
from lps.manifests.splits.learnt import Learnt, learnt_bytes, learnt_from, merge_learnt
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store
from lps.pipeline.job.split_sets import add_split_set
from tests.manifests.audit.edits import RowEdit, edit_table, replan, stored_rows
from tests.manifests.audit.mutants.made import Recipe, build, write_sources

SIZES = (1, 16, 10_000)
"""Clips of the data sets."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A data set that may be spoilt, and what an auditor brings besides, in one folder."""

    root: Path
    recipe: Recipe

    @property
    def out(self) -> Path:
        """The data set."""
        return self.root / "out"

    @property
    def beside(self) -> Path:
        """Folder of what the auditor brings."""
        return self.root / "beside"

    def edit(self, table: str, edit: RowEdit) -> None:
        """Change rows of a table, with all that tells of it."""
        edit_table(self.out, table, edit)

    def rows(self, table: str) -> list[Row]:
        """Return the rows of a table."""
        return stored_rows(self.out, table)

    def video(self, number: int, label: int = 0) -> Row:
        """Return the real video of a sequence, or the fake of which it is the target."""
        return next(row for row in self.rows("videos") if number_of(row) == number and row["label"] == label)

    def clip(self, number: int, label: int = 0) -> Row:
        """Return the clip of such a video."""
        video_id = self.video(number, label)["video_id"]
        return next(row for row in self.rows("clips") if row["video_id"] == video_id)

    def rebuild(self, recipe: Recipe) -> None:
        """Make the data set anew of other videos."""
        shutil.rmtree(self.out)
        build(self.out, recipe)


def number_of(video: Row) -> int:
    """Return the number of a video's target sequence."""
    return int(video["uri"][2:7])


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What an auditor gives beside the data set."""

    policy: Policy = field(default_factory=Policy)
    source: Path | None = None
    embeddings: Path | None = None
    split_set: str | None = None


def _nothing(copy: Copy) -> None:
    pass


def _bring_nothing(copy: Copy) -> Brought:
    return Brought()


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A clean data set that mutants are made from."""

    says: str
    recipe: Mapping[str, object] = field(default_factory=dict)
    prepare: Callable[[Copy], None] = _nothing
    bring: Callable[[Copy], Brought] = _bring_nothing


def built(root: Path, recipe: Recipe) -> Copy:
    """Return the data set of a recipe, with nothing beside it."""
    build(root / "out", recipe)
    (root / "beside").mkdir()
    return Copy(root, recipe)


def copied(copy: Copy, root: Path) -> Copy:
    """Return a copy of a data set; its files are those of that one until they are replaced."""
    shutil.copytree(copy.root, root, copy_function=os.link)
    return Copy(root, copy.recipe)


# ---- twins -----------------------------------------------------------------------------------------------------------


def seal_twice(copy: Copy) -> None:
    """Seal, add a split set, seal again; both seals are signed."""
    store, key = Store(str(copy.out)), copy.beside / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", str(key)], check=True)
    (copy.beside / "signers").write_text(f"auditor {key.with_suffix('.pub').read_text()}")
    sign_seal(store, seal_dataset(store), key)
    add_second_set(copy)
    sign_seal(store, seal_dataset(store), key)
    assert len(read_seals(store)) == 2


def _require_signature(copy: Copy) -> Brought:
    return Brought(policy=Policy(require=Require(seal=True, signature=True, allowed_signers=copy.beside / "signers")))


def add_second_set(copy: Copy, base: str | None = None) -> None:
    """Add a split set by the rule of the first."""
    add_split_set(str(copy.out), "second", SplitParams(rule="official", ratios=copy.recipe.ratios), base)


def learn(copy: Copy, *splits: str) -> None:
    """Write what a run of training says of itself that learnt from splits."""
    videos = {row["video_id"]: row for row in copy.rows("videos") if row["split"] in splits}
    rows = [row for row in copy.rows("clips") if row["video_id"] in videos]
    table = pa.table(
        {
            "video_id": pa.array([row["video_id"] for row in rows], pa.binary(16)),
            "source_sha256": pa.array([videos[row["video_id"]]["sha256"] for row in rows], pa.binary(32)),
            "clip_id": pa.array([row["clip_id"] for row in rows], pa.binary(16)),
        }
    )
    data = learnt_bytes(Learnt(merge_learnt([learnt_from(Role.LABELS, table)]).table, ()))
    shutil.rmtree(copy.beside / "run", ignore_errors=True)
    (copy.beside / "run").mkdir()
    (copy.beside / "run/learnt.parquet").write_bytes(data)
    result = {"stage": "classify", "learnt": {"sha256": sha256_hex(data)}}
    (copy.beside / "run/result.json").write_text(json.dumps(result))


def show_faces(copy: Copy, alike: Mapping[int, int] | None = None) -> None:
    """Write embeddings of all faces; the face of a sequence in `alike` is that of another."""
    rows = copy.rows("videos")
    numbers = [(alike or {}).get(number_of(row), number_of(row)) for row in rows]
    vectors = [np.random.default_rng(number).normal(size=64).astype("f4") for number in numbers]
    path = copy.beside / "faces.parquet"
    path.unlink(missing_ok=True)
    pq.write_table(pa.table({"video_id": [row["video_id"].hex() for row in rows], "embedding": vectors}), path)


TWINS: Mapping[str, Twin] = {
    "plain": Twin(says="as it was made"),
    "paired": Twin(says="fakes share the cut of their originals", recipe={"paired": True}),
    "sealed": Twin(says="sealed twice, signed", prepare=seal_twice, bring=_require_signature),
    "source": Twin(
        says="the source is at hand",
        prepare=lambda copy: write_sources(copy.beside / "source", copy.recipe.videos()),
        bring=lambda copy: Brought(source=copy.beside / "source"),
    ),
    "faces": Twin(
        says="embeddings of all faces are at hand",
        prepare=show_faces,
        bring=lambda copy: Brought(embeddings=copy.beside / "faces.parquet"),
    ),
    "trained": Twin(
        says="a run has learnt from train",
        prepare=lambda copy: learn(copy, "train"),
        bring=lambda copy: Brought(policy=Policy(runs=(copy.beside / "run",))),
    ),
    "second": Twin(
        says="a second split set by the published lists",
        prepare=add_second_set,
        bring=lambda copy: Brought(split_set="second"),
    ),
    "grown": Twin(
        says="a split set made upon another",
        prepare=lambda copy: add_second_set(copy, "listed"),
        bring=lambda copy: Brought(split_set="second"),
    ),
    "single": Twin(says="one data set", recipe={"single": True}),
    "filmed": Twin(
        says="videos that decode are at hand",
        recipe={"filmed": True},
        bring=lambda copy: Brought(source=copy.root / "source"),
    ),
    "filmed before": Twin(
        says="videos that decode are at hand, another version prepared them",
        recipe={"filmed": True},
        prepare=lambda copy: replan(copy.out, {"writer_version": "0"}),
        bring=lambda copy: Brought(source=copy.root / "source"),
    ),
    "published": Twin(says="a published data set, complete", recipe={"dataset": "uadfv"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One thing that is wrong with a data set, and the check that is to find it."""

    check: str
    does: str
    """What was done, as the table says it."""
    edit: Callable[[Copy], None]
    twin: str = "plain"
    sizes: tuple[int, ...] = SIZES
    """Sizes at which it can be made."""
    why: str = ""
    """Why other checks answer otherwise, too, at every size; or why a size is left out."""
    full: bool = False
    """The check needs level full."""
    deep: bool = False
    """The check needs level deep."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Limits of the policy, to spend less."""
    statistical: bool = False
    """Sixteen clips are too few to tell."""

    @property
    def name(self) -> str:
        """Name of the mutant, for tests."""
        return f"{self.check}: {self.does}"
