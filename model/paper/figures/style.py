"""One look for all figures: colours of Okabe and Ito, which colour-blind readers tell apart, and printable marks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

REAL, FAKE = "#0072B2", "#D55E00"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
}


@contextmanager
def figure(path: Path, width_inches: float = 6.0, height_inches: float = 3.6) -> Iterator[Any]:
    """Give a Matplotlib figure and write it to `path` as PNG at the end; needs no display."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(width_inches, height_inches))
        FigureCanvasAgg(drawn)
        yield drawn
        path.parent.mkdir(parents=True, exist_ok=True)
        # No time and no version in the file: the same figure has the same bytes.
        drawn.savefig(path, format="png", metadata={"Software": None})


def picture(
    ax: Any,
    image: "NDArray[Any]",
    low: float | None = None,
    high: float | None = None,
    *,
    colours: str = "gray",
    smooth: bool = True,
) -> None:
    """Show an image (H, W, 3), or a map (h, w) between two values, without axes; its title and label stay free."""
    enlarged = "bilinear" if smooth else "nearest"
    interpolation = enlarged if image.ndim == 2 else "antialiased"
    ax.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation=interpolation)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
