"""Checks A2, A3, A4, A6 and C4: bytes, members and pixels of the shards."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lps.manifests.audit.run import Audit
from lps.manifests.schemas import Row
from tests.builders import manifest_rows
from tests.manifests.audit.edits import Member, retar

Mutated = Callable[..., Path]
Broken = Callable[..., dict[str, set[str]]]
SHARD = "train-000000"
TAR = f"shards/train/{SHARD}.tar"


def clips_of(out: Path, shard_id: str = SHARD) -> list[Row]:
    rows = manifest_rows(out, "clips")
    return [row for row in rows if row["shard_id"] == shard_id]


@pytest.fixture
def retarred(mutated: Mutated) -> Callable[..., Path]:
    """Return a function that copies the data set with one shard written anew; its own row follows the new file.

    `edit` takes and returns (name, bytes) of the members. With `listed`, the rows of its clips follow too: then the
    shard is all that the manifests say, however odd that is.
    """

    def edited(edit: Callable[[list[Member]], list[Member]], *, listed: bool) -> Path:
        out = mutated()
        retar(out, SHARD, edit, listed=listed)
        return out

    return edited


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if at >= 0 else data[:at] + b"\1"


def jpeg(shade: int, side: int = 64) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (side, side), (shade,) * 3).save(sink, "JPEG")
    return sink.getvalue()


# ---- A2 ------------------------------------------------------------------------------------------------------------


def test_byte_flipped_behind_the_last_sample_is_found(mutated: Mutated, broken: Broken) -> None:
    out = mutated(files={TAR: flipped(-1)})
    assert broken(out) == {"A2": {SHARD}}
    assert broken(out, level="quick") == {}


def test_byte_flipped_inside_a_member_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    clip = clips_of(dataset)[0]
    member = next(member for member in clip["members"] if member["ext"] == "json")
    found = broken(mutated(files={TAR: flipped(member["offset"])}))
    assert found == {"A2": {SHARD}, "A4": {f"{SHARD}/{clip['sample_key']}"}}


def test_byte_flipped_in_a_header_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    clip = clips_of(dataset)[-1]
    found = broken(mutated(files={TAR: flipped(clip["tar_offset"])}), "A")
    assert found["A2"] == {SHARD}
    assert f"{SHARD}/{clip['sample_key']}" in found["A4"]


def test_shortened_shard_is_found_by_its_size(mutated: Mutated, broken: Broken) -> None:
    out = mutated(files={TAR: lambda data: data[:-512]})
    assert broken(out, level="quick") == {"A2": {SHARD}}


def test_missing_shard_is_found(mutated: Mutated, broken: Broken) -> None:
    out = mutated(files={TAR: lambda _: None})
    assert broken(out, level="quick") == {"A2": {SHARD}}
    assert broken(out, "A")["A2"] == {SHARD}


def test_what_is_no_tar_is_found(mutated: Mutated, broken: Broken) -> None:
    found = broken(mutated(files={TAR: lambda data: b"x" * len(data)}), "A")
    assert found["A2"] == {SHARD}
    assert SHARD in found["A3"]


def test_shard_that_cannot_be_read_leaves_the_audit_incomplete(mutated: Mutated, audit: Callable[..., Audit]) -> None:
    out = mutated()
    (out / TAR).unlink()
    (out / TAR).mkdir()
    found = audit(out, "A2,A3,A4,A6")
    assert (found.verdict, found.exit_code) == ("incomplete", 6)
    assert {(str(r.state), r.offenders) for r in found.results} == {("unknown", ())}
    assert {r.note for r in found.results} == {f"1 shards cannot be read; cannot read {TAR}: Is a directory"}
    other = next(path for path in (out / "shards").rglob("*.tar") if path.is_file())
    other.write_bytes(other.read_bytes()[:-1] + b"\1")
    [result] = audit(out, "A2").results
    assert (result.state, [o.key for o in result.offenders]) == ("fail", [other.stem])


# ---- A3, A4, A6 ----------------------------------------------------------------------------------------------------


def test_a_new_tar_with_the_same_members_is_the_same(retarred: Callable[..., Path], broken: Broken) -> None:
    assert broken(retarred(lambda members: members, listed=True)) == {}


def test_added_sample_is_found(retarred: Callable[..., Path], broken: Broken) -> None:
    out = retarred(lambda members: [*members, ("stranger.00.jpg", jpeg(9))], listed=False)
    found = broken(out)
    assert found["A3"] == {f"{SHARD}/stranger"}
    assert set(found) == {"A3", "A6"}  # a lone image is not uniform either


def test_added_member_is_found(dataset: Path, retarred: Callable[..., Path], broken: Broken) -> None:
    last = clips_of(dataset)[-1]["sample_key"]
    found = broken(retarred(lambda members: [*members, (f"{last}.txt", b"hello")], listed=False))
    assert found["A3"] == {f"{SHARD}/{last}.txt"}


def test_repeated_member_is_found(retarred: Callable[..., Path], broken: Broken) -> None:
    found = broken(retarred(lambda members: [*members, members[-1]], listed=False), "A3")
    assert len(found["A3"]) == 1


def test_link_in_a_tar_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    def with_link(data: bytes) -> bytes:
        sink = io.BytesIO(data)
        with tarfile.open(fileobj=sink, mode="a") as tar:
            info = tarfile.TarInfo("stranger.00.jpg")
            info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
            tar.addfile(info)
        return sink.getvalue()

    assert f"{SHARD}/stranger.00.jpg" in broken(mutated(files={TAR: with_link}), "A3")["A3"]


def test_deleted_member_is_found(dataset: Path, retarred: Callable[..., Path], broken: Broken) -> None:
    clip = clips_of(dataset)[-1]
    gone = f"{clip['sample_key']}.json"
    found = broken(retarred(lambda members: [m for m in members if m[0] != gone], listed=False))
    assert found["A4"] == {f"{SHARD}/{clip['sample_key']}"}
    assert set(found) == {"A4", "A6"}


def test_changed_member_is_found(dataset: Path, retarred: Callable[..., Path], broken: Broken) -> None:
    clip = clips_of(dataset)[0]
    name = f"{clip['sample_key']}.cls"
    found = broken(retarred(lambda members: [(n, b"0" if n == name else d) for n, d in members], listed=False))
    changed = any(
        member["ext"] == "cls" and member["sha256"] == hashlib.sha256(b"0").digest() for member in clip["members"]
    )
    assert found == ({} if changed else {"A4": {f"{SHARD}/{clip['sample_key']}"}})


def test_wrong_place_of_a_sample_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    clip = clips_of(dataset)[0]
    moved = {**clip, "tar_nbytes": clip["tar_nbytes"] - 512}
    assert broken(mutated({"clips": lambda row: moved if row == clip else row})) == {
        "A4": {f"{SHARD}/{clip['sample_key']}"}
    }


def test_lost_image_that_nobody_lists_is_found(dataset: Path, retarred: Callable[..., Path], broken: Broken) -> None:
    clip = clips_of(dataset)[0]
    gone = f"{clip['sample_key']}.09.jpg"
    found = broken(retarred(lambda members: [m for m in members if m[0] != gone], listed=True))
    assert found["A4"] == {f"{SHARD}/{clip['sample_key']}"}
    assert set(found) == {"A4", "A6"}


def test_uneven_samples_are_found(dataset: Path, retarred: Callable[..., Path], broken: Broken) -> None:
    gone = f"{clips_of(dataset)[0]['sample_key']}.cls"
    found = broken(retarred(lambda members: [m for m in members if m[0] != gone], listed=True))
    assert found == {"A6": {SHARD}}


# ---- C4 ------------------------------------------------------------------------------------------------------------


def images(members: list[Member], key: str, image: Callable[[int], bytes]) -> list[Member]:
    numbers = {name: int(name.split(".")[1]) for name, _ in members if name.startswith(key) and name.endswith(".jpg")}
    return [(name, image(numbers[name]) if name in numbers else data) for name, data in members]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (lambda k: jpeg(k), "blank"),
        (lambda _: jpeg(200), "all images are equal"),
        (lambda k: jpeg(20 * k, side=32), "32x32 px"),
        (lambda k: f"not an image {k}".encode(), "does not decode"),
    ],
)
def test_dead_clip_is_found(
    dataset: Path,
    retarred: Callable[..., Path],
    audit: Callable[..., Audit],
    broken: Broken,
    image: Callable[[int], bytes],
    said: str,
) -> None:
    key = clips_of(dataset)[0]["sample_key"]
    out = retarred(lambda members: images(members, key, image), listed=True)
    assert broken(out) == {"C4": {key}}
    result = next(result for result in audit(out, "C4").results)
    assert said in " ".join(offender.detail for offender in result.offenders)
    assert result.severity == "warn"
