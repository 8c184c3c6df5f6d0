"""Damage: every kind ends as one clear line that names sample and shard, and ranks stay in step."""

import io
import multiprocessing.process
import multiprocessing.util
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from lps.manifests.errors import IntegrityError, LpsError, UnreadableError
from lps.model.data.clip_data import ClipData, open_data
from lps.model.data.clip_decoder import Batch, ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions, keep_sockets_short, verify_shards
from lps.model.data.epoch_plan import PlanOptions, Rank
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shard_index import open_shards

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Members, Spec

    Many = Callable[..., list[list[Spec]]]

READ = ReadOptions(n_frames=3)
TOLERANT = WorkOptions(max_bad_share=1.0)


def picture(width: int, height: int) -> bytes:
    _, data = cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))
    return data.tobytes()


def huge_png() -> bytes:
    """Return a small file whose header promises 30,000 x 30,000 pixels."""
    _, data = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))
    side = (30_000).to_bytes(4, "big")
    return data.tobytes()[:16] + side + side + data.tobytes()[24:]


def replaced(**changes: bytes | None) -> "Callable[[Members], None]":
    """Return a change of members: `f01=b"..."` replaces the second frame, None removes a member."""

    def spoil(members: "Members") -> None:
        for name, data in changes.items():
            ext = f"{name[1:]}.jpg" if name.startswith("f") else name
            members.pop(ext)
            if data is not None:
                members[ext] = data

    return spoil


def halved(members: "Members") -> None:
    members["01.jpg"] = members["01.jpg"][: len(members["01.jpg"]) // 2]


def without_end(members: "Members") -> None:
    members["01.jpg"] = members["01.jpg"][:-2]


def holed(members: "Members") -> None:
    data = members["01.jpg"]
    members["01.jpg"] = data[:-60] + bytes(40) + data[-20:]


def doubled(members: "Members") -> None:
    members["01.png"] = members["01.jpg"]


def renamed(members: "Members") -> None:
    for ext in list(members):
        members[f"=another.{ext}"] = members.pop(ext)


def escaping(members: "Members") -> None:
    for ext in list(members):
        members[f"=../../out.{ext}"] = members.pop(ext)


Spoil = Callable[["Members"], None]
FAULTS: list[tuple[Spoil, str, str | None]] = [
    (halved, "frame 01 is (cut off|damaged|not a readable image)", None),
    (without_end, "frame 01 is cut off", None),
    (holed, "frame 01 is damaged", None),
    (replaced(f01=b""), "frame 01 is not a readable image", None),
    (replaced(f01=b"\0" * 500), "frame 01 is not a readable image", None),
    (replaced(f01=None), "frame 01 is missing", "frame 01 is missing"),
    (replaced(f02=None), "it has 2 frames, its record says 3", None),
    (doubled, "frame 01 is there twice", "frame 01 is there twice"),
    (replaced(f01=picture(48, 48)), "frame 01 has 48x48 px, not 32x32", None),
    (replaced(f00=picture(40, 32)), "frame 00 has 40x32 px; square images", "frame 00 has 40x32 px; square"),
    (replaced(f01=huge_png()), "frame 01 (has 30000x30000 px|is not a readable image)", None),
    (replaced(cls=None), "its .cls is missing", "its .cls is missing"),
    (replaced(cls=b"fake"), "its .cls says b'fake', neither 0", "its .cls says b'fake', neither 0"),
    (replaced(cls=b"1"), "its .cls says 1, its record 0", None),
    (replaced(json=None), "its .json is missing", "its .json is missing"),
    (renamed, "its place in the shard holds 'another'", None),
    (escaping, "its place in the shard holds '../../out'", "its key is no relative name"),
    (replaced(json=b"[1"), "", "its .json is damaged"),
    (replaced(json=b"{}"), "", "its .json has no clip_id"),
]
"""(what is done to a sample, what reading it says, what indexing its shard says where that finds it)."""
IDS = [str(number) for number in range(len(FAULTS))]


def read(data: ClipData, *, train: bool = True, work: WorkOptions = TOLERANT) -> tuple[list[Batch], list[str]]:
    """Return the batches of an epoch and what the reader says of bad samples."""
    options = ReadOptions(n_frames=3, train=train)
    with ClipReader(data, options, PlanOptions(batch_size=2, shuffle=False), work) as reader:
        return list(reader.epoch(0)), [str(bad) for bad in reader.bad_samples]


@pytest.mark.parametrize(("spoil", "message", "_indexed"), FAULTS, ids=IDS)
def test_a_bad_sample_is_missing_from_its_batch_and_named(
    make: "Maker", spec: "type[Spec]", spoil: Spoil, message: str, _indexed: str | None
) -> None:
    specs = [spec(video=name) for name in ("a", "bad", "c")]
    data = open_data(str(make.data_set([specs], spoil={"bad": spoil})), "train")
    batches, said = read(data)
    found = {key for batch in batches for key in batch.keys}
    if not message:  # the reader has the facts from the manifest
        assert len(found) == 3
        return
    assert found == {specs[0].key, specs[2].key}
    (line,) = said
    assert line.startswith(f"sample {specs[1].key} of shard ")
    assert "train-000000.tar: " in line
    assert "\n" not in line
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("spoil", "message"), [(spoil, indexed) for spoil, _, indexed in FAULTS if indexed], ids=lambda v: str(v)[:20]
)
def test_a_bad_sample_of_plain_shards_is_found_while_indexing(
    make: "Maker", spec: "type[Spec]", cache: ShardCache, spoil: Spoil, message: str
) -> None:
    specs = [spec(video=name) for name in ("a", "bad", "c")]
    data = open_shards(make.shards([specs], spoil={"bad": spoil}), cache)
    assert sorted(data.samples["key"].to_pylist()) == sorted(each.key for each in specs if each.video != "bad")
    (fault,) = data.faults
    assert message in str(fault)
    _, said = read(data)
    assert said == [str(fault)]
    with pytest.raises(IntegrityError, match="1 of 3 samples cannot be used, more than the 1.00% allowed; the first: "):
        ClipReader(data, READ, PlanOptions())


