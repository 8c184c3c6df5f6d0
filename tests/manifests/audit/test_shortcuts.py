"""`lps-audit shortcuts`, and where its panel is shown: `show`, the audit, its page."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lps.cli.audit.main import main
from lps.manifests.shortcuts import sample
from lps.manifests.shortcuts.records import SHORTCUTS_JSON, read_panels, store_panel
from lps.manifests.storage import Store
from tests.buckets import bucket_server, upload_folder


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the 42 videos of the small data set be enough."""
    monkeypatch.setattr(sample, "MIN_VIDEOS", 10)
    monkeypatch.setattr(sample, "MIN_GROUPS", 5)


@pytest.mark.usefixtures("enough")
def test_panel_is_kept_and_shown_and_known_to_be_stale(mutated: Callable[..., Path], tmp_path: Path) -> None:
    out = mutated()
    made = run("shortcuts", out, "--split-set", "ranked", "--seed", 3)
    assert made.exit_code == 0, made.output
    assert "what tells the label, split set ranked" in made.output
    assert "most from (its own AUC)" in made.output
    assert "in brackets, the AUC of a feature by itself, below 0.5 where fakes have the smaller values" in made.output
    record = json.loads((out / SHORTCUTS_JSON).read_bytes())
    scores = {score["name"]: score for score in record["panels"]["ranked"]["scores"]}
    assert scores["names"]["auc"] > 0.9  # 000.mp4 and 000_001.mp4
    assert scores["band-power"]["note"] == "pictures are smaller than the 68 px that the band needs"
    first = (out / SHORTCUTS_JSON).read_bytes()
    assert run("shortcuts", out, "--split-set", "ranked", "--seed", 3).exit_code == 0
    assert (out / SHORTCUTS_JSON).read_bytes() == first
    shown = run("show", out, "--split-set", "ranked", "--json", tmp_path / "show.json")
    assert "what tells the label, split set ranked" in " ".join(shown.output.split())
    assert "STALE" not in shown.output
    assert json.loads((tmp_path / "show.json").read_bytes())["shortcuts"]["ranked"]["stale"] is False
    store = Store(str(out))
    panel = read_panels(store)["ranked"]
    index = json.loads((out / "index.json").read_bytes())
    index["manifests"]["manifests/clips.parquet"]["sha256"] = "0" * 64
    (out / "index.json").write_text(json.dumps(index))
    assert not panel.is_of(index)
    assert "STALE: measured before a change" in " ".join(run("show", out, "--split-set", "ranked").output.split())


@pytest.mark.usefixtures("enough")
def test_audit_measures_and_its_page_shows(dataset: Path, tmp_path: Path) -> None:
    files = (tmp_path / "a.json", tmp_path / "a.html")
    run("check", dataset, "--level", "full", "--checks", "B14,A5", "--json", files[0], "--html", files[1])
    checks = {check["id"]: check for check in json.loads(files[0].read_bytes())["checks"]}
    panel = checks["B14"]["data"]["panel"]
    assert panel["n_sampled"] == 39
    page = files[1].read_text()
    assert 'id="shortcuts"' in page
    assert "place_in_sorted_list" in page or "n of &#39;_&#39;" in page or "length" in page
    assert not (dataset / SHORTCUTS_JSON).exists()


def test_too_few_are_unknown(dataset: Path) -> None:
    made = run("shortcuts", dataset, "--no-store", "--json", "-")
    assert made.exit_code == 0, made.output
    record = json.loads(made.stdout)
    assert {score["auc"] for score in record["scores"]} == {None}
    assert "too few videos" in record["scores"][0]["note"]
    assert not (dataset / SHORTCUTS_JSON).exists()


@pytest.mark.usefixtures("enough")
def test_unreadable_pictures_and_records_are_one_line(mutated: Callable[..., Path]) -> None:
    out = mutated()
    next((out / "shards").rglob("*.tar")).unlink()
    made = run("shortcuts", out)
    assert made.exit_code == 4
    assert "cannot be read" in made.output
    assert not (out / SHORTCUTS_JSON).exists()
    (out / SHORTCUTS_JSON).write_text('{"schema": "lps.shortcuts", "schema_version": "1.0", "panels": {"x": {}}}')
    assert "shortcuts are not known: shortcuts.json is damaged" in run("show", out).output


@pytest.fixture
def uploaded(dataset: Path) -> Iterator[str]:
    """Return the URL of the data set in a bucket."""
    with bucket_server() as client:
        yield upload_folder(client, dataset)


@pytest.mark.usefixtures("enough")
def test_bucket_gives_the_panel_of_the_folder_and_keeps_it(dataset: Path, uploaded: str, tmp_path: Path) -> None:
    files = (tmp_path / "local.json", tmp_path / "bucket.json")
    for place, file, more in ((dataset, files[0], ("--no-store",)), (uploaded, files[1], ())):
        made = run("shortcuts", place, "--json", file, *more)
        assert made.exit_code == 0, made.output
    assert files[0].read_bytes() == files[1].read_bytes()
    assert read_panels(Store(uploaded))["group"].record() == json.loads(files[1].read_bytes())


def test_panels_of_several_split_sets_stand_side_by_side(dataset: Path, tmp_path: Path) -> None:
    from lps.manifests.audit.core.database import open_dataset
    from lps.manifests.shortcuts.panel import measure_panel

    store = Store(str(tmp_path / "kept"))
    for name in ("group", "ranked"):
        with open_dataset(str(dataset), name) as ctx:
            store_panel(store, measure_panel(ctx).panel)
    assert sorted(read_panels(store)) == ["group", "ranked"]
