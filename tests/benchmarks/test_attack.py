"""The attack: changes, comparison, shrinking and report; and that every arm runs."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame

from benchmarks.attack import __main__ as attack
from benchmarks.attack.edits import Edit, edited, swap
from benchmarks.attack.forms import CODINGS, HEIGHT, N_FRAMES, WIDTH, code
from benchmarks.attack.kills import descendants, left_alive
from benchmarks.attack.media import DECODER_LINE, Decoded, Reader, faults, indexed, inner_faults
from benchmarks.attack.media_process import MediaAnswer, run
from benchmarks.attack.mkv import MKV, elements
from benchmarks.attack.mp4 import MP4, boxes
from benchmarks.attack.records import Budget, Try, Verdict
from benchmarks.attack.report import (
    BEGIN,
    END,
    PAGE,
    TABLE_JSON,
    Report,
    add_to_report,
    block,
    mend_report,
    of_tries,
    read_report,
    report_from,
    write_docs,
)
from benchmarks.attack.shrink import shrunk
from benchmarks.attack.streams import RAW, TS
from lps.pipeline.tools.demo_videos import make_texture_video
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a small MP4 file."""
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    make_texture_video(path, n_frames=4, width=64, height=64)
    return path.read_bytes()


def test_changes_apply_to_the_undamaged_file() -> None:
    data = b"0123456789"
    assert edited(data, [Edit(2, 3, b"x", ""), Edit(8, 0, b"yy", "")]) == b"01x567yy89"
    assert edited(data, swap(data, (1, 2), (6, 1), "")) == b"0634512789"
    assert edited(data, [Edit(4, 6, b"", "cut"), Edit(2, 4, b"", "over it")]) == b"0123"


def test_what_fails_is_made_small() -> None:
    asked: list[Sequence[int]] = []

    def fails(items: Sequence[int]) -> bool:
        asked.append(items)
        return {3, 11} <= set(items)

    assert shrunk(range(16), fails) == [3, 11]
    assert len(asked) < 60
    assert shrunk([1], fails) == [1]


def test_boxes_are_found_and_every_change_knows_its_format(video: bytes) -> None:
    kinds = [box.kind for box in boxes(video)]
    assert kinds[0] == b"ftyp"
    assert {b"stsz", b"stts", b"stsd", b"mvhd"} <= set(kinds)
    for name, propose in MP4.items():
        made = [edited(video, propose(video, random.Random(seed))) for seed in range(20)]
        assert any(data != video for data in made), name


@pytest.mark.parametrize("proposals", [MKV, TS, RAW])
def test_changes_of_other_formats_stand_any_bytes_of_theirs(proposals: dict[str, "object"]) -> None:
    unit = b"\0\0\1\x65" + bytes(range(200))
    packet = b"\x47\x40\x00\x10" + bytes(184)
    element = (
        b"\x1a\x45\xdf\xa3\x84abcd"
        + b"\x18\x53\x80\x67\xff"
        + b"\x1f\x43\xb6\x75\x90"
        + 2 * (b"\xa3\x86\x81\0\0\x80xy")
    )
    data = {id(MKV): element, id(TS): packet * 8, id(RAW): unit * 5}[id(proposals)]
    if proposals is MKV:
        assert [one.kind for one in elements(data)] == [0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA3, 0xA3]
    for propose in proposals.values():
        for seed in range(20):
            assert isinstance(edited(data, propose(data, random.Random(seed))), bytes)  # type: ignore[operator]


def seen(*frames: tuple[int, int, str, bool, bool], windows: list[list[object]] | None = None) -> dict[str, object]:
    """Return what the product says of a video."""
    shown = [list(frame) for frame in frames]
    return {"container": "mov", "frames": shown, "windows": windows or [], "clips": [], "damage": False}


