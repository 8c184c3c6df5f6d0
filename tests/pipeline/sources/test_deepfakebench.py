"""Frames and lists of DeepfakeBench as a source: whose frames a list means, and what its words mean."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.manifests.splits.records import SplitParams
from lps.pipeline.job.request import PrepRequest
from lps.pipeline.job.survey import list_sources
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri, manifest_rows
from tests.pipeline.tools.convert_data import converted, ffpp_videos, make_data_set

ListTree = Callable[..., SourceListing]

ROOT = "/data/zyan/FaceForensics++"
"""Where somebody else made the lists."""
REAL = "original_sequences/youtube/c23/frames"
FAKE = "manipulated_sequences/Deepfakes/c23/frames"


def listed(label: str, folder: str, slash: str = "/") -> dict[str, Any]:
    return {"label": label, "frames": [f"{folder}/{k:03}.png".replace("/", slash) for k in (0, 9)], "masks": []}


def ffpp_list(root: str = ROOT, slash: str = "/") -> dict[str, Any]:
    """Return the list of Deepfakes as `rearrange.py` writes it."""
    reals = {n: listed("FF-real", f"{root}/{REAL}/{n}", slash) for n in ("000", "003")}
    fakes = {n: listed("FF-DF", f"{root}/{FAKE}/{n}", slash) for n in ("000_003", "003_000")}
    return {
        "FF-DF": {
            "FF-real": {"train": {"c23": reals}, "test": {"c23": {}}, "val": {"c23": {}}},
            "FF-DF": {"train": {"c23": fakes}, "test": {"c23": {}}, "val": {"c23": {}}},
        }
    }


def tree_of(lists: Mapping[str, Any], *folders: str) -> dict[str, bytes]:
    """Return a source: lists by name, and folders of frames, which end with a slash."""
    files = {f"dataset_json/{name}.json": json.dumps(content).encode() for name, content in lists.items()}
    return files | dict.fromkeys(folders, b"x")


def videos_of(listing: SourceListing) -> dict[str, SourceVideo]:
    return {uri: video for uri, video in by_uri(listing).items() if not (video.code or "").startswith("S_")}


FFPP = (f"{REAL}/000/", f"{REAL}/003/", f"{FAKE}/000_003/", f"{FAKE}/003_000/")


@pytest.mark.parametrize("above", ["", "rgb/FaceForensics++/", "a/b/"])
@pytest.mark.parametrize(
    ("root", "slash"), [(ROOT, "/"), ("./datasets/rgb/FaceForensics++", "/"), ("C:/x/FaceForensics++", "\\")]
)
def test_the_paths_of_a_list_begin_anywhere(list_tree: ListTree, above: str, root: str, slash: str) -> None:
    tree = tree_of({"FF-DF": ffpp_list(root, slash)}, *(above + folder for folder in FFPP))
    found = videos_of(list_tree("deepfakebench", tree))
    assert {video.code for video in found.values()} == {None}
    assert {uri: (video.label, video.method) for uri, video in found.items()} == {
        f"{above}{REAL}/000/": (0, None),
        f"{above}{REAL}/003/": (0, None),
        f"{above}{FAKE}/000_003/": (1, "Deepfakes"),
        f"{above}{FAKE}/003_000/": (1, "Deepfakes"),
    }


def test_words_of_ours_and_keys_of_the_release(list_tree: ListTree) -> None:
    found = videos_of(list_tree("deepfakebench", tree_of({"FF-DF": ffpp_list()}, *FFPP)))
    fake = found[f"{FAKE}/000_003/"]
    assert (fake.dataset, fake.compression, fake.official_split, fake.label_source) == ("ffpp", "c23", "train", "list")
    assert (fake.target_keys, fake.donor_keys) == (("ffpp/seq/000",), ("ffpp/seq/003",))
    assert fake.original_uri == f"{REAL}/000/"
    assert found[f"{REAL}/000/"].target_keys == ("ffpp/seq/000",)


def test_frames_of_another_method_are_not_those_of_the_list(list_tree: ListTree) -> None:
    others = [folder.replace("Deepfakes", "NeuralTextures") for folder in FFPP if folder.startswith("manip")]
    found = by_uri(list_tree("deepfakebench", tree_of({"FF-DF": ffpp_list()}, *FFPP[:2], *others)))
    assert {uri: video.code for uri, video in found.items() if uri.endswith("/")} == {
        **dict.fromkeys(FFPP[:2]),
        **dict.fromkeys(FFPP[2:], Code.E_MISSING_FILE),
        **dict.fromkeys(others, Code.S_FOREIGN),
    }
    only_fakes = {"FF-DF": {"FF-DF": ffpp_list()["FF-DF"]["FF-DF"]}}
    with pytest.raises(UnreadableError, match="none of the frames"):
        list_tree("deepfakebench", tree_of({"FF-DF": only_fakes}, *others))


def test_what_is_beside_the_frames(list_tree: ListTree) -> None:
    more = {
        f"{FAKE}/000_003/".replace("frames", "masks"): Code.S_MASK,
        f"{REAL}/999/": Code.S_FOREIGN,
        f"{REAL}/videos/000.mp4": Code.S_FOREIGN,
        "dataset_json/FF-DF.json": Code.S_FOREIGN,
    }
    landmarks = f"{REAL}/000/000.npy".replace("frames", "landmarks")
    found = by_uri(
        list_tree("deepfakebench", dict.fromkeys(more, b"x") | tree_of({"FF-DF": ffpp_list()}, *FFPP, landmarks))
    )
    assert {uri: video.code for uri, video in found.items() if video.code} == more


def test_lists_of_methods_share_their_reals_and_splits_are_one(list_tree: ListTree) -> None:
    lists = {"FF-DF": ffpp_list(), "FaceForensics++": {"FaceForensics++": ffpp_list()["FF-DF"]}}
    lists["FF-DF"]["FF-DF"]["FF-real"]["val"] = lists["FF-DF"]["FF-DF"]["FF-real"]["train"]
    listing = list_tree("deepfakebench", tree_of(lists, *FFPP))
    assert {video.official_split for video in videos_of(listing).values()} == {"train"}
    (note,) = [note for note in listing.notes if "several splits" in note]
    assert note.startswith("deepfakebench: videos in several splits: 2 in train+val; test counts before train")


def test_data_sets_that_it_does_not_know(list_tree: ListTree) -> None:
    content = {
        "My Set": {
            "My_real": {"test": {"a": listed("My_real", "./x/real/frames/a")}},
            "My_fake": {"train": {"a": listed("My_fake", "./x/fake/frames/a")}},
        }
    }
    found = videos_of(list_tree("deepfakebench", tree_of({"my": content}, "real/frames/a/", "fake/frames/a/")))
    assert {uri: (v.dataset, v.label, v.method, v.official_split) for uri, v in found.items()} == {
        "real/frames/a/": ("My_Set", 0, None, "test"),
        "fake/frames/a/": ("My_Set", 1, "fake", "train"),
    }


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"real/frames/a/": b"x"}, "no dataset_json"),
        (
            tree_of({"a": {"x": {"genuine": {"test": {"a": listed("genuine", "x/frames/a")}}}}}, "x/frames/a/"),
            "'genuine' says neither",
        ),
        (tree_of({"a": ffpp_list()}, "elsewhere/frames/a/"), "none of the frames"),
        (tree_of({"a": [1]}, "x/frames/a/"), "dataset_json/a.json: the file: expected"),
    ],
)
def test_what_is_no_source_of_it(list_tree: ListTree, tree: Mapping[str, bytes], said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        list_tree("deepfakebench", tree)


def test_a_convert_of_ours_is_read_back(tmp_path: Path) -> None:
    """The same clips, data sets, methods, labels and splits; a fake is tied to its original."""
    videos = [
        replace(video, original_uri=f"real/{Path(video.uri).name}") if video.label else video
        for video in ffpp_videos(6)
    ]
    out = make_data_set(tmp_path / "out", videos, with_landmarks=lambda video: video.label == 0)
    converted(out, tmp_path / "to", "deepfakebench")
    tree = list_sources(PrepRequest(source=str(tmp_path / "to"), out=str(tmp_path / "again"), dataset="deepfakebench"))
    found = videos_of(tree.listing)
    assert not [note for note in tree.listing.notes if "left out, not videos" not in note]
    rows = {row["sample_key"]: row for row in manifest_rows(Path(out.url), "clips")}
    originals = {row["video_id"]: row["original_video_id"] for row in manifest_rows(Path(out.url), "videos")}
    by_key = {uri.rstrip("/").rpartition("/")[2]: video for uri, video in found.items()}
    assert by_key.keys() == rows.keys()
    for key, row in rows.items():
        video = by_key[key]
        same = (video.dataset, video.method, video.label, video.official_split, video.compression)
        assert same == (row["dataset"], row["method"], row["label"], row["split"], "c23")
        assert video.code is None
        original = originals[row["video_id"]]
        assert video.target_keys == (f"lps/video/{(original or row['video_id']).hex()}",)
        assert (video.original_uri is not None) == (row["label"] == 1)
        if video.original_uri:
            assert original.hex() in video.original_uri


def test_a_convert_of_ours_goes_with_its_own_lists(tmp_path: Path) -> None:
    """As a source its clips are videos by themselves, which the lists name."""
    converted(make_data_set(tmp_path / "out", ffpp_videos(3)), tmp_path / "to", "deepfakebench")
    lists = tuple(str(tmp_path / f"to/dataset_json/{name}.json") for name in ("FaceForensics++", "FaceShifter"))
    asked = {"source": str(tmp_path / "to"), "out": str(tmp_path / "again"), "dataset": "deepfakebench"}
    plain = list_sources(PrepRequest(**asked))  # type: ignore[arg-type]
    given = list_sources(PrepRequest(**asked, split=SplitParams(rule="official"), split_lists=lists))  # type: ignore[arg-type]
    assert videos_of(given.listing) == videos_of(plain.listing)
    assert not [note for note in given.listing.notes if "split list" in note]


def test_lines_that_convert_did_not_write(list_tree: ListTree) -> None:
    tree = tree_of({"FF-DF": ffpp_list()}, *FFPP) | {"clips.jsonl": b'{"sample_key": 1}\n'}
    with pytest.raises(UnreadableError, match=r"clips\.jsonl, line 1: is no line"):
        list_tree("deepfakebench", tree)
