"""Figure 7: the same frame as it was filmed, cropped and aligned, from data sets and from the source videos."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from lps.cli.train.main import main
from lps.cli.train.originals import with_originals
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.schemas import read_table, table_bytes
from lps.model.paper.figures.align import Example, alignment_examples, draw_alignment, open_clips
from lps.pipeline.config.params import Params
from lps.pipeline.tools.demo_videos import make_face_video
from lps.pipeline.tools.recheck import psnr_db
from tests.builders import process_folder

VIDEOS = ("real/a.mp4", "fake/blend/a.mp4")
N_FRAMES = 6


def prepare(source: Path, out: Path, *, align: bool) -> None:
    params = Params(localizer="mtcnn", clip_frames=N_FRAMES, block_frames=3, align=align)
    assert process_folder(source, out, params).n_ok == len(VIDEOS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with videos, and data sets of them with and without alignment. Tests only read it."""
    root = tmp_path_factory.mktemp("align")
    for k, uri in enumerate(VIDEOS):
        make_face_video(root / "source" / uri, n_frames=12, width=320, height=240, seed=3, fake=bool(k))
    prepare(root / "source", root / "aligned", align=True)
    prepare(root / "source", root / "cropped", align=False)
    return root


def examples(root: Path, cropped: Path | None = None) -> list[Example]:
    crops = None if cropped is None else open_clips(str(cropped), aligned=False)
    return alignment_examples(open_clips(str(root / "aligned"), aligned=True), crops, 2)


def warped(example: Example) -> NDArray[np.uint8]:
    assert example.original is not None
    matrix = np.array(example.row["align_M"][example.place], np.float32).reshape(2, 3)
    size = example.aligned.shape[:2]
    face = cv2.warpAffine(example.original.image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(face, np.uint8)


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["figure", "align", *map(str, words)])


def test_all_three_pictures_are_of_the_same_frame(made: Path) -> None:
    found = with_originals(examples(made, made / "cropped"), str(made / "aligned"), str(made / "source"))
    assert [each.row["label"] for each in found] == [0, 1]
    for each in found:
        assert each.frame_index == each.row["frame_idx"][N_FRAMES // 2]
        assert psnr_db(warped(each), each.aligned) > 35


def test_the_crop_made_here_is_that_of_no_align(made: Path) -> None:
    stored = examples(made, made / "cropped")
    here = with_originals(examples(made), str(made / "aligned"), str(made / "source"))
    for a, b in zip(stored, here, strict=True):
        assert a.unaligned is not None
        assert b.unaligned is not None
        assert a.frame_index == b.frame_index
        assert psnr_db(a.unaligned, b.unaligned) > 35
        assert psnr_db(a.unaligned, a.aligned) < 25


def test_the_outline_is_where_the_face_was_cut(made: Path) -> None:
    for each in examples(made):
        matrix = np.array(each.row["align_M"][each.place]).reshape(2, 3)
        corners = each.outline @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(corners, [[0, 0], [224, 0], [224, 224], [0, 224]], atol=1e-3)
        x0, y0, x1, y1 = each.box_xyxy
        assert x0 < each.points[:, 0].min() < each.points[:, 0].max() < x1
        assert y0 < each.points[:, 1].min() < each.points[:, 1].max() < y1


def test_the_command_draws_what_it_is_given(made: Path, tmp_path: Path) -> None:
    data, source, cropped = (("--data", made / "aligned"), ("--source", made / "source"),
                             ("--unaligned", made / "cropped"))  # fmt: skip
    heights = []
    for k, words in enumerate(((*data, *cropped), (*data, *source), (*data, *source, *cropped))):
        result = call(tmp_path / str(k), *words)
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / str(k) / "align.png") as drawn:
            heights.append(drawn.height)
    assert heights[0] < heights[1]
    assert heights[1] == heights[2]
    assert call(tmp_path / "none", *data).exit_code == 2
    swapped = call(tmp_path / "none", "--data", made / "cropped", "--unaligned", made / "aligned")
    assert swapped.exit_code == 3
    assert "those of lps-prep run --no-align" in swapped.stderr


def test_other_and_missing_videos_are_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "source", tmp_path / "source")
    with (tmp_path / "source" / VIDEOS[0]).open("ab") as file:
        file.write(b"more")
    with pytest.raises(RefusedError, match="is not the file that the data set was made from"):
        with_originals(examples(made), str(made / "aligned"), str(tmp_path / "source"))
    with pytest.raises(UnreadableError, match="--source is the folder that lps-prep run was given"):
        with_originals(examples(made), str(made / "aligned"), str(tmp_path))


def test_data_sets_of_other_frames_are_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "cropped", tmp_path / "cropped")
    path = tmp_path / "cropped/manifests/clips.parquet"
    rows = read_table("clips", path.read_bytes()).to_pylist()
    for row in rows:
        row["frame_idx"] = [k + 1000 for k in row["frame_idx"]]
    path.write_bytes(table_bytes("clips", rows, {}))
    with pytest.raises(RefusedError, match="have no frame of a face in common"):
        examples(made, tmp_path / "cropped")


def test_an_example_without_a_crop_leaves_its_place_empty(made: Path, tmp_path: Path) -> None:
    with_crop, without = examples(made, made / "cropped")[0], examples(made)[1]
    draw_alignment([with_crop, without], tmp_path)
    assert (tmp_path / "align.png").read_bytes().startswith(b"\x89PNG")
