"""Mutants for the checks of leakage (L), bias (B) and clips (C)."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lps.manifests.schemas import BOX_UNITS, Row
from lps.pipeline.clips.places import start_seed
from tests.manifests.audit.edits import Member, resplit, retar
from tests.manifests.audit.mutants.intact import on_clip, on_video
from tests.manifests.audit.mutants.made import METHODS, PAIRED, picture
from tests.manifests.audit.mutants.spoiling import Copy, Mutant, learn, number_of, show_faces

MANY = (16, 10_000)
ALONE = "one video is in one split"
LARGE = (10_000,)
DECODED = "of any number of videos a sample is decoded"
FEW = "too few clips to tell from chance: SKIP or UNKNOWN"


# ---- L ---------------------------------------------------------------------------------------------------------------


def _tie(copy: Copy, column: str, other: int) -> None:
    """Give a sequence a key of the first one."""
    mine, theirs = copy.video(other)[column], copy.video(0)[column]
    on_video(copy, other, 0, **{column: [*mine, *theirs]})
    resplit(copy.out)


def _other_original(copy: Copy) -> None:
    """Say of a fake of val that it was made from a real video of train."""
    was, now = copy.video(2)["video_id"], copy.video(0)["video_id"]
    on_video(copy, 2, 1, original_video_id=now)
    fake = copy.video(2, 1)["video_id"]
    pairs = {fake: now.hex(), was: None}
    copy.edit("clips", lambda row: {**row, "pair_id": pairs.get(row["video_id"], row["pair_id"])})
    resplit(copy.out)


def _no_original(copy: Copy) -> None:
    """Forget the originals of some fakes."""
    some = {row["video_id"] for row in copy.rows("videos") if number_of(row) % 400 == 0}
    copy.edit("videos", lambda row: {**row, "original_video_id": None} if row["video_id"] in some else row)
    copy.edit("clips", lambda row: {**row, "pair_id": None} if row["video_id"] in some else row)
    resplit(copy.out)


def _look_alike(copy: Copy) -> None:
    hashes = copy.video(0)["phash"]
    on_video(copy, 6, phash=hashes)


def _other_version(copy: Copy) -> None:
    """Let two videos without keys differ in compression alone."""
    nobody: Row = {name: [] for name in ("target_keys", "source_keys", "identity_keys")}
    two = {copy.video(0)["video_id"]: "c23", copy.video(2)["video_id"]: "c40"}
    copy.edit(
        "videos",
        lambda row: {**row, **nobody, "compression": two[row["video_id"]]} if row["video_id"] in two else row,
    )
    resplit(copy.out)


LEAKAGE = (
    Mutant(
        check="L1",
        does="a video of val has the target key of one of train",
        edit=lambda c: _tie(c, "target_keys", 2),
        sizes=MANY,
        why=ALONE,
    ),
    Mutant(
        check="L2",
        does="a fake of val names an original of train",
        edit=_other_original,
        sizes=MANY,
        why=f"{ALONE}; an original ties its fakes: L1",
    ),
    Mutant(
        check="L2",
        does="some fakes without an original",
        edit=_no_original,
        sizes=MANY,
        why="one video is no fake",
    ),
    Mutant(
        check="L3",
        does="a video of val has a recording of train",
        edit=lambda c: _tie(c, "source_keys", 2),
        sizes=MANY,
        why=f"{ALONE}; recordings are ties: L1",
    ),
    Mutant(
        check="L4",
        does="a video of val has a person of train",
        edit=lambda c: _tie(c, "identity_keys", 2),
        sizes=MANY,
        why=f"{ALONE}; persons are ties: L1",
    ),
    Mutant(
        check="L5",
        does="equal clips of different files in train and val",
        edit=lambda c: on_clip(c, 2, frames_sha256=c.clip(0)["frames_sha256"]),
        sizes=MANY,
        why=ALONE,
    ),
    Mutant(
        check="L6",
        does="a video of test with the hashes of one of train",
        edit=_look_alike,
        twin="single",
        sizes=(16,),
        why=f"{ALONE}; the pairs of a data set of 8 videos are too few to calibrate with",
        full=True,
    ),
    Mutant(
        check="L6",
        does="a video of test with the hashes of one of train, among two data sets",
        edit=_look_alike,
        sizes=LARGE,
        why="see above",
        full=True,
    ),
    Mutant(
        check="L7",
        does="a video at another compression in another split, without keys",
        edit=_other_version,
        sizes=MANY,
        why=f"{ALONE}; of 16 videos two without keys are too many for L4",
    ),
    Mutant(
        check="L8",
        does="equal clips of a fake and its original",
        edit=lambda c: on_clip(c, 0, 1, frames_sha256=c.clip(0)["frames_sha256"]),
        sizes=MANY,
        why="one video has one label",
    ),
    Mutant(
        check="L9",
        does="the run has learnt from val, too",
        edit=lambda c: learn(c, "train", "val"),
        twin="trained",
        sizes=MANY,
        why="one video is in train, and nothing is held out",
    ),
    Mutant(
        check="L10",
        does="a video of test has the target key of another data set's in train",
        edit=lambda c: _tie(c, "target_keys", 6),
        sizes=MANY,
        why=f"{ALONE}; keys are ties: L1",
    ),
    Mutant(
        check="L11",
        does="two sequences of train and test with one face",
        edit=lambda c: show_faces(c, {6: 0}),
        twin="faces",
        sizes=MANY,
        why=ALONE,
    ),
)


# ---- B ---------------------------------------------------------------------------------------------------------------


def _fakes(table: str, change: Callable[[Row], Row], every: int = 1) -> Callable[[Copy], None]:
    """Return an edit of the rows of fakes of every so manieth sequence."""

    def edit(copy: Copy) -> None:
        fakes = {r["video_id"] for r in copy.rows("videos") if r["label"] == 1 and number_of(r) % every == 0}
        copy.edit(table, lambda row: {**row, **change(row)} if row["video_id"] in fakes else row)

    return edit


def _unlist_fakes(copy: Copy) -> None:
    fake = {"label": 1, "official_split": "val"}
    copy.edit("videos", lambda row: {**row, "official_split": None} if {**row, **fake} == row else row)
    resplit(copy.out, "second")


def _lose_reals(copy: Copy) -> None:
    lost = {"status": "partial", "error_code": "E_TRUNCATED", "error_stage": "decode"}
    copy.edit("videos", lambda row: {**row, **lost} if row["label"] == 0 and number_of(row) % 20 == 0 else row)


def _compress_fakes(copy: Copy) -> None:
    _fakes("videos", lambda row: {"compression": "c40"})(copy)
    resplit(copy.out)


def _larger(row: Row) -> Row:
    return {"width": 960, "height": 720} if row["height"] == 480 else {}


def _name_label(copy: Copy) -> None:
    clip = copy.clip(0)
    key, told = clip["sample_key"], f"real-{clip['sample_key']}"

    def renamed(members: list[Member]) -> list[Member]:
        return [(name.replace(key, told), data) for name, data in members]

    retar(copy.out, clip["shard_id"], renamed, listed=True, rename={key: told})


def _fall_back(copy: Copy) -> None:
    some = {
        row["video_id"] for row in copy.rows("videos") if row["method"] == METHODS[0] and number_of(row) // 2 % 5 == 0
    }

    def own(row: Row) -> Row:
        if row["video_id"] not in some:
            return row
        cut = {"pair_mode": "fallback", "pair_fallback": "P_SIZE", "pair_face_px": None, "pair_background": None}
        return {**row, **cut, "start_seed": start_seed(row["video_id"], PAIRED)}

    copy.edit("clips", own)


def _wider(row: Row) -> Row:
    return {"box_xyxy": [[x - BOX_UNITS * 4, y, u + BOX_UNITS * 4, v] for x, y, u, v in row["box_xyxy"]]}


BIAS = (
    Mutant(
        check="B1",
        does="the lists leave out the fakes of val",
        edit=_unlist_fakes,
        twin="second",
        sizes=MANY,
        why="one video is of one class: FAIL without a mutant",
    ),
    Mutant(
        check="B2",
        does="some reals are damaged, no fakes are",
        edit=_lose_reals,
        sizes=MANY,
        why="one video is of one class",
    ),
    Mutant(
        check="B3",
        does="faces of fakes are found less often",
        statistical=True,
        edit=_fakes("videos", lambda row: {"n_frames_with_face": row["n_frames_with_face"] - 3}),
    ),
    Mutant(
        check="B4",
        does="every fake has sound",
        statistical=True,
        edit=_fakes("videos", lambda row: {"has_audio": True}),
    ),
    Mutant(check="B5", does="some fakes are larger", statistical=True, edit=_fakes("videos", _larger, 3)),
    Mutant(check="B6", does="every fake is compressed more", statistical=True, edit=_compress_fakes),
    Mutant(
        check="B7",
        does="half of the fakes are of variable frame rate",
        statistical=True,
        edit=_fakes("videos", lambda row: {"is_vfr": True}, 2),
    ),
    Mutant(
        check="B8",
        does="fakes are darker",
        statistical=True,
        edit=_fakes("clips", lambda row: {"luma_mean": row["luma_mean"] - 5}),
    ),
    Mutant(
        check="B9",
        does="a fifth of one data set gives no clip, of both classes alike",
        edit=lambda c: c.rebuild(replace(c.recipe, failing=5)),
        sizes=MANY,
        why="one video is no fake",
    ),
    Mutant(
        check="B11",
        does="of some fakes nobody knows which face is forged",
        edit=_fakes("clips", lambda row: {"face_label_certain": False, "n_tracks_in_video": 2}, 8),
        sizes=MANY,
        why="one video is no fake",
    ),
    Mutant(check="B12", does="a key begins with `real`", edit=_name_label),
    Mutant(
        check="B13",
        does="a fifth of one method falls back on a cut of its own",
        statistical=True,
        edit=_fall_back,
        twin="paired",
    ),
    Mutant(
        check="B14",
        does="boxes of fakes are wider",
        statistical=True,
        edit=_fakes("clips", _wider),
        full=True,
        limits={"b14_max_clips": 400},
    ),
)


# ---- C ---------------------------------------------------------------------------------------------------------------


def _with_hole(row: Row) -> Row:
    return {"frame_idx": [*row["frame_idx"][:3], *(k + 1 for k in row["frame_idx"][3:])]}


def _shifted_less(row: Row) -> Row:
    return {**row, "align_M": [[*m[:2], m[2] + 2.5, *m[3:]] for m in row["align_M"]]}


def _shifted(row: Row) -> Row:
    return {"align_M": [[*m[:2], m[2] + 4, *m[3:]] for m in row["align_M"]]}


def _jumping(row: Row) -> Row:
    step = np.array([80, 0, 80, 0]) * BOX_UNITS
    return {"box_xyxy": [[*row["box_xyxy"][0]], *(np.array(row["box_xyxy"][1:]) + step).tolist()]}


def _one(change: Callable[[Row], Row]) -> Callable[[Copy], None]:
    return lambda copy: on_clip(copy, 0, **change(copy.clip(0)))


def _freeze(copy: Copy) -> None:
    """Let twenty clips of a shard, or all of fewer, show one picture."""
    shard_id = copy.clip(0)["shard_id"]
    keys = sorted(row["sample_key"] for row in copy.rows("clips") if row["shard_id"] == shard_id)[:20]

    def frozen(members: list[Member]) -> list[Member]:
        first = {name.split(".")[0]: data for name, data in members if name.endswith(".00.jpg")}
        return [(n, first[k] if (k := n.split(".")[0]) in keys and n.endswith("jpg") else d) for n, d in members]

    retar(copy.out, shard_id, frozen, listed=True)


def _other_scene(copy: Copy) -> None:
    """Show another scene in the first shared fake of the sample."""
    shared = [row for row in copy.rows("clips") if row["pair_mode"] == "shared"]
    if not shared:
        return
    clip = min(shared, key=lambda row: hashlib.sha256(row["sample_key"].encode()).digest())

    def other(members: list[Member]) -> list[Member]:
        return [
            (name, picture(1000, 0, int(name.split(".")[1])) if _is_image(name, clip["sample_key"]) else data)
            for name, data in members
        ]

    retar(copy.out, clip["shard_id"], other, listed=True)


def _is_image(name: str, key: str) -> bool:
    return name.startswith(key) and name.endswith(".jpg")


CLIPS = (
    Mutant(check="C1", does="a hole in the frames of a clip", edit=_one(_with_hole)),
    Mutant(check="C3", does="matrices that are 4 px beside the face", edit=_one(_shifted)),
    Mutant(check="C4", does="clips of one picture (20 of 10,000)", edit=_freeze, full=True),
    Mutant(check="C5", does="a box that jumps by two thirds of its side", edit=_one(_jumping)),
    Mutant(
        check="C6",
        does="a start that the seed does not give",
        edit=_one(lambda row: {"start_seed": row["start_seed"] ^ 1}),
    ),
    Mutant(
        check="C7",
        does="a shared clip with other scores than its original's",
        edit=lambda c: on_clip(c, 0, 1, det_score=[0.5] * 5),
        twin="paired",
        sizes=MANY,
        why="one video is no fake",
    ),
    Mutant(
        check="C8",
        does="a shared fake that shows another scene, one of those in the sample",
        edit=_other_scene,
        twin="paired",
        full=True,
        sizes=MANY,
        why="one video is no fake",
    ),
    Mutant(
        check="C2",
        does="matrices that are 2.5 px beside the face",
        edit=lambda c: c.edit("clips", _shifted_less),
        twin="filmed before",
        sizes=(1, 16),
        why=f"{DECODED}; made by this version, R1 finds it, too",
        deep=True,
    ),
)
