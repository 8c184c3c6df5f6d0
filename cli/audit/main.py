"""lps-audit: what a data set holds, whether it is intact, and whether it is fair."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lps.cli.common import VERSION, LpsGroup, echo, is_stdout, json_option, show_or_write, write_output
from lps.cli.extras import require
from lps.manifests.errors import UnreadableError
from lps.manifests.names import LEVELS, Level

if TYPE_CHECKING:
    from lps.manifests.audit.core.policy import Policy
    from lps.manifests.audit.run import Audit, Suite
    from lps.manifests.storage import Store

FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
REPORTS = {"json": "json_to", "html": "html_file", "junit": "junit_file", "reports": "reports_dir"}
"""Options of `check` that name what is written, and the arguments that they become."""


class AuditGroup(LpsGroup):
    """A command group in which wrong usage ends with 3: click's own 2 would say that a data set has warnings."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the words before the command."""
        with _usage_ends_with_3():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        with _usage_ends_with_3():
            return super().invoke(ctx)


@contextmanager
def _usage_ends_with_3() -> Iterator[None]:
    try:
        yield
    except click.UsageError as e:
        vars(e)["exit_code"] = 3  # of this error alone; click declares it for the class
        raise


@click.group(cls=AuditGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="lps-audit")
def main() -> None:
    """Check a data set of lps-prep: integrity, leakage between splits, class bias, reproducibility.

    \b
    Exit codes of `check`: 0 pass, 1 a check failed, 2 warnings with --strict, 3 wrong usage or a bad policy,
    4 the data set cannot be read, or --level deep lacks its packages (pip install 'lps-prep[prep]'),
    5 integrity or tampering (outranks the others), 6 the audit is incomplete.

    \b
    Example:
      lps-audit check out/ --level full --html report.html
    """


@main.command()
@click.argument("out", required=False)
@click.option("--level", type=click.Choice([str(level) for level in LEVELS]), default="quick", show_default=True,
              help="Manifests only, every byte of every tar, or sources decoded again.")  # fmt: skip
@click.option("--split-set", help="Split set to audit  [default: the one the shards were made for].")
@click.option("--checks", default="", metavar="A,L1,...", help="Classes and ids of checks  [default: all].")
@click.option("--policy", "policy_file", type=EXISTING, help="TOML file with limits, severities, waivers and such.")
@click.option("--source", metavar="DIR|URL", help="Root of the source videos, for checks that need them.")
@click.option("--embeddings", "embeddings_file", type=EXISTING,
              help="Parquet file of a face recogniser (video_id, embedding), for check L11.")  # fmt: skip
@json_option
@click.option("--html", "html_file", type=FILE, help="Write the report as one self-contained page.")
@click.option("--gallery", metavar="URL|FOLDER", default="",
              help="Gallery of `lps-prep preview --html`: its address as seen from the report, or its folder here; "
              "offenders link to it.")  # fmt: skip
@click.option("--junit", "junit_file", type=FILE, help="Write the checks as JUnit XML, which CI servers read.")
@click.option("--reports", "reports_dir", metavar="DIR|URL",
              help="Write both and all offenders as Parquet into a new folder below, such as OUT/audits.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Exit code 2 if there are warnings.")
@click.option(
    "--problems-only", is_flag=True, help="Show no check that passes, is skipped or waived; reports have all."
)
@click.option("--quiet", is_flag=True, help="Show nothing: the exit code and the reports say it.")
@click.option("--explain", metavar="ID", help="Print rule, limits, remedy and SQL of a check, and audit nothing.")
def check(out: str | None, explain: str | None, **asked: Any) -> None:
    """Check the data set OUT, a folder or an fsspec URL.

    SKIP and UNKNOWN are results of their own: they never count as PASS. Nothing is written into OUT, unless reports are
    to be kept in OUT/audits, which no seal covers.

    \b
    Example:
      lps-audit check out/
      lps-audit check s3://bucket/ffpp-c23 --checks L,B1 --json report.json --strict
      lps-audit check out/ --level full --junit audit.xml
      lps-audit check out/ --level deep --source /data/FaceForensics --reports out/audits
      lps-audit check out/ --checks L11 --embeddings arcface.parquet
      lps-audit check --explain L1
    """
    from lps.manifests.audit.core.policy import read_policy

    suite = full_suite()
    policy = read_policy(asked["policy_file"], limits=suite.limits, checks=suite.ids)
    suite = suite.with_policy(policy)
    if asked["embeddings_file"]:
        suite = suite.with_embeddings(asked["embeddings_file"])
    if explain:
        _explain(suite, explain)
        return
    if out is None:
        raise click.UsageError("Missing argument 'OUT'.")
    _check_outputs(out, asked)
    asked["gallery"] = _gallery(asked["gallery"], asked["html_file"])
    if asked["level"] == Level.DEEP:
        require("prep", "lps-audit check --level deep")
    _audit(out, suite, policy, asked)


