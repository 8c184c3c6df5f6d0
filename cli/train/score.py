"""`lps-train score`: raw videos in, a score for each video, face and clip out."""

import json
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lps.cli.common import LpsCommand, ProgressView, console
from lps.manifests.errors import RefusedError
from lps.manifests.names import LOCALIZERS, SCORED_FACES, VIDEO_RULES, Role

if TYPE_CHECKING:
    from lps.cli.train.scoring import Scorer, VideoScore

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
SEEN = {
    Role.LABELS: "the detector learnt from this file",
    Role.FRAMES: "the detector was pretrained on this file, without its label",
    Role.VALIDATION: "the checkpoint, or one that it started from, was chosen by its metrics on this file",
}
MAX_NAMED = 5
"""Videos without a score that the last line names."""


@click.command(cls=LpsCommand)
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...", type=FILE)
@click.option("--checkpoint", required=True, type=FILE, help="Detector: a checkpoint of classify or distill.")
@click.option("--localizer", type=click.Choice(LOCALIZERS), help="Face detector.  [default: that of the checkpoint]")
@click.option("--weights-dir", type=FOLDER, help="Folder of the localizer's weights.")
@click.option("--faces", type=click.Choice(SCORED_FACES), default="all", show_default=True,
              help="Faces that are scored.")  # fmt: skip
@click.option("--video-score", type=click.Choice(VIDEO_RULES), default="max", show_default=True,
              help="Score of a video: its highest face (mean of its clips), or the mean of all clips.")  # fmt: skip
@click.option("--out", type=FOLDER, help="Folder for NAME.json and the timeline NAME.png of each video.")
@click.option("--json", "as_json", is_flag=True, help="Print the records instead of a table.")
def score(videos: tuple[Path, ...], **asked: Any) -> None:
    """Score raw videos: how likely each is a fake, by face and by clip.

    Videos are prepared as the clips were that the detector learnt from, all clips of each. Every face is a track of its
    own: its score is the mean of its clips. A video is scored as `evaluate` scores it.

    \b
    Exit codes: 0 every video has a score, 3 some have none (no face, too short, damaged: the code is shown; the others
    are scored first), 2, 4 and 5 as for all commands.

    \b
    Example:
      lps-train score a.mp4 b.mp4 --checkpoint runs/ssd/checkpoints/best.pt --out scores/
    """
    from lps.cli.train.scoring import open_scorer

    scorer = open_scorer(
        asked["checkpoint"],
        localizer=asked["localizer"],
        weights_dir=asked["weights_dir"],
        faces=asked["faces"],
        video_score=asked["video_score"],
    )
    for note in scorer.notes:
        click.echo(f"note: {note}", err=True)
    scores = score_all(scorer, videos, asked["out"])
    if asked["as_json"]:
        records = [{**scorer.facts, **each.record(shown(each.path))} for each in scores]
        click.echo(json.dumps(records, indent=2, ensure_ascii=False))
    else:
        print_scores(scores, scorer.facts["rule"], asked["out"])
    refuse_unscored(scores)


def score_all(scorer: "Scorer", videos: Iterable[Path], out: Path | None) -> list["VideoScore"]:
    """Score each video and, with `out`, write its files at once. On a terminal a bar shows how far it is."""
    scores: list[VideoScore] = []
    taken: set[str] = set()
    paths = list(videos)
    with ProgressView(lines=False) as view:
        view.start("scoring", len(paths))
        for path in paths:
            view.update(len(scores), what=f"scoring {shown(Path(path.name))}")
            found = scorer.score(path)
            if out is not None:
                write_files(found, scorer.facts, out, taken)
            scores.append(found)
    return scores


def shown(path: Path) -> str:
    """Return a path that can be printed, whatever bytes its name has."""
    return "".join(c if c.isprintable() else "?" for c in click.format_filename(path))


