"""Probes of many files as columns, and the cache of them below an output.

A hundred thousand probes as objects would be most of a driver's memory. The cache is one Parquet file. It is written
while headers are read, too, so that a run that is killed then reads few of them twice; what is damaged is read again.
"""

import io
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.codes import Code, Stage
from lps.manifests.errors import UnreadableError
from lps.manifests.records import Header
from lps.manifests.schemas import VIDEOS, arrow_file
from lps.manifests.sequences.names import archive_of, is_archive
from lps.manifests.storage import Store
from lps.pipeline.config.params import Limits
from lps.pipeline.video.probe import Probe

PROBE_CACHE = "runs/cache/probes.parquet"
BATCH_ROWS = 1024
"""Probes that are objects at a time."""
PAUSE_SECONDS = 10.0
"""Between two writes of the cache, at least; and twenty times what the last one took."""

_HEADER = Header.__slots__


def _wide(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_integer(kind) else kind


SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("mark", pa.string()),  # of the listing: another mark is another file
        ("n_bytes", pa.int64()),
        ("sha256", pa.binary()),
        ("n_frames_promised", pa.int64()),
        ("key_distance", pa.float64()),
        ("code", pa.string()),
        ("stage", pa.string()),
        ("detail", pa.string()),
        *((name, _wide(VIDEOS.field(name).type)) for name in _HEADER),
    ]
)


