"""Sequences on a disk: the images of a folder, their digest, and listings in which they stand for their images.

The digest of a sequence is that of the text which `sha256sum` writes of its images in their order: a line each of the
digest, two spaces and the name. So `ls -v | xargs sha256sum | sha256sum` gives it for plain names.
"""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from lps.manifests.canonical import escape_name, file_sha256, unescape_name
from lps.manifests.sequences.names import archive_of, in_order, is_image, is_sequence
from lps.manifests.storage import StoredFile


def image_names(folder: Path) -> list[str]:
    """Return the images that lie directly in a folder, in their order, as `escape_name` writes them. Raises OSError."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_image(entry.name) and _is_regular(entry)]
    return in_order([escape_name(name) for name in names])


def _is_regular(entry: "os.DirEntry[str]") -> bool:
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except FileNotFoundError:
        return False  # a link that leads nowhere: the listing has named it


def sequence_sha256(digests: Mapping[str, str]) -> str:
    """Return the digest of a sequence: of the names of its images and the hex digest of each."""
    lines = (f"{digests[name]}  {name}\n" for name in in_order(list(digests)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def source_sha256(path: Path) -> str:
    """Return the hex digest of a source on the disk: of a file, or of the sequence in a folder. Raises OSError."""
    if not path.is_dir():
        return file_sha256(path)
    return sequence_sha256({name: file_sha256(path / unescape_name(name)) for name in image_names(path)})


def with_sequences(files: Iterable[StoredFile]) -> list[StoredFile]:
    """Return a listing in which each folder with images is one entry, `folder/`, in the place of its images.

    What is no image, and images that the store could not list, stay as they are. So do the images of a folder whose
    name would be that of a folder in an archive.
    """
    kept: list[StoredFile] = []
    folders: dict[str, list[StoredFile]] = defaultdict(list)
    for file in files:
        folder, slash, _ = file.path.rpartition("/")
        if file.code is None and is_image(file.path) and slash and archive_of(f"{folder}/") is None:
            folders[f"{folder}/"].append(file)
        else:
            kept.append(file)
    return sorted([*kept, *(_sequence(path, found) for path, found in folders.items())], key=lambda f: f.path)


def _sequence(path: str, images: list[StoredFile]) -> StoredFile:
    marks = hashlib.sha256()
    for image in sorted(images, key=lambda image: image.path):
        marks.update(f"{image.path}\0{image.mark}\n".encode())
    sizes = [image.n_bytes for image in images if image.n_bytes is not None]
    linked = {(image.link, image.real.rpartition("/")[0]) for image in images}
    link, real = next(iter(linked)) if len(linked) == 1 else ("", "")
    is_folder_linked = bool(real) and path.startswith(f"{link}/")  # else each image is a link by itself
    return StoredFile(
        path=path,
        n_bytes=sum(sizes) if len(sizes) == len(images) else None,
        mark=f"{len(images)}-{marks.hexdigest()[:32]}",
        link=link if is_folder_linked else "",
        real=f"{real}/" if is_folder_linked else "",
    )


def sources_of(uris: Iterable[str], files: Iterable[StoredFile]) -> set[str]:
    """Return which paths a listing has, those of sequences of `uris` included; archives that hold some are left out.

    For who compares rows with files.
    """
    uris = list(uris)
    listed = list(files)
    if not any(map(is_sequence, uris)):
        return {file.path for file in listed}
    paths = {file.path for file in with_sequences(listed)}
    inside = {uri: found[0] for uri in uris if (found := archive_of(uri)) is not None}
    there = {uri for uri, archive in inside.items() if archive in paths}
    return (paths - set(inside.values())) | there