def full_suite() -> "Suite":
    """Return all checks, with those that decode."""
    from lps.manifests.audit.run import base_suite
    from lps.pipeline.tools import recheck

    return base_suite().concat(recheck.CHECKS, recheck.LIMITS)


def _audit(out: str, suite: "Suite", policy: "Policy", asked: dict[str, Any]) -> None:
    from lps.cli.audit.view import AuditView
    from lps.manifests.audit.core.database import open_dataset
    from lps.manifests.audit.run import run_audit

    selection = _selection(suite, asked["checks"])
    with open_dataset(out, asked["split_set"], asked["source"], suite.limits) as ctx:
        with AuditView(len(suite.chosen(selection)), quiet=asked["quiet"]) as view:
            audit = run_audit(
                ctx, suite, policy, level=Level(asked["level"]), selection=selection, strict=asked["strict"],
                on_result=view.on_result,
            )  # fmt: skip
        kept = _write(audit, ctx.store, asked)  # before anything is shown, which may wait for a pager
        if not asked["quiet"] and not is_stdout(asked["json_to"]):
            view.print_end(audit, problems_only=asked["problems_only"])
        if kept and not asked["quiet"]:
            echo(f"reports: {kept}", err=is_stdout(asked["json_to"]))
    raise click.exceptions.Exit(audit.exit_code)


def _selection(suite: "Suite", checks: str) -> tuple[str, ...]:
    selection = tuple(part for part in checks.replace(" ", "").split(",") if part)
    try:
        suite.chosen(selection)
    except KeyError as e:
        raise click.BadParameter(
            f"no class or check {e}; classes are A T L B C R, checks {', '.join(suite.ids)}", param_hint="--checks"
        ) from e
    return selection


def _check_outputs(out: str, asked: dict[str, Any]) -> None:
    """Find out before the audit, not after it, that a report cannot be written, or would spoil the data set."""
    for name, key in REPORTS.items():
        place = asked[key]
        if place is None or (name == "json" and is_stdout(place)):
            continue
        if name != "reports" and not place.absolute().parent.is_dir():
            raise click.BadParameter(f"no folder {place.absolute().parent}", param_hint=f"--{name}")
        if _lies_in(place, out) and not _lies_in(place, f"{out}/audits"):
            raise click.BadParameter("reports do not belong into OUT, but for OUT/audits", param_hint=f"--{name}")


def _gallery(given: str, page: Path | None) -> str:
    from lps.manifests.pages.html import gallery_address, is_page_address

    address = gallery_address(given, page.absolute().parent if page else None)
    if not is_page_address(address):
        raise click.BadParameter(f"'{given}' is no relative, file:, http: or https: address", param_hint="--gallery")
    return address


def _lies_in(place: str | Path, folder: str) -> bool:
    one, other = (str(p) if "://" in str(p) else str(Path(p).resolve()) for p in (place, folder))
    return f"{one.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")


def _write(audit: "Audit", store: "Store", asked: dict[str, Any]) -> str:
    """Write the reports, and return the folder of those that --reports keeps, if any."""
    from lps.manifests.canonical import pretty_json
    from lps.manifests.storage import open_store

    record = pretty_json(audit.record())
    page = _page(audit, store, asked["gallery"]) if asked["html_file"] or asked["reports_dir"] else b""
    if asked["json_to"]:
        write_output(asked["json_to"], record)
    if asked["html_file"]:
        write_output(asked["html_file"], page)
    if asked["junit_file"]:
        from lps.manifests.audit.report.junit import junit_xml

        write_output(asked["junit_file"], junit_xml(audit.record(), audit.results))
    if not asked["reports_dir"]:
        return ""
    reports = open_store(asked["reports_dir"])
    files = {"report.json": record, "report.html": page, "findings.parquet": audit.findings()}
    for name, data in files.items():
        reports.publish(f"{audit.audit_id}/{name}", data)
    return reports.join(audit.audit_id)


