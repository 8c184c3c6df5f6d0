"""Tables of videos, CSV and Parquet."""

import io
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceFile, SourceListing, SourceOptions, list_videos

ListTree = Callable[..., SourceListing]

FILES = dict.fromkeys(("a.mp4", "b.mp4", "sub/c.mp4"), b"x")


@pytest.fixture(scope="session")
def listing_of(list_tree: ListTree) -> Callable[..., SourceListing]:
    """Return a function that lists a CSV text over three videos."""
    return lambda text: list_tree("table", FILES | {"t.csv": text.encode()}, table="t.csv")


ListingOf = Callable[[str], SourceListing]


def parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


class TestColumns:
    def test_two_columns_are_enough(self, listing_of: ListingOf) -> None:
        listing = listing_of("uri,label\na.mp4,0\nb.mp4,1\nsub/c.mp4,\n")
        assert listing.videos == (
            SourceVideo(uri="a.mp4", dataset="table", label=0, label_source="csv", target_keys=("table/a.mp4",)),
            SourceVideo(uri="b.mp4", dataset="table", label=1, label_source="csv", method="fake"),
            SourceVideo(uri="sub/c.mp4", dataset="table", label=None, label_source="csv"),
        )
        assert listing.notes == ()

    def test_all_columns(self, listing_of: ListingOf) -> None:
        text = (
            "note,note,compression,split,original,source,identity,dataset,method,label,uri\n"
            "x,y,c23,Validation,a.mp4,clip7; yt/abc;,007;celebdf2/id/id3,my.set-1,swap,fake,b.mp4\n"
            "x,y,,train,,,,,original,real,a.mp4\n"
        )
        assert listing_of(text).videos[1] == SourceVideo(
            uri="b.mp4",
            dataset="my.set-1",
            label=1,
            label_source="csv",
            method="swap",
            compression="c23",
            official_split="val",
            original_uri="a.mp4",
            target_keys=("table/a.mp4",),
            source_keys=("my.set-1/src/clip7", "yt/abc"),
            identity_keys=("celebdf2/id/id3", "my.set-1/id/007"),
            identity_confidence="published",
        )
        assert listing_of(text).videos[0].method is None

    @pytest.mark.parametrize(
        ("spelling", "label"),
        [("0", 0), ("1", 1), ("real", 0), ("FAKE", 1), ("Real", 0), ("", None), ("1.0", 1), ("0.0", 0), (" 1 ", 1)],
    )
    def test_spellings_of_labels(self, listing_of: ListingOf, spelling: str, label: int | None) -> None:
        assert listing_of(f"uri,label\na.mp4,{spelling}\n").videos[0].label == label

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("uri,label\na.mp4,1\n\nb.mp4,2\n", "t.csv, line 4: label '2' is none of 0, 1, fake, real or empty"),
            ("uri,label\na.mp4,yes\n", "t.csv, line 2: label 'yes'"),
            ("uri,label,split\na.mp4,1,dev\n", "t.csv, line 2: split 'dev'"),
            ("uri,label,dataset\na.mp4,1,a/b\n", "t.csv, line 2: dataset 'a/b'"),
            ("uri,label\n,1\n", "t.csv, line 2: no uri"),
            ("uri,label\n.,1\n", "t.csv, line 2: no uri"),
            ("path,label\na.mp4,1\n", "t.csv: needs the columns uri,label, each column once; found path,label"),
            ("uri\na.mp4\n", "t.csv: needs the columns uri,label"),
            ("uri;label\na.mp4;1\n", "t.csv: needs the columns uri,label, each column once; found uri;label"),
            ("uri,label,uri\na.mp4,1,b.mp4\n", "t.csv: needs the columns uri,label, each column once"),
            ("uri,label\na.mp4\n", "t.csv: not a readable table"),
            ("", "t.csv: not a readable table"),
        ],
    )
    def test_faults_name_the_line(self, listing_of: ListingOf, text: str, message: str) -> None:
        with pytest.raises(UnreadableError) as caught:
            listing_of(text)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("data", [b"uri,label\n\xff,1\n", b"ur\xff,label\na,1\n"])
    def test_bytes_that_are_no_text(self, list_tree: ListTree, data: bytes) -> None:
        with pytest.raises(UnreadableError, match=r"^t.csv: not a readable table"):
            list_tree("table", {"t.csv": data}, table="t.csv")

    def test_a_byte_order_mark_is_no_part_of_a_name(self, list_tree: ListTree) -> None:
        data = "\ufeffuri,label\r\na.mp4,1\r\n".encode()
        assert list_tree("table", FILES | {"t.csv": data}, table="t.csv").videos[0].code is None

    def test_a_missing_table(self, list_tree: ListTree) -> None:
        with pytest.raises(UnreadableError, match=r"^t.csv: cannot be read \(No such file\)"):
            list_tree("table", FILES, table="t.csv")


