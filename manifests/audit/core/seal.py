"""Seals: one record of every byte of a data set, chained to the record before it, signed where a key is given.

A seal lists every file but those of UNSEALED, SIDE_FILES and FOUND_LATER with its size and SHA-256, and the root of a
Merkle tree over these entries (RFC 6962: leaves are hashed behind a 0 byte, nodes behind a 1 byte). An unsigned seal is
evidence against accident only: whoever can rewrite the data set can rewrite its seals.
"""

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from lps.manifests.audit.core.database import listing
from lps.manifests.canonical import canonical_json, parse_json, sha256_hex
from lps.manifests.codes import QUARANTINE_CODES
from lps.manifests.columns import read_columns
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.manifests.fields import TEXT, wrong_place
from lps.manifests.index import CARDS, read_index
from lps.manifests.schemas import Row, check_version
from lps.manifests.storage import Store, StoredFile

SCHEMA = "lps.seal"
SCHEMA_VERSION = "1.0"
_SEAL_TYPES: dict[str, Any] = {
    "number": int, "prev_seal_sha256": TEXT, "merkle_root": str,
    "files": [{"path": str, "bytes": int, "sha256": str, "rows": (int, type(None))}],
}  # fmt: skip
MAX_SEALS = 1000
"""Looked for in a store that does not list them."""
NAMESPACE = "lps-prep"
"""Namespace of ssh signatures: a signature made for another purpose does not count."""
UNSEALED = ("runs/", "audits/", "seals/")
SIDE_FILES = re.compile(r"shards/.+\.idx|(?:shards/(?:.+/)?)?\.nv-meta/.+")
"""What readers put beside shards to find samples: `x.tar.idx` and `.nv-meta/` of Megatron Energon, `x.idx` of DALI.
They can be made anew from the shards, and neither a seal nor check A5 holds them against a data set."""
FOUND_LATER = re.compile(r"(?:audit|certificate)\.[\w.-]+|shortcuts\.json")
"""What an audit found, left at the top of the data set: `audit.json`, `audit.html`, `certificate.json` and others of
these two names, and `shortcuts.json`. They come after the data set, so that neither index nor seal names them, and
check A5 lets them be."""
TRANSIENT = tuple(sorted(QUARANTINE_CODES))
"""Codes that another run, or another version of the program, may cure; a seal would make them final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """One file as the seal names it."""

    path: str
    n_bytes: int
    sha256: str
    rows: int | None
    """Rows of a manifest, None for other files."""

    def record(self) -> Row:
        """Return the entry as it stands in the seal."""
        return {"path": self.path, "bytes": self.n_bytes, "sha256": self.sha256, "rows": self.rows}

    def leaf(self) -> bytes:
        """Return the hash of this entry in the tree."""
        return hashlib.sha256(b"\0" + canonical_json(self.record())).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """One seal as it is stored."""

    path: str
    """Path of the seal below the data set."""
    number: int
    prev_seal_sha256: str | None
    merkle_root: str
    files: tuple[SealedFile, ...]
    sha256: str
    """Digest of the seal's own file."""


def seal_path(number: int) -> str:
    """Return the path of a seal by its number, counted from 1."""
    return f"seals/{number:06d}.json"


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over hashed leaves, in their order."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = _left_part(len(leaves))
    return _node(merkle_root(leaves[:half]), merkle_root(leaves[half:]))


def _left_part(n: int) -> int:
    """Return the largest power of two below `n`."""
    return 1 << (n - 1).bit_length() - 1


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def sealable(store: Store) -> dict[str, StoredFile]:
    """Return the files that a seal covers, by path."""
    return {file.path: file for file in store.walk() if not _is_unsealed(file.path)}


def _is_unsealed(path: str) -> bool:
    return path.startswith(UNSEALED) or any(names.fullmatch(path) for names in (SIDE_FILES, FOUND_LATER))


def seal_dataset(store: Store, *, allow_transient: bool = False) -> Seal:
    """Seal what is there and return the seal; the newest one if nothing changed since.

    Raises RefusedError while codes are left that another run may cure, IntegrityError where bytes differ from the
    index or an older seal is broken, UnreadableError for what is no complete data set.
    """
    index = read_index(store).values
    left = _transient(store)
    if left and not allow_transient:
        raise RefusedError(
            f"{sum(left.values())} videos ended with {', '.join(sorted(left))}, which another run may cure; "
            "`lps-prep retry` them, or seal with --allow-transient"
        )
    seals = read_seals(store)
    broken = broken_links(seals)
    if broken:
        raise IntegrityError(f"{store.url}: {broken[0][0]}: {broken[0][1]}; a new seal would hide that")
    files = _entries(store, index)
    root = merkle_root([file.leaf() for file in files]).hex()
    if seals and seals[-1].merkle_root == root:
        return seals[-1]
    record = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "number": len(seals) + 1,
        "prev_seal_sha256": seals[-1].sha256 if seals else None,
        "merkle_root": root,
        "files": [file.record() for file in files],
    }
    data = canonical_json(record)
    store.publish(seal_path(len(seals) + 1), data)
    return _parse(data, seal_path(len(seals) + 1))


