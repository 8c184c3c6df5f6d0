"""What `lps-prep preview` writes: the contact sheet, or the gallery."""

from pathlib import Path
from typing import Any

import click

from lps.cli.common import ProgressView, echo
from lps.cli.extras import require

PAGE_SUFFIXES = (".html", ".htm")


def write_sheet(out: str, asked: dict[str, Any]) -> None:
    """Draw the contact sheet."""
    from lps.pipeline.tools.preview import draw_preview

    path: Path = asked["target"] or Path("preview.png")
    if path.is_dir():
        raise click.BadParameter(f"{path} is a folder; give a PNG file", param_hint="--to")
    draw_preview(out, path, per_row=asked["per_row"] or 8)
    echo(f"wrote {path}")


def write_gallery(out: str, asked: dict[str, Any]) -> None:
    """Write the gallery, with progress on stderr."""
    from lps.pipeline.tools.gallery.asked_keys import read_keys
    from lps.pipeline.tools.gallery.page import GalleryRequest, make_gallery

    if asked["source"]:
        require("prep", "lps-prep preview --source")
    target: Path = asked["target"] or Path("gallery.html" if asked["self_contained"] else "gallery")
    request = GalleryRequest(
        out=out,
        page=target if target.suffix.lower() in PAGE_SUFFIXES else target / "index.html",
        n_clips=asked["clips"] or 200,
        keys=read_keys(asked["first"]) if asked["first"] else (),
        source=asked["source"],
        self_contained=asked["self_contained"],
    )
    with ProgressView() as view:
        view.start("drawing", 0)
        made = make_gallery(request, lambda done, total: _update(view, done, total))
    echo(f"wrote {request.page}: {made.n_clips} clips, {made.n_rejects} rejects")
    if made.n_unread:
        echo(f"{made.n_unread} clips have no readable frame: check the data set with lps-audit", err=True)
    if made.n_absent:
        echo(f"{made.n_absent} of those in {asked['first']} are not in the data set, or more than --clips", err=True)


def _update(view: ProgressView, done: int, total: int) -> None:
    if done <= 1:
        view.start("drawing", total)
    view.update(done)
