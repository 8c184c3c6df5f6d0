"""Types of the arrays that all packages pass around, the template that faces are aligned to, and where a face lies.

`[crop] margin` of `lps-prep` stores the same alignment with more around it. `out_size` of `clips` is the side of the
stored images; the name of the template has the side of the inner square: `arcface5-224x0.85`, and `box-224` of clips
that were cropped instead. Output px are px of the inner square: `align_M` leads to them, and what is measured in them
is the same with any margin. The inner square lies in the middle of the image. Where the two sides differ by an odd
number, the one px left over is at the right and at the bottom, so that nothing is moved by half a px.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]
"""(..., H, W, 3) RGB."""

ARCFACE_112: Floats = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Eyes, nose and mouth corners of the five-point ArcFace template, (5, 2), in 112 x 112 px."""

TEMPLATE, CROPPED = "arcface5", "box"
"""First part of a template's name: of clips that were aligned, and of those that were cropped by the face's box."""
MIN_MARGIN, MAX_MARGIN = 1.0, 2.0
"""Sides of a square around the face, in sides of the inner square."""
_SIDE = re.compile(r"-(\d{1,5})(?:x[\d.]+)?$")
_SIDE_SQL = r"try_cast(regexp_extract(align_template, '-(\d{1,5})(x[\d.]+)?$', 1) AS INTEGER)"
INNER_SQL = f"CASE WHEN {_SIDE_SQL} BETWEEN 1 AND out_size THEN {_SIDE_SQL} ELSE out_size END"
"""`inner_side` in SQL, of a row of `clips`."""


@dataclass(frozen=True, slots=True)
class Square:
    """A square of a stored image, which is square, too."""

    stored_px: int
    """Side of the image."""
    inner_px: int
    """Side of the inner square of the image."""
    first_px: int
    """Its left and its upper edge."""
    side_px: int

    @property
    def end_px(self) -> int:
        """The px after its last one, to the right and below."""
        return self.first_px + self.side_px


def template_name(side_px: int, scale: float | None, margin: float) -> str:
    """Return the name of a template: of faces `scale` times the usual size, or of crops where that is None."""
    if scale is not None:
        return f"{TEMPLATE}-{side_px}x{scale:g}"
    return CROPPED if margin == 1 else f"{CROPPED}-{side_px}"


def is_cropped(template: str) -> bool:
    """Tell whether a template is of clips that were cropped instead of aligned."""
    return template == CROPPED or template.startswith(f"{CROPPED}-")


def margin_side(inner_px: int, margin: float) -> int:
    """Return the side, px, of the square that is `margin` times the inner one."""
    return round(inner_px * margin)


def inner_side(template: str | None, stored_px: int) -> int:
    """Return the side of the inner square, px; that of the image where the template names none that fits in it."""
    side = _named_side(template)
    return side if 1 <= side <= stored_px else stored_px


def _named_side(template: str | None) -> int:
    found = _SIDE.search(template or "")
    return int(found[1]) if found else 0


def inner_sides(templates: "pa.ChunkedArray", stored_px: Ints) -> Ints:
    """Return `inner_side` of every clip."""
    codes = templates.combine_chunks().dictionary_encode()
    named = np.array([*(_named_side(name) for name in codes.dictionary.to_pylist()), 0], np.int64)
    sides = named[codes.indices.fill_null(len(named) - 1).to_numpy()]
    return np.where((sides >= 1) & (sides <= stored_px), sides, stored_px)


def square_of(stored_px: int, inner_px: int, margin: float = 1.0) -> Square:
    """Return the square `margin` times the inner one, about the same middle.

    Raises ValueError where it does not lie within the image.
    """
    side = margin_side(inner_px, margin)
    if not 0 < side <= stored_px:
        raise ValueError(f"a square of {side} px does not lie within an image of {stored_px} px")
    return Square(stored_px, inner_px, (stored_px - inner_px) // 2 - (side - inner_px) // 2, side)


def check_margin(name: str, margin: float) -> None:
    """Raise ValueError for a margin that nothing can be stored or cut with."""
    if not MIN_MARGIN <= margin <= MAX_MARGIN:
        raise ValueError(f"{name} must be from {MIN_MARGIN:g} to {MAX_MARGIN:g}, got {margin}")
