"""The report of all attacks so far: added up by class over runs, as JSON and Markdown, and as a table in the docs."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.attack.records import PASSED, Try, Verdict

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/guarantees.md"
TABLE_JSON = Path(__file__).with_name("results.json")
"""What the table of the docs is made of: the report of the longest campaign so far."""
BEGIN, END = "<!-- attack: made by `python -m benchmarks.attack --docs` -->", "<!-- /attack -->"
MAX_FAILURES = 200


@dataclass(slots=True)
class Report:
    """What is known of all tries."""

    classes: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    """(arm, class) -> verdict -> tries."""
    said: dict[str, Counter[str]] = field(default_factory=dict)
    """Arm -> what survivors said -> tries."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Arm -> seconds of its tries."""
    next_seed: dict[str, int] = field(default_factory=dict)
    """`<arm> <seed of the campaign>` -> seed of its next try."""
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def n_tries(self) -> int:
        """Tries of all classes."""
        return sum(counts.total() for counts in self.classes.values())

    def add(self, one: Try) -> None:
        """Count a try."""
        self.classes.setdefault((one.arm, one.kind), Counter())[str(one.verdict)] += 1
        self.seconds[one.arm] = self.seconds.get(one.arm, 0.0) + one.seconds
        if one.verdict in PASSED:
            self.said.setdefault(one.arm, Counter())[one.said[:70]] += 1
        elif len(self.failures) < MAX_FAILURES:
            self.failures.append(one.record())

    def mend(self, again: Try) -> None:
        """Count what failed as what came of it when it was made again."""
        for one in [one for one in self.failures if (one["arm"], one["seed"]) == (again.arm, again.seed)]:
            self.failures.remove(one)
            counts = self.classes[one["arm"], one["kind"]]
            counts[one["verdict"]] -= 1
            counts[str(again.verdict)] += 1
            self.said.setdefault(again.arm, Counter())[again.said[:70]] += 1

    def merge(self, other: "Report") -> None:
        """Add another report."""
        for key, counts in other.classes.items():
            self.classes.setdefault(key, Counter()).update(counts)
        for arm, said in other.said.items():
            self.said.setdefault(arm, Counter()).update(said)
        for arm, seconds in other.seconds.items():
            self.seconds[arm] = self.seconds.get(arm, 0.0) + seconds
        self.failures = [*self.failures, *other.failures][:MAX_FAILURES]
        for name, seed in other.next_seed.items():
            self.next_seed[name] = max(seed, self.next_seed.get(name, 0))

    def record(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "classes": [{"arm": arm, "class": kind, **+counts} for (arm, kind), counts in sorted(self.classes.items())],
            "said": {arm: dict(said.most_common(30)) for arm, said in sorted(self.said.items())},
            "seconds": {arm: round(seconds, 1) for arm, seconds in sorted(self.seconds.items())},
            "next_seed": dict(sorted(self.next_seed.items())),
            "failures": self.failures,
        }


def report_from(record: Mapping[str, Any]) -> Report:
    """Rebuild a report from its JSON form."""
    counts = {
        (row["arm"], row["class"]): Counter({name: n for name, n in row.items() if name not in ("arm", "class")})
        for row in record["classes"]
    }
    said = {arm: Counter(values) for arm, values in record["said"].items()}
    return Report(counts, said, dict(record["seconds"]), dict(record["next_seed"]), list(record["failures"]))


def read_report(folder: Path) -> Report:
    """Return the report of a folder; an empty one where there is none."""
    path = folder / "report.json"
    return report_from(json.loads(path.read_bytes())) if path.exists() else Report()


@contextmanager
def _changed(folder: Path) -> Iterator[Report]:
    """Let the report of a folder be changed, and write it. Several runs may do so at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".report.lock"):
        whole = read_report(folder)
        yield whole
        temporary = folder / ".report.json.tmp"
        temporary.write_text(json.dumps(whole.record(), indent=1) + "\n")
        temporary.replace(folder / "report.json")
        (folder / "report.md").write_text(markdown(whole))


def add_to_report(folder: Path, new: Report) -> Report:
    """Add what a run found to the report of a folder."""
    with _changed(folder) as whole:
        whole.merge(new)
    return whole


def mend_report(folder: Path, again: Try) -> None:
    """Count a failure that the report lists as survived, or known, if it is so when it is made again.

    Nothing else of a try that is made again counts: the report has it already, or is of other tries.
    """
    if again.verdict in PASSED and (folder / "report.json").exists():
        with _changed(folder) as whole:
            whole.mend(again)


def table(report: Report) -> list[str]:
    """Return the table of classes as lines of Markdown."""
    lines = ["| attack | class | tried | survived | failed |", "|---|---|---:|---:|---|"]
    arms: dict[str, Counter[str]] = {}
    for (arm, kind), counts in sorted(report.classes.items()):
        lines.append(_row(arm, kind, counts))
        arms.setdefault(arm, Counter()).update(counts)
    lines += [_row(arm, "**all**", counts) for arm, counts in arms.items()]
    return [*lines, _row("**all**", "", sum(arms.values(), Counter()))]


def _row(arm: str, kind: str, counts: Counter[str]) -> str:
    failed = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()) if name != Verdict.SURVIVED and n)
    return f"| {arm} | {kind} | {counts.total()} | {counts[Verdict.SURVIVED]} | {failed or '0'} |"


def markdown(report: Report) -> str:
    """Return the whole report as Markdown."""
    lines = ["# Attack", "", *table(report), "", "## What survivors said", ""]
    for arm, said in sorted(report.said.items()):
        lines += [f"* {arm}: " + ", ".join(f"{text} ({n})" for text, n in said.most_common(12))]
    lines += ["", "## Failures", ""]
    for one in report.failures:
        where = f"{one['arm']} {one['seed']} ({one['kind']})"
        lines.append(f"* {where}: **{one['verdict']}**, {one['said']}. {one['done']} → `{one['evidence']}`")
    rates = ", ".join(
        f"{arm} {seconds / n:.2f}" for arm, seconds in sorted(report.seconds.items())
        if (n := sum(c.total() for (a, _), c in report.classes.items() if a == arm))
    )  # fmt: skip
    return "\n".join([*lines, "", f"Seconds a try: {rates}.", ""])


# ---- the docs --------------------------------------------------------------------------------------------------------


def block(report: Report) -> str:
    """Return the lines of the docs between their marks, both included."""
    return "\n".join([BEGIN, "", *table(report), "", END])


def write_docs(report: Report, page: Path = PAGE, kept: Path = TABLE_JSON) -> None:
    """Write the table into the docs, and beside this file what it is made of. A report of fewer tries is refused."""
    n_kept = report_from(json.loads(kept.read_bytes())).n_tries if kept.exists() else 0
    if report.n_tries < n_kept:
        raise SystemExit(f"the report has {report.n_tries} tries, {kept} has {n_kept}: the longer one stays; delete it "
                         "to have the shorter one")  # fmt: skip
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{page} lacks the lines {BEGIN} and {END}")
    kept.write_text(
        json.dumps({**report.record(), "failures": [_short(one) for one in report.failures]}, indent=1) + "\n"
    )
    page.write_text(before + block(report) + after)


def _short(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("arm", "kind", "seed", "verdict", "said", "done", "evidence", "seconds")}


def of_tries(tries: Iterable[Try]) -> Report:
    """Return the report of some tries."""
    report = Report()
    for one in tries:
        report.add(one)
    return report