def _transient(store: Store) -> dict[str, int]:
    codes = read_columns(store, "videos", ["error_code"]).column("error_code").to_pylist()
    return {str(code): codes.count(code) for code in TRANSIENT if code in codes}


def _entries(store: Store, index: dict[str, Any]) -> list[SealedFile]:
    """Hash every file and hold it against what the index says of it; people may have filled in the cards."""
    promised = {path: entry["sha256"] for path, entry in index["manifests"].items()}
    promised |= {shard["uri"]: shard["sha256"] for shards in index.get("shards", {}).values() for shard in shards}
    files = sealable(store)
    missing = sorted(set(promised) - set(files))
    if missing:
        raise IntegrityError(f"{store.join(missing[0])} is missing, though the index names it; nothing was sealed")
    entries = []
    for path, file in sorted(files.items()):
        sha256 = store.sha256(path)
        if path not in CARDS and promised.get(path, sha256) != sha256:
            raise IntegrityError(f"{store.join(path)} has other bytes than the index says; nothing was sealed")
        rows = index["manifests"].get(path, {}).get("rows")
        entries.append(SealedFile(path=path, n_bytes=file.n_bytes or 0, sha256=sha256, rows=rows))
    return entries


def read_seals(store: Store) -> list[Seal]:
    """Return all seals in their order. Raises IntegrityError for one that is no seal, UnreadableError for a newer."""
    return [_parse(store.read(path), path) for path in seal_paths(store)]


def seal_paths(store: Store) -> list[str]:
    """Return the paths of all seals; of a store that does not list them, those that follow from 1 on."""
    listed: list[str] = []
    with suppress(UnreadableError):
        listed = [file.path for file in store.walk("seals") if file.path.endswith(".json")]
    return listed or list(takewhile(store.exists, map(seal_path, range(1, MAX_SEALS))))


def _parse(data: bytes, path: str) -> Seal:
    try:
        record = parse_json(data)
        place = wrong_place(record, _SEAL_TYPES)
        if place is not None:
            raise TypeError(f"its '{place}' is of the wrong type")
        check_version(str(record["schema_version"]), what=f"seal '{path}'", newest=SCHEMA_VERSION)
        return Seal(
            path=path,
            number=record["number"],
            prev_seal_sha256=record["prev_seal_sha256"],
            merkle_root=record["merkle_root"],
            files=tuple(_entry(file) for file in record["files"]),
            sha256=sha256_hex(data),
        )
    except (ValueError, KeyError, TypeError) as e:
        raise IntegrityError(f"{path} is not a seal: {e}") from e


def _entry(record: Row) -> SealedFile:
    return SealedFile(path=record["path"], n_bytes=record["bytes"], sha256=record["sha256"], rows=record["rows"])


def broken_links(seals: Sequence[Seal]) -> list[tuple[str, str]]:
    """Return (path, what is wrong) for every seal that does not follow from the one before or contradicts itself."""
    broken = []
    previous: str | None = None
    for place, seal in enumerate(seals, start=1):
        if seal.number != place or seal.path != seal_path(place):
            broken.append((seal.path, f"is seal {seal.number} at place {place}: one is missing or was added"))
        if seal.prev_seal_sha256 != previous:
            broken.append((seal.path, "does not name the seal before it"))
        if merkle_root([file.leaf() for file in seal.files]).hex() != seal.merkle_root:
            broken.append((seal.path, "its Merkle root is not that of its files"))
        previous = seal.sha256
    return broken


@dataclass(frozen=True, slots=True)
class Verified:
    """What comes of comparing a store with a seal."""

    wrong: list[tuple[str, str]]
    """(path, what is wrong), sorted."""
    unread: list[str]
    """Why files could not be compared, a line each."""
    can_list: bool
    """Whether files that the seal does not name would have been found."""


