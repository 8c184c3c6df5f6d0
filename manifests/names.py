"""Names that commands and parameters share; imports nothing, so that `--help` stays fast."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


DATASETS = ("folder", "ffpp", "dfdc", "celebdf", "table")


LOCALIZERS = ("retinaface-fan", "retinaface-mobilenet", "mtcnn")


RULES = ("group", "official", "official-clean", "ranked", "identity-hash", "stratified", "random")


CODECS = ("jpg", "png", "webp")


LABELS = ("real", "fake", "unknown")


def label_name(label: int | None) -> str:
    """Return `real`, `fake` or `unknown`."""
    return LABELS[label] if label in (0, 1) else "unknown"
