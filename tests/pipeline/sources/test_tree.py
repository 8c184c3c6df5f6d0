"""Trees of releases: links, masks, counts, lists and missing videos, shown by one release each."""

from collections.abc import Callable
from dataclasses import replace

from lps.manifests.codes import Code
from lps.pipeline.sources.adapters import SourceFile, SourceListing, SourceOptions, list_videos
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import ACTOR_LIST, HEX, RELEASES, json_bytes, wrapped

ListTree = Callable[..., SourceListing]
OPTIONS = SourceOptions(read_bytes=lambda _path: b"")


def test_the_original_is_the_path_that_is_used_of_a_linked_file() -> None:
    fake = SourceFile(path="fake/0001_fake.mp4", n_bytes=1)
    real = SourceFile(path="real/0000.mp4", n_bytes=1, real="/s/real/0000.mp4")
    link = replace(real, path="real/0001.mp4", is_linked=True)
    videos = by_uri(list_videos("uadfv", [fake, real, link], OPTIONS))
    assert videos[link.path].code == Code.S_LINK
    assert videos[fake.path].original_uri == real.path


def test_a_mask_that_cannot_be_read_says_so() -> None:
    mask = SourceFile(path="target_mask/train/00000000.mp4", n_bytes=None, code=Code.E_UNREADABLE, detail="no rights")
    real = SourceFile(path="source/train/00000000.mp4", n_bytes=1)
    video = by_uri(list_videos("ffiw", [mask, real], OPTIONS))[mask.path]
    assert (video.code, video.detail) == (Code.E_UNREADABLE, "no rights")


def test_what_is_no_video_of_the_release_is_not_counted(list_tree: ListTree) -> None:
    more = dict.fromkeys(("real/x.mp4", "real/videos/0000.mp4", "real/0002.txt"), b"x")
    assert "uadfv: 2 of 49 real videos found" in list_tree("uadfv", RELEASES["uadfv"] | more).notes


def test_a_missing_video_is_named_where_it_would_lie(list_tree: ListTree) -> None:
    absent = "original_videos/1003254/1003254_A_001.mp4"
    tree = wrapped({path: data for path, data in RELEASES["dfdc-preview"].items() if path != absent}, "a")
    codes = {uri: video.code for uri, video in by_uri(list_tree("dfdc-preview", tree)).items()}
    assert codes[f"a/{absent}"] == Code.E_MISSING_FILE
    assert absent not in codes


def test_of_several_lists_the_highest_counts(list_tree: ListTree) -> None:
    real = next(iter(ACTOR_LIST))
    other = {"a/dataset.json": json_bytes({real: {"label": "real", "set": "test"}})}
    assert by_uri(list_tree("dfdc-preview", RELEASES["dfdc-preview"] | other))[real].official_split == "train"


def test_one_missing_video_in_two_spellings_is_one_row(list_tree: ListTree) -> None:
    head = b"source,method,type,race,gender,path\n"
    row = "id00076,real,RealVideo-RealAudio,{},men,00110.mp4\n"
    data = head + "".join(row.format(race) for race in ("Asian (East)", "Asian_East")).encode()
    listing = list_tree("fakeavceleb", RELEASES["fakeavceleb"] | {"meta_data.csv": data})
    assert [v.uri.split("/")[1] for v in listing.videos if v.code == Code.E_MISSING_FILE] == ["Asian (East)"]


def test_hexadecimal_names_in_capitals(list_tree: ListTree) -> None:
    video = list_tree("kodf", {f"x/{HEX.upper()}_001.mp4": b"x"}).videos[0]
    assert (video.code, video.target_keys) == (None, (f"kodf/actor/{HEX}",))