TRUTH: Decoded = indexed([(0, "a"), (1, "b"), (2, "c"), (3, "a")], complains=False)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (seen((0, 0, "a", True, False), (1, 1, "b", False, False)), ""),
        (seen((0, 0, "a", True, False), (1, 2, "c", False, False)), "has others between them"),
        (seen((0, 0, "a", True, False), (1, 2, "c", True, False), (2, 3, "a", False, False)), ""),
        (seen((0, 0, "x", True, True), (1, 1, "b", True, False)), ""),
        (seen((0, 0, "x", True, False)), "is none of the 4"),
        (seen((0, 5, "b", True, False)), "has time stamp 5, another decoder gives 1"),
    ],
)
def test_frames_without_a_mark_are_those_of_another_decoder(found: dict[str, object], words: str) -> None:
    said = faults(found, TRUTH)
    assert words in said
    assert bool(words) == bool(said)


def test_windows_and_clips_are_those_of_the_whole_pass() -> None:
    frames = [(k, k, "abc"[k], k == 0, False) for k in range(3)]
    assert inner_faults(seen(*frames, windows=[[1, 1, "b", False, False]])) == ""
    assert "frame 1 of a window" in inner_faults(seen(*frames, windows=[[1, 1, "c", False, False]]))
    clips = {"clips": [[[1, 2], [1, 2]]]}
    assert "over a break" in inner_faults({**seen(*frames[:2], (2, 2, "c", True, False)), **clips}, frozenset("abc"))
    spoiled = {**seen(*frames[:2], (2, 2, "c", True, True)), **clips}
    assert "damaged frame" in inner_faults(spoiled)
    assert inner_faults(spoiled, frozenset("abc")) == ""


@pytest.mark.parametrize(
    ("frame", "damage", "undamaged", "words"),
    [
        (None, True, "abc", ""),
        ((2, 2, "x", True, True), True, "abc", ""),
        ((2, 2, "x", True, False), True, "abc", "frame 2 of a window"),
        (None, True, "ab", "frame 2 of a window"),
        (None, False, "abc", "frame 2 of a window"),
    ],
    ids=["lost", "spoiled", "another picture, not marked", "not of the undamaged video", "no damage named"],
)
def test_a_window_may_have_the_undamaged_frame_that_the_whole_pass_lost(
    frame: tuple[int, int, str, bool, bool] | None, damage: bool, undamaged: str, words: str
) -> None:
    whole = [(k, k, "ab"[k], k == 0, False) for k in range(2)] + ([frame] if frame else [])
    said = inner_faults({**seen(*whole, windows=[[2, 2, "c", True, False]]), "damage": damage}, frozenset(undamaged))
    assert words in said
    assert bool(words) == bool(said)


