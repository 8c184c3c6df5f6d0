"""Digests of sequences of images as they lie in a store, for who compares them with rows."""

import tempfile
from pathlib import Path

from lps.manifests.canonical import escape_name, sha256_hex
from lps.manifests.sequences.archive import ArchiveLimits, images_in
from lps.manifests.sequences.folder import sequence_sha256
from lps.manifests.sequences.names import archive_of, is_image, is_sequence
from lps.manifests.storage import Store


class SourceDigests:
    """Digests of the files and sequences of a source; an archive is read once for sequences asked for in turn."""

    def __init__(self, store: Store, limits: ArchiveLimits) -> None:
        self.store, self.limits = store, limits
        self._archive: tuple[str, dict[str, str]] = ("", {})

    def of(self, uri: str) -> str | None:
        """Return the hex digest of a file or sequence; None where it is not there.

        Raises UnreadableError, and VideoFault for an archive that cannot be read to its end.
        """
        if not is_sequence(uri):
            return self.store.sha256(uri) if self.store.exists(uri) else None
        inside = archive_of(uri)
        if inside is None:
            return self._of_folder(uri)
        if self._archive[0] != inside[0]:
            self._archive = inside[0], self._of_archive(inside[0]) if self.store.exists(inside[0]) else {}
        return self._archive[1].get(inside[1])

    def _of_folder(self, uri: str) -> str | None:
        digests = {}
        for file in self.store.walk(uri.rstrip("/")):
            folder, _, name = file.path.rpartition("/")
            if f"{folder}/" == uri and is_image(name):
                digests[name if self.store.is_local else escape_name(name)] = self.store.sha256(file.path)
        return sequence_sha256(digests) if digests else None

    def _of_archive(self, archive: str) -> dict[str, str]:
        if self.store.is_local:
            return self._digests(self.store.local_path(archive))
        with tempfile.TemporaryDirectory(prefix="lps-archive-") as folder:
            path = Path(folder, "archive")
            self.store.fetch(archive, path)
            return self._digests(path)

    def _digests(self, path: Path) -> dict[str, str]:
        digests: dict[str, dict[str, str]] = {}
        for image in images_in(path, self.limits):
            digests.setdefault(image.folder, {})[image.name] = sha256_hex(image.data)
        return {folder: sequence_sha256(each) for folder, each in digests.items()}
