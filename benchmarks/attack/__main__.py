"""Attacks the product by design: damaged media, kills, sick outputs and stores, forged files.

    python -m benchmarks.attack --minutes 5                        all arms, one after the other
    python -m benchmarks.attack --arms media --tries 5000 --minutes 600
    python -m benchmarks.attack --arms media --try 1000042         one try again, by its seed
    python -m benchmarks.attack --docs                             the report's table into docs/guarantees.md, unless
                                                                   it has fewer tries than the one that is there

The report adds up, try by try: a run with the same --seed goes on with the tries after those that the report has, also
after one that was interrupted. A try that is made again with --try is not counted again: where it failed and does not
any more, the report counts it as what it is now.

Exit codes: 0 nothing failed in this run, 1 something did (or an arm itself crashed, with a traceback), 2 wrong usage,
130 interrupted by Ctrl-C, 143 by SIGTERM.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from signal import SIGKILL, Signals

from benchmarks.attack import forged, kills, media, outputs, store
from benchmarks.attack.records import PASSED, Budget, Place, Try, Verdict
from benchmarks.attack.report import Report, add_to_report, mend_report, of_tries, read_report, write_docs
from lps.cli.common import EXIT_SIGNAL, TermAsInterrupt

Attack = Callable[[Budget, Iterator[int], Place], Iterator[Try]]
ARMS: dict[str, tuple[Attack, float]] = {
    "media": (media.attack, 0.35),
    "kills": (kills.attack, 0.25),
    "outputs": (outputs.attack, 0.1),
    "store": (store.attack, 0.1),
    "forged": (forged.attack, 0.2),
}
"""Arm -> its function, and its share of the budget."""
SEEDS_OF_A_CAMPAIGN = 1_000_000


def main() -> None:
    """Read the options, attack, report."""
    args = _parser().parse_args()
    if args.docs:
        write_docs(read_report(args.report))
        return
    given = os.environ.get("LPS_MEDIA_DIR")
    new = Report()
    with TermAsInterrupt() as term:
        scratch = Path(tempfile.mkdtemp(prefix="lps-attack-"))
        try:
            _attack(args, Place(scratch, args.report.resolve(), Path(given) if given else None), new)
        except KeyboardInterrupt as e:
            signum = term.signum_of(e)
            print(f"interrupted by {Signals(signum).name}: {_summary(args, new)}", file=sys.stderr)
            sys.exit(EXIT_SIGNAL + signum)
        finally:
            _end_children()
            shutil.rmtree(scratch, ignore_errors=True)
    print(_summary(args, new))
    sys.exit(_n_failed(new) > 0)


def _attack(args: argparse.Namespace, place: Place, new: Report) -> None:
    """Attack with every arm. Each try counts in the report at once: none is lost where the next is cut short."""
    shares = {name: ARMS[name][1] for name in args.arms}
    started = time.monotonic()
    for name in args.arms:
        left = 60 * args.minutes - (time.monotonic() - started)
        seconds = max(0.0, left * shares[name] / sum(shares[n] for n in args.arms[args.arms.index(name) :]))
        folder = place.scratch / name
        folder.mkdir()
        campaign = f"{name} {args.seed}"
        first = read_report(place.report).next_seed.get(campaign, args.seed * SEEDS_OF_A_CAMPAIGN)
        seeds = iter(args.tries_again) if args.tries_again else count(first)
        n = len(args.tries_again) or args.tries
        for one in ARMS[name][0](Budget.of(seconds, n), seeds, Place(folder, place.report, place.media)):
            found = of_tries([one])
            if args.tries_again:
                mend_report(place.report, one)
            else:
                found.next_seed[campaign] = one.seed + 1
                add_to_report(place.report, found)
            new.merge(found)
            if args.verbose or one.verdict not in PASSED:
                print(
                    f"{one.arm} {one.seed} {one.kind}: {one.verdict}: {one.said} [{one.done}] {one.seconds:.1f} s",
                    *([f"-> {place.report / one.evidence}"] if one.evidence else []),
                    flush=True,
                )
        shutil.rmtree(folder, ignore_errors=True)


def _end_children() -> None:
    """End what an arm that was cut short left running; one that came to its end leaves nothing."""
    left = kills.descendants(os.getpid())
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGKILL)
    kills.left_alive(left, seconds=10)


def _summary(args: argparse.Namespace, new: Report) -> str:
    counts = _counts(new)
    said = f"{counts.total()} tries, {counts[Verdict.SURVIVED]} survived, {counts[Verdict.KNOWN]} met a known limit, "
    return f"{said}{_n_failed(new)} failed; report: {args.report}/report.md"


def _counts(new: Report) -> Counter[str]:
    return sum(new.classes.values(), Counter())


def _n_failed(new: Report) -> int:
    return sum(n for verdict, n in _counts(new).items() if verdict not in PASSED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all arms together; default 5")
    parser.add_argument("--seed", type=int, default=1, help="of the campaign; default 1")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--tries", type=int, default=10**9, help="of each arm, at most")
    parser.add_argument("--try", dest="tries_again", type=int, nargs="+", default=[], metavar="SEED", help="only these")
    parser.add_argument("--report", type=Path, default=Path("build/attack"), metavar="DIR", help="default build/attack")
    parser.add_argument("--docs", action="store_true", help="write the table of the report into docs/guarantees.md")
    parser.add_argument("--verbose", action="store_true", help="a line for each try, not only for failures")
    return parser


if __name__ == "__main__":
    main()
