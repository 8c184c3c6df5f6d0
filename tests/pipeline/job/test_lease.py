"""Two drivers on one output: the second is refused by name; one that is dead, or away for too long, makes way."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from lps.cli.prep.main import main
from lps.manifests.codes import Status
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.index import INDEX_JSON
from lps.manifests.records import Outcome, SourceVideo, VideoResult
from lps.manifests.storage import Store, StoredFile
from lps.pipeline.config.params import Params
from lps.pipeline.job import lease as leases
from lps.pipeline.job.events import PrepEvent, VideoDone
from lps.pipeline.job.finalize import finalize
from lps.pipeline.job.lease import LEASE_SECONDS, LEASES, Driver, Lease, LeaseRecord, driver_lease, this_driver
from lps.pipeline.job.plan import build_plan, publish_plan
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set, folder_spec, folder_video, still_clip

if TYPE_CHECKING:
    from tests.pipeline.conftest import Digests, Ended, Scenario

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ELSEWHERE = Driver(host="node-7", pid=4711, place="another boot", started="1")
HERE = Driver(host="node-8", pid=4712, place="this boot", started="1")


def at(seconds: float) -> Callable[[], datetime]:
    return lambda: NOON + timedelta(seconds=seconds)


def lease(out: Store, run_id: str, driver: Driver, *, clock: Callable[[], datetime] = lambda: NOON) -> Lease:
    now = clock()
    own = LeaseRecord(run_id=run_id, command="run", driver=driver, since=now, expires=now, held=False)
    return Lease(out, own, clock)


@pytest.fixture
def out(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def claims(out: Store) -> list[str]:
    return [file.path for file in out.walk(LEASES)]


# ---- who gets it -----------------------------------------------------------------------------------------------------


def test_the_second_driver_is_refused_by_name_until_the_first_has_ended(out: Store) -> None:
    mine = this_driver()
    with driver_lease(out, "run", "20260101T120000Z-aaaaaa", clock=at(0)):
        with pytest.raises(RefusedError) as caught, driver_lease(out, "plan", clock=at(1)):
            pytest.fail("two drivers at once")
        said = f"`lps-prep run` (run 20260101T120000Z-aaaaaa) on host {mine.host}, process {mine.pid}, since 2026-01-01"
        assert said in str(caught.value)
        assert "its lease, runs/leases/20260101T120000Z-aaaaaa.json, ends at 2026-01-01T12:02:00+00:00" in str(
            caught.value
        )
        assert len(claims(out)) == 1
    with driver_lease(out, "plan", clock=at(2)):
        pass
    assert claims(out) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_on_its_way_out_releases(out: Store, error: type[BaseException]) -> None:
    with pytest.raises(error), driver_lease(out, "run"):
        raise error
    assert claims(out) == []


def test_the_lease_of_another_host_ends_when_it_is_not_renewed(out: Store) -> None:
    lease(out, "a", ELSEWHERE).acquire()
    with pytest.raises(RefusedError, match="host node-7, process 4711"):
        lease(out, "b", HERE, clock=at(LEASE_SECONDS - 1)).acquire()
    lease(out, "c", HERE, clock=at(LEASE_SECONDS)).acquire()
    assert claims(out) == [f"{LEASES}/c.json"]


def test_renewal_prolongs(out: Store) -> None:
    first = lease(out, "a", ELSEWHERE)
    first.acquire()
    first.clock = at(100)
    first.renew()
    with pytest.raises(RefusedError):
        lease(out, "b", HERE, clock=at(100 + LEASE_SECONDS - 1)).acquire()


KILLED = """
import os, signal, sys
from lps.manifests.storage import Store
from lps.pipeline.job.lease import driver_lease