def test_too_many_bad_samples_stop_the_reader(make: "Maker", many: "Many") -> None:
    shards = many(20)
    spoil = {each.video: halved for each in shards[0][:3]}
    data = open_data(str(make.data_set(shards, spoil=spoil)), "train")
    batches, said = read(data, work=WorkOptions(max_bad_share=0.15))
    assert sum(map(len, batches)) == 17
    assert len(said) == 3
    with pytest.raises(IntegrityError, match=r"\d of 20 samples cannot be used, more than the 10.00% allowed; the fir"):
        read(data, work=WorkOptions(max_bad_share=0.1))


@pytest.mark.parametrize("n_workers", [0, 1])
def test_bad_samples_are_found_alike_by_workers_and_at_every_epoch(make: "Maker", many: "Many", n_workers: int) -> None:
    shards = many(6)
    data = open_data(str(make.data_set(shards, spoil={shards[0][2].video: halved})), "train")
    work = WorkOptions(n_workers=n_workers, max_bad_share=0.5)
    with ClipReader(data, READ, PlanOptions(batch_size=3), work) as reader:
        for epoch in range(2):
            assert sum(len(batch) for batch in reader.epoch(epoch)) == 5
        assert [bad.key for bad in reader.bad_samples] == [shards[0][2].key]


def test_a_batch_of_bad_samples_only_takes_the_next_good_one_in_training(make: "Maker", many: "Many") -> None:
    shards = many(6)
    ordered = sorted(shards[0], key=lambda each: each.key)
    data = open_data(str(make.data_set(shards, spoil={each.video: halved for each in ordered[2:5]})), "train")
    batches, said = read(data)
    assert [batch.keys for batch in batches] == [
        (ordered[0].key, ordered[1].key),
        (ordered[5].key,),  # steps 1 and 2 begin with bad samples; the next good one stands in
        (ordered[5].key,),
    ]
    assert len(said) == 3
    batches, _ = read(data, train=False)
    assert [(batch.step, batch.keys) for batch in batches] == [
        (0, (ordered[0].key, ordered[1].key)),
        (2, (ordered[5].key,)),
    ]


def test_the_next_good_one_may_be_at_the_start(make: "Maker", many: "Many") -> None:
    shards = many(4)
    ordered = sorted(shards[0], key=lambda each: each.key)
    data = open_data(str(make.data_set(shards, spoil={each.video: halved for each in ordered[2:]})), "train")
    assert [batch.keys for batch in read(data)[0]] == [(ordered[0].key, ordered[1].key), (ordered[0].key,)]


