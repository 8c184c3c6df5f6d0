"""Split lists of DeepfakeBench: what is read of them, which videos they mean, and what is said of the rest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.records import SourceVideo
from lps.manifests.splits.records import SplitParams
from lps.pipeline.job.request import PrepRequest
from lps.pipeline.job.survey import list_sources
from lps.pipeline.sources.adapters import SourceListing
from lps.pipeline.sources.shared.bench_lists import BenchList, BenchVideo, parse_bench_list
from lps.pipeline.sources.shared.split_lists import read_split_lists, with_listed_splits


def video(uri: str, label: int | None, dataset: str = "ffpp", **more: Any) -> SourceVideo:
    return SourceVideo(uri=uri, dataset=dataset, label=label, label_source="folder", **more)


def entry(label: str, name: str = "", slash: str = "/") -> dict[str, Any]:
    """Return a video as `rearrange.py` writes it."""
    return {"label": label, "frames": [slash.join(("root", "frames", name, f"{k:03}.png")) for k in (12, 0)]}


def bench(content: Mapping[str, Any], name: str = "list.json") -> BenchList:
    return parse_bench_list(name, json.dumps(content).encode())


def ffpp_list(**splits_of: Mapping[str, Sequence[str]]) -> BenchList:
    """Return a list with compression c23: label without `FF-` -> split -> names."""
    labels = {f"FF-{label}": splits for label, splits in splits_of.items()}
    return bench(
        {
            "FaceForensics++": {
                label: {
                    split: {"c23": {name: entry(label, name) for name in splits.get(split, ())}, "c40": {}}
                    for split in ("train", "test", "val")
                }
                for label, splits in labels.items()
            }
        }
    )


def flat_list(labels: Mapping[str, Mapping[str, Sequence[str]]]) -> BenchList:
    """Return a list without compressions: label -> split -> names."""
    content = {
        label: {s: {n: entry(label, n) for n in names} for s, names in splits.items()}
        for label, splits in labels.items()
    }
    return bench({"set": content})


def listed(videos: Sequence[SourceVideo], *lists: BenchList) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return the split of each video by its uri, and the notes."""
    found = with_listed_splits(SourceListing(videos=tuple(videos), notes=("before",)), lists)
    assert [each.uri for each in found.videos] == [each.uri for each in videos]
    assert found.notes[0] == "before"
    return {each.uri: each.official_split for each in found.videos}, found.notes[1:]


FFPP = [
    video("real/000.mp4", 0, compression="c23"),
    video("real/003.mp4", 0, compression="c23", official_split="val"),
    video("Deepfakes/000_003.mp4", 1, method="Deepfakes", compression="c23"),
    video("NeuralTextures/000_003.mp4", 1, method="NeuralTextures", compression="c23"),
]


class TestReading:
    def test_a_list_with_compressions(self) -> None:
        found = ffpp_list(real={"train": ["000"]}, DF={"test": ["000_003"]})
        ffpp = "FaceForensics++"
        assert found.videos == (
            BenchVideo(
                name="000", data_set=ffpp, label="FF-real", split="train", compression="c23", folder="root/frames/000"
            ),
            BenchVideo(
                name="000_003",
                data_set=ffpp,
                label="FF-DF",
                split="test",
                compression="c23",
                folder="root/frames/000_003",
            ),
        )
        assert found.name == "list.json"
        assert len(found.sha256) == 64

    def test_words_for_compressions(self) -> None:
        content = {"x": {"FF-real": {"train": {level: {"a": entry("FF-real")} for level in ("raw", "unknown", "c40")}}}}
        assert [each.compression for each in bench(content).videos] == ["c0", None, "c40"]

    def test_paths_of_windows_and_endings(self) -> None:
        content = {"x": {"A_real": {"test": {"a\\b\\v.1.mp4": entry("A_real", "v", "\\")}}}}
        (found,) = bench(content).videos
        assert (found.name, found.folder) == ("v.1", "root/frames/v")

    def test_the_label_of_the_video_counts(self) -> None:
        (found,) = bench({"x": {"A_real": {"test": {"v": entry("A_fake")}}}}).videos
        assert found.label == "A_fake"

    def test_a_video_without_a_name(self) -> None:
        """`rearrange.py` writes those of DFDC's test into val without their name."""
        content = {"DFDC": {"DFDC_Fake": {"train": {}, "val": entry("DFDC_Fake") | {"v": entry("DFDC_Fake")}}}}
        found = bench(content)
        assert [each.name for each in found.videos] == ["v"]
        assert found.n_nameless == 1
        _, notes = listed([video("a/v.mp4", 1, "dfdc")], found)
        assert notes == ("split list list.json: 1 of its videos have no name and are left out",)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ([["071", "054"]], "list.json: the file: expected"),
            ({}, "has no video"),
            ({"x": {"A_real": {"train": {}}}}, "has no video"),
            ({"x": {"A_real": {"v": entry("A_real")}}}, "x, A_real, v: expected one of the splits train, val, test"),
            ({"x": {"A_real": {"dev": {}}}}, "x, A_real, dev: expected one of the splits train, val, test"),
            ({"x": {"A_real": {"train": {"v": 1}}}}, "x, A_real, train, v: expected"),
            ({"x": {"A_real": {"train": {"c23": {"v": 1}}}}}, "x, A_real, train, c23, v: expected"),
            ({"x": {"A_real": {"train": {"v": {"label": 1, "frames": []}}}}}, "x, A_real, train, v: expected"),
            ({"x": {"A_real": {"train": {"/": entry("A_real")}}}}, "x, A_real, train, /: expected"),
        ],
    )
    def test_what_is_no_list(self, content: Any, said: str) -> None:
        with pytest.raises(UnreadableError, match=said):
            bench(content)

    @pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 100_000])
    def test_what_is_no_json(self, data: bytes) -> None:
        with pytest.raises(UnreadableError, match=r"list\.json: not "):
            parse_bench_list("list.json", data)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableError, match=r"nope\.json: No such file"):
            read_split_lists([str(tmp_path / "nope.json")])