def _page(audit: "Audit", store: "Store", gallery: str) -> bytes:
    from lps.manifests.audit.report.page import render_html

    return render_html(audit.record(), store, gallery=gallery).encode()


def _explain(suite: "Suite", check_id: str) -> None:
    from lps.cli.audit.view import explained

    specs = suite.specs(check_id.strip().upper())
    if not specs:
        raise click.BadParameter(f"no check '{check_id}'; checks are {', '.join(suite.ids)}", param_hint="--explain")
    for spec in specs:
        echo(explained(spec, suite.limits))


@main.command()
@click.argument("out")
@click.option("--split-set", help="Split set whose balance is shown  [default: the one the shards were made for].")
@json_option
def show(out: str, split_set: str | None, json_to: Path | None) -> None:
    """Show what OUT holds: counts by split, label, method and code, its split sets, how far it is sealed, and
    whether its certificate is of the present state.

    \b
    Example:
      lps-audit show s3://bucket/ffpp-c23
    """
    from lps.cli.audit.contents import contents_of, print_contents
    from lps.manifests.audit.core.database import open_dataset

    with open_dataset(out, split_set) as ctx:
        found = contents_of(ctx)
    show_or_write(json_to, found.record, lambda: print_contents(found))


@main.command()
@click.argument("out")
@click.option("--split-set", help="Split set whose groups are kept whole  [default: the one of the shards].")
@click.option("--max-clips", type=click.IntRange(min=60), help="Videos to look at, one clip each  [default: 4000].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Chooses videos and folds.")
@click.option("--no-store", is_flag=True, help="Only show it: OUT stays as it is.")
@json_option
def shortcuts(
    out: str, split_set: str | None, max_clips: int | None, seed: int, no_store: bool, json_to: Path | None
) -> None:  # noqa: E501, FBT001
    """Measure how well the label is told by what is no forgery, and keep it in OUT/shortcuts.json for `show`.

    Each alone: metadata, bit rate, names, order, face size, geometry, thumbnails, power spectrum, the first frame. AUCs
    are of people that were not learnt from; 0.5 tells nothing. The same data, options and package versions give the
    same panel. Exit code 4 if OUT cannot be read or written, or pictures of it cannot be read.

    \b
    Example:
      lps-audit shortcuts out/ --split-set ranked --max-clips 10000
    """
    from lps.cli.audit.panel_view import print_panel
    from lps.manifests.audit.core.database import open_dataset
    from lps.manifests.shortcuts.panel import MAX_CLIPS, measure_panel
    from lps.manifests.shortcuts.records import store_panel

    with open_dataset(out, split_set) as ctx:
        found = measure_panel(ctx, max_clips=max_clips or MAX_CLIPS, seed=seed)
    if found.unread:
        raise UnreadableError(f"pictures of {len(found.unread)} clips cannot be read; {found.unread[0]}")
    if not no_store:
        store_panel(ctx.store, found.panel)
    show_or_write(json_to, found.panel.record, lambda: print_panel(found.panel))


@main.command()
@click.argument("a")
@click.argument("b")
@json_option
def diff(a: str, b: str, json_to: Path | None) -> None:
    """Say what changed from data set A to data set B: videos, clips, splits and parameters.

    Exit code 1 if videos of a split set moved although its rule is the same: no append does that.

    \b
    Example:
      lps-audit diff out-2024/ out-2025/
    """
    from lps.manifests.audit.diff import diff_datasets
    from lps.manifests.storage import open_store

    found = diff_datasets(open_store(a), open_store(b))
    show_or_write(json_to, found.record, lambda: echo("\n".join(found.lines())))
    if found.moved_without_new_rule:
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("out")
@click.option("--key", type=EXISTING, help="Private ssh key that signs the seal.")
@click.option("--allow-transient", is_flag=True, help="Seal although another run may cure some videos.")
def seal(out: str, key: Path | None, allow_transient: bool) -> None:  # noqa: FBT001
    """Seal OUT: record the digest of every file, chained to the seal before.

    An unsigned seal is evidence against accidents only; keep a copy of its digest, or sign it.

    \b
    Example:
      lps-audit seal out/ --key ~/.ssh/id_ed25519
    """
    from lps.manifests.audit.core.seal import seal_dataset, sign_seal
    from lps.manifests.storage import open_store

    store = open_store(out)
    made = seal_dataset(store, allow_transient=allow_transient)
    state = f"signed ({sign_seal(store, made, key)})" if key else "sealed, not signed"
    echo(f"seal {made.number}: {len(made.files)} files, sha256 {made.sha256}, Merkle root {made.merkle_root}")
    echo(state)


