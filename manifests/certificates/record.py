"""The certificate as a file: read, checked for its form, and compared with the data set that it lies beside.

It is made and recomputed by `lps.manifests.audit.certify`. Nothing here needs the audit: trainers read it, too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from lps.manifests.canonical import canonical_json, parse_json, sha256_hex
from lps.manifests.columns import PATHS, split_path
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.manifests.fields import TEXT, wrong_place
from lps.manifests.index import INDEX_JSON
from lps.manifests.names import Level
from lps.manifests.schemas import check_version
from lps.manifests.storage import Store

CERTIFICATE_JSON = "certificate.json"
CERTIFICATE_SIG = f"{CERTIFICATE_JSON}.sig"
SCHEMA = "lps.certificate"
SCHEMA_VERSION = "1.0"
LEVELS_CERTIFIED = (str(Level.QUICK), str(Level.FULL))
"""Without sources, which a data set does not hold."""
GOOD_VERDICTS = ("pass", "warn")
"""Verdicts with which a certificate says that the data set is good."""
VERDICTS = (*GOOD_VERDICTS, "fail", "integrity", "incomplete")
"""All that there are; with the others it is not good, or nobody knows."""
MAX_DEPTH = 50
"""Records in records; those that are made have fewer than ten."""
_TYPES: dict[str, Any] = {
    "schema": str, "schema_version": str, "level": str, "verdict": str, "valid_until": TEXT,
    "split_set": {"name": str, "path": str, "sha256": str},
    "files": [{"path": str, "bytes": int, "sha256": str, "rows": (int, type(None))}],
    "versions": {"*": str}, "policy": {"name": str, "sha256": TEXT}, "measured": dict, "checks": [{"id": str}],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was read."""

    values: Mapping[str, Any]
    """The whole record, schema `lps.certificate`."""
    sha256: str
    """Hex, of its file."""

    @property
    def split_set(self) -> str:
        """The split set that was audited."""
        return str(self.values["split_set"]["name"])

    @property
    def digests(self) -> dict[str, str]:
        """Path below the data set -> SHA-256 in hex of every file that it is about."""
        return {file["path"]: file["sha256"] for file in self.values["files"]}

    def is_of(self, index_sha256: str, split_set: str) -> bool:
        """Tell whether it is about this index and split set."""
        return self.digests.get(INDEX_JSON) == index_sha256 and self.split_set == split_set


def read_certificate(store: Store) -> Certificate | None:
    """Return the certificate of a data set, None where there is none.

    Raises IntegrityError for what is none, UnreadableError for a newer one and where the store does not answer.
    """
    return certificate_from(store.read(CERTIFICATE_JSON)) if store.exists(CERTIFICATE_JSON) else None


def certificate_from(data: bytes) -> Certificate:
    """Return the certificate of a file's bytes. Raises as `read_certificate` does."""
    try:
        values = parse_json(data)
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        check_version(str(values.get("schema_version")), what=CERTIFICATE_JSON, newest=SCHEMA_VERSION)
        place = next(_lacking(values, _TYPES), None) or wrong_place(values, _TYPES)
        if place is not None:
            raise ValueError(f"its '{place}' is missing or of the wrong type")
        fault = next(_faults(values), None)
        if fault is not None:
            raise ValueError(fault)
        if canonical_json(values) != data:
            raise ValueError("its bytes are not those of canonical JSON: something rewrote it")
        if values["valid_until"] is not None:
            date.fromisoformat(values["valid_until"])
    except ValueError as e:
        raise IntegrityError(f"{CERTIFICATE_JSON} is not a certificate: {e}; `lps-audit certify` makes it") from e
    return Certificate(values, sha256_hex(data))


def _lacking(value: Any, types: Any, where: str = "") -> Iterator[str]:
    """Yield the names of `types` that a record lacks; what is of another type is left to `wrong_place`."""
    if isinstance(types, dict) and isinstance(value, dict):
        for name in (name for name in types if name != "*"):
            place = f"{where}.{name}".strip(".")
            if name in value:
                yield from _lacking(value[name], types[name], place)
            else:
                yield place
    elif isinstance(types, list) and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _lacking(item, types[0], f"{where}[{number}]")


