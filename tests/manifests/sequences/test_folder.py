"""Sequences on the disk and in listings."""

import subprocess
from pathlib import Path

from lps.manifests.sequences.archive import ArchiveLimits
from lps.manifests.sequences.folder import image_names, source_sha256, sources_of, with_sequences
from lps.manifests.sequences.stored import SourceDigests
from lps.manifests.storage import StoredFile, open_store
from tests.frame_trees import tar_of, write_tree

TREE = {f"real/a/{k}.png": bytes([k]) for k in (1, 2, 10)} | {"real/a/notes.txt": b"x", "real/a/b/1.jpg": b"y"}
LIMITS = ArchiveLimits(1 << 20, 100)


def test_the_digest_is_what_sha256sum_says_of_the_images_in_their_order(tmp_path: Path) -> None:
    folder = write_tree(tmp_path, TREE) / "real/a"
    assert image_names(folder) == ["1.png", "2.png", "10.png"]
    command = "ls -v *.png | xargs sha256sum | sha256sum"
    said = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert source_sha256(folder) == said.split()[0]
    (folder / "10.png").rename(folder / "11.png")
    assert source_sha256(folder) != said.split()[0]


def test_a_sequence_has_one_digest_in_a_folder_and_in_an_archive(tmp_path: Path) -> None:
    write_tree(tmp_path, {**TREE, "x.tar.gz": tar_of(TREE)})
    digests = SourceDigests(open_store(str(tmp_path)), LIMITS)
    assert digests.of("x.tar.gz!/real/a/") == digests.of("real/a/") == source_sha256(tmp_path / "real/a")
    assert digests.of("x.tar.gz!/real/a/b/") == digests.of("real/a/b/") != digests.of("real/a/")
    assert digests.of("x.tar.gz!/real/") is digests.of("real/") is digests.of("no.tar!/real/") is None


def test_a_listing_with_sequences_in_the_place_of_their_images(tmp_path: Path) -> None:
    write_tree(tmp_path, {**TREE, "real/top.png": b"x", "a.tar!/b/1.png": b"x"})
    (tmp_path / "real/gone.png").symlink_to("nowhere")
    (tmp_path / "fake").symlink_to("real/a")
    listed = {file.path: file for file in with_sequences(open_store(str(tmp_path)).walk(leaving=True))}
    assert set(listed) == {
        *("real/", "real/a/", "real/a/b/", "real/a/notes.txt", "real/gone.png", "a.tar!/b/1.png"),
        *("fake/", "fake/b/", "fake/notes.txt"),
    }
    assert (listed["real/a/"].n_bytes, listed["real/a/"].link) == (3, "")
    assert (listed["fake/"].link, listed["fake/"].real) == ("fake", f"{tmp_path.resolve()}/real/a/")
    assert listed["fake/b/"].real == f"{tmp_path.resolve()}/real/a/b/"


def test_another_mark_of_an_image_another_one_less_or_a_new_name_is_another_mark() -> None:
    def mark(**images: str) -> str:
        [file] = with_sequences(StoredFile(f"a/{name}.png", 1, mark) for name, mark in images.items())
        return file.mark

    marks = [mark(one="x", two="y"), mark(one="x", two="z"), mark(one="x"), mark(one="x", too="y")]
    assert len(set(marks)) == 4
    assert mark(two="y", one="x") == marks[0]


def test_what_a_source_has_for_who_knows_its_rows() -> None:
    files = [StoredFile(path, 1, "") for path in ("real/a/1.png", "x.tar", "bad.tar", "1.txt")]
    rows = ["real/a/", "x.tar!/a/", "y.tar!/a/", "bad.tar"]
    assert sources_of(rows, files) == {"real/a/", "x.tar!/a/", "bad.tar", "1.txt"}
    assert sources_of(["v.mp4"], files) == {file.path for file in files}
