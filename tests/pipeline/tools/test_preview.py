"""The contact sheet: what it shows, where, and that the same data set gives the same picture."""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lps.manifests.codes import CODE_MEANING, Code, Stage, Status
from lps.manifests.errors import UnreadableError
from lps.manifests.pages.pictures import evenly_spaced
from lps.manifests.records import Clip, Outcome, SourceVideo, VideoResult
from lps.manifests.schemas import CLIPS, Row, parquet_bytes, read_table, rows_table
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store, open_store
from lps.pipeline.clips.encode import encode_image
from lps.pipeline.config.params import Params
from lps.pipeline.tools.contact_sheet import (
    FACE_PX,
    LABEL_COLOURS,
    MARGIN,
    MIN_WIDTH,
    SEAM,
    SIDE_PX,
    TILE_GAP,
    TILE_WIDTH,
    Layout,
    SheetClip,
    SheetHeading,
    SheetReject,
    SheetRow,
    draw_sheet,
    ellipsized,
    font,
    printable,
    wrapped,
)
from lps.pipeline.tools.preview import draw_preview, sheet_rows
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set, folder_spec, folder_video, still_clip

N_FRAMES = 10
PARAMS = Params(localizer="mtcnn", codec="png", clip_frames=N_FRAMES, out_px=32)
FAULTS = (Code.E_TRUNCATED, Code.E_NO_FACE, Code.E_WORKER_LOST)

Colour = tuple[int, int, int]


def colour_of(video_id: bytes, frame: int) -> Colour:
    """The colour of a frame in these tests: another one for every video and time."""
    return (video_id[0], video_id[1], 20 * frame)


def source(uri: str, label: int | None, *, code: Code | None = None) -> SourceVideo:
    return folder_video(uri, label, method=uri.split("/")[1] if label == 1 else None, code=code)


def clip_of(video_id: bytes, params: Params) -> Clip:
    shape = (params.out_px, params.out_px, 3)
    images = [np.full(shape, colour_of(video_id, i), np.uint8) for i in range(params.clip_frames)]
    return still_clip(params.clip_frames, start=30, frames=tuple(encode_image(image, params) for image in images))


def result_of(video: SourceVideo, fault: Code | None, params: Params) -> VideoResult:
    """One clip, or the code; E_TRUNCATED gives both."""
    clips = (clip_of(video.video_id, params),) if fault in (None, Code.E_TRUNCATED) else ()
    outcome = Outcome(status=Status.OK, n_frames_decoded=80, n_tracks=1)
    if fault is not None:
        status = Status.PARTIAL if clips else Status.FAILED
        outcome = Outcome(status=status, code=fault, stage=Stage.DECODE, detail="it went wrong", n_frames_decoded=50)
    return VideoResult(video_id=video.video_id, outcome=outcome, clips=clips)


def make_data_set(root: Path, videos: Sequence[SourceVideo], params: Params = PARAMS, *, rule: str = "group") -> Store:
    """Plan, write and finalize a data set of these videos; one whose name holds a code ends with it."""
    spec = replace(
        folder_spec(params, shard_bytes=200_000, split_set="default"), split=SplitParams(rule=rule, allow_leaky=True)
    )
    digests = {v.uri: hashlib.sha256(v.uri.encode()).hexdigest() for v in videos if v.code is None}
    probes = {uri: Probe(n_bytes=100, sha256=digest, n_frames_promised=80) for uri, digest in digests.items()}

    def ended(video: SourceVideo) -> VideoResult:
        return result_of(video, next((fault for fault in FAULTS if fault in video.uri), None), params)

    build_data_set(root / "dataset", spec, videos, probes, ended)
    return open_store(str(root / "dataset"))


MIXED = [
    *(source(f"real/{i:03d}.mp4", 0) for i in range(12)),
    *(source(f"fake/swap/{i:03d}.mp4", 1) for i in range(12)),
    *(source(f"fake/swap/{code}_{i}.mp4", 1) for code in FAULTS for i in range(3)),
    source("real/E_NO_FACE.mp4", 0),
    source("real/empty.mp4", 0, code=Code.E_EMPTY_FILE),
    source("fake/swap/mask.mp4", 1, code=Code.S_MASK),
]


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_data_set(tmp_path_factory.mktemp("mixed"), MIXED)