class TestParquet:
    @pytest.mark.parametrize(
        "labels", [[0, 1, None], [0.0, 1.0, float("nan")], ["real", "Fake", None], [False, True, None]]
    )
    def test_types_of_labels(self, list_tree: ListTree, labels: list[object]) -> None:
        data = parquet(uri=sorted(FILES), label=labels)
        videos = list_tree("table", FILES | {"t.parquet": data}, table="t.parquet").videos
        assert [(v.uri, v.label) for v in videos] == [("a.mp4", 0), ("b.mp4", 1), ("sub/c.mp4", None)]

    def test_lists_and_numbers_as_keys(self, list_tree: ListTree) -> None:
        data = parquet(uri=["a.mp4"], label=[1], identity=[["p1", "p2"]], source=[17], method=[None])
        video = list_tree("table", FILES | {"t.PQ": data}, table="t.PQ").videos[0]
        assert video.identity_keys == ("table/id/p1", "table/id/p2")
        assert video.source_keys == ("table/src/17",)
        assert video.method == "fake"

    def test_faults_name_the_row(self, list_tree: ListTree) -> None:
        data = parquet(uri=["a.mp4", "b.mp4"], label=[1, 7])
        with pytest.raises(UnreadableError, match=r"^t.parquet, row 2: label '7'"):
            list_tree("table", FILES | {"t.parquet": data}, table="t.parquet")

    def test_a_broken_file(self, list_tree: ListTree) -> None:
        with pytest.raises(UnreadableError, match=r"^t.parquet: not a readable table"):
            list_tree("table", {"t.parquet": b"PAR1 not really"}, table="t.parquet")


