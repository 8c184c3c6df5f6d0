"""How published data sets name their videos: who is in a fake, and which real video it was made from."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from lps.manifests.records import SourceVideo


@dataclass(frozen=True, slots=True, kw_only=True)
class NameGrammar:
    """The names of one data set. `target` and `donor` are the two people or recordings that a fake shows."""

    title: str
    real: re.Pattern[str]
    fake: re.Pattern[str]
    original: str
    """Stem of the real video of a fake, made of the parts of the fake's stem."""
    prefix: str
    """Prefix of the global keys of what `target` and `donor` number."""
    names_persons: bool

    def original_of(self, parts: Mapping[str, str]) -> str:
        """Return the stem of the real video that a fake with these parts was made from."""
        return self.original.format(**parts)


FFPP = NameGrammar(
    title="FaceForensics++",
    real=re.compile(r"(?P<target>[0-9]{3})"),
    fake=re.compile(r"(?P<target>[0-9]{3})_(?P<donor>[0-9]{3})"),
    original="{target}",
    prefix="ffpp/seq",
    names_persons=False,
)
DFD = NameGrammar(
    title="DeepFakeDetection",
    real=re.compile(r"(?P<target>[0-9]{2})__(?P<scene>.+)"),
    fake=re.compile(r"(?P<target>[0-9]{2})_(?P<donor>[0-9]{2})__(?P<scene>.+)__[A-Z0-9]{8}"),
    original="{target}__{scene}",
    prefix="dfd/actor",
    names_persons=True,
)
CELEBDF = NameGrammar(
    title="Celeb-DF",
    real=re.compile(r"(?P<target>id[0-9]+)_[0-9]{4}"),
    fake=re.compile(r"(?P<target>id[0-9]+)_(?P<donor>id[0-9]+)_(?P<number>[0-9]{4})"),
    original="{target}_{number}",
    prefix="celebdf2/id",
    names_persons=True,
)
GRAMMARS = (FFPP, DFD, CELEBDF)


def with_keys(video: SourceVideo, names: NameGrammar, parts: Mapping[str, str]) -> SourceVideo:
    """Add the keys of target and donor that a name gives to those that a video has."""
    target, *donor = (f"{names.prefix}/{parts[role]}" for role in ("target", "donor") if role in parts)
    video = replace(
        video, target_keys=_united(video.target_keys, [target]), donor_keys=_united(video.donor_keys, donor)
    )
    if not names.names_persons:
        return video
    persons = _united(video.identity_keys, [target, *donor])
    return replace(video, identity_keys=persons, identity_confidence="published")


def _united(some: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*some, *more}))