class TestMatching:
    def test_by_label_and_name(self) -> None:
        found, notes = listed(FFPP, ffpp_list(real={"train": ["000", "003"]}, DF={"test": ["000_003"]}))
        assert found == {
            "real/000.mp4": "train",
            "real/003.mp4": "train",
            "Deepfakes/000_003.mp4": "test",
            "NeuralTextures/000_003.mp4": None,
        }
        assert notes == ("split list list.json: 1 videos are not in it and are left out: NeuralTextures/000_003.mp4",)

    def test_lists_of_methods_share_their_reals(self) -> None:
        reals = {"train": ["000", "003"]}
        lists = ffpp_list(real=reals, DF={"train": ["000_003"]}), ffpp_list(real=reals, NT={"train": ["000_003"]})
        found, notes = listed(FFPP, *lists)
        assert set(found.values()) == {"train"}
        assert notes == ()

    def test_another_compression_is_another_video(self) -> None:
        videos = [replace(each, compression="c40") for each in FFPP]
        with pytest.raises(RefusedError, match="none of its 1 videos is here"):
            listed(videos, ffpp_list(real={"train": ["000"]}))
        unknown = [replace(each, compression=None) for each in FFPP]
        assert listed(unknown, ffpp_list(real={"train": ["000"]}))[0]["real/000.mp4"] == "train"

    def test_what_is_listed_and_not_here_is_named(self) -> None:
        names = [f"{k:03}" for k in range(12)]
        _, notes = listed(FFPP, ffpp_list(real={"train": names}, DF={"train": ["000_003"]}, NT={"train": ["000_003"]}))
        shown = ", ".join(f"{k:03} of FF-real, c23" for k in (1, 2, 4, 5, 6, 7, 8, 9))
        assert notes == (f"split list list.json: 10 of its videos are not here: {shown} and 2 more",)

    @pytest.mark.parametrize(
        ("splits", "expected"),
        [(("train", "val", "test"), "test"), (("train", "val"), "train"), (("test", "val"), "test"), (("val",), "val")],
    )
    def test_videos_in_several_splits(self, splits: Sequence[str], expected: str) -> None:
        listing = flat_list({"CelebDFv2_real": dict.fromkeys(splits, ["id0_0000"])})
        found, notes = listed([video("Celeb-real/id0_0000.mp4", 0, "celebdf2")], listing)
        assert found == {"Celeb-real/id0_0000.mp4": expected}
        assert len(notes) == (len(splits) > 1)
        if notes:
            assert f"1 in {'+'.join(sorted(splits))}; test counts before train" in notes[0]
            assert "Celeb-real/id0_0000.mp4" in notes[0]

    def test_a_label_that_contradicts_the_source(self) -> None:
        videos = [video("Celeb-real/id0_0000.mp4", 0, "celebdf2"), video("Celeb-real/id1_0000.mp4", 0, "celebdf2")]
        listing = flat_list({"CelebDFv2_fake": {"test": ["id0_0000"]}, "CelebDFv2_real": {"test": ["id1_0000"]}})
        found = with_listed_splits(SourceListing(videos=tuple(videos), notes=()), [listing])
        assert [(each.code, each.official_split) for each in found.videos] == [
            (Code.E_LABEL_CONFLICT, None),
            (None, "test"),
        ]
        assert found.videos[0].detail == "real in the source, CelebDFv2_fake in the split list"
        assert found.notes == (
            "split list list.json: 1 videos have the other label here and are left out: "
            "Celeb-real/id0_0000.mp4 (CelebDFv2_fake)",
        )

    def test_a_fake_of_the_name_of_its_real_is_no_contradiction(self) -> None:
        videos = [video("fake/m/a.mp4", 1, "folder", method="m"), video("real/b.mp4", 0, "folder")]
        found, notes = listed(videos, flat_list({"My_real": {"train": ["a", "b"]}, "My_fake": {"train": ["a"]}}))
        assert set(found.values()) == {"train"}
        assert notes == ("split list list.json: 1 of its videos are not here: a of My_real",)

    def test_labels_of_other_data_sets_are_compared_by_class(self) -> None:
        videos = [
            video("real/a.mp4", 0, "folder"),
            video("fake/m/a.mp4", 1, "folder", method="m"),
            video("x/b.mp4", None, "folder"),
        ]
        found, notes = listed(videos, flat_list({"my_real": {"train": ["a"]}, "my_FAKE": {"val": ["a", "b"]}}))
        assert found == {"real/a.mp4": "train", "fake/m/a.mp4": "val", "x/b.mp4": "val"}
        assert notes == ()

    def test_labels_without_a_class_are_told(self) -> None:
        found, notes = listed([video("real/a.mp4", 0, "folder")], flat_list({"genuine": {"train": ["a"]}}))
        assert found == {"real/a.mp4": "train"}
        assert notes == ("split list list.json: labels that say neither real nor fake are not compared: genuine",)

    def test_a_published_label_never_stands_for_another_method(self) -> None:
        with pytest.raises(RefusedError, match="none of its 1 videos is here"):
            listed(FFPP, ffpp_list(F2F={"train": ["000_003"]}))

    def test_names_that_several_videos_have(self) -> None:
        videos = [video(f"real/{k}/a.mp4", 0, "folder") for k in range(2)] + [video("real/b.mp4", 0, "folder")]
        found, notes = listed(videos, flat_list({"folder_Real": {"train": ["a", "b"]}}))
        assert found == {"real/0/a.mp4": None, "real/1/a.mp4": None, "real/b.mp4": "train"}
        assert "split list list.json: 1 of its videos could be several here and are left out: a of folder_Real" in notes

    def test_clips_of_ours_are_found_by_the_video(self) -> None:
        videos = [video("real/a.mp4", 0, "folder"), video("elsewhere/b.mp4", 1, "folder", method="m")]
        keys = [f"{each.video_id.hex()}-00-{k:06}" for each in videos for k in (0, 60)]
        listing = flat_list(
            {"folder_Real": {"val": keys[:2]}, "folder_Fake": {"test": [*keys[2:], f"{'0' * 32}-00-000000"]}}
        )
        found, notes = listed(videos, listing)
        assert found == {"real/a.mp4": "val", "elsewhere/b.mp4": "test"}
        assert notes == (f"split list list.json: 1 of its videos are not here: {'0' * 32}-00-000000 of folder_Fake",)
        swapped = flat_list({"folder_Real": {"val": keys[2:]}, "folder_Fake": {"val": keys[:2]}})
        with pytest.raises(RefusedError, match="none of its 2 videos is here"):
            listed(videos, swapped)

    def test_what_is_no_input_stays_out(self) -> None:
        skipped = video("a.txt", None, "folder", code=Code.S_FOREIGN)
        empty = video("real/e.mp4", 0, "folder", code=Code.E_EMPTY_FILE)
        found, notes = listed(
            [skipped, empty, video("real/b.mp4", 0, "folder")], flat_list({"folder_Real": {"test": ["a", "b", "e"]}})
        )
        assert found == {"a.txt": None, "real/e.mp4": "test", "real/b.mp4": "test"}
        assert notes == ("split list list.json: 1 of its videos are not here: a of folder_Real",)


class TestSources:
    def test_a_run_takes_its_splits_from_the_list(self, tmp_path: Path) -> None:
        for name in ("real/a.mp4", "fake/m/a.mp4", "real/b.mp4"):
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(b"x")
        content = {"x": {"x_real": {"test": {"a": entry("x_real")}}, "x_fake": {"train": {"a": entry("x_fake")}}}}
        path = tmp_path / "lists" / "x.json"
        path.parent.mkdir()
        path.write_text(json.dumps(content))
        request = PrepRequest(
            source=str(tmp_path / "in"),
            out=str(tmp_path / "out"),
            split=SplitParams(rule="official"),
            split_lists=(str(path),),
        )
        tree = list_sources(request)
        splits = {each.uri: each.official_split for each in tree.listing.videos}
        assert splits == {"real/a.mp4": "test", "fake/m/a.mp4": "train", "real/b.mp4": None}
        assert "split list x.json: 1 videos are not in it and are left out: real/b.mp4" in tree.listing.notes
        assert tree.request.split.lists == read_digests(path)


def read_digests(path: Path) -> tuple[tuple[str, str], ...]:
    (found,) = read_split_lists([str(path)])
    return ((path.name, found.sha256),)
