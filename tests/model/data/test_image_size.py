"""Sizes from headers agree with Pillow's, and damage gives none."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lps.model.data.image_size import image_size

FORMATS: list[tuple[str, str, dict[str, object]]] = [
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {"quality": 20}),
    ("JPEG", "RGB", {"exif": b"Exif\0\0" + bytes(500), "comment": b"text"}),
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGB", {"quality": 50}),
    ("WEBP", "RGBA", {"quality": 50}),
    ("WEBP", "RGB", {"exif": b"Exif\0\0" + bytes(50)}),
]


@pytest.mark.parametrize(("name", "mode", "options"), FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (224, 224), (40, 32), (33, 300)])
def test_sizes_of_all_kinds_of_files(name: str, mode: str, options: dict[str, object], size: tuple[int, int]) -> None:
    sink = io.BytesIO()
    Image.new(mode, size, 3 if mode in ("L", "P") else (10, 200, 30, 99)[: len(mode)]).save(sink, name, **options)
    assert image_size(sink.getvalue()) == size


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBPVP8 "]))
def test_anything_else_gives_none_or_a_size(tail: bytes, head: bytes) -> None:
    size = image_size(head + tail)
    assert size is None or min(size) >= 0


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a" + bytes(50), b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00", b"II*\0" + bytes(40)]
)
def test_foreign_and_torn_headers_give_none(data: bytes) -> None:
    assert image_size(data) is None
