"""Which published data sets contain, derive from, or show the people of which others.

Names are those of the column `dataset`. A row is a warning, no proof: keys, files and hashes
tell which videos are meant.
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kinship:
    """What two published data sets have in common."""

    one: str
    two: str
    how: str
    source: str
    """Where that is published."""

    def said(self) -> str:
        """Say so in words."""
        return f"{self.how} ({self.source})"


_DF40 = "README of github.com/YZY-stack/DF40"
_DEEPER = "dataset/README.md of github.com/EndlessSora/DeeperForensics-1.0"
_CELEB_PP = "README of github.com/OUC-VAS/Celeb-DF-PP"
_CELEB = "Celeb-DF-v2/README.md of github.com/yuezunli/celeb-deepfakeforensics"
_VOX = "arXiv:2108.05080 and arXiv:2507.20579"

KINSHIPS: tuple[Kinship, ...] = (
    Kinship("celebdf1", "celebdf2", "Celeb-DF v2 is the next release of v1, from YouTube, too", _CELEB),
    Kinship("celebdf2", "celebdfpp", "Celeb-DF++ contains the videos of Celeb-DF v2", _CELEB_PP),
    Kinship(
        "celebdf1", "celebdfpp", "Celeb-DF++ contains the videos of Celeb-DF v2, the next release of v1", _CELEB_PP
    ),
    Kinship("df40", "ffpp", "DF40 is made from FaceForensics++", _DF40),
    Kinship("df40", "celebdf2", "DF40 is made from Celeb-DF", _DF40),
    Kinship("df40", "celebdf1", "DF40 is made from Celeb-DF, of which v1 is an earlier release", _DF40),
    Kinship("df40", "celebdfpp", "DF40 and Celeb-DF++ are made from Celeb-DF", f"{_DF40}, {_CELEB_PP}"),
    Kinship("df40", "uadfv", "fakes of DF40 by DeepFaceLab are made from UADFV", _DF40),
    Kinship("deeperforensics", "ffpp", "targets of DeeperForensics are the videos of FaceForensics++", _DEEPER),
    Kinship("deeperforensics", "df40", "DeeperForensics and DF40 are made from FaceForensics++", f"{_DEEPER}, {_DF40}"),
    Kinship("dfd", "ffpp", "DeepFakeDetection is published with FaceForensics++", "github.com/ondyari/FaceForensics"),
    Kinship(
        "dfdc", "dfdcp", "DFDC and its preview are of one project, whose actors may be in both", "arXiv:1910.08854"
    ),
    Kinship("avdeepfake1mpp", "fakeavceleb", "AV-Deepfake1M++ and FakeAVCeleb show speakers of VoxCeleb2", _VOX),
    Kinship(
        "deepspeak-v1", "deepspeak-v2", "actors of DeepSpeak may be in both releases", "leakage of `lps-prep sources`"
    ),
)


def kinships(one: Collection[str], two: Collection[str]) -> list[Kinship]:
    """Return what is known of two collections of published data sets."""
    return [kin for kin in KINSHIPS if (kin.one in one and kin.two in two) or (kin.two in one and kin.one in two)]