@dataclass(frozen=True, slots=True)
class Probes:
    """Probes by uri, a row each."""

    table: pa.Table
    """Columns of `SCHEMA`; no uri is there twice."""

    @classmethod
    def of(cls, probes: Mapping[str, Probe]) -> "Probes":
        """Return probes as columns, of files without marks."""
        return cls(_table((uri, "", probe) for uri, probe in probes.items()))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def of_files(self, uris: pa.Array, marks: pa.Array) -> "Probes":
        """Return the probes of those files that are as they were: equal marks mean equal files.

        A sequence of images is as it was if its archive is.
        """
        files = [inside[0] if (inside := archive_of(uri)) else uri for uri in self.table["uri"].to_pylist()]
        now = pc.take(marks, pc.index_in(pa.array(files, pa.string()), value_set=uris))
        same = pc.fill_null(pc.equal(self.table["mark"], now), False)  # noqa: FBT003  null: of a file that is gone
        found = self if pc.all(same).as_py() else Probes(self.table.filter(same))
        return found.without_parts()

    def without_parts(self) -> "Probes":
        """Leave out archives of which not everything is known, and the sequences in them."""
        whole = self.in_archives()
        uris = self.table["uri"].to_pylist()
        files = [inside[0] if (inside := archive_of(uri)) else uri for uri in uris]
        keep = [file in whole or not is_archive(file) for file in files]
        return self if all(keep) else Probes(self.table.filter(pa.array(keep, pa.bool_())))

    def in_archives(self) -> dict[str, list[str]]:
        """Return the uris of the sequences of each archive that was read whole, by its uri."""
        uris = self.table["uri"].to_pylist()
        found: dict[str, list[str]] = {}
        for uri in uris:
            if (inside := archive_of(uri)) is not None:
                found.setdefault(inside[0], []).append(uri)
        n_promised = zip(uris, self.table["n_frames_promised"].to_pylist(), strict=True)
        known = {uri: n for uri, n in n_promised if is_archive(uri)}
        return {uri: found.get(uri, []) for uri, n in known.items() if len(found.get(uri, [])) == n}

    def aligned(self, uris: pa.Array, columns: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
        """Return a row for each uri; all its values are null where it has no probe."""
        return self.table.select(columns).take(pc.index_in(uris, value_set=self.table["uri"].combine_chunks()))


def probes_in(table: pa.Table) -> Iterator[Probe | None]:
    """Yield the probe of every row of columns of `SCHEMA`; None where there is none."""
    for batch in table.to_batches(BATCH_ROWS):
        yield from map(_probe, batch.to_pylist())


def _probe(row: Mapping[str, Any]) -> Probe | None:
    if row["n_bytes"] is None:
        return None
    return Probe(
        n_bytes=row["n_bytes"],
        sha256=(row["sha256"] or b"").hex(),
        header=Header(**{name: row[name] for name in _HEADER}),
        n_frames_promised=row["n_frames_promised"],
        key_distance=row["key_distance"],
        code=Code(row["code"]) if row["code"] else None,
        stage=Stage(row["stage"]) if row["stage"] else None,
        detail=row["detail"],
    )


def _table(found: Iterable[tuple[str, str, Probe]]) -> pa.Table:
    return pa.Table.from_pylist([_row(*one) for one in found], schema=SCHEMA)


def _row(uri: str, mark: str, probe: Probe) -> dict[str, Any]:
    return {
        "uri": uri,
        "mark": mark,
        "n_bytes": probe.n_bytes,
        "sha256": bytes.fromhex(probe.sha256) or None,
        "n_frames_promised": probe.n_frames_promised,
        "key_distance": probe.key_distance,
        "code": str(probe.code) if probe.code else None,
        "stage": str(probe.stage) if probe.stage else None,
        "detail": probe.detail,
        **asdict(probe.header),
    }


# ---- the cache -------------------------------------------------------------------------------------------------------


def read_probes(out: Store, limits: Limits) -> Probes:
    """Return what the cache of an output holds; none where it is damaged, absent, or made with other limits."""
    table = _read(out)
    if table is None or table.schema.metadata != _marks(limits):
        table = SCHEMA.empty_table()
    return Probes(table.replace_schema_metadata())


def forget_probes(out: Store, codes: Collection[str]) -> None:
    """Take from the cache of an output what ended with one of `codes`: these files are read again.

    Raises UnreadableError.
    """
    table = _read(out)
    if table is None:
        out.delete(PROBE_CACHE)
    else:
        _write(out, table.filter(pc.invert(pc.is_in(table["code"], value_set=pa.array(list(codes), pa.string())))))


def _read(out: Store) -> pa.Table | None:
    """Return the cache, its marks in the metadata; None where there is none that can be read."""
    try:
        if not out.exists(PROBE_CACHE):
            return None
        table = pq.read_table(arrow_file(out.read(PROBE_CACHE)), page_checksum_verification=True)
    except (UnreadableError, pa.ArrowException, OSError, ValueError):
        return None
    pa.default_memory_pool().release_unused()  # what decoding took besides
    return table if table.schema.equals(SCHEMA) else None


def _write(out: Store, table: pa.Table) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    out.publish(PROBE_CACHE, sink.getvalue())


def _marks(limits: Limits) -> dict[bytes, bytes]:
    """The limits decide a probe, too."""
    return {b"lps.limits_sha256": sha256_hex(canonical_json(asdict(limits))).encode()}


class ProbeKeeper:
    """All probes of a run: those that an earlier one kept, and those that come; and the cache of them.

    What is not certain, as that a file cannot be read, is not kept before `save` is told that a plan was made from it:
    another try may end otherwise. From then on it is part of the plan, as all else.
    """

    def __init__(self, out: Store, limits: Limits, kept: Probes, clock: Callable[[], float] = time.monotonic) -> None:
        self.out, self.limits, self.clock = out, limits, clock
        self._certain, self._open = _Pile(kept.table), _Pile(SCHEMA.empty_table())
        self._n_saved, self._next_save = len(kept), 0.0

    @property
    def probes(self) -> Probes:
        """All of them."""
        return Probes(pa.concat_tables([self._certain.packed(), self._open.packed()]))

    def add(self, uri: str, mark: str, probe: Probe, *, is_certain: bool) -> None:
        """Take one more. The first, and one now and then, writes the cache: raises UnreadableError if that fails."""
        (self._certain if is_certain else self._open).add(uri, mark, probe)
        if self.clock() >= self._next_save:
            self.save()

    def save(self, *, planned: bool = False) -> None:
        """Write the cache if it lacks anything. Raises UnreadableError."""
        probes = self.probes if planned else Probes(self._certain.packed())
        if len(probes) != self._n_saved:
            started = self.clock()
            _write(self.out, probes.table.replace_schema_metadata(_marks(self.limits)))
            self._n_saved, ended = len(probes), self.clock()
            self._next_save = ended + max(PAUSE_SECONDS, 20 * (ended - started))


class _Pile:
    """Probes that become columns when there are many."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.fresh: list[tuple[str, str, Probe]] = []

    def add(self, uri: str, mark: str, probe: Probe) -> None:
        self.fresh.append((uri, mark, probe))
        if len(self.fresh) >= BATCH_ROWS:
            self.packed()

    def packed(self) -> pa.Table:
        if self.fresh:
            self.table = pa.concat_tables([self.table, _table(self.fresh)])
            self.fresh = []
        return self.table