def verify_seal(store: Store, seal: Seal, *, every_byte: bool) -> Verified:
    """Compare every file with the seal. Without `every_byte`, shards are compared by size only."""
    files, sealed = listing(store), {file.path: file for file in seal.files}
    wrong, unread = [], []
    for path, n_bytes in store.sizes(sealed).items():
        if isinstance(n_bytes, UnreadableError):
            unread.append(str(n_bytes))
        elif n_bytes is None:
            wrong.append((path, "sealed, but gone"))
        elif n_bytes != sealed[path].n_bytes:
            wrong.append((path, f"{n_bytes} bytes, sealed with {sealed[path].n_bytes}"))
        elif every_byte or not path.endswith(".tar"):
            try:
                sha256 = store.sha256(path)
            except UnreadableError as e:
                unread.append(str(e))
                continue
            if sha256 != sealed[path].sha256:
                wrong.append((path, f"sha256 {sha256[:16]}..., sealed with {sealed[path].sha256[:16]}..."))
    others = [path for path in files or () if path not in sealed and not _is_unsealed(path)]
    wrong += [(path, "not in the seal") for path in others]
    return Verified(sorted(wrong), unread, files is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What is known of the signature of a seal, or of another file."""

    valid: bool
    signer: str = ""
    """Principal of the allowed-signers file; empty where nobody vouches for the key."""
    note: str = ""


def signature_path(seal: Seal) -> str:
    """Return the path of a seal's signature."""
    return f"{seal.path}.sig"


def sign_seal(store: Store, seal: Seal, key: Path) -> str:
    """Sign a seal with an ssh key and return the path of the signature. Raises RefusedError if ssh-keygen refuses."""
    return sign_file(store, seal.path, key)


def sign_file(store: Store, path: str, key: Path) -> str:
    """Sign a file of a store with an ssh key; returns the path of the signature, beside it. Raises as `sign_seal`."""
    store.publish(f"{path}.sig", signature_of(store.read(path), key))
    return f"{path}.sig"


def signature_of(data: bytes, key: Path) -> bytes:
    """Return the signature of bytes with an ssh key, as a file has it. Raises RefusedError if ssh-keygen refuses."""
    with tempfile.TemporaryDirectory(prefix="lps-seal-") as folder:
        file = Path(folder) / "signed.json"
        file.write_bytes(data)
        ended = _ssh_keygen("sign", "-f", str(key), "-n", NAMESPACE, str(file))
        if ended.returncode:
            raise RefusedError(f"cannot sign with {key}: {_last_line(ended.stderr)}")
        return Path(f"{file}.sig").read_bytes()


def check_signature(store: Store, seal: Seal, allowed_signers: Path | None) -> Signature | None:
    """Return what the signature of a seal is worth; None where there is none.

    Without a file of allowed signers it is only checked that some key signed these bytes.
    """
    return check_file_signature(store, seal.path, allowed_signers)


def check_file_signature(store: Store, path: str, allowed_signers: Path | None) -> Signature | None:
    """Return what the signature beside a file is worth; as `check_signature`."""
    if not store.exists(f"{path}.sig"):
        return None
    with tempfile.TemporaryDirectory(prefix="lps-seal-") as folder:
        sig = Path(folder) / "signed.sig"
        sig.write_bytes(store.read(f"{path}.sig"))
        message = store.read(path)
        if allowed_signers is None:
            ended = _ssh_keygen("check-novalidate", "-n", NAMESPACE, "-s", str(sig), message=message)
            return Signature(valid=not ended.returncode, note=_last_line(ended.stdout or ended.stderr))
        allowed = ("-f", str(allowed_signers), "-s", str(sig))
        found = _ssh_keygen("find-principals", *allowed)
        if found.returncode:
            return Signature(valid=False, note=f"signed by a key that {allowed_signers.name} does not list")
        signer = found.stdout.decode().splitlines()[0]
        ended = _ssh_keygen("verify", *allowed, "-I", signer, "-n", NAMESPACE, message=message)
        valid = not ended.returncode
        return Signature(valid=valid, signer=signer if valid else "", note=_last_line(ended.stdout or ended.stderr))


def _ssh_keygen(verb: str, *words: str, message: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", verb, *words], input=message or b"", capture_output=True, check=False
        )
    except OSError as e:
        raise UnreadableError("signatures need the program ssh-keygen (OpenSSH), which is not installed") from e


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "ssh-keygen says nothing"


def seal_state(seals: Sequence[Seal], signature: Signature | None) -> str:
    """Say in one phrase how far the data set is sealed."""
    if not seals:
        return "not sealed"
    if signature is None:
        return "sealed, not signed"
    if not signature.valid:
        return "sealed, signature not valid"
    return f"sealed, signed by {signature.signer}" if signature.signer else "sealed, signed by a key nobody vouches for"
