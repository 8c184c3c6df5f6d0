"""Listings of local folders with links: each file under every path, and an end to every circle."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.storage import MAX_LINKS, StoredFile, open_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with `a/1` and `b/2`, and beside it `outside/3`."""
    for path in ("root/a/1", "root/b/2", "outside/3"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x" * int(path[-1]))
    return tmp_path / "root"


def listed(root: Path, *, leaving: bool = True) -> dict[str, StoredFile]:
    return {file.path: file for file in open_store(str(root)).walk(leaving=leaving)}


def test_links_are_followed(root: Path) -> None:
    (root / "a/folder").symlink_to("../../outside")
    (root / "b/file").symlink_to("../a/1")
    (root / "deep").symlink_to("a")
    files = listed(root)
    assert {path: file.n_bytes for path, file in files.items()} == {
        "a/1": 1, "a/folder/3": 3, "b/2": 2, "b/file": 1, "deep/1": 1, "deep/folder/3": 3,
    }  # fmt: skip
    assert {path: file.link for path, file in files.items() if file.link} == {
        "a/folder/3": "a/folder", "b/file": "b/file", "deep/1": "deep", "deep/folder/3": "deep/folder",
    }  # fmt: skip
    assert files["b/file"].real == files["deep/1"].real == str(root / "a/1")
    assert files["a/1"].real == ""
    assert {file.code for file in files.values()} == {None}


def test_a_linked_root_is_as_any(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    assert [file.link for file in listed(root.parent / "link").values()] == ["", ""]
    assert list(listed(root.parent / "link", leaving=False)) == list(listed(root))


def test_the_mark_is_that_of_the_file_behind_a_link(root: Path) -> None:
    (root / "link").symlink_to("../outside/3")
    before = listed(root)["link"].mark
    os.utime(root.parent / "outside/3", (1, 1))
    assert listed(root)["link"].mark != before


@pytest.mark.parametrize("target", ["..", ".", "../..", "/"], ids=["the root", "itself", "above the root", "all"])
def test_a_link_to_a_folder_that_it_lies_in_is_not_followed(root: Path, target: str) -> None:
    (root / "a/up").symlink_to(target)
    files = listed(root)
    assert list(files) == ["a/1", "a/up", "b/2"]
    assert files["a/up"].code == Code.S_LINK


def test_folders_that_link_to_one_another_end(root: Path) -> None:
    (root / "a/b").symlink_to("../b")
    (root / "b/a").symlink_to("../a")
    files = listed(root)
    assert list(files) == ["a/1", "a/b/2", "a/b/a", "b/2", "b/a/1", "b/a/b"]
    assert [path for path, file in files.items() if file.code == Code.S_LINK] == ["a/b/a", "b/a/b"]


def test_paths_go_through_few_links(root: Path) -> None:
    names = [f"n{number}" for number in range(MAX_LINKS + 3)]
    for name in names:
        (root / name).mkdir()
        (root / name / "file").write_bytes(b"x")
    for name, following in zip(names, names[1:], strict=False):
        (root / name / "on").symlink_to(f"../{following}")
    files = listed(root)
    assert "n0/" + "on/" * MAX_LINKS + "file" in files
    assert files["n0/" + "on/" * MAX_LINKS + "on"].code == Code.E_UNREADABLE


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to("nowhere"), "a link that cannot be followed: No such file or directory"),
        (lambda path: path.symlink_to("odd"), "a link that cannot be followed: Too many levels of symbolic links"),
        (fifo, "no regular file"),
    ],
    ids=["dangling", "loop", "fifo"],
)
def test_what_cannot_be_listed_has_a_code(root: Path, make: Callable[[Path], None], said: str) -> None:
    make(root / "odd")
    file = listed(root)["odd"]
    assert (file.code, file.detail) == (Code.E_UNREADABLE, said)
    assert list(listed(root, leaving=False)) == ["a/1", "b/2"]


def test_a_folder_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(path: str) -> "os._ScandirIterator[str]":
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    files = listed(root)
    assert list(files) == ["a/1", "b"]
    assert (files["b"].code, files["b"].detail) == (
        Code.E_UNREADABLE, "a folder that cannot be listed: Permission denied",
    )  # fmt: skip
    with pytest.raises(UnreadableError, match="cannot list .*Permission denied"):
        listed(root, leaving=False)


@pytest.mark.parametrize("use", ["read", "sha256", "read_range"])
def test_a_pipe_is_not_waited_for(root: Path, use: str) -> None:
    os.mkfifo(root / "x.tar")
    store = open_store(str(root))
    with pytest.raises(UnreadableError, match="x.tar: it is no regular file"):
        getattr(store, use)("x.tar", *((0, 9) if use == "read_range" else ()))


def test_names_that_are_not_utf8(root: Path) -> None:
    folder = root / os.fsdecode(b"\xd6")
    folder.mkdir()
    (folder / os.fsdecode(b"\xd0.mp4")).write_bytes(b"four")
    (root / "link").symlink_to(folder)
    files = listed(root)
    assert list(files) == [r"\xd6/\xd0.mp4", "a/1", "b/2", r"link/\xd0.mp4"]
    store = open_store(str(root))
    for path in (r"\xd6/\xd0.mp4", r"link/\xd0.mp4"):
        assert (store.read(path), b"".join(store.chunks(path)), store.size(path)) == (b"four", b"four", 4)
        assert store.exists(path)
    store.publish(r"\xd6/new", b"new")
    assert [file.path for file in store.walk(r"\xd6")] == [r"\xd6/\xd0.mp4", r"\xd6/new"]
    with pytest.raises(UnreadableError, match=r"cannot read .*/\\xff: No such file"):
        store.read(r"\xff")


def test_a_data_set_is_what_lies_in_it(root: Path) -> None:
    (root / "a/out").symlink_to("../../outside")
    (root / "a/file").symlink_to("../../outside/3")
    (root / "a/in").symlink_to("../b")
    assert list(listed(root, leaving=False)) == ["a/1", "a/in/2", "b/2"]
    assert [file.path for file in open_store(str(root)).walk("a")] == ["a/1", "a/in/2"]