class TestPaths:
    @pytest.mark.parametrize("column", ["uri", "original"])
    @pytest.mark.parametrize(
        "path",
        [
            "/etc/passwd",
            "../a.mp4",
            "sub/../../a.mp4",
            "sub/../../sub/c.mp4",
            "s3://bucket/a.mp4",
            "C:/a.mp4",
            "\\\\host\\a",
        ],
    )
    def test_escapes_are_refused(self, listing_of: ListingOf, path: str, column: str) -> None:
        row = {"uri": "b.mp4", "original": "", column: path}
        with pytest.raises(UnreadableError, match=r"^t.csv, line 2: .* leaves the table's root"):
            listing_of(f"uri,label,original\n{row['uri']},1,{row['original']}\n")

    def test_dots_that_stay_below_the_root_are_resolved(self, list_tree: ListTree) -> None:
        rows = ["sub/../a.mp4,0,", "b.mp4,1,x/../sub\\..\\a.mp4", "./x/../sub/c.mp4,1,"]
        listing = list_tree(
            "table", FILES | {"t.csv": "\n".join(["uri,label,original", *rows]).encode()}, table="t.csv"
        )
        assert [(video.uri, video.code, video.original_uri) for video in listing.videos] == [
            ("a.mp4", None, None), ("b.mp4", None, "a.mp4"), ("sub/c.mp4", None, None),
        ]  # fmt: skip
        assert "table: 2 uris with '..' were read as the paths that they lead to" in listing.notes

    def test_dots_begin_in_the_tables_folder(self, list_tree: ListTree) -> None:
        tree = {"lists/t.csv": b"uri,label\nx/../a.mp4,0\n", "lists/a.mp4": b"x"}
        assert [video.uri for video in list_tree("table", tree, table="lists/t.csv").videos] == ["lists/a.mp4"]
        with pytest.raises(UnreadableError, match=r"leaves the table's root"):
            list_tree("table", tree | {"lists/t.csv": b"uri,label\n../lists/a.mp4,0\n"}, table="lists/t.csv")

    def test_two_spellings_are_two_rows_of_one_path(self, listing_of: ListingOf) -> None:
        once, again = (listing_of(f"uri,label\na.mp4,0\n{path},0\n").videos for path in ("a.mp4", "sub/../a.mp4"))
        assert again == once
        assert [(video.uri, video.code) for video in again] == [("a.mp4", None), ("a.mp4#line-3", Code.E_DUP_NAME)]

    def test_the_root_itself_is_no_video(self, listing_of: ListingOf) -> None:
        with pytest.raises(UnreadableError, match=r"^t.csv, line 2: no uri"):
            listing_of("uri,label\nsub/..,1\n")

    def test_a_nul_byte_is_refused(self, list_tree: ListTree) -> None:
        data = parquet(uri=["a\0.mp4"], label=[1])
        with pytest.raises(UnreadableError, match=r"^t.pq, row 1: 'a.x00.mp4' leaves"):
            list_tree("table", {"t.pq": data}, table="t.pq")

    @pytest.mark.parametrize("path", ["./sub/c.mp4", "sub//c.mp4", "sub/./c.mp4"])
    def test_other_spellings_are_one_path(self, listing_of: ListingOf, path: str) -> None:
        video = listing_of(f"uri,label\n{path},1\n").videos[0]
        assert (video.uri, video.code) == ("sub/c.mp4", None)

    def test_backslashes_are_slashes_where_no_file_has_them(self, list_tree: ListTree) -> None:
        tree = {
            "t.csv": b"uri,label,original\nsub\\c.mp4,1,.\\sub\\r.mp4\nsub\\r.mp4,0,\na\\b.mp4,1,\nsub\\gone.mp4,1,\n"
        }
        tree |= dict.fromkeys(("sub/c.mp4", "sub/r.mp4", "a\\b.mp4", "a/b.mp4"), b"x")
        listing = list_tree("table", tree, table="t.csv")
        assert {video.uri: video.code for video in listing.videos} == {
            "a\\b.mp4": None, "sub/c.mp4": None, "sub/gone.mp4": Code.E_MISSING_FILE, "sub/r.mp4": None,
        }  # fmt: skip
        assert listing.videos[1].original_uri == "sub/r.mp4"
        assert "table: 3 uris with backslashes were read with slashes" in listing.notes

    @pytest.mark.parametrize("path", ["..\\a.mp4", "C:\\a.mp4", "\\a.mp4"])
    def test_backslashes_are_no_way_out(self, listing_of: ListingOf, path: str) -> None:
        with pytest.raises(UnreadableError, match=r"^t.csv, line 2: .* leaves the table's root"):
            listing_of(f"uri,label\n{path},1\n")

    def test_a_table_of_which_nothing_is_there_is_refused(self, listing_of: ListingOf) -> None:
        with pytest.raises(UnreadableError, match=r"^t.csv: none of its 2 videos is there, such as x/a.mp4: .*--root"):
            listing_of("uri,label\nx/a.mp4,1\nx/b.mp4,1\n")

    def test_uris_are_relative_to_the_tables_folder(self, list_tree: ListTree) -> None:
        tree = {"lists/t.csv": b"uri,label,original\nb.mp4,1,a.mp4\na.mp4,0,\n", "lists/a.mp4": b"x", "b.mp4": b"x"}
        real, fake = list_tree("table", tree, table="lists/t.csv").videos
        assert (real.uri, real.code) == ("lists/a.mp4", None)
        assert (fake.uri, fake.code, fake.original_uri) == ("lists/b.mp4", Code.E_MISSING_FILE, "lists/a.mp4")

    def test_missing_and_empty_files(self, list_tree: ListTree) -> None:
        tree = {"t.csv": b"uri,label\na.mp4,1\nb.mp4,1\n", "a.mp4": b""}
        videos = list_tree("table", tree, table="t.csv").videos
        assert [(v.code, v.detail) for v in videos] == [
            (Code.E_EMPTY_FILE, ""),
            (Code.E_MISSING_FILE, "named by the table"),
        ]

    def test_videos_that_the_table_does_not_name_are_no_inputs(self, list_tree: ListTree) -> None:
        tree = FILES | {"t.csv": b"uri,label\na.mp4,1\n", "readme.txt": b"x"}
        listing = list_tree("table", tree, table="t.csv")
        assert [v.uri for v in listing.videos] == ["a.mp4"]
        assert listing.notes == ("table: 2 videos below its root are not in it, and not inputs",)