def test_no_good_sample_at_all_stops_even_the_tolerant(make: "Maker", many: "Many") -> None:
    shards = many(4)
    data = open_data(str(make.data_set(shards, spoil={each.video: halved for each in shards[0]})), "train")
    with pytest.raises(IntegrityError, match="no sample of epoch 0 can be used; the first: sample .* frame 01"):
        read(data)


def test_ranks_take_equally_many_steps_whatever_is_bad(make: "Maker", many: "Many") -> None:
    shards = many(1, 7, 30)
    spoil = {each.video: halved for shard in shards for each in shard[::3]}
    data = open_data(str(make.data_set(shards, spoil=spoil)), "train")
    steps = []
    for rank in range(2):
        with ClipReader(data, READ, PlanOptions(batch_size=2), TOLERANT, Rank(rank, 2)) as reader:
            batches = list(reader.epoch(0))
            assert all(len(batch) for batch in batches)
            steps.append(len(batches))
    assert steps[0] == steps[1]


# ---- shards --------------------------------------------------------------------------------------------------------


def first_shard(out: Path) -> Path:
    return out / "shards/train/train-000000.tar"


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_truncated_shard_stops_the_reader_at_once(make: "Maker", many: "Many", n_workers: int) -> None:
    out = make.data_set(many(5))
    path = first_shard(out)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(IntegrityError, match=r"train-000000.tar has \d+ bytes, its record says \d+ \(found at sample "):
        read(open_data(str(out), "train"), work=WorkOptions(max_bad_share=1.0, n_workers=n_workers))


def test_a_shard_that_is_not_there_stops_the_reader(make: "Maker", many: "Many") -> None:
    out = make.data_set(many(5))
    first_shard(out).unlink()
    with pytest.raises(UnreadableError, match="cannot read shard .*train-000000.tar at sample .*: No such file"):
        read(open_data(str(out), "train"))


def test_other_bytes_of_the_same_size_are_found_by_verification(make: "Maker", many: "Many") -> None:
    out = make.data_set(many(2, 3))
    data = open_data(str(out), "train")
    assert verify_shards(data) == 2
    assert verify_shards(data, Rank(1, 2)) == 1
    path = first_shard(out)
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="train-000000.tar has SHA-256 [0-9a-f]{64}, its record says"):
        verify_shards(data)


def test_a_sample_beyond_a_short_plain_shard_is_bad(make: "Maker", many: "Many", cache: ShardCache) -> None:
    pattern = make.shards(many(5))
    data = open_shards(pattern, cache)
    path = data.shards[0].local_path
    path.write_bytes(path.read_bytes()[:-20_000])
    batches, said = read(data)
    assert 0 < sum(map(len, batches)) < 5
    assert "bytes before the sample does" in said[0]


def test_a_cut_off_plain_shard_cannot_be_indexed(make: "Maker", many: "Many", cache: ShardCache) -> None:
    pattern = make.shards(many(5))
    path = Path(pattern.replace("{000000..000000}", "000000"))
    whole = path.read_bytes()
    member = whole.index(b".01.jpg") // 512 * 512
    for cut in (len(whole) - 15_000, member + 512 + 10, member + 10, member):
        path.write_bytes(whole[:cut])
        with pytest.raises(IntegrityError, match="000000.tar is cut off or damaged after sample .*fetch it again"):
            open_shards(pattern, cache)


def test_a_file_that_is_no_tar_cannot_be_indexed(make: "Maker", many: "Many", cache: ShardCache) -> None:
    pattern = make.shards(many(5))
    Path(pattern.replace("{000000..000000}", "000000")).write_bytes(b"<html>" * 1000)
    with pytest.raises(IntegrityError, match="train-000000.tar is cut off or damaged after sample"):
        open_shards(pattern, cache)


def test_a_plain_shard_without_samples_cannot_be_used(make: "Maker", spec: "type[Spec]", cache: ShardCache) -> None:
    pattern = make.shards([[spec(video="a")]], spoil={"a": replaced(json=None)})
    with pytest.raises(UnreadableError, match="no sample that can be used; the first of 1: sample .*json is missing"):
        open_shards(pattern, cache)
    empty = make.shards([[]])
    with pytest.raises(UnreadableError, match="has no sample that can be used; it is empty"):
        open_shards(empty, cache)


def test_a_key_in_two_plain_shards_is_refused(make: "Maker", spec: "type[Spec]", cache: ShardCache) -> None:
    with pytest.raises(IntegrityError, match="is in two shards: .*train-000000.tar and .*train-000001.tar"):
        open_shards(make.shards([[spec(video="a")], [spec(video="a")]]), cache)


