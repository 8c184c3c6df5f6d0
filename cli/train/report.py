"""`lps-train report`: runs and evaluations as one page."""

from pathlib import Path
from typing import Any

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
@click.option("--gallery", default="", metavar="URL|FOLDER",
              help="Gallery of `lps-prep preview --html`: its address as seen from the report, or its folder here; "
              "errors link to their clips.")  # fmt: skip
@click.option("--threshold", "thresholds", multiple=True, metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path),
              help="Threshold of `lps-train evaluate --save-threshold` to show, too; may be given again.")  # fmt: skip
def report(runs: tuple[Path, ...], html: Path, gallery: str, errors: int, **asked: tuple[Any, ...]) -> None:
    """Show runs and evaluations, side by side, as one self-contained HTML page.

    RUN is the folder of a run, finished or not, or of `lps-train evaluate`: configuration and what differs, data,
    curves, metrics with 95 % intervals, errors by method and compression, what thresholds do, drawn figures in the
    folders, and the worst errors with their frames.

    \b
    Example:
      lps-train report runs/cls runs/ssd runs/eval-cls runs/eval-ssd --html report.html
      lps-train report runs/eval-cls --data out/ --gallery gallery/ --threshold thr.json
    """
    from lps.manifests.errors import UnreadableError
    from lps.manifests.pages.html import gallery_address, is_page_address
    from lps.manifests.storage import open_store
    from lps.model.report.page import ReportOptions, render_report

    if not html.absolute().parent.is_dir():
        raise UnreadableError(f"cannot write {html}: no folder {html.absolute().parent}; make it, or name another file")
    address = gallery_address(gallery, html.absolute().parent)
    if not is_page_address(address):
        raise click.BadParameter(f"'{gallery}' is no folder, relative, file:, http: or https: address",
                                 param_hint="--gallery")  # fmt: skip
    options = ReportOptions(n_errors=errors, gallery=address, **asked)
    page = render_report(runs, options)
    open_store(str(html.absolute().parent)).publish(html.name, page.encode())
    echo(html)