class TestRepeats:
    def test_the_later_line_is_the_duplicate(self, listing_of: ListingOf) -> None:
        videos = listing_of("uri,label,method\na.mp4,1,x\nb.mp4,0,\n./a.mp4,1,y\n").videos
        assert [(v.uri, v.code, v.method) for v in videos] == [
            ("a.mp4", None, "x"),
            ("a.mp4#line-4", Code.E_DUP_NAME, "y"),
            ("b.mp4", None, None),
        ]
        assert len({v.video_id for v in videos}) == 3

    @pytest.mark.parametrize(("labels", "code"), [("1,0", Code.E_LABEL_CONFLICT), ("1,", None), ("1,1", None)])
    def test_two_labels_for_one_video_refuse_both(self, listing_of: ListingOf, labels: str, code: Code | None) -> None:
        first, second = labels.split(",")
        videos = listing_of(f"uri,label\na.mp4,{first}\na.mp4,{second}\n").videos
        assert [v.code for v in videos] == [code, Code.E_DUP_NAME]

    def test_a_file_that_is_not_there_stays_missing(self, listing_of: ListingOf) -> None:
        videos = listing_of("uri,label\na.mp4,1\ngone.mp4,1\ngone.mp4,0\n").videos
        assert [v.code for v in videos] == [None, Code.E_MISSING_FILE, Code.E_DUP_NAME]

    def test_a_third_line_may_still_contradict(self, listing_of: ListingOf) -> None:
        videos = listing_of("uri,label\na.mp4,1\na.mp4,1\na.mp4,0\n").videos
        assert [v.code for v in videos] == [Code.E_LABEL_CONFLICT, Code.E_DUP_NAME, Code.E_DUP_NAME]


class TestOriginals:
    @pytest.mark.parametrize(
        ("original", "found"), [("a.mp4", "a.mp4"), ("./a.mp4", "a.mp4"), ("sub/c.mp4", None), ("b.mp4", None)]
    )
    def test_only_a_listed_real_is_an_original(self, listing_of: ListingOf, original: str, found: str | None) -> None:
        listing = listing_of(f"uri,label,original\na.mp4,0,\nb.mp4,1,{original}\n")
        assert listing.videos[1].original_uri == found
        assert listing.videos[1].code is None
        unresolved = [note for note in listing.notes if Code.E_ORIGINAL_UNRESOLVED in note]
        assert [note.startswith("table: 1 x ") for note in unresolved] == [True] * (found is None)

    def test_another_fake_is_no_original(self, listing_of: ListingOf) -> None:
        assert listing_of("uri,label,original\na.mp4,1,\nb.mp4,1,a.mp4\n").videos[1].original_uri is None

    def test_a_video_is_not_its_own_original(self, listing_of: ListingOf) -> None:
        assert listing_of("uri,label,original\na.mp4,,a.mp4\n").videos[0].original_uri is None

    def test_a_real_has_none_but_is_tied_to_what_it_names(self, listing_of: ListingOf) -> None:
        copy = listing_of("uri,label,original\na.mp4,0,\nb.mp4,real,a.mp4\n").videos[1]
        assert (copy.original_uri, copy.target_keys) == (None, ("table/a.mp4",))


@given(st.permutations(["a.mp4,0,", "b.mp4,1,a.mp4", "sub/c.mp4,1,a.mp4", "gone.mp4,0,"]))
def test_order_of_lines_does_not_matter(lines: list[str]) -> None:
    def listing(order: list[str]) -> SourceListing:
        text = "\n".join(["uri,label,original", *order]).encode()
        files = [SourceFile(path=path, n_bytes=1) for path in FILES]
        return list_videos("table", files, SourceOptions(read_bytes=lambda _path: text, table_path="t.csv"))

    assert listing(lines) == listing(sorted(lines))