def write_files(score: "VideoScore", facts: Mapping[str, Any], out: Path, taken: set[str]) -> None:
    """Write NAME.json and, where there are clips, NAME.png into `out`. Raises UnreadableError.

    NAME is the file's name without its ending, numbered where it is in `taken` or another video's result has it.
    """
    from lps.cli.train.timeline import draw_timeline
    from lps.manifests.canonical import pretty_json
    from lps.manifests.storage import open_store

    record = {**facts, **score.record(shown(score.path))}
    name = free_name(out, score.path.stem, record["video"], taken)
    taken.add(name.casefold())
    store = open_store(str(out))
    if score.tracks:
        store.publish(f"{name}.png", draw_timeline(score, shown(Path(score.path.name))))
    else:
        (out / f"{name}.png").unlink(missing_ok=True)  # of an earlier run
    store.publish(f"{name}.json", pretty_json(record))


def free_name(out: Path, stem: str, video: Mapping[str, Any], taken: set[str]) -> str:
    """Return a name for the files of a video: no other video of this command or of an earlier one has it in `out`."""
    for n in count(1):
        name = stem if n == 1 else f"{stem}-{n}"
        if name.casefold() not in taken and _is_free(out / f"{name}.json", video):
            return name
    raise AssertionError("there is no last number")


def _is_free(path: Path, video: Mapping[str, Any]) -> bool:
    if not path.exists():
        return True
    try:
        found = json.loads(path.read_bytes())["video"]
        key = "sha256" if video["sha256"] else "file"
        return bool(found[key] == video[key])
    except (OSError, ValueError, LookupError, TypeError):
        return False  # somebody else's file


def print_scores(scores: Iterable["VideoScore"], rule: str, out: Path | None) -> None:
    """Print a table: a line for each track, the video's own score beside the first."""
    from rich.markup import escape
    from rich.table import Column, Table

    from lps.cli.train.scoring import called
    from lps.model.evaluation.scores import THRESHOLD

    table = Table(Column("video", overflow="fold"), "p(fake)", "called", "track", "mean", "clips",
                  "lowest to highest clip", "seconds", "fault")  # fmt: skip
    every = list(scores)
    for score in every:
        head = (escape(shown(score.path)), _number(score.p_fake), called(score.p_fake) or "-")
        if not score.tracks:
            table.add_row(*head, "-", "-", "0", "-", "-", escape(score.fault))
        for k, track in enumerate(score.tracks):
            marks = [clip.p_fake for clip in track.clips]
            cells = (
                *(str(track.number), _number(track.p_fake), str(len(marks))),
                f"{_number(min(marks))} to {_number(max(marks))}",
                f"{track.clips[0].start_s:.1f} to {track.clips[-1].end_s:.1f}",
            )
            table.add_row(*(head if k == 0 else ("", "", "")), *cells, escape(score.fault) if k == 0 else "")
    screen = console()
    screen.print(table)
    screen.print(f"p(fake) of a {rule}; called fake above {THRESHOLD}", highlight=False)
    for score in every:
        for role in score.seen or ():
            screen.print(f"{shown(score.path)}: {SEEN[role]}", highlight=False, markup=False)
    if out is not None:
        screen.print(f"records and timelines are in {shown(out)}", highlight=False, markup=False)


def _number(p_fake: float | None) -> str:
    return "-" if p_fake is None else f"{p_fake:.3f}"


def refuse_unscored(scores: Iterable["VideoScore"]) -> None:
    """Raise RefusedError that names the videos without a score, if there are any."""
    every = list(scores)
    unscored = [score for score in every if not score.tracks]
    if not unscored:
        return
    named = "; ".join(f"{shown(score.path)}: {score.fault}" for score in unscored[:MAX_NAMED])
    more = f"; and {len(unscored) - MAX_NAMED} more" if len(unscored) > MAX_NAMED else ""
    raise RefusedError(f"no score for {len(unscored)} of {len(every)} videos: {named}{more}")
