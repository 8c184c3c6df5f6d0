"""Names that are not UTF-8: one text for each, and one name for each text."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.canonical import escape_name, pretty_json, unescape_name, visible, visible_json

names = st.binary(max_size=12) | st.lists(
    st.sampled_from([b"\\", b"x", b"d6", b"\xd6", b"5c", b"/", "é".encode()])
).map(b"".join)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"\xd6\xd0\xce\xc4.mp4", r"\xd6\xd0\xce\xc4.mp4"),
        ("é 中.mp4".encode(), "é 中.mp4"),
        (rb"a\b\x20\xq.mp4", r"a\b\x20\xq.mp4"),
        (rb"\xd6.mp4", r"\x5cxd6.mp4"),
        (b"\\\xd6", r"\\xd6"),
    ],
    ids=["GBK", "UTF-8", "backslashes", "looks escaped", "backslash before a byte"],
)
def test_only_what_is_not_utf8_changes(name: bytes, text: str) -> None:
    assert escape_name(os.fsdecode(name)) == text
    assert os.fsencode(unescape_name(text)) == name


def test_what_steers_a_terminal_is_shown() -> None:
    name = os.fsdecode(b"a\x1b[2J\x07\xd6\xc2\x9b\xe2\x80\xae\n\tb")
    assert visible(name) == "a\\x1b[2J\\x07\\xd6\\x9b\\u202e\n\tb"
    assert visible("\ud800 \udc00 \udfff") == "\\ud800 \\udc00 \\udfff", "what JSON may hold"


def test_json_that_goes_to_a_terminal_is_json() -> None:
    value = {"a\x9b\u202e\x7f": ["é 中\x1b[2J\n"]}
    shown = visible_json(pretty_json(value))
    assert json.loads(shown) == value
    assert visible(shown.decode()) == shown.decode()


@given(names)
def test_every_name_has_a_text_of_its_own(name: bytes) -> None:
    text = escape_name(os.fsdecode(name))
    text.encode()
    assert os.fsencode(unescape_name(text)) == name


@given(st.text())
def test_text_smuggles_in_no_way_out_of_a_folder(text: str) -> None:
    found = unescape_name(text + r"\x2e\x2e\x2f")
    assert (found.count("/"), found.count(".")) == (text.count("/"), text.count("."))
