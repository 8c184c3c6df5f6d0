"""AV-Deepfake1M++."""

from collections.abc import Callable

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import LIP_ROWS, RELEASES, UTTERANCE, json_bytes

ListTree = Callable[..., SourceListing]
ID = "av-deepfake1m-pp"
TREE = RELEASES[ID]
FAKE = f"val/{UTTERANCE}/fake_video_real_audio.mp4"
REAL = f"val/{UTTERANCE}/real.mp4"


def with_rows(*rows: object) -> dict[str, bytes]:
    return TREE | {"val_metadata.json": json_bytes([*LIP_ROWS, *rows])}


def test_a_fake(list_tree: ListTree) -> None:
    assert by_uri(list_tree(ID, TREE))[FAKE] == SourceVideo(
        uri=FAKE,
        dataset="avdeepfake1mpp",
        label=1,
        label_source="metadata",
        method="Talklip",
        source_part="visual_modified",
        official_split="val",
        original_uri=REAL,
        target_keys=(f"avdeepfake1mpp/clip/{UTTERANCE}",),
        identity_keys=("voxceleb2/id/id01358",),
        identity_confidence="published",
    )


def test_fake_sound_is_real_recorded_and_told(list_tree: ListTree) -> None:
    listing = list_tree(ID, TREE)
    video = by_uri(listing)[f"val/{UTTERANCE}/real_video_fake_audio.mp4"]
    assert (video.label, video.method, video.source_part, video.original_uri) == (0, None, "audio_modified", None)
    assert video.target_keys == by_uri(listing)[REAL].target_keys
    assert f"{ID}: 1 videos with real pictures and fake sound count as real" in listing.notes


def test_who_is_in_the_other_corpora(list_tree: ListTree) -> None:
    videos = by_uri(list_tree(ID, TREE))
    lrs3 = videos["val/lrs3/00j9bKdiOjk/00001/fake_video_fake_audio.mp4"]
    assert (lrs3.source_keys, lrs3.identity_keys, lrs3.identity_confidence) == (("lrs3/clip/00j9bKdiOjk",), (), "none")
    silent = videos["val/silent_videos/subject_17_ddvyjnjfad_vid_2_6/real.mp4"]
    assert silent.identity_keys == ("avdeepfake1mpp/subject_17",)


def test_speakers_have_the_keys_of_fakeavceleb(list_tree: ListTree) -> None:
    row = {"file": "vox_celeb_2/id00076/a/1/real.mp4", "modify_type": "real"}
    ours = list_tree(ID, {f"val/{row['file']}": b"x", "val_metadata.json": json_bytes([row])}).videos[0]
    theirs = list_tree("fakeavceleb", {"RealVideo-RealAudio/African/men/id00076/00109.mp4": b"x"}).videos[0]
    assert ours.identity_keys == theirs.identity_keys == ("voxceleb2/id/id00076",)


def test_listed_and_absent(list_tree: ListTree) -> None:
    row = {"file": "lrs3/x/1/fake.mp4", "modify_type": "both_modified"}
    listing = list_tree(ID, with_rows(row))
    video = by_uri(listing)["val/lrs3/x/1/fake.mp4"]
    assert (video.code, video.label, video.method) == (Code.E_MISSING_FILE, 1, "fake")
    assert f"{ID}: 5 of 6 videos of its metadata found" in listing.notes


def test_what_the_metadata_do_not_name_is_foreign(list_tree: ListTree) -> None:
    path = "val/lrs3/x/1/real.mp4"
    video = by_uri(list_tree(ID, TREE | {path: b"x"}))[path]
    assert (video.code, video.detail) == (Code.S_FOREIGN, "not in the metadata")


def test_metadata_of_train_are_read_alike(list_tree: ListTree) -> None:
    rows = [{"file": "lrs3/x/1/real.mp4", "modify_type": "real"}]
    tree = TREE | {"train/lrs3/x/1/real.mp4": b"x", "train_metadata.json": json_bytes(rows)}
    assert by_uri(list_tree(ID, tree))["train/lrs3/x/1/real.mp4"].official_split == "train"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"file": "lrs3/x/1/a.mp4", "modify_type": "lips"}, "modify_type 'lips' is none of real, audio_modified"),
        ({"file": "lrs3/a.mp4", "modify_type": "real"}, "file 'lrs3/a.mp4' is not <vox_celeb_2|lrs3|"),
        ({"file": "lrs3/../../a.mp4", "modify_type": "real"}, "is not <vox_celeb_2|lrs3|"),
        ({"modify_type": "real"}, "file None is not"),
        ("lrs3/x/1/a.mp4", "file None is not"),
    ],
)
def test_a_malformed_entry_stops(list_tree: ListTree, row: object, said: str) -> None:
    with pytest.raises(UnreadableError, match=r"^val_metadata.json, entry 5: ") as error:
        list_tree(ID, with_rows(row))
    assert said in str(error.value)


def test_metadata_that_are_no_list_stop(list_tree: ListTree) -> None:
    with pytest.raises(UnreadableError, match="^val_metadata.json: expected a list"):
        list_tree(ID, TREE | {"val_metadata.json": b"{}"})
