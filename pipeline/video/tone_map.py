"""Pictures of PQ and HLG video (ITU-R BT.2100) as the 8-bit BT.709 pictures that all others are.

Light is that of a display of PEAK_NITS: PQ by its EOTF, HLG by its inverse OETF and the OOTF of gamma 1.2 (BT.2100). It
is converted to the primaries of BT.709, and the largest of the three channels goes through the EETF of ITU-R BT.2390 (a
Hermite spline above a knee, in PQ), which brings PEAK_NITS down to WHITE_NITS, the reference white of ITU-R BT.2408.
The others keep their ratio to it. The inverse of BT.1886 (gamma 2.4) gives the code values.

Pixels go through tables, and only correctly rounded operations of float32 join them: the same bytes on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

from lps.manifests.arrays import Floats

WHITE_NITS = 203.0
"""What a graphics white has in PQ and HLG, and what becomes the white of SDR."""
PEAK_NITS = 1000.0
"""Brightest light that is told apart: the nominal peak of HLG, and where most PQ is mastered."""
HLG_GAMMA = 1.2
SDR_GAMMA = 2.4

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
WHITE_XY = (0.3127, 0.3290)
BT709: Chromaticities = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
BT2020: Chromaticities = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
P3: Chromaticities = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
PRIMARIES = {int(ColorPrimaries.BT709): BT709, int(ColorPrimaries.SMPTE432): P3}
"""All others, and those that a file does not name, are BT.2020, which BT.2100 prescribes."""

ROWS = 32
"""Rows that are mapped at a time: their numbers stay in the cache of a core."""
STEPS = 65535


def pq_light(signal: Floats) -> Floats:
    """Return the light in nits that PQ shows for a signal of 0 to 1 (SMPTE ST 2084)."""
    root = np.power(signal, 32 / 2523)
    return 10_000.0 * np.power(np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root), 16384 / 2610)


def pq_signal(nits: Floats) -> Floats:
    """Return the PQ signal, 0 to 1, of light in nits: the inverse of `pq_light`."""
    root = np.power(nits / 10_000.0, 2610 / 16384)
    return np.power((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root), 2523 / 32)


def hlg_scene(signal: Floats) -> Floats:
    """Return the light of the scene, 0 to 1, of an HLG signal of 0 to 1: the inverse OETF of BT.2100."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def eetf(nits: Floats) -> Floats:
    """Return what BT.2390 makes of light from 0 to PEAK_NITS on a display that ends at WHITE_NITS. Blacks are equal."""
    peak, white = pq_signal(np.array([PEAK_NITS, WHITE_NITS]))
    most = white / peak
    knee = 1.5 * most - 0.5
    e = pq_signal(nits) / peak
    t = np.clip((e - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return np.minimum(pq_light(np.where(e < knee, e, spline) * peak), WHITE_NITS)


def to_xyz(primaries: Chromaticities) -> Floats:
    """Return the 3x3 matrix from linear RGB of these primaries and D65 to CIE XYZ."""

    def xyz(x: float, y: float) -> tuple[float, float, float]:
        return x / y, 1.0, (1 - x - y) / y

    columns = np.array([xyz(*point) for point in primaries]).T
    return columns * np.linalg.solve(columns, np.array(xyz(*WHITE_XY)))


@dataclass(frozen=True, slots=True, eq=False)
class ToneMap:
    """Tables for one transfer function and one set of primaries."""

    light: NDArray[np.float32]
    """Signal of 16 bits to light, 1 for PEAK_NITS; for HLG that of the scene."""
    luma: NDArray[np.float32] | None
    """Weights (3,) of the luminance that HLG's OOTF asks for; None for PQ."""
    ootf: NDArray[np.float32]
    """Square root of that luminance, in steps, to what its light is multiplied by."""
    gamut: NDArray[np.float32]
    """3x3: linear light to that of BT.709."""
    gain: NDArray[np.float32]
    """Square root of the largest channel, in steps, to what the three are multiplied by; 1 is then WHITE_NITS."""
    code: NDArray[np.uint8]
    """Square root of a channel, in steps, to its value in the picture."""

    def apply(self, rgb48: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Return the (H, W, 3) picture of 8 bits of one of 16 bits a channel, full range."""
        out = np.empty(rgb48.shape, np.uint8)
        for top in range(0, len(rgb48), ROWS):
            out[top : top + ROWS] = self._mapped(rgb48[top : top + ROWS])
        return out

    def _mapped(self, rgb48: NDArray[np.uint16]) -> NDArray[np.uint8]:
        planes = [self.light.take(rgb48[..., k]) for k in range(3)]
        if self.luma is not None:
            factor = self.ootf.take(_steps(_mixed(planes, self.luma)))
            planes = [plane * factor for plane in planes]
        planes = [_mixed(planes, row) for row in self.gamut]
        factor = self.gain.take(_steps(np.maximum(np.maximum(planes[0], planes[1]), planes[2])))
        return np.stack([self.code.take(_steps(plane * factor)) for plane in planes], axis=-1)


def _mixed(planes: list[NDArray[np.float32]], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    # one operation after the other: a product of matrices may round in another order elsewhere
    return np.asarray(planes[0] * weights[0] + planes[1] * weights[1] + planes[2] * weights[2], np.float32)


def _steps(light: NDArray[np.float32]) -> NDArray[np.int32]:
    # dark tones are close together, so tables are even in the square root
    return np.asarray(np.sqrt(light.clip(0, 1)) * np.float32(STEPS), np.int32)


def _tables(light: Callable[[Floats], Floats], luma: Floats | None, primaries: Chromaticities) -> ToneMap:
    even = np.arange(STEPS + 1) / STEPS
    squares = ((np.arange(STEPS + 1) + 0.5) / STEPS) ** 2
    shown = eetf(squares.clip(0, 1) * PEAK_NITS) / WHITE_NITS
    return ToneMap(
        light=light(even).clip(0, 1).astype(np.float32),
        luma=None if luma is None else luma.astype(np.float32),
        ootf=np.power(squares, HLG_GAMMA - 1).astype(np.float32),
        gamut=np.linalg.solve(to_xyz(BT709), to_xyz(primaries)).astype(np.float32),
        gain=(shown / squares).astype(np.float32),
        code=np.rint(255 * np.power(squares.clip(0, 1), 1 / SDR_GAMMA)).astype(np.uint8),
    )


@cache
def tone_map_of(transfer: int, primaries: int) -> ToneMap | None:
    """Return the tables for the code points of a stream (ITU-T H.273); None for video that is SDR already."""
    chosen = PRIMARIES.get(primaries, BT2020)
    if transfer == ColorTrc.SMPTE2084:
        return _tables(lambda signal: pq_light(signal) / PEAK_NITS, None, chosen)
    if transfer == ColorTrc.ARIB_STD_B67:
        return _tables(hlg_scene, to_xyz(chosen)[1], chosen)
    return None