def manifest(out: Store, name: str) -> list[Row]:
    return list(read_table(name, out.read(f"manifests/{name}.parquet")).to_pylist())


def table(out: Store, name: str) -> pa.Table:
    return read_table(name, out.read(f"manifests/{name}.parquet"))


def rows_of(out: Store, per_row: int) -> list[SheetRow]:
    return sheet_rows(out, per_row)


def data_set_of(root: Path, tables: Mapping[str, pa.Table]) -> Store:
    """Return a store that holds manifests alone."""
    out = open_store(str(root / "rows"))
    for name, rows in tables.items():
        out.publish(f"manifests/{name}.parquet", parquet_bytes(name, rows, {}))
    return out


def drawn(out: Store, folder: Path, **options: int) -> Image.Image:
    draw_preview(out.url, folder / "sheet.png", **options)
    with Image.open(folder / "sheet.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return image.copy()


def close(found: object, expected: Colour) -> bool:
    return isinstance(found, tuple) and all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))


# ---- choice --------------------------------------------------------------------------------------------------------


def test_rows_are_clips_by_split_and_label_then_rejects_by_code(data_set: Store) -> None:
    rows = rows_of(data_set, 8)
    clips = [row for row in rows if isinstance(row.tiles[0], SheetClip)]
    rejects = [row for row in rows if isinstance(row.tiles[0], SheetReject)]
    assert rows == clips + rejects
    found = [(row.title, row.counts[0][0]) for row in clips]
    expected = {(row["split"], "fake" if row["label"] else "real") for row in manifest(data_set, "clips")}
    assert found == [(s, name) for s in ("train", "val", "test") for name in ("real", "fake") if (s, name) in expected]
    assert sum(row.counts[0][1] for row in clips) == len(manifest(data_set, "clips"))
    assert [(row.title, row.counts) for row in rejects] == [
        ("E_EMPTY_FILE", (("real", 1),)),
        ("E_TRUNCATED", (("fake", 3),)),
        ("E_NO_FACE", (("real", 1), ("fake", 3))),
        ("E_WORKER_LOST", (("fake", 3),)),
        ("S_MASK", (("fake", 1),)),
    ]
    assert all(row.note.startswith(CODE_MEANING[Code(row.title)]) for row in rejects)


def test_every_code_of_the_vocabulary_and_beyond_gets_a_row(data_set: Store, tmp_path: Path) -> None:
    codes = [*(str(code) for code in Code), "E_FROM_THE_FUTURE"]
    video = manifest(data_set, "videos")[0]
    videos = [
        video | {"video_id": bytes([i]) * 16, "uri": f"a/{i}.mp4", "label": (0, 1, None)[i % 3], "error_code": code}
        for i, code in enumerate(codes)
    ]
    tables = {"videos": rows_table("videos", videos[::-1]), "clips": CLIPS.empty_table()}
    rows = sheet_rows(data_set_of(tmp_path, tables), 8)
    assert [row.title for row in rows] == codes
    assert rows[2].counts == (("unknown", 1),)


@pytest.mark.parametrize("per_row", [1, 2, 5])
def test_tiles_are_bounded_and_spaced_over_the_keys(data_set: Store, per_row: int) -> None:
    for row in rows_of(data_set, per_row):
        assert len(row.tiles) == min(per_row, sum(n for _, n in row.counts))
    clips = manifest(data_set, "clips")
    keys = sorted(c["sample_key"] for c in clips if c["split"] == "train" and c["label"] == 0)
    first = rows_of(data_set, per_row)[0]
    assert [tile.sample_key for tile in first.tiles if isinstance(tile, SheetClip)] == evenly_spaced(keys, per_row)
    assert "shown" in first.note


def test_choice_does_not_depend_on_the_order_of_the_rows(data_set: Store, tmp_path: Path) -> None:
    names = ("videos", "clips")
    backwards = {name: rows.take(list(range(len(rows)))[::-1]) for name in names for rows in [table(data_set, name)]}
    assert sheet_rows(data_set_of(tmp_path, backwards), 3) == sheet_rows(data_set, 3)