@main.command()
@click.argument("out")
@click.option(
    "--level", type=click.Choice([str(Level.QUICK), str(Level.FULL)]), help="How much is read  [default: full]."
)
@click.option("--split-set", help="Split set to certify  [default: the one the shards were made for].")
@click.option("--policy", "policy_file", type=EXISTING, help="TOML file with limits, severities, waivers and such.")
@click.option("--key", type=EXISTING, help="Private ssh key that signs the certificate.")
@click.option("--verify", is_flag=True, help="Make it again and compare, instead of writing it.")
@click.option("--signers", type=EXISTING,
              help="--verify: file of ssh-keygen(1) with the keys that may sign  [default: the policy's].")  # fmt: skip
def certify(out: str, **asked: Any) -> None:
    """Write certificate.json into OUT: digests, what an audit measured, and its verdict, for others to recompute.

    Equal data, policy and versions give equal bytes. --verify takes level and split set from the certificate, and
    prints a line for each value that is another one now.

    \b
    Exit codes: 0 the certificate is written, or everything was recomputed, whatever the verdict in it; 3 wrong usage,
    or another policy; 4 the data set or the certificate cannot be read; 5 the certificate or its signature is not that
    of the data set; 6 made by other versions, and what only these can tell differs.

    \b
    Example:
      lps-audit certify out/ --key ~/.ssh/id_ed25519
      lps-audit certify out/ --verify --signers signers
    """
    from lps.manifests.audit.core.policy import read_policy

    for name in ("level", "split_set", "key") if asked["verify"] else ("signers",):
        if asked[name]:
            other = "does not go with" if asked["verify"] else "is for"
            raise click.UsageError(f"--{name.replace('_', '-')} {other} --verify")
    suite = full_suite()
    policy = read_policy(asked["policy_file"], limits=suite.limits, checks=suite.ids)
    if asked["verify"]:
        raise click.exceptions.Exit(_verify(out, suite.with_policy(policy), policy, asked["signers"]))
    _certify(out, suite.with_policy(policy), policy, asked)


def _certify(out: str, suite: "Suite", policy: "Policy", asked: dict[str, Any]) -> None:
    from lps.manifests.audit.certify import publish_certificate, refuse_expired

    refuse_expired(policy, datetime.now(UTC).date())
    level = Level(asked["level"] or Level.FULL)
    store, record = _audited(out, suite, policy, level, asked["split_set"])
    sha256, signed = publish_certificate(store, record, asked["key"])
    echo(f"{store.join('certificate.json')}: verdict {record['verdict']}, level {level}, {signed}, sha256 {sha256}")


def _audited(
    out: str, suite: "Suite", policy: "Policy", level: Level, split_set: str | None
) -> "tuple[Store, dict[str, Any]]":
    from lps.cli.audit.view import AuditView
    from lps.manifests.audit.certify import make_certificate
    from lps.manifests.audit.core.database import open_dataset

    with open_dataset(out, split_set, None, suite.limits) as ctx, AuditView(len(suite.ids)) as view:
        return ctx.store, make_certificate(ctx, suite, policy, level, view.on_result)


def _verify(out: str, suite: "Suite", policy: "Policy", signers: Path | None) -> int:
    """Make a certificate again, say where it differs, and return the exit code."""
    from lps.manifests.audit.certify import Verification, require_policy, signature_fault
    from lps.manifests.certificates.record import CERTIFICATE_JSON, read_certificate
    from lps.manifests.storage import open_store

    store = open_store(out)
    found = read_certificate(store)
    if found is None:
        raise UnreadableError(f"{store.url} has no {CERTIFICATE_JSON}; `lps-audit certify` makes it")
    require_policy(found, policy)
    _, made = _audited(out, suite, policy, Level(found.values["level"]), found.split_set)
    signature, fault = signature_fault(store, policy, signers)
    verified = Verification.of(found, made, fault)
    for line in verified.lines():
        echo(line)
    echo(f"{store.join(CERTIFICATE_JSON)}: {verified.said()}; {signature}; verdict in it {found.values['verdict']}")
    return verified.exit_code
