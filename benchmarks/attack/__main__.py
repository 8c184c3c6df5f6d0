"""Attacks the product by design: damaged media, kills, sick outputs and stores, forged files.

    python -m benchmarks.attack --minutes 5                        all arms, one after the other
    python -m benchmarks.attack --arms media --tries 5000 --minutes 600
    python -m benchmarks.attack --arms media --try 1000042         one try again, by its seed
    python -m benchmarks.attack --docs                             the report's table into docs/guarantees.md

The report adds up: a run with the same --seed goes on with the tries after those that the report has.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from benchmarks.attack import forged, kills, media, outputs, store
from benchmarks.attack.records import Budget, Place, Try, Verdict
from benchmarks.attack.report import Report, add_to_report, read_report, write_docs

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
    """Read the options, attack, report. The exit code is 1 where anything failed in this run."""
    args = _parser().parse_args()
    if args.docs:
        write_docs(read_report(args.report))
        return
    given = os.environ.get("LPS_MEDIA_DIR")
    scratch = Path(tempfile.mkdtemp(prefix="lps-attack-"))
    place = Place(scratch, args.report.resolve(), Path(given) if given else None)
    try:
        new = _attacked(args, place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    counts = sum((found for found in new.classes.values()), Counter())
    n_failed = counts.total() - counts[Verdict.SURVIVED] - counts[Verdict.KNOWN]
    print(
        f"{counts.total()} tries, {counts[Verdict.SURVIVED]} survived, {counts[Verdict.KNOWN]} met a known limit,",
        end=" ",
    )
    print(f"{n_failed} failed; report: {args.report}/report.md")
    sys.exit(n_failed > 0)


def _attacked(args: argparse.Namespace, place: Place) -> Report:
    shares = {name: ARMS[name][1] for name in args.arms}
    started, new = time.monotonic(), Report()
    for name in args.arms:
        left = 60 * args.minutes - (time.monotonic() - started)
        seconds = max(0.0, left * shares[name] / sum(shares[n] for n in args.arms[args.arms.index(name) :]))
        folder = place.scratch / name
        folder.mkdir()
        part = Report()
        campaign = f"{name} {args.seed}"
        first = read_report(place.report).next_seed.get(campaign, args.seed * SEEDS_OF_A_CAMPAIGN)
        seeds = iter(args.tries_again) if args.tries_again else count(first)
        n = len(args.tries_again) or args.tries
        for one in ARMS[name][0](Budget.of(seconds, n), seeds, Place(folder, place.report, place.media)):
            part.add(one)
            if not args.tries_again:
                part.next_seed[campaign] = one.seed + 1
            if args.verbose or one.verdict not in (Verdict.SURVIVED, Verdict.KNOWN):
                print(
                    f"{one.arm} {one.seed} {one.kind}: {one.verdict}: {one.said} [{one.done}] {one.seconds:.1f} s",
                    flush=True,
                )
        add_to_report(place.report, part)
        new.merge(part)
        shutil.rmtree(folder, ignore_errors=True)
    return new


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
