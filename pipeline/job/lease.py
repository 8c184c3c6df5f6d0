"""One driver at a time writes an output: a lease below runs/ that ends unless it is renewed.

Every driver publishes a claim of its own, and lists the claims only then. So of two drivers at least one sees the
other, on any store whose listings show what was written before; no conditional write is needed. One that sees the lease
of a live driver withdraws. A driver is dead where its process is gone (seen on its own host), or its lease has ended.
"""

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lps.manifests.canonical import parse_json, pretty_json
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.fields import wrong_place
from lps.manifests.storage import Store

LEASES = "runs/leases"
LEASE_SECONDS = 120.0
"""How long a lease holds without renewal."""
RENEW_SECONDS = 30.0
"""Pause between renewals."""
TRY_SECONDS = 0.5
"""Pause between looks at a driver that starts at the same moment."""
MAX_TRIES = 60

Clock = Callable[[], datetime]


def new_run_id(now: datetime) -> str:
    """Return the name of a run; of two runs the name of the earlier one sorts first."""
    return f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The process that makes a data set."""

    host: str
    pid: int
    place: str
    """Boot of the machine and namespace of its process ids; empty where the system does not tell."""
    started: str
    """When the process began, in ticks since the boot: a later process may have its id."""


def this_driver() -> Driver:
    """Return what identifies this process."""
    place = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        place = f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  no path
    return Driver(host=platform.node(), pid=os.getpid(), place=place, started=_start_of(os.getpid()))


def _start_of(pid: int) -> str:
    """Return when a process of this machine began; empty where there is none, or its parent has yet to bury it."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_bytes()
        state, *values = facts.rpartition(b")")[2].decode("ascii").split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else values[18]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """The lease of one driver, as its file below LEASES has it."""

    run_id: str
    command: str
    driver: Driver
    since: datetime
    expires: datetime
    held: bool
    """False while the driver has yet to see whether there is another."""

    @property
    def path(self) -> str:
        """Where it lies in the output."""
        return f"{LEASES}/{self.run_id}.json"

    def is_live(self, now: datetime, me: Driver) -> bool:
        """Tell whether its driver may still write."""
        is_here = bool(me.place) and self.driver.place == me.place
        gone = is_here and _start_of(self.driver.pid) != self.driver.started
        return now < self.expires and not gone

    def __str__(self) -> str:
        return (
            f"`lps-prep {self.command}` (run {self.run_id}) on host {self.driver.host}, process {self.driver.pid}, "
            f"since {_stamp(self.since)}"
        )


def _stamp(when: datetime) -> str:
    return when.isoformat(timespec="seconds")


def _to_json(record: LeaseRecord) -> bytes:
    return pretty_json({**asdict(record), "since": record.since.isoformat(), "expires": record.expires.isoformat()})


_TYPES = {
    "run_id": str, "command": str, "since": str, "expires": str, "held": bool,
    "driver": {"host": str, "pid": int, "place": str, "started": str},
}  # fmt: skip


def _from_json(path: str, data: bytes) -> LeaseRecord | None:
    """Return the record of a file; None for what no driver wrote."""
    try:
        record = parse_json(data)
        if wrong_place(record, _TYPES) is not None:
            return None
        values = {each.name: record[each.name] for each in fields(LeaseRecord)}
        times = {name: datetime.fromisoformat(values[name]) for name in ("since", "expires")}
        found = LeaseRecord(**{**values, **times, "driver": Driver(**values["driver"])})
    except (ValueError, LookupError, TypeError):
        return None
    return found if found.path == path and all(time.tzinfo for time in times.values()) else None