def _faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a certificate whose types are right, a phrase each."""
    for name in sorted(set(values) - set(_TYPES)):
        yield f"nothing in one is called '{name}'"
    if not values["split_set"]["name"] or not all(file["path"] for file in values["files"]):
        yield "its 'split_set' or a file has no name"
    split = values["split_set"]
    if {file["path"]: file["sha256"] for file in values["files"]}.get(split["path"]) != split["sha256"]:
        yield "its 'split_set' is none of its 'files'"
    if not all(text.isprintable() for text in _texts(values)):
        yield "a name or a version in it is no line of text"
    if values["level"] not in LEVELS_CERTIFIED:
        yield f"its level is {values['level']!r}"
    if values["verdict"] not in VERDICTS:
        yield f"its verdict is {values['verdict']!r}"
    if not values["checks"]:
        yield "it has no checks"
    if not values["measured"]:
        yield "nothing in it is measured"
    yield from _named_twice(values)


def _texts(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is shown to people as it stands."""
    yield values["split_set"]["name"]
    for name, found in values["versions"].items():
        yield from (name, str(found))


def _named_twice(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the members of lists that share a path or an id: who looks by these would see one of them alone."""
    left: list[tuple[tuple[str, ...], Any]] = [((), values)]
    while left:
        where, value = left.pop()
        if len(where) > MAX_DEPTH:
            yield "it is nested too deeply"
            return
        if isinstance(value, dict):
            left += [((*where, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            left += [((*where, str(number)), item) for number, item in enumerate(value)]
            records = [item for item in value if isinstance(item, dict)]
            for key in ("path", "id"):
                n_named = Counter(item[key] for item in records if isinstance(item.get(key), str))
                yield from (f"its '{'.'.join(where)}' has {name} twice" for name, n in n_named.items() if n > 1)


def certificate_for(store: Store, index_sha256: str, split_set: str, today: date) -> Certificate:
    """Return the certificate of a data set if it fits what is read of it.

    That is the index by its digest, the split set by its name, and the manifests by the digests of their files. The
    audit is not made again, and shards are not read. Raises RefusedError where there is none, where it is about another
    state or split set, where its verdict is none of GOOD_VERDICTS or one of its waivers has expired; IntegrityError
    for what is no certificate; UnreadableError.
    """
    found = read_certificate(store)
    again = f"audit it again: `lps-audit certify OUT --split-set {split_set}`"
    if found is None:
        raise RefusedError(f"{store.url} has no {CERTIFICATE_JSON}, which --require-certificate asks for; {again}")
    where, digests = store.join(CERTIFICATE_JSON), found.digests
    if digests.get(INDEX_JSON) != index_sha256:
        raise RefusedError(f"{where} is about another {INDEX_JSON} (an earlier state, or another data set); {again}")
    if found.split_set != split_set:
        raise RefusedError(f"{where} is about split set '{found.split_set}', not '{split_set}'; {again}")
    for path in (*(PATHS[name] for name in ("videos", "clips", "shards")), split_path(split_set)):
        if store.sha256(path) != digests.get(path):
            raise RefusedError(f"{where} is about another {path}: it was changed since; {again}")
    if found.values["verdict"] not in GOOD_VERDICTS:
        raise RefusedError(f"{where} has the verdict {str(found.values['verdict']).upper()}: see its 'checks'")
    until = found.values["valid_until"]
    if until is not None and date.fromisoformat(until) < today:
        raise RefusedError(f"{where} rests on a waiver that expired on {until}; audit it again by a policy of today")
    return found


def fitting_certificate(store: Store, index_sha256: str, split_set: str) -> Certificate | None:
    """Return the certificate of a data set if there is one about this index and split set, whatever its verdict."""
    try:
        found = read_certificate(store)
    except (IntegrityError, UnreadableError):
        return None  # nobody asked for one
    return found if found is not None and found.is_of(index_sha256, split_set) else None