@pytest.mark.parametrize("code", [-11, 12, 99])
def test_a_decoder_that_raised_proves_nothing(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = object.__new__(Reader)
    ended = MediaAnswer(code=code, found={}, stderr="IndexError", seconds=0.1, peak_mb=1.0)
    monkeypatch.setattr(Reader, "ask", lambda *_: ended)
    assert reader.by_libav(Path("a.mp4")) is None


def asked(path: Path) -> MediaAnswer:
    """Return what libav alone gives of a file."""
    return run({"what": "other", "path": str(path), "seconds": 60})


def test_libav_alone_reads_names_that_are_no_text(video: bytes, tmp_path: Path) -> None:
    (tmp_path / "brand.mp4").write_bytes(video[:8] + b"\xff\xfe\xfd\xfc" + video[12:])
    found = asked(tmp_path / "brand.mp4")
    assert found["code"] == 0, found["stderr"]
    assert len(found["found"]["frames"]) == 4


def test_libav_alone_reads_up_to_a_stream_that_begins_late(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (N_FRAMES, HEIGHT * 3 // 2, WIDTH), np.uint8)
    images = [VideoFrame.from_ndarray(image, format="yuv420p") for image in noise]
    code(tmp_path / "whole.ts", images, next(coding for coding in CODINGS if coding.name == "mpeg2.ts"))
    data = (tmp_path / "whole.ts").read_bytes()
    heads = [at for at in range(0, len(data), 188) if data[at + 1 : at + 3] == b"\x41\x00"]
    at = heads[-3] + 1  # the packet of a picture's first bytes
    (tmp_path / "late.ts").write_bytes(data[:at] + b"\x4b\xfe" + data[at + 2 :])
    found = asked(tmp_path / "late.ts")
    assert found["code"] == 0, found["stderr"]
    assert (found["found"]["complaints"], len(found["found"]["frames"]) > 40) == (1, True)


def test_what_decoders_say_is_told_from_what_containers_say() -> None:
    assert DECODER_LINE.search("[h264 @ 0x55] error while decoding MB 3 4")
    assert not DECODER_LINE.search("[mov,mp4,m4a @ 0x55] stream 0, offset 0x30: partial file")


def made(kind: str, seed: int, verdict: Verdict) -> Try:
    return Try(arm="media", kind=kind, seed=seed, done="bit flip", verdict=verdict, said="named: E_PROBE", seconds=0.5)


def test_reports_add_up(tmp_path: Path) -> None:
    first = of_tries([made("cut", 1, Verdict.SURVIVED), made("cut", 2, Verdict.WRONG)])
    first.next_seed["media 1"] = 3
    add_to_report(tmp_path, first)
    second = of_tries([made("cut", 3, Verdict.SURVIVED)])
    second.next_seed["media 1"] = 4
    whole = add_to_report(tmp_path, second)
    assert whole.classes == {("media", "cut"): Counter(survived=2, wrong=1)}
    assert (whole.next_seed, whole.seconds, [one["seed"] for one in whole.failures]) == (
        {"media 1": 4},
        {"media": 1.5},
        [2],
    )
    assert read_report(tmp_path) == whole
    assert "| media | cut | 3 | 2 | 1 wrong |" in (tmp_path / "report.md").read_text()


def test_a_failure_that_is_mended_counts_as_what_it_is_now(tmp_path: Path) -> None:
    add_to_report(tmp_path, of_tries([made("cut", 1, Verdict.SURVIVED), made("cut", 2, Verdict.WRONG)]))
    before = read_report(tmp_path)
    for again in (made("cut", 1, Verdict.SURVIVED), made("cut", 2, Verdict.HUNG), made("cut", 3, Verdict.SURVIVED)):
        mend_report(tmp_path, again)
        assert read_report(tmp_path) == before
    mend_report(tmp_path, made("cut", 2, Verdict.SURVIVED))
    after = read_report(tmp_path)
    assert (after.classes, after.failures) == ({("media", "cut"): Counter(survived=2)}, [])
    assert "| media | cut | 2 | 2 | 0 |" in (tmp_path / "report.md").read_text()


def attacked(folder: Path, monkeypatch: pytest.MonkeyPatch, tries: Iterator[Try], *words: str) -> int:
    """Attack with an arm that makes these tries, and return the exit code."""
    monkeypatch.setattr(attack, "ARMS", {"media": (lambda *_: tries, 1.0)})
    monkeypatch.setattr(sys, "argv", ["attack", "--report", str(folder), *words])
    monkeypatch.setattr(attack, "_end_children", lambda: None)  # those of other tests among them
    with pytest.raises(SystemExit) as ended:
        attack.main()
    return int(ended.value.code or 0)


def cut_short(error: BaseException) -> Iterator[Try]:
    """Make two tries; the third one raises."""
    yield made("cut", 1_000_000, Verdict.SURVIVED)
    yield made("cut", 1_000_001, Verdict.WRONG)
    raise error


def test_an_interrupted_attack_keeps_its_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attacked(tmp_path, monkeypatch, cut_short(KeyboardInterrupt())) == 130
    said = capsys.readouterr()
    assert said.err == (
        "interrupted by SIGINT: 2 tries, 1 survived, 0 met a known limit, 1 failed; "
        f"report: {tmp_path}/report.md\n"
    )  # fmt: skip
    report = read_report(tmp_path)
    assert report.classes == {("media", "cut"): Counter(survived=1, wrong=1)}
    assert report.next_seed == {"media 1": 1_000_002}


def test_an_arm_that_crashes_keeps_its_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="of the arm"):
        attacked(tmp_path, monkeypatch, cut_short(RuntimeError("of the arm")))
    assert read_report(tmp_path).next_seed == {"media 1": 1_000_002}


def test_a_try_that_is_made_again_does_not_count_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_to_report(tmp_path, of_tries([made("cut", 1, Verdict.SURVIVED), made("cut", 2, Verdict.WRONG)]))
    before = read_report(tmp_path)
    again = [made("cut", 1, Verdict.SURVIVED), made("cut", 2, Verdict.WRONG)]
    assert attacked(tmp_path, monkeypatch, iter(again), "--try", "1", "2") == 1
    assert read_report(tmp_path) == before
    assert attacked(tmp_path, monkeypatch, iter([made("cut", 2, Verdict.SURVIVED)]), "--try", "2") == 0
    assert read_report(tmp_path).failures == []


def test_a_budget_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(Budget.of(1e9, 3).seeds(iter(range(9)))) == [0, 1, 2]
    assert list(Budget.of(0.0, 3).seeds(iter(range(9)))) == [0], "one try in any case"


def test_a_shorter_report_does_not_replace_the_table_of_the_docs(tmp_path: Path) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    longer = of_tries([made("cut", 1, Verdict.SURVIVED), made("cut", 2, Verdict.WRONG)])
    write_docs(longer, page, kept)
    before = page.read_text(), kept.read_text()
    assert block(longer) in before[0]
    for shorter in (Report(), of_tries([made("cut", 1, Verdict.SURVIVED)])):
        with pytest.raises(SystemExit, match=rf"has {shorter.n_tries} tries, .*results.json has 2") as refused:
            write_docs(shorter, page, kept)
        assert "\n" not in str(refused.value)
    assert (page.read_text(), kept.read_text()) == before
    write_docs(of_tries([made("flip", k, Verdict.SURVIVED) for k in range(2)]), page, kept)
    assert "| media | flip | 2 | 2 | 0 |" in page.read_text()


def test_the_table_of_the_docs_is_that_of_its_results() -> None:
    assert block(report_from(json.loads(TABLE_JSON.read_bytes()))) in PAGE.read_text()


@pytest.mark.slow
def test_a_run_goes_on_after_the_tries_of_the_one_before(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "benchmarks.attack", "--arms", "media", "--tries", "1", "--minutes", "9"]
    line += ["--report", str(tmp_path)]
    old = tmp_path / "old/ffmpeg"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho Unrecognized option >&2\nexit 1\n")
    old.chmod(0o755)
    env = {**os.environ, "PATH": os.pathsep.join([str(old.parent), os.environ["PATH"]])}
    for n_tried in (1, 2):
        ended = subprocess.run(line, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
        first, *_, last = ended.stdout.splitlines()
        assert first.startswith(f"{old} reads no frame of a whole video"), "and libav alone is asked"
        assert last.startswith("1 tries, 1 survived")
        assert read_report(tmp_path).next_seed == {"media 1": 1_000_000 + n_tried}


@pytest.mark.slow
@pytest.mark.parametrize(("arm", "signum"), [("media", signal.SIGTERM), ("kills", signal.SIGINT)])
def test_a_signal_ends_it_in_one_line_and_leaves_nothing(arm: str, signum: signal.Signals, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "benchmarks.attack", "--arms", arm, "--minutes", "9", "--verbose"]
    line += ["--report", str(tmp_path / "report")]
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    running = subprocess.Popen(
        line, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert running.stdout is not None
    assert running.stdout.readline().startswith(f"{arm} 1000000 ")
    started = descendants(running.pid)
    assert started
    os.killpg(running.pid, signum)  # as a terminal does
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + signum
    assert re.fullmatch(rf"interrupted by {signum.name}: \d+ tries, .*report\.md\n", said)
    assert sum(read_report(tmp_path / "report").classes.values(), Counter()).total() >= 1
    assert left_alive(started, seconds=5) == {}
    assert list((tmp_path / "tmp").glob("lps-attack-*")) == []
