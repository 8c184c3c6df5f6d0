"""The trainer's page: errors by method and compression, thresholds, and links into a gallery."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from lps.cli.train.main import main
from lps.manifests.canonical import digest16, pretty_json
from lps.model.evaluation.scores import Scores
from lps.model.evaluation.threshold import operating_point
from lps.model.report.decisions import rate_cell
from tests.model.report.report_folders import made_scores, write_evaluation
from tests.pages import Page


def with_groups(scores: Scores) -> Scores:
    """Return scores whose fakes are of two methods, every other video c40."""
    labels = scores.table["label"].to_pylist()
    number = [k // 2 for k in range(len(labels))]  # of the video; each has two clips
    method = [None if label == 0 else ("swap" if k % 4 == 1 else "<b>blend") for k, label in zip(number, labels)]  # noqa: B905
    table = scores.table
    for name, values in (("method", method), ("compression", ["c23" if k < 12 else "c40" for k in number])):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, pa.string()))
    return Scores(table, scores.rule)


def page_of(*args: object) -> str:
    target = Path(str(args[0])).parent / "page.html"
    done = CliRunner().invoke(main, ["report", *map(str, args), "--html", str(target)])
    assert done.exit_code == 0, done.output
    return target.read_text()


def rows_below(text: str, caption: str) -> list[list[str]]:
    table = text.partition(caption)[2].partition("</table>")[0].partition("<tbody>")[2]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("</tr>")]
    return [[" ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in row] for row in cells if row]


def test_errors_are_counted_by_method_and_compression(tmp_path: Path) -> None:
    scores = with_groups(made_scores(1))
    videos = scores.labelled().by_video()
    text = page_of(write_evaluation(tmp_path / "eval", scores))
    rows = rows_below(text, "Errors by method and compression")
    assert [row[1:4] for row in rows] == [
        ["all", "real", "12"], ["all", "fake", "12"],
        ["method &lt;b&gt;blend", "fake", "6"], ["method swap", "fake", "6"],
        *([f"compression {name}", label, "6"] for name in ("c23", "c40") for label in ("real", "fake")),
    ]  # fmt: skip
    at_eer = operating_point(videos.labels, videos.p_fake, None).threshold
    for row, mask in ((rows[0], videos.labels == 0), (rows[3], videos.method == "swap")):
        for cell, threshold in zip(row[4:], (0.5, at_eer), strict=True):
            wrong = int(((videos.p_fake > threshold) != videos.labels.astype(bool))[mask].sum())
            assert cell.startswith(f"{wrong} ({wrong / mask.sum():.1%}) ")


def test_intervals_of_errors_are_wilsons() -> None:
    cell = rate_cell(0, 10)
    assert (cell.value, cell.span) == ("0 (0.0%)", "0.0%–27.8%")  # z = 1.96: z² / (n + z²)


def test_thresholds_say_what_they_do(tmp_path: Path) -> None:
    scores = made_scores(2, n=60)
    videos = scores.labelled().by_video()
    rows = rows_below(page_of(write_evaluation(tmp_path / "eval", scores)), "Thresholds, by video")
    assert [row[1] for row in rows] == [
        "p_ fake &gt; 0.5", "equal error rate", *(f"false-positive rate ≤ {x:g}" for x in (0.01, 0.05, 0.1)),
    ]  # fmt: skip
    for row in rows:
        called = videos.p_fake > float(row[2])
        if row[1].startswith("p_"):
            hits, alarms = (int((called & (videos.labels == label)).sum()) for label in (1, 0))
            shares = (alarms / 30, hits / 30, (hits + 30 - alarms) / 60, (hits + 30 - alarms) / 60)
            assert row[3:7] == [f"{share:.3f}" for share in shares]
            assert row[7:] == [f"{hits / (hits + alarms):.3f}", f"{alarms} of 30", f"{30 - hits} of 30"]
    assert [float(row[3]) <= limit for row, limit in zip(rows[2:], (0.01, 0.05, 0.1), strict=True)] == [True] * 3
    assert "30 real videos cannot tell a false-positive rate of 0.01" in (tmp_path / "page.html").read_text()


def test_one_class_has_errors_and_no_thresholds(tmp_path: Path) -> None:
    text = page_of(write_evaluation(tmp_path / "eval", made_scores(1, labels=(0, 0))))
    assert "eval: no thresholds: only real videos" in text
    assert [row[1:4] + row[5:] for row in rows_below(text, "Errors by method")] == [["all", "real", "24", "–"]]


@pytest.mark.parametrize("own", [True, False])
def test_a_stored_threshold_is_of_one_detector(own: bool, tmp_path: Path) -> None:
    stored = {
        "schema": "lps.threshold", "schema_version": "1.0", "checkpoint_sha256": ("55" if own else "66") * 32,
        "video_score": made_scores(1).rule, "clips": "3", "data": "val", "n_real": 9, "n_fake": 9, "at": "eer",
        "threshold": 0.61, "fpr": 0.1, "recall": 0.9, "temperature": 1.0, "ece_before": 0.1, "ece_after": 0.1,
    }  # fmt: skip
    (tmp_path / "thr.json").write_bytes(pretty_json(stored))
    text = page_of(write_evaluation(tmp_path / "eval", made_scores(1)), "--threshold", tmp_path / "thr.json")
    last = rows_below(text, "Thresholds, by video")[-1]
    assert (last[1:3] == ["eer of val (thr.json)", "0.6100"]) is own
    assert ("a threshold of another detector" in text) is not own


def test_errors_link_into_a_gallery(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "eval", made_scores(1))
    (tmp_path / "a gallery").mkdir()
    (tmp_path / "a gallery/index.html").write_text("")
    given = {
        "https://a.b/g.html": "https://a.b/g.html#", "shown/": "shown/index.html#",
        str(tmp_path / "a gallery"): "a%20gallery/index.html#",
    }  # fmt: skip
    videos = {digest16("v", str(k)).hex() for k in range(24)}
    for gallery, begin in given.items():
        tags = Page(page_of(folder, "--gallery", gallery)).tags
        links = [attrs["href"] for tag, attrs in tags if tag == "a"]
        links = [link for link in links if not link.startswith("#")]
        assert links
        assert all(link.startswith(begin) and link.removeprefix(begin) in videos for link in links)
    refused = CliRunner().invoke(main, ["report", str(folder), "--gallery", "javascript:alert(1)"])
    assert refused.exit_code == 2
    assert "https" in refused.stderr


def test_a_page_of_10_000_errors_is_bounded(tmp_path: Path) -> None:
    scores = made_scores(3, n=10_000, gain=-0.9)
    wrong = int((np.asarray(scores.p_fake > 0.5) != scores.labels.astype(bool)).sum())
    assert wrong > 10_000
    results: dict[str, object] = {"all": {"video": {}, "clip": {}}}
    text = page_of(write_evaluation(tmp_path / "eval", scores, entry={"results": results}))
    assert f"{wrong:,} of 20,000 labelled clips" in text
    assert len(text) < 200_000
