"""Mutants for the checks of integrity (A), tampering (T) and reproducibility (R)."""

import hashlib
from dataclasses import replace

from lps.manifests.schemas import Row
from tests.manifests.audit.edits import Member, edit_file, edit_table, replan, retar
from tests.manifests.audit.mutants.made import VERSIONS
from tests.manifests.audit.mutants.spoiling import Copy, Mutant, number_of


def on_video(copy: Copy, number: int, label: int = 0, **changes: object) -> None:
    """Change the row of one video."""
    video_id = copy.video(number, label)["video_id"]
    copy.edit("videos", lambda row: {**row, **changes} if row["video_id"] == video_id else row)


def on_clip(copy: Copy, number: int, label: int = 0, **changes: object) -> None:
    """Change the row of one clip."""
    clip_id = copy.clip(number, label)["clip_id"]
    copy.edit("clips", lambda row: {**row, **changes} if row["clip_id"] == clip_id else row)


def tar_of(copy: Copy) -> str:
    """Return the path of the shard with the first video."""
    return str(next(s["uri"] for s in copy.rows("shards") if s["shard_id"] == copy.clip(0)["shard_id"]))


# ---- A ---------------------------------------------------------------------------------------------------------------


def _stranger(copy: Copy) -> None:
    clip = copy.clip(0)
    key = clip["sample_key"]

    def more(members: list[Member]) -> list[Member]:
        again = [(name.replace(key, "f" * len(key)), data) for name, data in members if name.startswith(key)]
        return [*members, *again]

    retar(copy.out, clip["shard_id"], more, listed=False)


def _other_bytes(copy: Copy) -> None:
    clip = copy.clip(0)
    name = f"{clip['sample_key']}.json"

    def other(members: list[Member]) -> list[Member]:
        return [(n, data.replace(b"clip_id", b"clip_ix") if n == name else data) for n, data in members]

    retar(copy.out, clip["shard_id"], other, listed=False)


def _no_label(copy: Copy) -> None:
    clip = copy.clip(0)
    gone = f"{clip['sample_key']}.cls"
    retar(copy.out, clip["shard_id"], lambda members: [m for m in members if m[0] != gone], listed=True)


def _change_source(copy: Copy) -> None:
    rows = sorted(copy.rows("videos"), key=lambda row: hashlib.sha256(row["video_id"].hex().encode()).digest())
    edit_file(copy.beside / "source" / rows[0]["uri"], lambda data: data[:-1] + bytes([data[-1] ^ 1]))


INTEGRITY = (
    Mutant(check="A1", does="a clip names another split than its video", edit=lambda c: on_clip(c, 0, split="val")),
    Mutant(
        check="A2",
        does="a bit flipped behind the last sample of a shard",
        edit=lambda c: edit_file(c.out / tar_of(c), lambda data: data[:-1] + b"\1"),
        full=True,
    ),
    Mutant(check="A3", does="a sample more in a shard, of the same members", edit=_stranger, full=True),
    Mutant(check="A4", does="other bytes in a member of a sample", edit=_other_bytes, full=True),
    Mutant(
        check="A5",
        does="a shard more that nothing names",
        edit=lambda c: edit_file(c.out / "shards/train/train-000099.tar", lambda _: b"\0" * 10240),
    ),
    Mutant(
        check="A6",
        does="a sample without its label, as its row says",
        edit=_no_label,
        full=True,
        sizes=(16, 10_000),
        why="one sample is like itself",
    ),
    Mutant(check="A7", does="a video counts two clips and has one", edit=lambda c: on_video(c, 0, n_clips=2)),
    Mutant(
        check="A8",
        does="a bit flipped in a source, one of those in the sample",
        edit=_change_source,
        twin="source",
        full=True,
    ),
    Mutant(
        check="A9",
        does="a message with a path of a machine",
        edit=lambda c: on_video(c, 0, error_detail="cannot open /data/jane/003.mp4"),
    ),
)


# ---- T ---------------------------------------------------------------------------------------------------------------

TAMPER = (
    Mutant(
        check="T1",
        does="a row changed, with every digest but the seal's",
        edit=lambda c: on_video(c, 0, det_score_mean=0.5),
        twin="sealed",
    ),
    Mutant(
        check="T2",
        does="the first of two seals removed",
        edit=lambda c: edit_file(c.out / "seals/000001.json", lambda _: None),
        twin="sealed",
    ),
    Mutant(
        check="T3",
        does="the signature of another seal",
        edit=lambda c: edit_file(
            c.out / "seals/000002.json.sig", lambda _: (c.out / "seals/000001.json.sig").read_bytes()
        ),
        twin="sealed",
    ),
    Mutant(
        check="T4",
        does="a row changed, and no digest with it",
        edit=lambda c: edit_table(c.out, "videos", _scored, digests=False, commits=False),
    ),
    Mutant(
        check="T4",
        does="a row changed, with the digests of the index, without its commit record",
        edit=lambda c: edit_table(c.out, "videos", _scored, commits=False),
        sizes=(1, 16),
        why="of many clips, level quick compares a sample of the records, level full all",
    ),
)


def _scored(row: Row) -> Row:
    return {**row, "det_score_mean": 0.5} if row["uri"].startswith("a/00000") else row


# ---- R ---------------------------------------------------------------------------------------------------------------


def _move_in_second(copy: Copy) -> None:
    video_id = copy.video(0)["video_id"]
    copy.edit("splits/second", lambda row: {**row, "u": 0.5} if row["video_id"] == video_id else row)


def _no_numpy(copy: Copy) -> None:
    replan(copy.out, {"versions": {name: value for name, value in VERSIONS.items() if name != "numpy"}})


def _timed_out(row: Row) -> Row:
    lost = {"status": "partial", "error_code": "E_TIMEOUT", "error_stage": "decode"}
    return {**row, **lost} if number_of(row) < 2 else row


def _move(copy: Copy) -> None:
    video_id = copy.video(0)["video_id"]
    copy.edit("splits", lambda row: {**row, "u": 0.5} if row["video_id"] == video_id else row)


REPRODUCIBILITY = (
    Mutant(
        check="R1",
        does="clips with the digests of other frames",
        edit=lambda c: c.edit("clips", lambda row: {**row, "frames_sha256": row["clip_id"] * 2}),
        twin="filmed",
        sizes=(1, 16),
        why="of any number of videos a sample is decoded",
        deep=True,
    ),
    Mutant(check="R2", does="a row of the split set edited", edit=_move),
    Mutant(
        check="R3",
        does="a pinned row of the split set edited",
        edit=_move_in_second,
        twin="grown",
        why="the rule pins what its base has, so a row that moved is not what the rule gives: R2",
    ),
    Mutant(check="R4", does="the plan without the version of NumPy", edit=_no_numpy),
    Mutant(check="R5", does="the videos of two sequences ran out of time", edit=lambda c: c.edit("videos", _timed_out)),
    Mutant(
        check="R6",
        does="the plan says that it is a published data set of another size",
        edit=lambda c: replan(c.out, {"dataset": "uadfv"}),
    ),
    Mutant(
        check="R6",
        does="four videos of a published data set are missing",
        edit=lambda c: c.rebuild(replace(c.recipe, n_clips=94)),
        twin="published",
        sizes=(98,),
        why="98 videos are the smallest data set of which a count is published",
    ),
)
