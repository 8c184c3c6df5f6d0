"""CPU time and memory of this process and of all below it, which Ray starts and ends as it likes."""

import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread


class Processes(Thread):
    """Looks again and again at all processes below this one: Ray's daemons take no times over from those that end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ticks: dict[tuple[int, str], int] = {}
        """CPU time of each process ever seen, by its number and start."""
        self._lock, self._ended = Lock(), Event()
        self._own_seconds = 0.0
        self._peak_pages = 0

    def run(self) -> None:
        """Look twice a second."""
        while not self._ended.wait(0.5):
            self._look()
            self._own_seconds = time.thread_time()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self.join()

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of this process and of all that were seen below it, without those of looking."""
        self._look()
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK") - self._own_seconds

    def take_peak_mb(self) -> float:
        """Return the largest resident memory of a process below this one since the last call."""
        with self._lock:
            peak, self._peak_pages = self._peak_pages, 0
        return peak * os.sysconf("SC_PAGESIZE") / 1e6

    def _look(self) -> None:
        found: dict[int, list[str]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has just ended
                found[int(stat.parent.name)] = stat.read_text().rpartition(") ")[2].split()
        below = {os.getpid()}
        while more := {pid for pid, values in found.items() if int(values[1]) in below and pid not in below}:
            below |= more
        with self._lock:
            for pid in below:
                values = found[pid]
                self._ticks[pid, values[19]] = int(values[11]) + int(values[12])
                if pid != os.getpid():
                    self._peak_pages = max(self._peak_pages, int(values[21]))
