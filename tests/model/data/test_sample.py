"""Members of a piece of a tar: read at once where it is as `lps-prep` writes it, by `webdataset` everywhere else."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lps.model.data.sample import Sample, SampleFault, plain_members, unpack

KEY = "0123abcd-00-000007"
MEMBERS = {"00.jpg": b"one", "01.jpg": bytes(700), "cls": b"1", "json": b"{}", "02.jpg": b""}


def piece(members: dict[str, bytes] = MEMBERS, key: str = KEY, kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return a piece of a tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as tar:
        for ext, data in members.items():
            info = tarfile.TarInfo(f"{key}.{ext}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        n_bytes = tar.offset
    return stream.getvalue()[:n_bytes]


def sample(key: str = KEY) -> Sample:
    """Return what is known of a sample."""
    return Sample(
        key=key, clip_id=b"", video_id=b"", label=1, n_frames=3, side_px=32, inner_px=32, shard=0, offset_bytes=0,
        n_bytes=0,
    )  # fmt: skip


def read(data: bytes) -> dict[str, bytes] | None:
    """Return what `unpack` finds, None for a fault."""
    try:
        return {ext: bytes(content) for ext, content in unpack(data, sample()).items()}
    except SampleFault:
        return None


def test_a_piece_as_lps_prep_writes_it_is_read_at_once() -> None:
    found = plain_members(piece(), KEY)
    assert found is not None
    assert {ext: bytes(data) for ext, data in found.items()} == MEMBERS


@pytest.mark.parametrize(
    "data",
    [
        piece(kind=tarfile.GNU_FORMAT),
        piece({"A.jpg": b"a"}),
        piece({"x/y": b"a"}),
        piece(key="other"),
        piece(key="a.b"),
        piece(key=f"{'a' * 60}/{'b' * 60}"),
        piece()[:-100],
        piece() + bytes(1024),
        piece() + piece(),
        b"",
        b"\0" * 700,
    ],
    ids=range(11),
)
def test_anything_else_is_left_to_webdataset(data: bytes) -> None:
    assert plain_members(data, KEY) is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_read_at_once_is_what_webdataset_finds(data: st.DataObject) -> None:
    damaged = bytearray(piece())
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.sampled_from([0, 0x20, 0x2D, 0x30, 0x31, 0x37, 0x38, 0x5F, 0x61, 0xFF]))
    found = plain_members(bytes(damaged), KEY)
    if found is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lps.model.data.sample.plain_members", lambda *_: None)
        by_webdataset = read(bytes(damaged))
    assert {ext: bytes(content) for ext, content in found.items()} == by_webdataset
