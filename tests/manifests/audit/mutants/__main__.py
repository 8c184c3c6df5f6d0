"""Renew the table of checks against mutants: `python -m tests.manifests.audit.mutants [--sizes 1,16] [--checks A1,B]`.

Without options everything is measured, which takes minutes; with `--page` only docs/audit.md is written, from the table
that was measured last.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.manifests.audit.mutants.measuring import MUTANTS, Bench
from tests.manifests.audit.mutants.table import PAGE, read_table, with_mutants, write_table


def main() -> None:
    """Measure what was asked for, and write table and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--sizes", default="", help="numbers of clips  [default: all]")
    parser.add_argument("--checks", default="", help="ids and classes of checks  [default: all]")
    asked = parser.parse_args()
    sizes = [int(n) for n in asked.sizes.split(",") if n]
    checks = [c for c in asked.checks.split(",") if c]
    measured = read_table()
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for mutant in () if asked.page else MUTANTS:
            if checks and mutant.check not in checks and mutant.check[0] not in checks:
                continue
            for n in mutant.sizes:
                if not sizes or n in sizes:
                    record = bench.outcome(mutant, n).record()
                    measured.setdefault(mutant.name, {})[str(n)] = record
                    sys.stdout.write(f"{n:6} {mutant.name}: {record}\n")
                    sys.stdout.flush()
                    write_table(measured)
    PAGE.write_text(with_mutants(PAGE.read_text(), measured))


if __name__ == "__main__":
    main()
