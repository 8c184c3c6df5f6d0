"""Attack with damaged media: what the product reads of them is held against what somebody else decodes.

Every frame that is delivered without a mark of damage must be one that the independent decoder gives, with the same
time stamp and pixels, and no frame may be missing between two that are said to follow each other.
"""

import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av

from benchmarks.attack.edits import ANYWHERE, Edit, Propose, edited
from benchmarks.attack.forms import Form, PacketEdit, make_forms, packets_edited, propose_packets
from benchmarks.attack.media_process import MAX_DECODED, MEMORY_BYTES, MediaAnswer, MediaRequest
from benchmarks.attack.mkv import MKV
from benchmarks.attack.mp4 import MP4
from benchmarks.attack.records import PASSED, Budget, Place, Try, Verdict
from benchmarks.attack.shrink import shrunk
from benchmarks.attack.streams import RAW, TS

ARM = "media"
REPOSITORY = Path(__file__).resolve().parents[2]
FAMILIES: dict[str, dict[str, Propose]] = {"mp4": MP4, "mkv": MKV, "ts": TS, "raw": RAW}
DEADLINE_SECONDS = 60
"""Far above what the longest mutant takes on a busy machine: some seconds."""
UNSTABLE = "libav gives other pixels where no frame is let go: it shows what was in its buffers before"
OTHER_BYTES = 600 << 20
"""What a worker holds before it reads anything, and what is shared with others."""
UNTIMED = {"avi", "h264", "hevc", "mpegvideo", "m4v"}
"""Containers without time stamps of display: pictures and their order are compared."""
DECODER_LINE = re.compile(
    r"\[(h264|hevc|mpeg4|mpeg2video|vp8|vp9|av1|libdav1d)\b.*"
    r"(error|conceal|missing|invalid|corrupt|failed|undecodable|out of range|unref|no frame|damaged)",
    re.IGNORECASE,
)
"""What a decoder says on FFmpeg's log of pictures that it did not get whole. Containers say other things there."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A form with changes."""

    form: Form
    kind: str
    edits: Sequence[Edit | PacketEdit]

    def write(self, path: Path, edits: Sequence[Edit | PacketEdit]) -> bool:
        """Write the form with some of the changes; return whether that could be done."""
        if isinstance(edits[0] if edits else None, PacketEdit):
            try:
                packets_edited(self.form, [edit for edit in edits if isinstance(edit, PacketEdit)], path)
            except (av.FFmpegError, ValueError, OverflowError):
                return False
        else:
            path.write_bytes(edited(self.form.path.read_bytes(), [edit for edit in edits if isinstance(edit, Edit)]))
        return True


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the independent decoder gave."""

    frames: Sequence[tuple[int | None, str]]
    complains: bool
    """The decoder named damage."""
    places: dict[str, list[int]] = field(default_factory=dict)
    """Picture -> where it is among the frames."""


class Reader:
    """The process that reads."""

    def __init__(self, warm: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.attack.media_process", str(warm)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=REPOSITORY,
        )
        self.ffmpeg = shutil.which("ffmpeg")
        whole = self._by_program(self.ffmpeg, warm) if self.ffmpeg else None
        if self.ffmpeg and (whole is None or not whole.frames):
            print(f"{self.ffmpeg} reads no frame of a whole video, as an old one does; comparing with libav alone")
            self.ffmpeg = None

    def ask(self, what: str, path: Path, seconds: int = DEADLINE_SECONDS) -> MediaAnswer:
        """Read a file in a fork."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request: MediaRequest = {"what": what, "path": str(path), "seconds": seconds}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: MediaAnswer = json.loads(self.process.stdout.readline())
        return answer

    def other(self, path: Path) -> Decoded | None:
        """Decode a file with the ffmpeg program, or with libav alone; None where that crashes or takes too long."""
        return self._by_program(self.ffmpeg, path) if self.ffmpeg else self.by_libav(path)

    def by_libav(self, path: Path, what: str = "other") -> Decoded | None:
        """Decode a file with libav alone; None where that crashes, raises or takes too long: it proves nothing."""
        answer = self.ask(what, path)
        if answer["code"] != 0:
            return None
        return indexed(
            [(pts, md5) for pts, md5 in answer["found"]["frames"]], complains=answer["found"]["complaints"] > 0
        )

    def _by_program(self, program: str, path: Path) -> Decoded | None:
        line = [program, "-nostdin", "-v", "warning", "-threads", "1", "-noautorotate", "-copyts", "-i", f"file:{path}"]
        line += ["-map", "0:V:0", "-noautoscale", "-fps_mode", "passthrough", "-enc_time_base", "demux"]
        line += ["-frames:v", str(MAX_DECODED), "-c:v", "rawvideo", "-f", "framemd5", "-"]
        try:
            ended = subprocess.run(
                line, capture_output=True, text=True, errors="replace", timeout=DEADLINE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        if ended.returncode < 0:
            return None
        rows = [row.split(",") for row in ended.stdout.splitlines() if row and row[0] != "#"]
        frames = [(int(row[2]), row[-1].strip()) for row in rows if len(row) >= 6]
        return indexed(frames, complains=DECODER_LINE.search(ended.stderr) is not None)


def indexed(frames: Sequence[tuple[int | None, str]], *, complains: bool) -> Decoded:
    """Return frames with their places by picture."""
    places: dict[str, list[int]] = {}
    for k, (_, md5) in enumerate(frames):
        places.setdefault(md5, []).append(k)
    return Decoded(frames, complains, places)


# ---- verdicts --------------------------------------------------------------------------------------------------------


def judge(answer: MediaAnswer, truth: Decoded | None, whole: frozenset[str]) -> tuple[Verdict, str]:
    """Return the verdict over what the product said of a mutant; `whole` are the undamaged video's pictures."""
    found = answer["found"]
    if answer["code"] != 0:
        return _not_done(answer)
    if answer["peak_mb"] * (1 << 20) > MEMORY_BYTES + OTHER_BYTES:
        return Verdict.MEMORY, f"{answer['peak_mb']} MB"
    if not found["frames"]:
        code = found["code"] or found["result"]
        return (Verdict.SURVIVED, f"named: {code}") if code else (Verdict.WRONG, "no frame, and no code that says why")
    wrong = inner_faults(found, whole) or (faults(found, truth) if truth is not None else "")
    if wrong:
        return Verdict.WRONG, wrong
    if truth is None:
        return Verdict.SURVIVED, "frames: the other decoder crashed or took too long"
    return _said(found, truth, whole)


def _not_done(answer: MediaAnswer) -> tuple[Verdict, str]:
    code = answer["code"]
    if code == -14:
        return Verdict.HUNG, f"not done after {DEADLINE_SECONDS} s"
    if code < 0:
        return Verdict.CRASHED, f"signal {-code}"
    if code == 12:
        return Verdict.SURVIVED, "named: E_OOM"
    lines = answer["stderr"].strip().splitlines()
    return Verdict.UNNAMED, lines[-1] if lines else f"exit code {code}"


def _said(found: dict[str, Any], truth: Decoded, whole: frozenset[str]) -> tuple[Verdict, str]:
    frames, says = found["frames"], says_damage(found)
    n_other = sum(md5 not in whole for _, _, md5, _, spoiled in frames if not spoiled)
    if not says and n_other and truth.complains:
        return Verdict.WRONG, f"{n_other} frames that the undamaged video lacks, though a decoder names damage"
    if says:
        return Verdict.SURVIVED, "partial: damage said"
    return Verdict.SURVIVED, "equal: other pictures that no decoder tells of" if n_other else "equal"


def says_damage(found: dict[str, Any]) -> bool:
    """Tell whether the product says that something of a video is damaged or missing."""
    frames = found["frames"]
    marks = any(frame[4] for frame in frames) or any(frame[3] for frame in frames[1:])
    return bool(found["damage"] or found["code"] or marks)


def inner_faults(found: dict[str, Any], undamaged: frozenset[str] = frozenset()) -> str:
    """Return what is not the same in windows, clips and the whole pass; nothing where all is.

    A clip may have a frame that the whole pass takes for damaged, if it is that of the undamaged video: a window leaves
    out pictures that no other needs, and the damage with them. So may a window, and where damage is named, one that the
    whole pass lost.

    Frames are known by their time stamps. Their numbers, too, are the same where nothing is damaged: a packet that does
    not decode counts only where frames are numbered by packets.
    """
    if len(found["frames"]) >= MAX_DECODED:
        return ""
    by_time: dict[int, list[list[Any]]] = {}
    for frame in found["frames"]:
        by_time.setdefault(frame[1], []).append(frame)

    def same(index: int, pts: int) -> list[list[Any]]:
        return [frame for frame in by_time.get(pts, []) if frame[0] == index or found["damage"]]

    for index, pts, md5, _, _ in found["windows"]:
        others = same(index, pts)
        lost = found["damage"] and all(frame[4] for frame in others)
        if not any(frame[2] == md5 for frame in others) and not (lost and md5 in undamaged):
            return f"frame {index} of a window is not that of the whole pass"
    for indices, times in found["clips"]:
        for k, (index, pts) in enumerate(zip(indices, times, strict=True)):
            if not same(index, pts):
                return f"a clip has frame {index}, the whole pass does not"
            if all(frame[2] not in undamaged if frame[4] else k and frame[3] for frame in same(index, pts)):
                return f"a clip goes over a break, or has a damaged frame, at frame {index}"
    return ""


def faults(found: dict[str, Any], truth: Decoded) -> str:
    """Return what of the frames that are not marked as damaged the independent decoder does not give."""
    timed = found.get("container") not in UNTIMED
    before: set[int] | None = None
    """Where the frame before may be: pictures occur twice."""
    for index, pts, md5, breaks, spoiled in found["frames"]:
        if spoiled:
            before = None
            continue
        places = {*truth.places.get(md5, [])}
        if not places:
            if len(truth.frames) >= MAX_DECODED:
                return ""
            return f"frame {index} (time stamp {pts}) is none of the {len(truth.frames)} that another decoder gives"
        if timed and all(truth.frames[k][0] not in (pts, None) for k in places):
            return f"frame {index} has time stamp {pts}, another decoder gives {truth.frames[min(places)][0]}"
        follow = places if before is None else {k for k in places if k - 1 in before}
        if not breaks and not follow:
            return f"frame {index} is said to follow the one before; another decoder has others between them"
        before = follow if follow and not breaks else places
    return ""


# ---- the arm ---------------------------------------------------------------------------------------------------------


def propose(forms: Sequence[Form], rng: random.Random, n_packets: Callable[[Form], int]) -> Mutant:
    """Return a mutant of some form."""
    form = rng.choice(forms)
    if rng.random() < 0.2:
        return Mutant(form, "packets remuxed", propose_packets(max(1, n_packets(form)), rng))
    proposals = FAMILIES.get(form.family, {})
    kind = rng.choice(list(proposals)) if proposals and rng.random() < 0.75 else rng.choice(list(ANYWHERE))
    data = form.path.read_bytes()
    edits = [edit for _ in range(rng.choice((1, 1, 1, 2))) for edit in {**ANYWHERE, **proposals}[kind](data, rng)]
    return Mutant(form, kind, [edit for edit in edits if edit.at <= len(data)])


class Bench:
    """The forms, their undamaged pictures, and the process that reads."""

    def __init__(self, place: Place) -> None:
        self.forms = make_forms(place.scratch / "forms", place.media)
        self.reader = Reader(self.forms[0].path)
        self.mutants = place.scratch / "mutants"
        self.mutants.mkdir()
        self._whole: dict[str, frozenset[str]] = {}

    def n_packets(self, form: Form) -> int:
        """Return how many frames a form has."""
        return len(self.whole(form))

    def whole(self, form: Form) -> frozenset[str]:
        """Return the pictures of a form."""
        if form.name not in self._whole:
            truth = self.reader.other(form.path)
            self._whole[form.name] = frozenset(truth.places) if truth is not None else frozenset()
        return self._whole[form.name]

    def verdict(self, mutant: Mutant, edits: Sequence[Edit | PacketEdit]) -> tuple[Verdict, str]:
        """Return what comes of a mutant with some of its changes."""
        path = self.mutants / f"mutant{mutant.form.path.suffix}"
        if not mutant.write(path, edits):
            return Verdict.SURVIVED, "the container refused the packets"
        answer = self.reader.ask("product", path)
        if answer["code"] == -14:  # a busy machine, or a hang?
            answer = self.reader.ask("product", path, 3 * DEADLINE_SECONDS)
        needs_truth = answer["code"] == 0 and answer["found"]["frames"]
        whole = self.whole(mutant.form)
        verdict, said = judge(answer, self.reader.other(path) if needs_truth else None, whole)
        if verdict is Verdict.WRONG and needs_truth:
            verdict, said = self._second_opinion(path, answer, whole, said)
        return verdict, said

    def _second_opinion(self, path: Path, answer: MediaAnswer, whole: frozenset[str], said: str) -> tuple[Verdict, str]:
        """Ask libav alone, whose version is that of the product, once more without letting a frame go.

        The program mends time stamps that do not rise, and another version may conceal a lost picture otherwise.
        """
        one, two = (self.reader.by_libav(path, what) for what in ("other", "other, held"))
        if one != two:
            return Verdict.KNOWN, UNSTABLE
        verdict, by_libav = judge(answer, one, whole)
        if verdict is Verdict.SURVIVED and "is none of" in said and not says_damage(answer["found"]):
            return Verdict.WRONG, f"{said}, though libav alone does; nothing is said of damage"
        return verdict, by_libav

    def keep(
        self, mutant: Mutant, seed: int, verdict: Verdict, place: Place
    ) -> tuple[str, Sequence[Edit | PacketEdit]]:
        """Make the changes fewer, and keep the file and what was done."""
        edits = shrunk(mutant.edits, lambda some: self.verdict(mutant, some)[0] is verdict)
        folder = place.evidence(ARM, seed)
        mutant.write(folder / f"mutant{mutant.form.path.suffix}", edits)
        shutil.copyfile(mutant.form.path, folder / f"undamaged{mutant.form.path.suffix}")
        (folder / "changes.txt").write_text("".join(f"{edit}\n" for edit in edits))
        return folder.relative_to(place.report).as_posix(), edits


def attack(budget: Budget, seeds: Iterator[int], place: Place) -> Iterator[Try]:
    """Read mutants until the budget is spent."""
    bench = Bench(place)
    for seed in budget.seeds(seeds):
        started = time.monotonic()
        mutant = propose(bench.forms, random.Random(seed), bench.n_packets)
        verdict, said = bench.verdict(mutant, mutant.edits)
        made = partial(Try, arm=ARM, kind=mutant.kind, seed=seed, verdict=verdict, said=said)
        evidence, edits = "", mutant.edits
        if verdict not in PASSED:
            evidence, edits = bench.keep(mutant, seed, verdict, place)
        done = f"{mutant.form.name}: " + "; ".join(map(str, edits[:4])) + (" …" if len(edits) > 4 else "")
        yield made(done=done, seconds=round(time.monotonic() - started, 3), evidence=evidence)
    bench.reader.process.communicate()