def test_a_key_twice_in_a_plain_shard_is_a_fault(make: "Maker", spec: "type[Spec]", cache: ShardCache) -> None:
    first, second, third = sorted((spec(video=name) for name in "abc"), key=lambda each: each.key)

    def as_first(members: "Members") -> None:
        for ext in list(members):
            members[f"={first.key}.{ext}"] = members.pop(ext)

    data = open_shards(make.shards([[first, second, third]], spoil={third.video: as_first}), cache)
    assert data.samples["key"].to_pylist() == [first.key, second.key]
    assert [(fault.key, fault.reason) for fault in data.faults] == [(first.key, "its key occurs twice in the shard")]


def packed(path: Path, members: "Members", names: Sequence[str]) -> str:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(members[name])
            tar.addfile(info, io.BytesIO(members[name]))
    return str(path)


def test_members_that_are_not_sorted(spec: "type[Spec]", cache: ShardCache, tmp_path: Path) -> None:
    """As `tar` packs a folder: in the order of the file system."""
    both = (spec(video="a"), spec(video="b"))
    members = {f"{each.key}.{ext}": data for each in both for ext, data in each.members().items()}
    pattern = packed(tmp_path / "t.tar", members, sorted(members, key=lambda name: name[::-1]))
    with pytest.raises(UnreadableError, match="t.tar is not sorted: members of sample .* lie apart .*--sort=name"):
        open_shards(pattern, cache)
    found = open_shards(packed(tmp_path / "sorted.tar", members, sorted(members)), cache)
    assert (found.samples.num_rows, found.faults) == (2, ())


@pytest.mark.parametrize("size", [-512, -1, 1 << 40, (1 << 63) - 1], ids=str)
def test_sizes_that_no_file_holds(spec: "type[Spec]", cache: ShardCache, tmp_path: Path, size: int) -> None:
    """As numbers in base 256 a tar may hold any; a negative one would lead back, for ever."""
    members = {f"{each.key}.{ext}": data for each in [spec(video="a")] for ext, data in each.members().items()}
    pattern = packed(tmp_path / "t.tar", members, sorted(members))
    data = bytearray((tmp_path / "t.tar").read_bytes())
    data[124:136] = bytes([0xFF if size < 0 else 0x80]) + size.to_bytes(11, "big", signed=True)
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    (tmp_path / "t.tar").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"t.tar is cut off or damaged .* would have -?\d+ bytes; fetch it again"):
        open_shards(pattern, cache)


def test_a_pipe_is_no_shard(cache: ShardCache, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.tar")
    with pytest.raises(UnreadableError, match="cannot read shard .*t.tar: it is no regular file"):
        open_shards(str(tmp_path / "t.tar"), cache)


def test_a_stray_file_in_a_plain_shard_is_named(spec: "type[Spec]", cache: ShardCache, tmp_path: Path) -> None:
    members = {f"{each.key}.{ext}": data for each in [spec(video="a")] for ext, data in each.members().items()}
    members |= {"README.md": b"read me", "README": b"read me"}
    found = open_shards(packed(tmp_path / "t.tar", members, sorted(members)), cache)
    assert [(fault.key, fault.reason) for fault in found.faults] == [
        ("README", "README.md belongs to no sample: take it out of the shard")
    ]
    with pytest.raises(IntegrityError, match="1 of 2 samples cannot be used.* first: sample README.*run.max_bad_share"):
        read(found, work=WorkOptions())


@pytest.mark.parametrize("error", [IntegrityError, UnreadableError])
def test_messages_are_one_line(make: "Maker", many: "Many", error: type[LpsError]) -> None:
    out = make.data_set(many(2))
    if error is IntegrityError:
        first_shard(out).write_bytes(b"x")
    else:
        first_shard(out).unlink()
    with pytest.raises(error) as caught:
        read(open_data(str(out), "train"), work=WorkOptions(n_workers=1))
    assert "\n" not in str(caught.value)


def test_workers_keep_their_sockets_elsewhere_where_tmpdir_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(multiprocessing.process.current_process(), "_config", {})  # no worker yet
    keep_sockets_short()
    assert len(multiprocessing.util.get_temp_dir() + "/listener-12345678") <= 107
    assert tempfile.gettempdir() == str(long)
