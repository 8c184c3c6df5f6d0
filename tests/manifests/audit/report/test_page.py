"""The audit's page: what it shows, that it needs nothing else, and that it survives hostile names and damage."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lps.manifests.audit.core.types import CHECK_CLASSES
from lps.manifests.audit.report.data import read_facts
from lps.manifests.audit.report.page import MAX_PAIRS, THUMB_PX, VERDICTS, render_html
from lps.manifests.canonical import visible
from lps.manifests.pages.charts import Axis, axis_of, ecdf, histogram, number, tick_label
from lps.manifests.pages.html import is_page_address
from lps.manifests.pages.pictures import MAX_PICTURES, SIDE_PX
from lps.manifests.schemas import Row
from lps.manifests.storage import Store, open_store
from tests.builders import manifest_rows
from tests.pages import (
    CHROMIUM,
    NO_AXE,
    Page,
    assert_accessible,
    assert_dark_and_printable,
    assert_fits_a_telephone,
    assert_self_contained,
    browse,
    scripted,
)

HOSTILE = "real/\x1b[2J\u202e<script>alert('x')</script>\"><img src=http://evil.example/x.png onerror=alert(1)>.mp4"
IDS = ("A1", "A2", "T1", "T3", "L1", "L2", "L6", "L11", "B2", "B11", "C1", "R1")
STATES = {"L1": "fail", "L6": "warn", "T3": "unknown", "L11": "skip", "B11": "waived", "A2": "error"}


def check(check_id: str, **values: object) -> Row:
    state = STATES.get(check_id, "pass")
    broken = state in ("fail", "warn")
    offender = {"kind": "video", "key": "00ff", "detail": f"lies in train and test: {HOSTILE}"}
    return {
        "id": check_id,
        "title": f"title of {check_id}",
        "state": state,
        "severity": "error",
        "measured": "3 groups" if broken else "0",
        "limit": "0",
        "n_checked": 40,
        "n_offenders": 7 if broken else 0,
        "sample": [offender] if broken else [],
        "note": f"note of {check_id}",
        "sql": f"SELECT '{check_id}' FROM videos WHERE n < 1 AND 2 > 1",
        "rule": f"rule of {check_id}",
        "remedy": f"remedy of {check_id}",
        "data": {},
        **values,
    }


def report(**values: object) -> dict[str, object]:
    return {
        "schema": "lps.audit",
        "schema_version": "1.0",
        "tool": "lps-audit",
        "version": "0.1.0",
        "data": {
            "name": "ffpp <mini>",
            "index_sha256": "ab" * 32,
            "split_set": "group",
            "seal": "sealed, not signed",
        },
        "level": "full",
        "verdict": "fail",
        "exit_code": 1,
        "policy_sha256": "cd" * 32,
        "counts": {},
        "checks": [check(name) for name in IDS],
        **values,
    }


def rendered(location: Path, **values: object) -> str:
    return render_html(report(**values), open_store(str(location)))


def pair_of(location: Path, n: int = 1) -> list[Row]:
    videos = [row for row in manifest_rows(location, "videos") if row["n_clips"]]
    sides = [{"video_id": row["video_id"].hex(), "uri": row["uri"], "split": row["split"]} for row in videos]
    return [{"videos": [sides[i], sides[-1 - i]], "distances": [3, 5, 40], "confirmed": i == 0} for i in range(n)]


@pytest.fixture(scope="module")
def page_text(dataset: Path) -> str:
    checks = [check(name, data={"pairs": pair_of(dataset, 2)} if name == "L6" else {}) for name in IDS]
    clips = manifest_rows(dataset, "clips")[:3]
    checks[IDS.index("L1")]["sample"] += [{"kind": "clip", "key": row["sample_key"], "detail": "is"} for row in clips]
    return rendered(dataset, checks=checks)


# ---- what it shows -------------------------------------------------------------------------------------------------


def test_page_needs_nothing_else(page_text: str) -> None:
    assert_self_contained(page_text)
    assert page_text.startswith("<!DOCTYPE html>")


def test_verdict_comes_first_and_every_check_is_there(page_text: str) -> None:
    page = Page(page_text)
    body = page.text[page.text.index("Audit of a face-clip data set") :]
    assert body.startswith("Audit of a face-clip data set ✕ Fail At least one rule is broken. 12 checks at level full")
    for name in IDS:
        assert f"check-{name}" in page.ids()
        for word in ("title", "rule", "remedy"):
            assert f"{word} of {name}" in page.text
        assert f"SELECT '{name}' FROM videos WHERE n < 1 AND 2 > 1" in page.text
    for letter in {name[0] for name in IDS}:
        assert f"{letter} · {CHECK_CLASSES[letter]}" in page.text
    for word in ("✕ FAIL", "✕ ERROR", "! WARN", "? UNKNOWN", "– SKIP", "~ WAIVED", "✓ PASS"):
        assert word in page.text


def test_only_what_needs_attention_is_unfolded(page_text: str) -> None:
    folds = [attrs for tag, attrs in Page(page_text).tags if tag == "details" and "check" in attrs["class"].split()]
    assert {attrs["id"] for attrs in folds if "open" in attrs} == {"check-L1", "check-L6", "check-A2"}
    assert len(folds) == len(IDS)


def test_problems_come_first_and_the_rest_is_folded(page_text: str) -> None:
    section = page_text.partition('<h2 id="checks">')[2].partition("<h2")[0]
    order = re.findall(r'id="(check-\w+|rest-\w+)"', section)
    problems, _, rest = " ".join(order).partition(" rest-skip ")
    assert problems.split() == [f"check-{name}" for name in ("A2", "T3", "L1", "L6", "B11")]
    assert rest.split() == [
        "check-L11",
        "rest-pass",
        *(f"check-{name}" for name in ("A1", "T1", "L2", "B2", "C1", "R1")),
    ]
    assert re.findall(r'<details class="rest" id="\w+-\w+"(.*?)>', section) == ["", ""], "both are folded"
    assert [attrs["id"] for tag, attrs in Page(section).tags if tag == "input"][:2] == ["pick-all", "pick-fail"]
    assert "fieldset" not in page_without_problems()


def page_without_problems() -> str:
    text = render_html(report(checks=[check("A1")]), open_store("memory://nowhere"))
    assert "No check failed, warned or stayed without an answer." in text
    return Page(text).text


@pytest.mark.parametrize("verdict", [*VERDICTS, "new-verdict", ""])
def test_every_verdict_is_a_word(dataset: Path, verdict: str) -> None:
    page = Page(rendered(dataset, verdict=verdict))
    word = VERDICTS[verdict][0].word if verdict in VERDICTS else verdict or "No verdict"
    assert next(text for text in page.words if word in text)
    assert word in page.text[page.text.index("Audit of a face-clip") :][:60]


def test_identity_and_splits(page_text: str, dataset: Path) -> None:
    text = Page(page_text).text
    for value in ("ffpp <mini>", "ab" * 32, "cd" * 32, "sealed, not signed"):
        assert value in text
    matrix = text[text.index("Split set group") : text.index("A · Integrity")]
    videos = [row for row in manifest_rows(dataset, "videos") if row["split"]]
    for label, method in ((0, None), (1, "Deepfakes"), (1, "Face2Face")):
        line = f"{'fake' if label else 'real'} {method or '–'}"
        counts = []
        for split in ("train", "val", "test"):
            found = [v for v in videos if (v["split"], v["label"], v["method"]) == (split, label, method)]
            counts.append(f"{len(found)} {sum(v['n_clips'] for v in found)}")
        assert re.search(rf"{line} {counts[0]} \d+ {counts[1]} \d+ {counts[2]} \d+", matrix)


def test_page_names_no_folder(dataset: Path) -> None:
    text = rendered(dataset, data={"name": "ffpp"})
    assert "audit of ffpp</title>" in text
    assert str(dataset) not in text


def test_split_matrix_of_the_record_wins(dataset: Path) -> None:
    matrix = [
        {"split": "train", "label": "fake", "method": "Known", "videos": 123456, "clips": 7, "groups": None},
        {"split": "odd", "label": "real", "method": None, "videos": 5, "clips": None, "groups": 2},
    ]
    text = Page(rendered(dataset, counts={"split_matrix": matrix})).text
    assert "fake Known 123,456 7 – – – –" in text
    assert "real – – – – 5 – 2" in text


def test_leaks_stand_beside_those_of_a_random_split(dataset: Path) -> None:
    known = {"kind": "source", "seen": "train", "n_known": 7, "n_leaked": 1, "state": "MEASURED"}
    leaks = [
        {**known, "held": "val", "rate": 0.25, "expected": 0.56},
        {**known, "held": "test", "rate": 0.5, "expected": None, "state": "PARTLY UNKNOWN"},
        {**known, "kind": "identity", "held": "val", "rate": None, "expected": None, "state": "UNKNOWN"},
        {**known, "kind": "donor", "held": "val", "rate": None, "expected": None, "state": "NONE"},
    ]
    text = Page(rendered(dataset, checks=[check("L1", data={"leakage": leaks})])).text
    assert "In common train → val train → test a person unknown – a recording 25.0% (56.0%) 50.0% of 7 known" in text
    assert "the donor" not in text
    assert "In common" not in Page(rendered(dataset)).text


def test_code_is_set_as_code(dataset: Path) -> None:
    text = rendered(dataset, checks=[check("A1", state="fail", remedy="run `lps-prep <x>`", rule="a ` b")])
    assert "run <code>lps-prep &lt;x&gt;</code>" in text
    assert "a ` b" in text


def test_measures_without_a_lowest_clip_have_no_sheet(page_text: str) -> None:
    text = Page(page_text).text
    assert "Least sharp" in text
    assert "Least often detected" not in text, "all clips were detected as often"


def test_bias_is_drawn_for_both_classes(page_text: str) -> None:
    page = Page(page_text)
    charts = [attrs["aria-label"] for tag, attrs in page.tags if attrs.get("class") == "chart"]
    for title in ("Resolution", "Frame rate", "Face size", "Sharpness", "Detection rate", "Landmark jitter"):
        assert len([label for label in charts if label.startswith(title)]) == 2
    classes = {attrs.get("class") for tag, attrs in page.tags if tag in ("rect", "polyline")}
    assert {"real", "fake", "line real", "line fake"} <= classes
    assert "#0072B2" in page_text
    assert "#D55E00" in page_text
    assert "h264" in page.text
    distances = [float(found) for found in re.findall(r"KS distance (\d\.\d\d)", page.text)]
    assert len(distances) >= 6
    assert all(0 <= distance <= 1 for distance in distances)


@pytest.mark.parametrize(("scan", "length"), [("window", 200), ("whole", 100), (None, 100)])
def test_length_is_that_of_the_video(mutated: Callable[..., Path], scan: str | None, length: int) -> None:
    lengths = {"scan": scan, "n_frames_container": 200, "n_frames_decoded": 100}
    out = mutated({"videos": lambda row: {**row, **lengths}})
    facts = read_facts(open_store(str(out)), "group", [])
    [measure] = [measure for measure in facts.measures if measure.title == "Length"]
    assert all(set(values) == {length} for values in measure.values.values())
    assert all(len(values) for values in measure.values.values())


def test_codes_and_rejects(page_text: str) -> None:
    text = Page(page_text).text
    table = text[text.index("Failures and skips by code") : text.index("Near duplicates", text.index("Failures and"))]
    assert re.search(r"E_NO_FACE no face was found in the frames that were looked at 1 6\.\d% 1 3\.\d% 0", table)
    rejects = text[text.index("Rejected videos, by code") :]
    for words in (
        "E_NO_FACE",
        "E_TRUNCATED",
        "S_MASK",
        "E_EMPTY_FILE the file has zero bytes; 1 video.",
        "004_ 005.mp4",
    ):
        assert words in rejects


def test_near_duplicates_stand_side_by_side(page_text: str, dataset: Path) -> None:
    text = Page(page_text).text
    section = text[text.index("Videos of different splits whose frames look alike; 2 pairs shown") :]
    assert "confirmed · distances 3, 5, 40 of 256 bits" in section
    assert "one frame alone · distances 3, 5, 40" in section
    for side in pair_of(dataset)[0]["videos"]:
        assert side["uri"].replace("/", "/ ").replace("_", "_ ") in section


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([], "Not looked for."),
        ([check("L6", state="pass")], "None found."),
        ([check("L6", state="skip", note="needs level full")], "SKIP: needs level full"),
        ([check("L6", data={"pairs": [{"videos": [{"video_id": "zz"}, {}]}, "?", {}]})], "WARN: note of L6"),
    ],
)
def test_absent_pairs_are_explained(dataset: Path, checks: list[Row], said: str) -> None:
    assert said in Page(rendered(dataset, checks=checks)).text


def test_pairs_without_clips_or_rows_have_no_picture(dataset: Path) -> None:
    sides = [{"video_id": f"{i:032x}", "uri": HOSTILE, "split": "train"} for i in range(2)]
    pairs = [{"videos": sides, "distances": [], "confirmed": True}] * (MAX_PAIRS + 5)
    text = rendered(dataset, checks=[check("L6", data={"pairs": pairs})])
    assert Page(text).text.count("no clip") == 2 * MAX_PAIRS
    assert_self_contained(text)


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_thumbnails_are_small_frames_of_the_lowest_clips(page_text: str, dataset: Path) -> None:
    images = Page(page_text).images()
    assert 24 <= len(images) <= MAX_PICTURES
    for source in images:
        with Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,")))) as image:
            assert (image.format, image.size) in [("JPEG", (side, side)) for side in (SIDE_PX, THUMB_PX)]
            red, green, blue = image.convert("RGB").getpixel((image.width // 2, image.height // 5))  # type: ignore[misc]
            assert min(red, green, blue) > 90, "the face in the middle, not the noise around it"
    worst = min(row["blur_var_med"] for row in manifest_rows(dataset, "clips"))
    text = Page(page_text).text
    assert re.search(rf"Least sharp variance of the Laplacian; median of all clips \d+ \w+ .*?{worst:.0f} · ", text)


def test_thumbnails_are_read_by_range_and_bounded(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[str] = []
    ranges: list[int] = []
    read_range = Store.read_range

    def part(self: Store, path: str, start: int, end: int) -> bytes:
        ranges.append(end - start)
        return read_range(self, path, start, end)

    monkeypatch.setattr(Store, "read", lambda self, path: whole.append(path))
    monkeypatch.setattr(Store, "read_range", part)
    monkeypatch.setattr("lps.manifests.pages.pictures.MAX_PICTURES", 5)
    images = Page(rendered(dataset)).images()
    assert len(set(images)) == len(ranges) == 5
    assert whole == []
    assert max(ranges) < 20_000


def test_page_without_thumbnails_keeps_the_captions(dataset: Path) -> None:
    page = Page(render_html(report(), open_store(str(dataset)), thumbnails=False))
    assert page.images() == []
    assert page.text.count("not shown") == 24


def thumbs_of(text: str) -> dict[str, list[str]]:
    """Return the keys of the offenders that have a picture, by check."""
    folds = re.split(r'<details class="check [^>]*id="check-', text)[1:]
    shown = {
        fold.partition('"')[0]: re.findall(r'width="64" height="64" alt="first frame of (.*?)"', fold) for fold in folds
    }
    return {name: keys for name, keys in shown.items() if keys}


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_failing_checks_show_the_first_frames_of_their_clips(dataset: Path, place: str) -> None:
    clips, videos = manifest_rows(dataset, "clips"), manifest_rows(dataset, "videos")
    first, key = clips[0], clips[5]["sample_key"]
    empty = next(row["video_id"].hex() for row in videos if not row["n_clips"])
    offenders = [
        *[("clip", clips[3]["sample_key"])] * 5, ("clip", f"train-000/{key}"), ("video", first["video_id"].hex()),
        ("video", empty), ("video", "no id"), ("clip", "gone"), ("file", "shards/x.tar"),
        ("clip", clips[4]["clip_id"].hex()),
    ]  # fmt: skip
    sample = [{"kind": kind, "key": key, "detail": ""} for kind, key in offenders]
    checks = [{"id": name, "state": state, "sample": sample} for name, state in (("C1", "fail"), ("C2", "pass"))]
    store = open_store(str(dataset))
    if place == "bucket":
        import fsspec

        for path in dataset.rglob("*"):
            if path.is_file():
                fsspec.filesystem("memory").pipe(f"/thumbs/{path.relative_to(dataset)}", path.read_bytes())
        store = open_store("memory://thumbs")
    text = render_html(report(checks=checks), store, gallery="g/index.html")
    shown = [clips[3]["sample_key"], key, first["video_id"].hex(), clips[4]["clip_id"].hex()]
    assert thumbs_of(text) == {"C1": shown}
    assert f'<a href="g/index.html#{key}" tabindex="-1"><img' in text
    image = re.search(rf'src="data:image/jpeg;base64,([^"]+)"[^>]*first frame of {key}"', text)
    assert image is not None
    with Image.open(io.BytesIO(base64.b64decode(image[1]))) as thumb:
        assert (thumb.format, thumb.size) == ("JPEG", (64, 64))
        stored = first_frame_of(dataset, clips[5]).resize((64, 64), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(thumb, float) - np.asarray(stored, float)).mean() < 10
    assert thumbs_of(render_html(report(checks=checks), store, thumbnails=False)) == {}


def first_frame_of(dataset: Path, clip: Row) -> Image.Image:
    shard = next(row["uri"] for row in manifest_rows(dataset, "shards") if row["shard_id"] == clip["shard_id"])
    member = next(each for each in clip["members"] if each["ext"].startswith("00."))
    data = (dataset / shard).read_bytes()[member["offset"] :][: member["nbytes"]]
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_pages_of_10_000_offenders_are_bounded(dataset: Path) -> None:
    keys = [row["sample_key"] for row in manifest_rows(dataset, "clips")]
    many = [{"kind": "clip", "key": keys[k % len(keys)], "detail": f"number {k}"} for k in range(10_000)]
    checks = [check(f"C{k}", state="fail", n_offenders=10_000, sample=many) for k in range(60)]
    text = rendered(dataset, checks=checks)
    assert text.count("20 of 10,000 shown.") == 60
    assert sum(map(len, thumbs_of(text).values())) <= 80
    small = rendered(dataset, checks=[])
    assert len(text) - len(small) < 400_000 + 60 * 8000


# ---- hostile and damaged data --------------------------------------------------------------------------------------


def test_hostile_names_are_text(dataset: Path, mutated: Callable[..., Path]) -> None:
    spoiled = mutated({"videos": lambda row: {**row, "uri": f"{row['video_id'].hex()}/{HOSTILE}", "codec": HOSTILE}})
    checks = [check(name, title=HOSTILE, note=HOSTILE, sql=HOSTILE, data={HOSTILE: HOSTILE}) for name in IDS]
    text = rendered(spoiled, checks=checks, verdict=HOSTILE, data={"name": HOSTILE, HOSTILE: [HOSTILE, None, True]})
    assert_self_contained(text)
    assert "<script" not in text
    assert visible(text) == text
    page = Page(text)
    assert "<script>alert('x')</script>" in page.text
    assert all(source.startswith("data:image/jpeg") for source in page.images())


def test_offenders_link_into_a_gallery(dataset: Path) -> None:
    sample = [
        {"kind": kind, "key": key, "detail": "is wrong"}
        for kind, key in (("clip", "a b-00"), ("video", "ab"), ("file", "c"))
    ]
    record = report(checks=[{"id": "C1", "state": "fail", "sample": sample}])
    store = open_store(str(dataset))
    links = {
        gallery: [attrs["href"] for tag, attrs in Page(render_html(record, store, gallery=gallery)).tags if tag == "a"]
        for gallery in ("", "../gallery/index.html")
    }
    added = [link for link in links["../gallery/index.html"] if link not in links[""]]
    assert added == ["../gallery/index.html#a%20b-00", "../gallery/index.html#ab"]


@pytest.mark.parametrize(
    ("address", "fine"),
    [
        *((address, True) for address in ("", "g/index.html", "../g.html", "https://a.b/g.html", "file:///g.html")),
        *(
            (address, False)
            for address in ("javascript:alert(1)", "java\tscript:x", " javascript:x", "data:text/html,x")
        ),
    ],
)
def test_pages_link_to_pages_alone(address: str, fine: bool) -> None:
    assert is_page_address(address) is fine


@pytest.mark.parametrize("name", ["videos", "clips", "shards", "splits/group"])
def test_a_damaged_manifest_costs_its_part_alone(mutated: Callable[..., Path], name: str) -> None:
    damaged = mutated(files={f"manifests/{name}.parquet": lambda data: data[: len(data) // 2]})
    text = rendered(damaged)
    page = Page(text)
    assert_self_contained(text)
    assert "✕ Fail" in page.text
    assert name == "shards" or "Part of this page is missing: manifest" in page.text
    assert ("Failures and skips by code Videos that ended" in page.text) == (name != "videos")
    assert bool(page.images()) == (name in ("videos", "splits/group"))


def test_a_data_set_that_is_gone_still_has_a_verdict(tmp_path: Path) -> None:
    page = Page(rendered(tmp_path))
    assert "✕ Fail" in page.text
    assert "no such file" in page.text
    assert "Not known: no split set could be read." in page.text


def test_broken_tars_cost_their_pictures(mutated: Callable[..., Path], dataset: Path) -> None:
    tars = [f"shards/{path.parent.name}/{path.name}" for path in dataset.glob("shards/*/*.tar")]
    short = mutated(files=dict.fromkeys(tars, lambda data: data[:600]))
    noise = mutated(files=dict.fromkeys(tars, lambda data: bytes(len(data))))
    gone = mutated(files=dict.fromkeys(tars, lambda _: None))
    for location in (short, noise, gone):
        page = Page(rendered(location))
        assert page.images() == []
        assert page.text.count("no readable frame") == 24


def test_an_empty_record_is_still_a_page(dataset: Path) -> None:
    text = render_html({}, open_store(str(dataset)))
    assert_self_contained(text)
    assert "No verdict" in text
    minimal = render_html({"checks": [{"id": "Z9", "state": "odd"}], "verdict": "pass"}, open_store(str(dataset)))
    assert "Other checks" in minimal
    assert "? ODD" in minimal


# ---- charts --------------------------------------------------------------------------------------------------------


def test_axis_shows_all_but_the_tails() -> None:
    values = np.concatenate([np.linspace(10, 20, 1000), [1e6]])
    axis = axis_of([values], log=False)
    assert 9 < axis.low < 11
    assert 19 < axis.high < 22
    assert (axis.place(-5), axis.place(1e9)) == (0.0, 1.0)
    constant = axis_of([np.full(9, 25.0)], log=True)
    assert constant.low < 25 < constant.high
    assert not constant.log
    assert axis_of([np.array([0.0, 1, 10, 100])], log=True).log is False
    assert axis_of([], log=False) == Axis(low=0.0, high=1.0)


@pytest.mark.parametrize(
    "axis",
    [Axis(low=0, high=1), Axis(low=-3e6, high=4e6), Axis(low=0.9, high=0.9001), Axis(low=0.02, high=9e5, log=True)],
)
def test_ticks_are_few_and_inside(axis: Axis) -> None:
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 7
    assert all(axis.low - 1e-9 <= tick <= axis.high + 1e-9 for tick in ticks)


def test_ticks_are_those_that_matplotlib_chooses() -> None:
    from matplotlib.ticker import MaxNLocator

    locator, random = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]), np.random.default_rng(0)
    for low, span in zip(random.normal(0, 100, 300), 10 ** random.uniform(-3, 7, 300), strict=True):
        axis = Axis(low=float(low), high=float(low + span))
        theirs = [tick for tick in locator.tick_values(axis.low, axis.high) if axis.low <= tick <= axis.high]
        assert axis.ticks() == pytest.approx(theirs, abs=1e-6 * span)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (9000, "9000"), (10_000, "10k"), (2.5e6, "2.5M"), (3e9, "3G"), (1e16, "1e+16")],
)
def test_labels_of_ticks_are_short(value: float, text: str) -> None:
    assert tick_label(value) == text


def test_histogram_and_ecdf_tell_classes_apart() -> None:
    samples = {"real": np.full(10, 2.0), "fake": np.linspace(5, 9, 40)}
    axis = axis_of(list(samples.values()), log=False)
    bars = re.findall(r'<rect class="(\w+)" x="([\d.]+)" y="([\d.]+)"', histogram(samples, axis, "t", "u"))
    real, fake = ([(float(x), float(y)) for name, x, y in bars if name == kind] for kind in ("real", "fake"))
    assert len(real) == 1
    assert len(fake) > 5
    assert max(y for _, y in real) < min(y for _, y in fake), "real above the line, fake below it"
    assert real[0][0] < min(x for x, _ in fake)
    lines = re.findall(r'<polyline class="line (\w+)" points="([^"]+)"', ecdf(samples, axis, "t", "u"))
    heights = {name: [float(point.split(",")[1]) for point in points.split()] for name, points in lines}
    assert all(ys == sorted(ys, reverse=True) for ys in heights.values()), "cumulative shares only rise"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.6, "12,346"), (0.91667, "0.917"), (25.0, "25"), (0.00012, "0.000120"), (np.nan, "?")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


# ---- in a browser --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
def test_browser_shows_it(page_text: str, tmp_path: Path) -> None:
    dom = browse(tmp_path, page_text, "--dump-dom")
    page = Page(dom)
    assert "✕ Fail" in page.text
    assert {f"check-{name}" for name in IDS} <= page.ids()
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert len(page.images()) == len(Page(page_text).images())


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
def test_browser_needs_no_sideways_scrolling_on_a_telephone(page_text: str, tmp_path: Path) -> None:
    assert_fits_a_telephone(tmp_path, page_text)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
def test_dark_rooms_and_paper(page_text: str, tmp_path: Path) -> None:
    assert_dark_and_printable(tmp_path, page_text)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
def test_checks_are_picked_by_state_without_a_script(page_text: str, tmp_path: Path) -> None:
    script = """return ["all", "fail", "unknown", "pass"].map((name) => {
      page.querySelector("#pick-" + name).click();
      const checks = [...page.querySelectorAll(".check")];
      const seen = checks.filter((each) => each.checkVisibility({contentVisibilityAuto: true}));
      return name + " " + seen.map((each) => each.id.slice(6)).join(" "); }).join("; ")"""
    assert scripted(tmp_path, page_text, script) == ("all A2 T3 L1 L6 B11; fail L1; unknown T3; pass A1 T1 L2 B2 C1 R1")


@pytest.mark.slow
@pytest.mark.skipif(NO_AXE, reason="no chromium on PATH, or no axe.min.js in LPS_AXE")
def test_page_is_accessible(page_text: str, tmp_path: Path) -> None:
    assert_accessible(tmp_path, page_text)
