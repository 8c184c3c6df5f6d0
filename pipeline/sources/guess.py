"""Which layout a source has, told from the paths of its files alone: `--dataset auto`.

A layout is recognised by paths that only it has. Of several, or where most videos are named otherwise, none is taken:
a wrong adapter would give wrong labels. `folder` is what is left where `real/` or `fake/` is there and no other fits.
"""

from collections.abc import Iterable

from lps.manifests.errors import RefusedError
from lps.pipeline.sources.adapters import LAYOUTS
from lps.pipeline.sources.shared.types import is_video

GENERIC = "folder"
_SEE = "`lps-prep sources` tells what each looks like"


def guess_layout(paths: Iterable[str]) -> tuple[str, str]:
    """Return the layout of the files at these paths, and a line that says why.

    Raises RefusedError, with the candidates, where not exactly one layout fits.
    """
    files = sorted(paths)
    videos = [path for path in files if is_video(path)]
    found = {layout.id: layout.found_in(files) for layout in LAYOUTS.values()}
    fitting = {id: evidence for id, evidence in found.items() if evidence[0]}
    beaten = {id for winner in fitting for id in LAYOUTS[winner].beats}
    if set(fitting) != {GENERIC}:
        beaten.add(GENERIC)
    left = {id: evidence for id, evidence in fitting.items() if id not in beaten}
    said = " and ".join(f"{id} (by {first}; {n} paths fit)" for id, (n, first) in left.items())
    if not left:
        raise RefusedError(
            f"--dataset auto: no layout fits the {len(files)} files of the source, such as {files[0]}; give one of "
            f"{', '.join(LAYOUTS)}: {_SEE}"
        )
    if len(left) > 1:
        raise RefusedError(f"--dataset auto: the source looks like {said}; give one with --dataset: {_SEE}")
    (id, (n, first)) = next(iter(left.items()))
    if id != GENERIC and 2 * sum(map(LAYOUTS[id].has, videos)) < len(videos):
        raise RefusedError(
            f"--dataset auto: the source looks like {said}, but most of its {len(videos)} videos do not; "
            f"give --dataset {id}, or another: {_SEE}"
        )
    return id, f"--dataset auto: read as {id} ({LAYOUTS[id].title}) by {first}; {n} paths fit"
