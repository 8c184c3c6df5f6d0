"""lps-train export: a detector as one file for other programs."""

from pathlib import Path

import click

from lps.cli.common import LpsCommand, echo


@click.command(cls=LpsCommand)
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.onnx|OUT.pt2")
@click.option(
    "--checkpoint",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoint of classify or distill.",
)
def export(out: Path, checkpoint: Path) -> None:
    """Export a detector as ONNX or as a torch.export program, by the suffix of OUT.

    The file takes any number of clips, each with as many frames, and of the same size, as the detector was trained on.
    Its logits are compared with the network's before it is kept. ONNX needs pip install 'lps-prep[export]'.

    \b
    Example:
      lps-train export detector.onnx --checkpoint runs/cls/checkpoints/best.pt
    """
    from lps.model.evaluation.export import export_detector
    from lps.model.evaluation.loading import load_detector

    done = export_detector(load_detector(checkpoint), out)
    echo(f"{done.path}: {done.n_bytes / 1e6:.1f} MB; logits within {done.difference:.1g} of the network's")
