"""Networks, losses, shard reader and trainer of Latent Pattern Sensing."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lps.model.encoder import Act
    from lps.model.reference import Reference


def load_reference(path: Path | str, *, feature_act: "Act" = "pool_relu") -> "Reference":
    """Load published MemDPC, LPS or I3D weights; see `lps.model.reference`, which is imported by this call only."""
    from lps.model import reference

    return reference.load_reference(path, feature_act=feature_act)
