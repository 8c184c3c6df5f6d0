"""A detector over batches: the same numbers as by hand, no trace left in it, and no silent nonsense."""

from collections.abc import Iterator
from hashlib import sha256

import pytest
import torch

from lps.manifests.errors import LpsError, RefusedError
from lps.model.data.clip_decoder import Batch
from lps.model.data.frames import frames_to_blocks
from lps.model.evaluation.predict import PredictOptions, predict
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.svm import Svm
from lps.model.training.processes import choose_device

NET = NetParams(width=4, n_blocks=2, block_frames=2)
CPU = PredictOptions(device=torch.device("cpu"))


def batch(keys: str, *, n_frames: int = 4) -> Batch:
    """Return clips named by single letters; their pixels follow from the letter."""
    frames = [
        torch.randint(0, 256, (n_frames, 32, 32, 3), dtype=torch.uint8, generator=torch.manual_seed(ord(key)))
        for key in keys
    ]
    ids = tuple(sha256(key.encode()).digest()[:16] for key in keys)
    labels = torch.tensor([ord(key) % 3 - 1 for key in keys])
    return Batch(0, torch.stack(frames), labels, tuple(keys), ids, tuple(bytes(16) for _ in keys))


@pytest.fixture
def detector() -> Iterator[Detector]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield Detector(NET, HeadParams()).eval()


def test_scores_are_the_softmax_of_the_logits_in_the_order_of_the_batches(detector: Detector) -> None:
    batches = [batch("abc"), batch("d")]
    done: list[int] = []
    scores = predict(detector, batches, CPU, done.append)
    with torch.no_grad():
        logits = torch.cat([detector(frames_to_blocks(each.frames, 2)) for each in batches])
    assert scores.p_fake == pytest.approx(logits.float().softmax(1)[:, 1].numpy(), abs=1e-6)
    assert scores.table["clip_id"].to_pylist() == [*batches[0].clip_ids, *batches[1].clip_ids]
    assert len(set(scores.p_fake)) == 4
    assert done == [3, 1]


def test_a_clips_score_does_not_depend_on_its_batch(detector: Detector) -> None:
    together = predict(detector, [batch("abcd")], CPU).p_fake
    alone = [float(predict(detector, [batch(key)], CPU).p_fake[0]) for key in "abcd"]
    assert alone == pytest.approx(together, abs=1e-6)


def test_the_detector_is_left_as_it_was(detector: Detector) -> None:
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    for training in (True, False):
        detector.train(training)
        predict(detector, [batch("ab")], CPU)
        assert detector.training is training
        assert detector.final_bn.training is training
    after = detector.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_broken_detector_is_left_in_its_mode_too(detector: Detector) -> None:
    with pytest.raises(RefusedError):
        predict(detector.train(), [batch("a", n_frames=6)], CPU)
    assert detector.training


def test_unknown_labels_are_null(detector: Detector) -> None:
    scores = predict(detector, [batch("abc")], CPU)  # 97 % 3 = 1
    assert scores.table["label"].to_pylist() == [0, 1, None]
    assert scores.labels.tolist() == [0, 1, -1]
    assert scores.labelled().labels.tolist() == [0, 1]


def test_no_batches_give_no_scores(detector: Detector) -> None:
    scores = predict(detector, [], CPU)
    assert len(scores) == len(scores.labelled()) == len(scores.labelled().by_video()) == 0


def test_scores_that_are_not_finite_name_their_samples(detector: Detector) -> None:
    with torch.no_grad():
        detector.final_fc[1].bias[0] = float("nan")  # type: ignore[operator]
    with pytest.raises(LpsError, match=r"not finite for samples a, b, c, d, e, f, g, h and 2 more"):
        predict(detector, [batch("abcdefghij")], CPU)


def test_clips_of_another_length_are_refused(detector: Detector) -> None:
    with pytest.raises(RefusedError, match="clips of 6 frames were read, the network takes 2 blocks of 2"):
        predict(detector, [batch("a", n_frames=6)], CPU)


def test_bfloat16_is_near(detector: Detector) -> None:
    half = predict(detector, [batch("abcd")], PredictOptions(device=torch.device("cpu"), bf16=True))
    assert half.p_fake == pytest.approx(predict(detector, [batch("abcd")], CPU).p_fake, abs=0.02)


def test_a_support_vector_machine_takes_the_place_of_the_head(detector: Detector) -> None:
    n = detector.n_context * 2
    ones = torch.ones(n, dtype=torch.float64)
    svm = Svm(ones * 0, ones, ones[None], ones[:1], ones[0] * 0.25, ones[0] * 0)
    scores = predict(detector, [batch("ab")], PredictOptions(device=torch.device("cpu"), svm=svm))
    with torch.no_grad():
        context = detector.context(detector.encode_clips(frames_to_blocks(batch("ab").frames, 2)))
    assert scores.p_fake == pytest.approx(torch.sigmoid(context.double().sum(1) + 0.25).numpy(), abs=1e-6)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(RefusedError, match="no CUDA device found; set the device to"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")
