"""`lps-train score`: raw videos in, a score for each video, face and clip out."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lps.cli.common import SEE_CODES, LpsCommand, ProgressView, console, echo, is_stdout, write_output
from lps.manifests.errors import RefusedError
from lps.manifests.names import LOCALIZERS, SCORED_FACES, VIDEO_RULES, Role

if TYPE_CHECKING:
    from lps.cli.train.score_files import Record, ScoreFiles
    from lps.cli.train.scoring import Scorer

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
STREAM = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
SEEN = {
    Role.LABELS: "the detector learnt from this file",
    Role.FRAMES: "the detector was pretrained on this file, without its label",
    Role.VALIDATION: "the checkpoint, or one that it started from, was chosen by its metrics on this file",
}
MAX_NAMED = 5
"""Videos without a score that the last line names."""


@click.command(cls=LpsCommand)
@click.argument("videos", nargs=-1, metavar="VIDEO...")
@click.option("--list", "list_file", type=STREAM, help="File with a VIDEO a line, besides those named; - is stdin.")
@click.option("--checkpoint", required=True, type=FILE, help="Detector: a checkpoint of classify or distill.")
@click.option("--threshold", metavar="FILE|x", help="Called fake above it: a number, or a file of "
              "`evaluate --save-threshold`.  [default: 0.5]")  # fmt: skip
@click.option("--localizer", type=click.Choice(LOCALIZERS), help="Face detector.  [default: that of the checkpoint]")
@click.option("--weights-dir", type=FOLDER, help="Folder of the localizer's weights.")
@click.option("--faces", type=click.Choice(SCORED_FACES), default="all", show_default=True,
              help="Faces that are scored.")  # fmt: skip
@click.option("--video-score", type=click.Choice(VIDEO_RULES), default="max", show_default=True,
              help="Score of a video: its highest face (mean of its clips), or the mean of all clips.")  # fmt: skip
@click.option("--out", type=FOLDER, help="Folder for NAME.json and the timeline NAME.png of each video.")
@click.option("--jsonl", type=FILE, help="File that gets each record, a line, as soon as its video is done.")
@click.option("--csv", "csv_file", type=STREAM, help="File that gets a row for each video at the end; - is stdout.")
@click.option("--json", "as_json", is_flag=True, help="Print the records instead of a table.")
def score(videos: tuple[str, ...], list_file: Path | None, **asked: Any) -> None:
    """Score raw videos: how likely each is a fake, by face and by clip.

    VIDEO is a file, a folder, whose videos are scored at any depth, or a pattern in quotes ('clips/**/*.mp4'). Videos
    are prepared as the clips were that the detector learnt from, all clips of each. Every face is a track of its own:
    its score is the mean of its clips. A video is scored as `evaluate` scores it. Run again with the same --out or
    --jsonl, the command scores what has no record there.

    \b
    Exit codes: 0 every video has a score, 3 some have none (no face, too short, damaged: the code is shown; the others
    are scored first), 2, 4 and 5 as for all commands.

    \b
    Example:
      lps-train score a.mp4 b.mp4 --checkpoint runs/ssd/checkpoints/best.pt --out scores/
      lps-train score videos/ --checkpoint best.pt --threshold thr.json --jsonl scores.jsonl --csv scores.csv
    """
    from lps.cli.train.score_files import ScoreFiles, csv_bytes
    from lps.cli.train.score_inputs import find_videos
    from lps.cli.train.scoring import open_scorer
    from lps.cli.train.thresholds import parse_threshold
    from lps.manifests.canonical import pretty_json

    if asked["as_json"] and is_stdout(asked["csv_file"]):
        raise click.UsageError("--json and --csv - both want stdout; give --csv a file")
    paths = find_videos(videos, list_file)
    scorer = open_scorer(
        asked["checkpoint"],
        localizer=asked["localizer"],
        weights_dir=asked["weights_dir"],
        faces=asked["faces"],
        video_score=asked["video_score"],
        **({} if asked["threshold"] is None else {"threshold": parse_threshold(asked["threshold"])}),
    )
    for note in scorer.notes:
        echo(f"note: {note}", err=True)
    records = score_all(scorer, paths, ScoreFiles(scorer.facts, asked["out"], asked["jsonl"]))
    if asked["csv_file"]:
        write_output(asked["csv_file"], csv_bytes(records))
    if asked["as_json"]:
        echo(pretty_json(records), nl=False)
    elif not is_stdout(asked["csv_file"]):
        print_scores(records, asked["out"])
    refuse_unscored(records)


def score_all(scorer: "Scorer", paths: Sequence[Path], files: "ScoreFiles") -> list["Record"]:
    """Score each video that has no record yet, and write its files at once. On a terminal a bar shows how far it is."""
    from lps.cli.train.score_files import shown

    records: list[Record] = []
    n_known = 0
    with ProgressView(lines=False) as view:
        view.start("scoring", len(paths))
        for path in paths:
            view.update(len(records), what=f"scoring {shown(Path(path.name))}")
            record = files.known(path)
            n_known += record is not None
            if record is None:
                found = scorer.score(path)
                record = {**scorer.facts, **found.record(shown(path))}
                files.write(found, record)
            files.add(record)
            records.append(record)
        if n_known:
            view.say(f"note: {n_known} of {len(paths)} videos were scored before")
    return records


def print_scores(records: Sequence["Record"], out: Path | None) -> None:
    """Print a table: a line for each track, the video's own score beside the first."""
    from rich.markup import escape
    from rich.table import Column, Table

    from lps.cli.train.score_files import shown

    calibrated = any(record["video"]["p_calibrated"] is not None for record in records)
    table = Table(Column("video", overflow="fold"), "p(fake)", *(["calibrated"] if calibrated else []), "called",
                  "track", "mean", "clips", "lowest to highest clip", "seconds", "fault")  # fmt: skip
    for record in records:
        video = record["video"]
        sure = [_number(video["p_calibrated"])] if calibrated else []
        head = (escape(video["file"]), _number(video["p_fake"]), *sure, video["called"] or "-")
        if not record["tracks"]:
            table.add_row(*head, "-", "-", "0", "-", "-", escape(fault_of(record)))
        for k, track in enumerate(record["tracks"]):
            clips = [clip for clip in record["clips"] if clip["track"] == track["track"]]
            marks = [clip["p_fake"] for clip in clips]
            cells = (
                *(str(track["track"]), _number(track["p_fake"]), str(track["n_clips"])),
                f"{_number(min(marks))} to {_number(max(marks))}",
                f"{clips[0]['start_s']:.1f} to {clips[-1]['end_s']:.1f}",
            )
            first = k == 0
            table.add_row(*(head if first else [""] * len(head)), *cells, escape(fault_of(record)) if first else "")
    screen = console()
    screen.print(table)
    facts = records[0]
    screen.print(f"p(fake) of a {facts['rule']}; called fake above {facts['threshold']:.6g}", highlight=False)
    if calibrated:
        screen.print(f"calibrated with temperature {facts['threshold_from']['temperature']:.3g}", highlight=False)
    if any(record["video"]["code"] for record in records):
        screen.print(SEE_CODES, highlight=False, soft_wrap=True)
    for record in records:
        for role in record["video"]["seen"] or ():
            screen.print(f"{record['video']['file']}: {SEEN[Role(role)]}", highlight=False, markup=False)
    if out is not None:
        screen.print(f"records and timelines are in {shown(out)}", highlight=False, markup=False)


def fault_of(record: "Record") -> str:
    """Return what is wrong with a video, in words; empty for a sound one."""
    video = record["video"]
    if video["code"] is None:
        return ""
    return f"{video['code']}: {video['meaning']}" + (f" ({video['detail']})" if video["detail"] else "")


def _number(p_fake: float | None) -> str:
    return "-" if p_fake is None else f"{p_fake:.3f}"


def refuse_unscored(records: Iterable["Record"]) -> None:
    """Raise RefusedError that names the videos without a score, if there are any."""
    every = list(records)
    unscored = [record for record in every if not record["tracks"]]
    if not unscored:
        return
    named = "; ".join(f"{record['video']['file']}: {fault_of(record)}" for record in unscored[:MAX_NAMED])
    more = f"; and {len(unscored) - MAX_NAMED} more" if len(unscored) > MAX_NAMED else ""
    raise RefusedError(f"no score for {len(unscored)} of {len(every)} videos: {named}{more}")


score.extra = "all"  # it finds faces, too