def test_evenly_spaced() -> None:
    assert evenly_spaced(range(100), 3) == [0, 49, 99]
    assert evenly_spaced(range(5), 1) == [2]
    assert evenly_spaced(range(3), 8) == [0, 1, 2]
    assert evenly_spaced([], 8) == []
    for n in range(1, 40):
        assert len(set(evenly_spaced(range(40), n))) == n


def test_a_row_holds_at_least_one_tile(data_set: Store) -> None:
    with pytest.raises(ValueError, match="per_row"):
        rows_of(data_set, 0)


# ---- picture -------------------------------------------------------------------------------------------------------


def test_frames_stand_where_the_layout_says(data_set: Store, tmp_path: Path) -> None:
    page = drawn(data_set, tmp_path, per_row=4)
    rows = rows_of(data_set, 4)
    layout = Layout(heading=SheetHeading(title="", lines=("", "")), rows=tuple(rows))
    assert page.size == (layout.width, layout.height)
    assert layout.width == max(MIN_WIDTH, 2 * MARGIN + 4 * TILE_WIDTH + 3 * TILE_GAP)
    seen = 0
    for i, row in enumerate(rows):
        for column, tile in enumerate(row.tiles):
            x, y = layout.tile(i, column)
            if isinstance(tile, SheetReject):
                assert page.getpixel((x, y)) == rgb(LABEL_COLOURS[tile.label])
                continue
            video_id = bytes.fromhex(tile.video_id)
            side = x + FACE_PX + SEAM
            corners = {
                (x, y): N_FRAMES // 2,
                (x + FACE_PX - 1, y + FACE_PX - 1): N_FRAMES // 2,
                (side, y): 0,
                (side + SIDE_PX - 1, y + SIDE_PX - 1): 0,
                (side, y + FACE_PX - SIDE_PX): N_FRAMES - 1,
                (side + SIDE_PX - 1, y + FACE_PX - 1): N_FRAMES - 1,
            }
            for place, frame in corners.items():
                assert close(page.getpixel(place), colour_of(video_id, frame)), (tile.uri, place)
            assert page.getpixel((x, y + FACE_PX)) == rgb(LABEL_COLOURS[tile.label])
            seen += 1
    assert seen >= 8


def rgb(colour: str) -> Colour:
    return (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))