with driver_lease(Store(sys.argv[1]), "run"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_driver_of_this_host_makes_way_at_once(out: Store) -> None:
    subprocess.run([sys.executable, "-c", KILLED, out.url], check=False, timeout=100)
    (left,) = claims(out)
    with driver_lease(out, "run") as taken:
        assert claims(out) == [taken.own.path] != [left]


def test_a_later_process_with_the_number_of_a_dead_one_does_not_count(out: Store) -> None:
    lease(out, "a", replace(this_driver(), started="1"), clock=leases.utc_now).acquire()
    with driver_lease(out, "run"):
        pass


def test_what_no_driver_wrote_is_no_lease(out: Store) -> None:
    out.publish(f"{LEASES}/x.json", b"{")
    out.publish(f"{LEASES}/y.json", b'{"run_id": "y"}')
    lease(out, "z", ELSEWHERE, clock=leases.utc_now).acquire()
    record = json.loads(out.read(f"{LEASES}/z.json"))
    out.delete(f"{LEASES}/z.json")
    changes: list[dict[str, Any]] = [
        {"expires": "2999-01-01T00:00:00"}, {"run_id": "../../index"}, {"run_id": "other"}, {"run_id": 5},
        {"driver": record["driver"] | {"pid": "1"}}, {"held": "no"}, {"driver": None},
    ]  # fmt: skip
    for k, change in enumerate(changes):
        out.publish(f"{LEASES}/{k}.json", json.dumps(record | {"run_id": str(k)} | change).encode())
    with driver_lease(out, "run"):
        pass


def test_of_drivers_that_start_at_once_one_gets_it(out: Store) -> None:
    n, refused = 8, []
    ready, ended, held = threading.Barrier(n), threading.Barrier(n), []

    def drive(number: int) -> None:
        one = lease(out, f"run-{number}", this_driver(), clock=leases.utc_now)
        ready.wait()
        try:
            one.acquire(lambda seconds: None)
            held.append(number)
        except RefusedError:
            refused.append(number)
        ended.wait()

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    assert len(refused) == n - 1


def test_the_earlier_of_two_waits_until_the_later_one_has_seen_it(out: Store) -> None:
    later, first = lease(Blind(out.url), "b", ELSEWHERE), lease(out, "a", HERE)
    with pytest.raises(ZeroDivisionError):
        later.acquire()  # its claim is written; it has not looked yet
    seen: list[str] = []

    def pause(seconds: float) -> None:
        seen.extend(claims(out))
        later.out = out
        with pytest.raises(RefusedError, match=r"run a\) on host node-8"):
            later.acquire()

    first.acquire(pause)
    assert seen == [f"{LEASES}/a.json", f"{LEASES}/b.json"]
    assert claims(out) == [first.own.path]


class Blind(Store):
    """A store whose driver dies before it sees a listing, and leaves all there."""

    def walk(self, under: str = "", *, leaving: bool = False) -> list[StoredFile]:
        raise ZeroDivisionError

    def delete(self, path: str) -> None:
        raise UnreadableError("gone")


# ---- who loses it ----------------------------------------------------------------------------------------------------


def test_a_driver_that_was_away_for_too_long_notices_who_took_over(out: Store) -> None:
    first, second = lease(out, "a", ELSEWHERE), lease(out, "b", HERE, clock=at(LEASE_SECONDS))
    first.acquire()
    out.publish("copy", out.read(first.own.path))
    first.check()
    second.acquire()
    first.clock = at(LEASE_SECONDS + 1)
    first.renew()
    with pytest.raises(RefusedError, match=r"was taken over by `lps-prep run` \(run b\) on host node-8, process 4712"):
        first.check()
    out.publish(first.own.path, out.read("copy").replace(b"12:02:00", b"12:59:00"))  # a renewal that was on its way
    second.renew()
    second.check()


def test_a_lease_that_was_removed_is_lost(out: Store) -> None:
    first = lease(out, "a", ELSEWHERE)
    first.acquire()
    out.delete(first.own.path)
    first.renew()
    with pytest.raises(RefusedError, match="a.json was removed, by its next driver or by hand"):
        first.check()
    assert claims(out) == []


def test_who_lost_its_lease_writes_no_index(out: Store) -> None:
    plan = build_plan(folder_spec(Params()), [], Probes.of({}))
    publish_plan(plan, out)
    first = lease(out, "a", ELSEWHERE)
    first.acquire()
    out.delete(first.own.path)
    first.renew()
    with pytest.raises(RefusedError, match="was removed"):
        finalize(plan, out, check=first.check)
    assert not out.exists(INDEX_JSON)
    finalize(plan, out)
    assert out.exists(INDEX_JSON)


@dataclass(frozen=True, slots=True)
class Flaky(Store):
    """A store that stops answering."""

    answers: threading.Event
    asked: threading.Semaphore

    def walk(self, under: str = "", *, leaving: bool = False) -> list[StoredFile]:
        self.asked.release()
        if not self.answers.is_set():
            raise UnreadableError("no answer in time")
        return Store(self.url).walk(under, leaving=leaving)


def test_a_store_that_does_not_answer_for_a_while_costs_nothing(out: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.001)
    store = Flaky(out.url, threading.Event(), threading.Semaphore(0))
    store.answers.set()
    with driver_lease(store, "run") as held:
        store.answers.clear()
        for _ in range(5):
            assert store.asked.acquire(timeout=60)
        store.answers.set()
        before = held.own.expires
        while held.own.expires == before:
            assert store.asked.acquire(timeout=60)
        held.check()


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    videos = [folder_video(f"{name}.mp4", label) for label, name in enumerate(("real/a", "fake/x/b"))]
    probes = {video.uri: Probe(n_bytes=1, sha256="00" * 32, n_frames_promised=60) for video in videos}

    def processed(video: SourceVideo) -> VideoResult:
        outcome = Outcome(status=Status.OK, n_frames_decoded=60)
        return VideoResult(video_id=video.video_id, outcome=outcome, clips=(still_clip(60),))

    build_data_set(tmp_path / "made", folder_spec(Params()), videos, probes, processed)
    (tmp_path / "videos").mkdir()
    return tmp_path / "made"


def test_every_command_that_writes_is_refused_and_those_that_read_are_not(data_set: Path) -> None:
    source, out = str(data_set.parent / "videos"), str(data_set)
    with driver_lease(Store(out), "run", "one"):
        for line in (
            ["run", source, out],
            ["plan", source, out],
            ["retry", out, "--code", "E_NO_FACE"],
            ["split", out, "--rule", "ranked", "--name", "other"],
        ):
            ended = CliRunner().invoke(main, line, prog_name="lps-prep")
            assert ended.exit_code == 3
            assert ended.stderr.startswith(f"lps-prep: {out} is being written by `lps-prep run` (run one) on host ")
            assert ended.stderr.count("\n") == 1
        assert CliRunner().invoke(main, ["status", out]).exit_code == 0
    assert CliRunner().invoke(main, ["split", out, "--rule", "ranked", "--name", "other"]).exit_code == 0


@pytest.mark.slow
def test_a_second_run_beside_the_first_changes_nothing(
    scenario: "Scenario",
    command: "Callable[..., Ended]",
    assert_one_line: "Callable[[Ended, int, str], None]",
    undisturbed: "Digests",
    digests: "Callable[[Path], Digests]",
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    seconds: list[Ended] = []

    def on_event(event: PrepEvent) -> None:
        if isinstance(event, VideoDone) and not seconds:
            seconds.append(command(out))

    scenario.run(scenario.request(out), on_event)
    assert_one_line(seconds[0], 3, f"{out} is being written by `lps-prep run` (run ")
    assert digests(out) == undisturbed


@pytest.mark.slow
def test_a_run_that_was_taken_over_stops_and_can_go_on_later(
    scenario: "Scenario",
    undisturbed: "Digests",
    digests: "Callable[[Path], Digests]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    out = tmp_path / "out"
    thread: list[threading.Thread] = []

    def on_event(event: PrepEvent) -> None:
        if isinstance(event, VideoDone) and not thread:
            (own,) = (out / LEASES).glob("*.json")
            text = own.read_text().replace(own.stem, "another")
            (out / LEASES / "another.json").write_text(text)
            thread.extend(each for each in threading.enumerate() if each.name == "lease")
            thread[0].join(timeout=60)  # it ends when it finds the lease lost

    with pytest.raises(RefusedError, match=r"was taken over by `lps-prep run` \(run another\)"):
        scenario.run(scenario.request(out), on_event)
    assert not (out / "index.json").exists()
    (out / LEASES / "another.json").unlink()
    scenario.run(scenario.request(out))
    assert digests(out) == undisturbed
