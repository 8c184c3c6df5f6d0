"""`lps-train report`: runs and evaluations as one page."""

from pathlib import Path

import click

from lps.cli.common import LpsCommand, echo

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=LpsCommand)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--html", type=FILE, default="report.html", show_default=True, help="File of the page; replaced if there."
)
@click.option("--data", multiple=True, metavar="OUT",
              help="Data set of lps-prep to take frames of errors from, folder or URL; may be given again.  "
              "[default: the folders that the runs name]")  # fmt: skip
@click.option("--errors", type=click.IntRange(min=0, max=100), default=8, show_default=True,
              help="Errors to show for each evaluation.")  # fmt: skip
def report(runs: tuple[Path, ...], html: Path, data: tuple[str, ...], errors: int) -> None:
    """Show runs and evaluations, side by side, as one self-contained HTML page.

    RUN is the folder of a run, finished or not, or of `lps-train evaluate`: configuration and what differs, data,
    curves, metrics with 95 % intervals, drawn figures in the folders, and the worst errors with their frames.

    \b
    Example:
      lps-train report runs/cls runs/ssd runs/eval-cls runs/eval-ssd --html report.html
    """
    from lps.manifests.errors import UnreadableError
    from lps.manifests.storage import open_store
    from lps.model.report.page import render_report

    if not html.absolute().parent.is_dir():
        raise UnreadableError(f"cannot write {html}: no folder {html.absolute().parent}; make it, or name another file")
    page = render_report(runs, data, errors)
    open_store(str(html.absolute().parent)).publish(html.name, page.encode())
    echo(html)