def test_equal_data_sets_give_equal_bytes_wherever_they_lie(
    data_set: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_data_set(tmp_path, MIXED[::-1])
    draw_preview(data_set.url, tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    draw_preview(f"file://{other.url}", Path("b.png"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_text_leaves_its_tile_or_the_page() -> None:
    long = "a_very_long_folder_name/" * 20 + "a_very_long_name_without_any_space_" * 20 + ".mp4"
    clip = SheetClip(
        sample_key="k",
        label="fake",
        method=long,
        uri=long,
        video_id="f" * 32,
        det_rate=1.0,
        start_s=9999.9,
    )
    reject = SheetReject(
        uri=long,
        label="unknown",
        status="partial",
        code="E_MULTI_FACE_AMBIGUOUS",
        stage="discover",
        n_frames_decoded=10**9,
        detail=f"{long} and more, {long}",
    )
    rows = (
        SheetRow(title=long, counts=(("fake", 10**9),), note=long, tiles=(clip, clip)),
        SheetRow(title=long, counts=tuple((x, 10**9) for x in LABEL_COLOURS), note=long, tiles=(reject, reject)),
    )
    layout = Layout(heading=SheetHeading(title=long, lines=(long, long), warnings=(long,)), rows=rows)
    frames = [Image.new("RGB", (side, side), "#00FF00") for side in (FACE_PX, SIDE_PX, SIDE_PX)]
    page = np.asarray(draw_sheet(layout, {"k": frames}))
    assert (page[:, layout.width - MARGIN :] == 255).all(), "the right margin stays empty"
    for i in range(len(rows)):
        x, y = layout.tile(i, 1)
        gap = page[
            y : layout.tops[i] + rows[i].height, x - TILE_GAP + 1 : x
        ]  # a glyph's soft edge may lie on the next pixel
        assert (gap == 255).all(), "nothing is drawn between tiles"
    assert (page[layout.height - MARGIN :] == 255).all(), "the bottom margin stays empty"


def test_only_the_frames_that_are_shown_are_read(
    data_set: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [tile.sample_key for row in rows_of(data_set, 2) for tile in row.tiles if isinstance(tile, SheetClip)]
    read: list[str] = []
    ranges: list[tuple[str, int, int]] = []
    whole, part = Store.read, Store.read_range

    def read_whole(self: Store, path: str) -> bytes:
        read.append(path)
        return whole(self, path)

    def read_part(self: Store, path: str, start: int, end: int) -> bytes:
        ranges.append((path, start, end))
        return part(self, path, start, end)

    monkeypatch.setattr(Store, "read", read_whole)
    monkeypatch.setattr(Store, "read_range", read_part)
    draw_preview(data_set.url, tmp_path / "sheet.png", per_row=2)
    monkeypatch.undo()
    assert read == ["index.json"], "manifests are read by column"
    stored = {
        (f"shards/{clip['split']}/{clip['shard_id']}.tar", m["offset"], m["offset"] + m["nbytes"])
        for clip in manifest(data_set, "clips")
        for m in clip["members"]
        if m["ext"] in ("00.png", "05.png", "09.png") and clip["sample_key"] in keys
    }
    assert set(ranges) == stored
    assert len(ranges) == 3 * len(keys)


@pytest.mark.parametrize(
    "params", [dataclasses.replace(PARAMS, codec="jpg"), dataclasses.replace(PARAMS, codec="webp")], ids=["jpg", "webp"]
)
def test_other_codecs(tmp_path: Path, params: Params) -> None:
    video = source("fake/swap/a.mp4", 1)
    page = drawn(make_data_set(tmp_path, [video], params), tmp_path)
    layout = Layout(
        heading=SheetHeading(title="", lines=("", "", "")),
        rows=tuple(rows_of(open_store(str(tmp_path / "dataset")), 8)),
    )
    x, y = layout.tile(0, 0)
    found = page.getpixel((x + 60, y + 60))
    assert isinstance(found, tuple)
    assert all(abs(a - b) <= 6 for a, b in zip(found, colour_of(video.video_id, N_FRAMES // 2), strict=True))


@pytest.mark.parametrize(
    "videos",
    [
        pytest.param([], id="no videos"),
        pytest.param([source("real/a.mp4", 0)], id="no rejects"),
        pytest.param([source("real/E_NO_FACE.mp4", 0)], id="no clips"),
        pytest.param([source("x/empty.mp4", None, code=Code.E_EMPTY_FILE)], id="no label"),
    ],
)
def test_small_data_sets(tmp_path: Path, videos: list[SourceVideo]) -> None:
    page = drawn(make_data_set(tmp_path, videos), tmp_path)
    assert page.width == MIN_WIDTH
    assert page.height > 80


def test_a_leaky_split_is_stamped(tmp_path: Path) -> None:
    heights = []
    for rule in ("group", "random"):
        folder = tmp_path / rule
        folder.mkdir()
        heights.append(drawn(make_data_set(folder, [source("real/a.mp4", 0)], rule=rule), folder).height)
    assert heights[1] > heights[0]


def test_the_page_has_a_bound(data_set: Store, tmp_path: Path) -> None:
    whole, cut = drawn(data_set, tmp_path), drawn(data_set, tmp_path, max_rows=2)
    rows = rows_of(data_set, 8)
    assert (
        cut.height
        == Layout(heading=SheetHeading(title="", lines=("", ""), warnings=("",)), rows=tuple(rows[:2])).height
    )
    assert cut.height < whole.height


# ---- text ----------------------------------------------------------------------------------------------------------


def test_what_is_too_long_is_cut_to_its_width() -> None:
    text = "fake/method/a long name of a video.mp4"
    assert ellipsized(text, 12, 1000) == text
    for width in range(10, 300, 7):
        head, tail = ellipsized(text, 12, width), ellipsized(text, 12, width, keep_end=True)
        assert font(12).getlength(head) <= width
        assert font(12).getlength(tail) <= width
        assert head == text or (head.endswith("…") and text.startswith(head[:-1]))
        assert tail == text or (tail.startswith("…") and text.endswith(tail[1:]))
    assert ellipsized(text, 12, 0) == ""


def test_text_wraps_at_spaces_and_ends_in_an_ellipsis() -> None:
    lines = wrapped("several words that do not fit on one line of the tile at all", 12, 100, 3)
    assert len(lines) == 3
    assert all(font(12).getlength(line) <= 100 for line in lines)
    assert lines[0] == "several words"
    assert lines[2].endswith("…")
    assert wrapped("x" * 60, 12, 100, 9) == [line for line in wrapped("x" * 60, 12, 100, 9) if set(line) == {"x"}]
    assert wrapped("", 12, 100, 3) == []


def test_names_stay_distinct_where_the_font_ends() -> None:
    assert printable("caf\u00e9\n\u4e2d \x1b[31m") == "caf\\xe9 \\u4e2d \\x1b[31m"


# ---- faults --------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Store:
    return make_data_set(tmp_path, [source("real/a.mp4", 0)])


def _truncate(out: Store) -> None:
    tar = next(out.local_path("shards").rglob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:700])


def _overwrite(out: Store) -> None:
    tar = next(out.local_path("shards").rglob("*.tar"))
    tar.write_bytes(b"\0" * tar.stat().st_size)


def _bomb(out: Store) -> None:
    buffer = io.BytesIO()
    Image.new("1", (5000, 8)).save(buffer, "PNG")
    tar = next(out.local_path("shards").rglob("*.tar"))
    tar.write_bytes(tar.read_bytes().replace(encode_image(_middle(out), PARAMS), buffer.getvalue()))


def _middle(out: Store) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    video_id = manifest(out, "videos")[0]["video_id"]
    return np.full((32, 32, 3), colour_of(video_id, N_FRAMES // 2), np.uint8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda out: out.delete("index.json"), "not a complete one", id="no index"),
        pytest.param(lambda out: out.delete("manifests/clips.parquet"), "cannot read", id="no manifest"),
        pytest.param(lambda out: out.publish("manifests/clips.parquet", b"PAR1"), "Parquet", id="foreign manifest"),
        pytest.param(lambda out: next(out.local_path("shards").rglob("*.tar")).unlink(), "cannot read", id="no shard"),
        pytest.param(_truncate, "its manifest says", id="short shard"),
        pytest.param(_overwrite, "cannot decode", id="no images"),
        pytest.param(_bomb, "no aligned frame", id="too large an image"),
    ],
)
def test_faults_are_one_line(damaged: Store, tmp_path: Path, damage: Callable[[Store], None], message: str) -> None:
    damage(damaged)
    with pytest.raises(UnreadableError, match=message) as caught:
        draw_preview(damaged.url, tmp_path / "sheet.png")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sheet.png").exists()


def test_a_decompression_bomb_is_refused(damaged: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableError, match="cannot decode"):
        draw_preview(damaged.url, tmp_path / "sheet.png")


def test_a_target_that_cannot_be_written(damaged: Store, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UnreadableError, match="cannot write"):
        draw_preview(damaged.url, tmp_path / "taken")
    assert not list(tmp_path.glob(".taken*")), "no torn file is left"
    with pytest.raises(UnreadableError):
        draw_preview(damaged.url, tmp_path / "dataset" / "index.json" / "sheet.png")


def test_ranges_of_a_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish("a/b", b"0123456789")
    assert store.read_range("a/b", 2, 5) == b"234"
    assert store.read_range("a/b", 8, 99) == b"89"
    assert store.read_range("a/b", 4, 4) == b""
    for start, end in ((-1, 4), (5, 4)):
        with pytest.raises(UnreadableError, match="no range"):
            store.read_range("a/b", start, end)
    with pytest.raises(UnreadableError, match="cannot read"):
        store.read_range("a/c", 0, 4)
