"""`lps-train score` with a margin: the square that the detector was trained with, cut out of clips stored as then."""

import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from lps.cli.train.main import main
from lps.cli.train.scoring import open_scorer
from lps.manifests.canonical import digest16
from lps.model.data.frames import frames_to_blocks
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.training.checkpoint import write_checkpoint
from lps.model.training.params import DataParams
from lps.model.training.presets import Preset
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import ALL_CLIPS, CropParams, Params
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.tools.demo_videos import make_face_video
from tests.builders import detector_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

NET = NetParams(width=4, n_blocks=2, gru_dropout=0.0)
PRESET = Preset(image_px=32, net=NET, head=HeadParams(final_bn=False), data=DataParams(margin=1.2))
PREP = Params(localizer="mtcnn", clip_frames=10, out_px=64, crop=CropParams(margin=1.3))


def written(path: Path, prep: Params | None) -> tuple[Path, Detector]:
    torch.manual_seed(0)
    network = Detector(PRESET.net, PRESET.head).eval()
    data = {"prep": prep.record() if prep else None}
    write_checkpoint(path, detector_checkpoint(network, PRESET, data=data))
    return path, network


def test_scores_are_those_of_the_square_that_is_cut(tmp_path: Path) -> None:
    make_face_video(tmp_path / "one.mp4", n_frames=14, width=320, height=240)
    checkpoint, network = written(tmp_path / "best.pt", PREP)
    ended = CliRunner().invoke(main, ["score", str(tmp_path / "one.mp4"), "--checkpoint", str(checkpoint), "--json"])
    assert ended.exit_code == 0, ended.output
    [record] = json.loads(ended.stdout)
    localizer = load_localizer("mtcnn", weights_dir=None, device="cpu", batch_size=1)
    found = process_video(tmp_path / "one.mp4", digest16("any"), localizer.detect, replace(PREP, clips=ALL_CLIPS))
    images = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in found.clips[0].frames]
    assert images[0].shape == (83, 83, 3)
    # 64 px from 9 on, and round(1.2 x 64) = 77 px about them: 6 more on the left, 7 on the right
    small = [cv2.resize(image[3:80, 3:80], (32, 32), interpolation=cv2.INTER_AREA) for image in images]
    with torch.inference_mode():
        p_fake = network(frames_to_blocks(torch.from_numpy(np.stack(small)[None]), 5)).softmax(1)[0, 1]
    assert [clip["p_fake"] for clip in record["clips"]] == [pytest.approx(float(p_fake), abs=2e-6)]
    assert record["checkpoint"]["margin"] == 1.2
    assert record["preparation"]["crop"] == {"margin": 1.3}


def test_without_a_record_clips_are_made_as_wide_as_the_detector_sees(tmp_path: Path) -> None:
    checkpoint, _ = written(tmp_path / "best.pt", None)
    scorer = open_scorer(checkpoint, localizer="mtcnn")
    assert scorer.params.crop.margin == 1.2
