"""DF40: 23 swap and reenactment methods on FaceForensics++ (`ff`) and Celeb-DF (`cdf`), fakes only.

    {train,test}/<method>/{ff,cdf}/**/<name>.mp4    {train,test}/{deepfacelab,heygen}/{fake,real}/**/<name>.mp4

These are the original videos of the face-swap and face-reenactment methods, a download of their own (README of
YZY-stack/DF40, issue 33). The folders of cropped frames, and the synthesis and editing methods, hold pictures only.
Their real videos are those of FaceForensics++ and Celeb-DF and no part of it, so no fake has its original here.

A name gives the sequences (`000_003`) or persons (`id0_id1_0000`) of its domain, which have the keys of `ffpp` and
`celebdf`. Which of the two is the target differs by method: only swaps in the list below have target and donor, else
both are targets. What names neither has no keys, and is counted in a note.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.grammars import CELEBDF, FFPP, NameGrammar, with_keys
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.tree import Parts, PlacedVideo, ReleaseFolder, read_tree
from lps.pipeline.sources.shared.types import SourceFile, SourceListing, SourceOptions, make_listing

TARGET_FIRST = ("blendface", "e4s", "facedancer", "faceswap", "inswap", "mobileswap", "simswap", "uniface")
# fmt: off
_METHODS = (
    *TARGET_FIRST, "fsgan", "danet", "dagan", "facevid2vid", "fomm", "hyperreenact", "lia", "mcnet", "MRAA",
    "one_shot_free", "pirender", "sadtalker", "tpsm", "wav2lip",
)
# fmt: on
_WITH_REALS = ("deepfacelab", "heygen")
_DOMAINS = {"ff": FFPP, "cdf": CELEBDF}
_ANY = re.compile(r".+")
FOLDERS = {
    **{
        f"{method}/{domain}".lower(): ReleaseFolder(label=1, names=_ANY, method=method, is_nested=True)
        for method in _METHODS
        for domain in _DOMAINS
    },
    **{f"{m}/fake": ReleaseFolder(label=1, names=_ANY, method=m, is_nested=True) for m in _WITH_REALS},
    **{f"{m}/real": ReleaseFolder(label=0, names=_ANY, is_nested=True) for m in _WITH_REALS},
}


def list_df40(files: Sequence[SourceFile], _options: SourceOptions) -> SourceListing:
    """List the videos of DF40; any part of it alone."""
    tree = read_tree(files, FOLDERS, id="df40", dataset="df40", title="DF40", is_scattered=True)
    videos = tree.rows(_described)
    usable = [video for video in videos if video.code is None]
    n_untied = sum(not video.target_keys for video in usable)
    notes = ["df40: no fake has its original: their real videos are FaceForensics++ and Celeb-DF, read by themselves"]
    if n_untied:
        notes.append(f"df40: {n_untied} videos without keys: their names give neither sequences nor persons")
    absent = [method for method in _METHODS if not any(video.method == method for video in usable)]
    notes += [f"df40: no videos of {', '.join(absent)}"] if absent else []
    return make_listing("df40", videos, notes)


def _described(video: SourceVideo, placed: PlacedVideo, _parts: Parts) -> SourceVideo:
    above = [folder.lower() for folder in placed.top]
    split = next((split for split in ("train", "test") if split in above), None)
    video = replace(video, official_split=split)
    method, domain = placed.folder.split("/")
    names = _DOMAINS.get(domain)
    return _tied(video, names, placed.stem, is_target_first=method in TARGET_FIRST) if names else video


def _tied(video: SourceVideo, names: NameGrammar, stem: str, *, is_target_first: bool) -> SourceVideo:
    match = names.fake.fullmatch(stem) or names.real.fullmatch(stem)
    if match is None:
        return video
    video = with_keys(video, names, match.groupdict())
    if is_target_first:
        return video
    return replace(video, target_keys=tuple(sorted({*video.target_keys, *video.donor_keys})), donor_keys=())


LAYOUT = SourceLayout(
    id="df40",
    title="DF40, the videos of its swap and reenactment methods",
    adapter=list_df40,
    tree="{train,test}/<method>/{ff,cdf}/**/<name>.mp4\n{train,test}/{deepfacelab,heygen}/{fake,real}/**/<name>.mp4",
    counts="fakes by 23 methods; nobody published how many videos",
    labels="the folder",
    splits="the folders train and test",
    leakage="made from ffpp and celebdf, with their keys: train there and test here only where no key is on both sides",
    page="https://github.com/YZY-stack/DF40",
    sign=re.compile(rf"(?:.*/)?(?:{'|'.join(_METHODS)})/(?:ff|cdf)/.*\.mp4", re.IGNORECASE),
)
