"""What a run keeps of headers is only a cache: what is damaged is read again, and a killed run leaves it whole."""

import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from lps.manifests.codes import Code, Stage
from lps.manifests.records import Header
from lps.manifests.storage import Store
from lps.pipeline.config.params import Limits
from lps.pipeline.video.kept_probes import (
    PAUSE_SECONDS,
    PROBE_CACHE,
    SCHEMA,
    ProbeKeeper,
    Probes,
    forget_probes,
    probes_in,
    read_probes,
)
from lps.pipeline.video.probe import Probe

LIMITS = Limits()
HEADER = Header(codec="h264", width=640, height=480, fps_num=30000, fps_den=1001, duration_s=1.5, has_audio=False)
GOOD = Probe(n_bytes=1, sha256="ab" * 32, header=HEADER, n_frames_promised=60)
LOST = Probe(n_bytes=2, sha256="", code=Code.E_TIMEOUT, stage=Stage.PROBE, detail="no result after 120 s")
ALL = {f"real/{k}.mp4": replace(GOOD, n_frames_promised=k) for k in range(30)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store whose cache holds `ALL`, all with the mark `m`."""
    store = Store(str(tmp_path))
    keeper = ProbeKeeper(store, LIMITS, Probes.of({}))
    for uri, probe in ALL.items():
        keeper.add(uri, "m", probe, is_certain=True)
    keeper.save()
    return store


def by_uri(probes: Probes) -> dict[str, Probe | None]:
    return dict(zip(probes.table["uri"].to_pylist(), probes_in(probes.table), strict=True))


def test_probes_are_read_as_they_were_written(store: Store) -> None:
    assert by_uri(read_probes(store, LIMITS)) == ALL


def test_only_probes_of_unchanged_files_are_taken(store: Store) -> None:
    uris = ["real/3.mp4", "real/4.mp4", "real/new.mp4"]
    kept = read_probes(store, LIMITS).of_files(pa.array(uris), pa.array(["m", "n", "m"]))
    assert by_uri(kept) == {"real/3.mp4": ALL["real/3.mp4"]}
    rows = kept.aligned(pa.array(uris))
    assert list(probes_in(rows)) == [ALL["real/3.mp4"], None, None]


class TestArchives:
    """An archive is known only with all of its sequences; else it is read again."""

    A, B = "a/1.tar.gz", "a/2.tar.gz"

    def kept(self, store: Store, *uris: str, marks: tuple[str, str] = ("m", "m")) -> Probes:
        keeper = ProbeKeeper(store, LIMITS, Probes.of({}))
        for uri in uris:
            n = 2 if uri in (self.A, self.B) else 60
            keeper.add(uri, "m", replace(GOOD, n_frames_promised=n), is_certain=True)
        keeper.save()
        return read_probes(store, LIMITS).of_files(pa.array([self.A, self.B]), pa.array(marks))

    def test_sequences_stay_with_their_archive(self, tmp_path: Path) -> None:
        whole = [f"{self.A}!/1/real/{k}/" for k in (0, 7)]
        part = f"{self.B}!/2/real/0/"
        kept = self.kept(Store(str(tmp_path)), *whole, self.A, part, self.B)
        assert kept.in_archives() == {self.A: whole}
        assert set(by_uri(kept)) == {self.A, *whole}
        unfinished = self.kept(Store(str(tmp_path)), *whole, part)
        assert (len(unfinished), unfinished.in_archives()) == (0, {})

    def test_an_archive_that_changed_takes_its_sequences_with_it(self, tmp_path: Path) -> None:
        uris = [f"{archive}!/x/{k}/" for archive in (self.A, self.B) for k in (0, 1)]
        kept = self.kept(Store(str(tmp_path)), *uris, self.A, self.B, marks=("m", "n"))
        assert set(by_uri(kept)) == {self.A, *uris[:2]}

    def test_a_fault_in_one_that_is_forgotten_has_the_archive_read_again(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path))
        keeper = ProbeKeeper(store, LIMITS, Probes.of({}))
        keeper.add(f"{self.A}!/0/", "m", LOST, is_certain=True)
        keeper.add(f"{self.A}!/1/", "m", GOOD, is_certain=True)
        keeper.add(self.A, "m", replace(GOOD, n_frames_promised=2), is_certain=True)
        keeper.save()
        forget_probes(store, ["E_TIMEOUT"])
        assert len(read_probes(store, LIMITS).of_files(pa.array([self.A]), pa.array(["m"]))) == 0


def test_other_limits_make_other_probes(store: Store) -> None:
    assert by_uri(read_probes(store, Limits(max_frames=7))) == {}


def test_what_is_damaged_is_not_kept(store: Store) -> None:
    whole = store.read(PROBE_CACHE)
    rng = random.Random(0)
    for place in rng.sample(range(len(whole)), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        store.publish(PROBE_CACHE, bytes(damaged))
        assert by_uri(read_probes(store, LIMITS)).items() <= ALL.items(), place


@pytest.mark.parametrize("data", [b"", b"PAR1", b'{"a.mp4": {"mark": "m"}}'])
def test_what_is_no_cache_is_none(store: Store, data: bytes) -> None:
    store.publish(PROBE_CACHE, data)
    assert by_uri(read_probes(store, LIMITS)) == {}


def test_a_cache_of_other_columns_is_none(store: Store) -> None:
    import pyarrow.parquet as pq

    marks = pq.read_schema(store.local_path(PROBE_CACHE)).metadata
    table = read_probes(store, LIMITS).table.drop_columns(["n_frames_promised"]).replace_schema_metadata(marks)
    pq.write_table(table, store.local_path(PROBE_CACHE))
    assert by_uri(read_probes(store, LIMITS)) == {}


def test_the_first_probe_is_kept_at_once_and_others_after_a_pause(tmp_path: Path) -> None:
    store, now = Store(str(tmp_path)), [100.0]
    keeper = ProbeKeeper(store, LIMITS, Probes.of({}), clock=lambda: now[0])
    for name in "ab":
        keeper.add(name, "m", GOOD, is_certain=True)
    assert sorted(by_uri(read_probes(store, LIMITS))) == ["a"]
    now[0] += PAUSE_SECONDS
    for name in "cd":
        keeper.add(name, "m", GOOD, is_certain=True)
    assert sorted(by_uri(read_probes(store, LIMITS))) == ["a", "b", "c"]


def test_what_is_uncertain_is_kept_with_the_plan(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    keeper = ProbeKeeper(store, LIMITS, Probes.of({}))
    keeper.add("a", "m", GOOD, is_certain=True)
    keeper.add("b", "m", LOST, is_certain=False)
    keeper.save()
    assert by_uri(read_probes(store, LIMITS)) == {"a": GOOD}
    assert by_uri(keeper.probes) == {"a": GOOD, "b": LOST}
    keeper.save(planned=True)
    assert by_uri(read_probes(store, LIMITS)) == {"a": GOOD, "b": LOST}


def test_what_is_kept_is_not_written_again(store: Store) -> None:
    store.delete(PROBE_CACHE)
    ProbeKeeper(store, LIMITS, Probes.of(ALL)).save(planned=True)
    assert not store.exists(PROBE_CACHE)
    assert Probes.of({}).table.schema.equals(SCHEMA)