@dataclass(slots=True)
class Lease:
    """The lease of this driver on an output."""

    out: Store
    own: LeaseRecord
    clock: Clock = utc_now
    lost: str = ""
    """Why this driver may not write any more; empty while it may."""
    _overtaken: set[str] = field(default_factory=set)
    """Runs that were dead when this one began: a hung one may write its lease once more before it sees this one."""

    def acquire(self, pause: Callable[[float], None] = time.sleep) -> None:
        """Take the lease. Raises RefusedError that names the driver that holds it, and UnreadableError.

        Of drivers that start at the same moment the one whose run has the first name gets it.
        """
        self._publish(held=False)
        try:
            for _ in range(MAX_TRIES):
                others = self._others()
                live = [other for other in others if other.is_live(self.clock(), self.own.driver)]
                if not live:
                    break
                first = min(live, key=lambda other: (not other.held, other.run_id))
                if first.held or first.run_id < self.own.run_id:
                    raise self._refused(first)
                pause(TRY_SECONDS)  # it sees our claim and withdraws, unless it held before we wrote ours
            else:
                raise self._refused(first)
            self._overtaken |= {other.run_id for other in others}
            for other in others:
                self.out.delete(other.path)
            self._publish(held=True)
        except BaseException:
            with suppress(UnreadableError):
                self.out.delete(self.own.path)
            raise

    def renew(self) -> None:
        """Prolong the lease, or note that it is lost. Raises UnreadableError where the store does not answer."""
        if self.lost:
            return
        now, others = self.clock(), self._others()
        holders = [other for other in others if other.held and other.is_live(now, self.own.driver)]
        if holder := next((other for other in holders if other.run_id not in self._overtaken), None):
            self.lost = f"was taken over by {holder}"
        elif not self.out.exists(self.own.path):
            self.lost = f"is no longer leased to this run: {self.own.path} was removed, by its next driver or by hand"
        else:
            self._publish(held=True)

    def check(self) -> None:
        """Raise RefusedError if the output was taken over by another driver."""
        if self.lost:
            raise RefusedError(
                f"{self.out.url} {self.lost}; this run was stopped, or without its store, for {LEASE_SECONDS:.0f} s. "
                "Committed shards are kept: when the other one has ended, run the same command again to resume"
            )

    def release(self) -> None:
        """Let others write. Never raises for a store that does not answer: the lease ends by itself."""
        with suppress(UnreadableError):
            self.out.delete(self.own.path)

    def _publish(self, *, held: bool) -> None:
        self.own = replace(self.own, held=held, expires=self.clock() + timedelta(seconds=LEASE_SECONDS))
        self.out.publish(self.own.path, _to_json(self.own))

    def _others(self) -> list[LeaseRecord]:
        found = []
        for file in self.out.walk(LEASES):
            if file.path != self.own.path and file.path.endswith(".json"):
                with suppress(UnreadableError):  # released since the listing
                    found.append(_from_json(file.path, self.out.read(file.path)))
        return [record for record in found if record is not None]

    def _refused(self, other: LeaseRecord) -> RefusedError:
        return RefusedError(
            f"{self.out.url} is being written by {other}; its lease, {other.path}, ends at {_stamp(other.expires)} "
            "unless it is renewed. Wait until it has ended, or stop it; one that is dead makes way by itself: on its "
            f"own host at once, for others {LEASE_SECONDS:.0f} s after its last renewal"
        )


@contextmanager
def driver_lease(
    out: Store, command: str, run_id: str | None = None, *, clock: Clock = utc_now, driver: Driver | None = None
) -> Iterator[Lease]:
    """Hold the lease on an output while the context is open, renewed by a thread.

    Raises RefusedError that names the driver that holds it, and UnreadableError where the output cannot be written.
    """
    now = clock()
    own = LeaseRecord(
        run_id=run_id or new_run_id(now),
        command=command,
        driver=driver or this_driver(),
        since=now,
        expires=now,
        held=False,
    )
    lease = Lease(out, own, clock)
    lease.acquire()
    stop = threading.Event()
    renewing = threading.Thread(target=_keep_renewing, args=(lease, stop), name="lease", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        stop.set()
        renewing.join()  # or it could write the lease again after its release
        lease.release()


def _keep_renewing(lease: Lease, stop: threading.Event) -> None:
    while not stop.wait(RENEW_SECONDS) and not lease.lost:
        with suppress(UnreadableError):  # the next time, perhaps; the lease is lost only if somebody takes it
            lease.renew()
