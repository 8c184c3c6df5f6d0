"""Networks, losses, shard reader and trainer of Latent Pattern Sensing."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lps.model.networks.published_weights import Reference
    from lps.model.networks.resnet2d3d import Act


def load_reference(path: Path | str, *, feature_act: "Act" = "pool_relu") -> "Reference":
    """Load published MemDPC, LPS or I3D weights; see `published_weights`, which this call imports."""
    from lps.model.networks import published_weights as reference

    return reference.load_reference(path, feature_act=feature_act)
