"""`lps-train evaluate` on small data sets: what its files say, that it resumes where it stopped, and its exit codes."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from lps.cli.train.data_sets import named
from lps.cli.train.main import main
from lps.manifests.canonical import pretty_json, sha256_hex
from lps.manifests.errors import IntegrityError, LpsError, RefusedError, UnreadableError
from lps.manifests.names import Role
from lps.manifests.records import Note
from lps.manifests.splits.learnt import Learnt, learnt_from
from lps.model.data.sources import Sources
from lps.model.evaluation.evaluate import EvaluateOptions, evaluate
from lps.model.evaluation.events import ClipsScored, DataSetBegun, EvaluateEvent
from lps.model.evaluation.loading import LoadedDetector, load_detector
from lps.model.evaluation.metrics import Bootstrap
from lps.model.evaluation.scores import SCORES, read_scores
from lps.model.evaluation.threshold import StoredThreshold, read_threshold
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.training.checkpoint import learnt_tensor, write_checkpoint
from lps.model.training.presets import Preset
from tests.builders import detector_checkpoint

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec, SplitSet, WebServer

PRESET = Preset(image_px=32, net=NetParams(width=4, n_blocks=1, block_frames=3), head=HeadParams(dropout=0.0))
OPTIONS = EvaluateOptions(batch_size=4, n_workers=0, device="cpu", bootstrap=Bootstrap(n_draws=100))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.pt"
    write_detector(path, seed=1)
    return path


@pytest.fixture
def loaded(checkpoint: Path) -> LoadedDetector:
    return load_detector(checkpoint)


def write_detector(path: Path, *, seed: int, stage: str = "classify", **changes: object) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Detector(PRESET.net, PRESET.head)
    for name, value in network.state_dict().items():
        if name == "final_bn.running_var":
            value.fill_(1e-4)  # spreads the scores
    config = {"stage": stage, "seed": 7, "preset": PRESET.record()}
    write_checkpoint(path, detector_checkpoint(network, PRESET, stage=stage, config=config, **changes))


@pytest.fixture
def clips(spec: "type[Spec]") -> "Callable[..., list[Spec]]":
    """Return a function that specifies videos of two clips each: `n` real ones and `n` fakes of each method."""

    def specify(
        n: int = 4, *, labels: Sequence[int | None] = (0, 1), prefix: str = "", split: str = "test"
    ) -> "list[Spec]":
        return [
            spec(video=f"{prefix}{label}-{k}", label=label, start_frame=start, split=split)
            for label in labels
            for k in range(n)
            for start in (0, 10)
        ]

    return specify


def source(data: Path, **changes: Any) -> Sources:
    return Sources(**{"data": str(data), "split": "test", "val_split": None, **changes})


def run(
    loaded: LoadedDetector, sources: Sequence[Sources], out: Path, options: EvaluateOptions = OPTIONS
) -> tuple[dict[str, Any], list[EvaluateEvent]]:
    events: list[EvaluateEvent] = []
    record = evaluate(loaded, sources, out, options, events.append)
    return record, events


# ---- files ---------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_scores_in_the_file(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    data = make.data_set([clips(5), clips(2, prefix="z")])
    record, _ = run(loaded, [source(data)], tmp_path / "out")
    assert json.loads((tmp_path / "out/metrics.json").read_bytes()) == record
    rows = scores_of(tmp_path / "out")
    videos: dict[bytes, list[dict[str, object]]] = {}
    for row in rows:
        videos.setdefault(row["video_id"], []).append(row)
    assert len(rows) == 28
    assert {len(found) for found in videos.values()} == {2}
    labels = np.array([found[0]["label"] for found in videos.values()])
    means = np.array([np.mean([row["p_fake"] for row in found]) for found in videos.values()])
    found = record["data"][0]["results"]["all"]
    assert (found["video"]["n_real"], found["video"]["n_fake"], found["clip"]["n_fake"]) == (7, 7, 14)
    assert found["video"]["auc"]["value"] == pytest.approx(roc_auc_score(labels, means))
    assert found["video"]["average_precision"]["value"] == pytest.approx(average_precision_score(labels, means))
    assert found["video"]["recall"]["value"] == pytest.approx(recall_score(labels, means > 0.5))
    assert found["video"]["precision"]["value"] == pytest.approx(precision_score(labels, means > 0.5))
    by_clip = roc_auc_score([row["label"] for row in rows], [row["p_fake"] for row in rows])
    assert found["clip"]["auc"]["value"] == pytest.approx(by_clip)
    assert found["video"]["auc"]["low"] <= found["video"]["auc"]["value"] <= found["video"]["auc"]["high"]
    assert record["data"][0]["results"]["methods"]["swap"] == found  # the only method
    assert set(record["data"][0]["results"]["datasets"]) == {"test"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.json", "scores.parquet"]


def scores_of(out: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(out / "scores.parquet").to_pylist())


def test_results_say_what_they_are_of(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, checkpoint: Path, tmp_path: Path
) -> None:
    data = make.data_set([clips()])
    record, _ = run(loaded, [source(data)], tmp_path / "out")
    assert record["checkpoint"]["sha256"] == sha256_hex(checkpoint.read_bytes())
    assert (record["seed"], record["checkpoint"]["seed"]) == (0, 7)
    assert record["code"]["lps-prep"]
    entry = record["data"][0]
    assert entry["index_sha256"] == sha256_hex((data / "index.json").read_bytes())
    assert (entry["split_set"], entry["split"], entry["leaky"], entry["name"]) == ("group", "test", False, "test/test")
    assert record["request"]["clips"] == 3
    table = pq.read_table(tmp_path / "out/scores.parquet")
    marks = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (marks["lps.schema_id"], marks["lps.schema_version"]) == ("lps.scores", "1.2")
    assert marks["lps.checkpoint_sha256"] == loaded.sha256
    row = scores_of(tmp_path / "out")[0]
    assert (row["dataset"], row["track_id"], row["data"]) == ("test", 0, 0)
    assert row["method"] == ("swap" if row["label"] else None)
    assert str(tmp_path) not in (tmp_path / "out/metrics.json").read_text()


def test_scores_do_not_depend_on_workers(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    data = make.data_set([clips(), clips(prefix="z")])
    found = []
    for n_workers in (0, 2):
        options = EvaluateOptions(batch_size=4, n_workers=n_workers, device="cpu", bootstrap=Bootstrap(n_draws=0))
        run(loaded, [source(data)], tmp_path / str(n_workers), options)
        found.append((tmp_path / str(n_workers) / "scores.parquet").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(("n_clips", "expected"), [(1, 8), (2, 16), (None, 16)])
def test_clips_per_video(
    n_clips: int | None,
    expected: int,
    make: "Maker",
    clips: "Callable[..., list[Spec]]",
    loaded: LoadedDetector,
    tmp_path: Path,
) -> None:
    data = make.data_set([clips()])
    options = EvaluateOptions(n_clips=n_clips, n_workers=0, device="cpu", bootstrap=Bootstrap(n_draws=0))
    record, _ = run(loaded, [source(data)], tmp_path / "out", options)
    assert record["data"][0]["n_clips"] == len(scores_of(tmp_path / "out")) == expected
    assert record["data"][0]["n_clips_left_out"] == 16 - expected
    assert record["data"][0]["results"]["all"]["video"]["auc"]["low"] is None


def test_several_data_sets_give_a_row_of_the_matrix(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    data = [make.data_set([clips(3, prefix=prefix)]) for prefix in "xyz"]
    record, events = run(loaded, [source(each) for each in data], tmp_path / "out")
    matrix = record["matrix"]
    assert matrix["rows"] == [f"classify {loaded.sha256[:12]}"]
    assert matrix["columns"] == ["test/test"] * 3
    for name in ("auc", "recall", "precision"):
        assert matrix[name] == [[entry["results"]["all"]["video"][name]["value"] for entry in record["data"]]]
    assert [row["data"] for row in scores_of(tmp_path / "out")] == [0] * 12 + [1] * 12 + [2] * 12
    assert sum(event.n_clips for event in events if isinstance(event, ClipsScored)) == 36


def test_several_data_sets_are_measured_together_pooled_and_as_means(
    make: "Maker", clips: "Callable[..., list[Spec]]", checkpoint: Path, loaded: LoadedDetector, tmp_path: Path
) -> None:
    same_ids, other = clips(5), [replace(each, px=40, content="other") for each in clips(3)]
    data = [make.data_set([same_ids]), make.data_set([other]), make.data_set([clips(4, labels=(0,))])]
    record, _ = run(loaded, [source(each) for each in data], tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/scores.parquet").to_pandas()
    videos = rows.groupby(["data", "video_id"]).agg(label=("label", "first"), p=("p_fake", "mean"))
    assert len(videos) == 10 + 6 + 4, "equal ids of two data sets are two videos"
    micro, macro = record["together"]["micro"], record["together"]["macro"]
    assert micro["video"]["auc"]["value"] == pytest.approx(roc_auc_score(videos["label"], videos["p"]))
    assert micro["clip"]["auc"]["value"] == pytest.approx(roc_auc_score(rows["label"], rows["p_fake"]))
    assert (micro["video"]["n_real"], micro["video"]["n_fake"]) == (12, 8)
    assert micro["video"]["auc"]["low"] <= micro["video"]["auc"]["value"] <= micro["video"]["auc"]["high"]
    aucs = [entry["results"]["all"]["video"]["auc"]["value"] for entry in record["data"]]
    assert aucs[2] is None
    assert macro["video"]["auc"] == {"value": pytest.approx((aucs[0] + aucs[1]) / 2), "n_data_sets": 2}
    assert macro["video"]["accuracy"]["n_data_sets"] == macro["video"]["n_data_sets"] == 3
    args = ["evaluate", "--checkpoint", checkpoint, "--out", tmp_path / "shown", "--workers", 0, "--device", "cpu"]
    given = [
        word for name, each in zip(("one", "two", "reals"), data, strict=True) for word in ("--data", f"{name}={each}")
    ]
    ended = CliRunner().invoke(main, [str(arg) for arg in (*args, *given)])
    assert ended.exit_code == 0, ended.output
    lines = [line for line in ended.stdout.splitlines() if "micro" in line or "macro" in line]
    assert f"{micro['video']['auc']['value']:.3f}" in lines[0]
    assert f"{macro['video']['auc']['value']:.3f}" in lines[1]
    assert "3 data sets" in ended.stdout
    alone, _ = run(loaded, [source(data[0])], tmp_path / "alone")
    assert "together" not in alone
    nothing = make.data_set([clips(2, labels=(None,))])
    unlabelled, _ = run(loaded, [source(nothing), source(nothing)], tmp_path / "unlabelled")
    assert unlabelled["together"]["macro"]["video"]["auc"] == {
        "value": None, "reason": "none of the data sets has it", "n_data_sets": 0,
    }  # fmt: skip


def test_other_preparation_than_in_training_is_told_of_each_data_set_of_a_mix(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    def plan(**params: object) -> bytes:
        return pretty_json({"schema": "lps.plan", "schema_version": "1.0", "params": params})

    data = make.data_set([clips()])
    (data / "plan").mkdir()
    (data / "plan/plan.json").write_bytes(plan(align=True))
    sets = [{"name": "one", "prep": {"align": True}}, {"name": "two", "prep": {"align": False}}]
    mixed = replace(loaded, data={"sets": sets, "prep": None, "leaky": False})
    record, _ = run(mixed, [source(data)], tmp_path / "out")
    assert record["data"][0]["notes"][-1] == "align was False in training on two and is True here"
    assert record["checkpoint"]["learnt_from"] == {"sets": [{"name": "one"}, {"name": "two"}], "leaky": False}


def test_plain_shards_are_evaluated_and_no_secret_of_their_address_is_kept(
    make: "Maker",
    clips: "Callable[..., list[Spec]]",
    loaded: LoadedDetector,
    web: "WebServer",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pattern = make.shards([clips(), clips(prefix="z")])
    url = pattern.replace(str(web.root), web.url) + "?token=secret"
    record, _ = run(loaded, [Sources(shards=url, val_split=None)], tmp_path / "out")
    entry = record["data"][0]
    assert entry["shards"] == [f"{web.url}/shards-0/train-00000{k}.tar" for k in (0, 1)]
    assert (entry["index_sha256"], entry["split"], entry["leaky"], entry["n_clips"]) == (None, None, None, 32)
    assert "secret" not in (tmp_path / "out/metrics.json").read_text()


# ---- what is not there ---------------------------------------------------------------------------------------------


def test_one_class_only_is_null_with_a_reason(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    data = make.data_set([clips(labels=(1,))])
    record, _ = run(loaded, [source(data)], tmp_path / "out")
    found = record["data"][0]["results"]["all"]["video"]
    assert found["auc"] == {"value": None, "reason": "only fake videos"}
    assert found["recall"]["value"] is not None
    assert record["matrix"]["auc"] == [[None]]


def test_clips_without_a_label_are_scored_and_not_measured(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    data = make.data_set([[*clips(), *clips(2, labels=(None,), prefix="u")]])
    record, _ = run(loaded, [source(data)], tmp_path / "out")
    assert (record["data"][0]["n_clips"], record["data"][0]["n_unlabelled_clips"]) == (20, 4)
    assert record["data"][0]["results"]["all"]["clip"]["n_real"] == 8
    assert sum(row["label"] is None for row in scores_of(tmp_path / "out")) == 4


def test_bad_samples_are_named_and_too_many_stop(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    def cut(members: dict[str, bytes]) -> None:
        members["01.jpg"] = members["01.jpg"][:200]

    data = make.data_set([clips()], spoil={"0-1": cut})
    allowed = EvaluateOptions(n_workers=0, device="cpu", max_bad_share=0.2, bootstrap=Bootstrap(n_draws=0))
    record, _ = run(loaded, [source(data)], tmp_path / "out", allowed)
    assert (record["data"][0]["n_bad_samples"], record["data"][0]["n_clips"]) == (2, 14)
    assert "frame 01" in record["data"][0]["bad_samples"][0]
    with pytest.raises(LpsError, match="2 of 16 samples cannot be used"):
        run(loaded, [source(data)], tmp_path / "strict")


def test_a_leaky_split_set_is_refused_or_stamped(
    make: "Maker",
    clips: "Callable[..., list[Spec]]",
    split_set: "type[SplitSet]",
    loaded: LoadedDetector,
    tmp_path: Path,
) -> None:
    specs = clips()
    leaky = split_set({each.video: "test" for each in specs}, leaky=True)
    data = make.data_set([specs], split_sets={"random": leaky})
    with pytest.raises(RefusedError, match="leaky"):
        run(loaded, [source(data, split_set="random")], tmp_path / "out")
    record, events = run(loaded, [source(data, split_set="random", allow_leaky=True)], tmp_path / "out")
    assert record["data"][0]["leaky"] is True
    assert any("leaky" in event.text for event in events if isinstance(event, Note))


def learnt(samples: "Sequence[Spec]", role: Role = Role.LABELS, *, digests: bool = True, **gaps: Any) -> torch.Tensor:
    """Return what a checkpoint keeps of clips that it saw in a role."""
    columns = {
        "video_id": [each.video_id for each in samples],
        "source_sha256": [each.source_sha256 if digests else None for each in samples],
        "clip_id": [each.clip_id for each in samples],
    }
    kinds = {"video_id": pa.binary(16), "source_sha256": pa.binary(32), "clip_id": pa.binary(16)}
    table = learnt_from(role, pa.table(columns, schema=pa.schema(kinds))).table
    return learnt_tensor(Learnt(table, **gaps))


@pytest.mark.parametrize("role", Role)
def test_videos_that_were_seen_are_counted_whatever_became_of_their_data_set(
    role: Role, make: "Maker", clips: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    specs = clips()
    write_detector(tmp_path / "x.pt", seed=1, learnt=learnt([*specs[:3], *clips(2, prefix="other")], role))
    result = call("--checkpoint", tmp_path / "x.pt", "--data", make.data_set([specs]), "--out", tmp_path / "out",
                  "--workers", 0)  # fmt: skip
    assert result.exit_code == 0, result.output
    note = {
        Role.LABELS: "the detector learnt from 2 of these 8 videos",
        Role.FRAMES: "the detector was pretrained on 2 of these 8 videos, without labels",
        Role.VALIDATION: "was chosen by its metrics on 2 of these 8 videos",
    }[role]
    assert note in result.stderr
    seen = json.loads((tmp_path / "out/metrics.json").read_bytes())["data"][0]["seen"]
    assert (seen["n_videos"], seen["n_clips"], seen[role]) == (8, 16, {"videos": 2, "clips": 3})
    assert sum(seen[each]["videos"] for each in Role) == 2
    assert seen["gaps"] == []


def test_copies_under_other_names_are_the_same_videos_and_namesakes_are_not(
    make: "Maker", clips: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    held = clips()
    copies = [replace(each, video=f"elsewhere/{each.video}", content=each.video) for each in held[:4]]
    others = [replace(each, content="another film") for each in held[6:8]]
    write_detector(tmp_path / "x.pt", seed=1, learnt=learnt([*copies, *others]))
    record, _ = run(load_detector(tmp_path / "x.pt"), [source(make.data_set([held]))], tmp_path / "out")
    assert record["data"][0]["seen"]["labels"] == {"videos": 2, "clips": 0}
    assert record["data"][0]["notes"] == [
        "the detector learnt from 2 of these 8 videos",
        "1 of these videos have the id of one that it has seen, but other bytes",
    ]


def test_videos_without_digests_are_known_by_id_and_that_is_said(
    make: "Maker", clips: "Callable[..., list[Spec]]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    held = clips()
    write_detector(tmp_path / "x.pt", seed=1, learnt=learnt(held[:4]))
    shards = Sources(shards=make.shards([held]), val_split=None)
    record, _ = run(load_detector(tmp_path / "x.pt"), [shards], tmp_path / "out")
    assert record["data"][0]["notes"] == [
        "the detector learnt from 2 of these 8 videos",
        "8 of these 8 videos come without the digest of their file, as shards without manifests do: copies under "
        "another name are not noticed",
    ]
    write_detector(tmp_path / "y.pt", seed=1, learnt=learnt(held[:4], digests=False))
    record, _ = run(load_detector(tmp_path / "y.pt"), [source(make.data_set([held]))], tmp_path / "out2")
    assert record["data"][0]["notes"] == [
        "the detector learnt from 2 of these 8 videos",
        "2 of the 2 videos that it learnt from are known by id only, not by the digest of their file: copies under "
        "another name are not noticed",
    ]


def test_checkpoints_that_do_not_say_what_they_learnt_from_are_told(
    make: "Maker", clips: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    data = make.data_set([clips()])
    write_detector(tmp_path / "old.pt", seed=1, learnt=None)
    values = torch.load(tmp_path / "old.pt", weights_only=True)
    torch.save({name: value for name, value in values.items() if name != "learnt"}, tmp_path / "old.pt")
    record, events = run(load_detector(tmp_path / "old.pt"), [source(data)], tmp_path / "out")
    unknown = "the checkpoint does not say what it learnt from (an older version wrote it): it may be these videos"
    assert record["data"][0]["notes"] == record["data"][0]["seen"]["gaps"] == [unknown]
    assert f"test/test: {unknown}" in [event.text for event in events if isinstance(event, Note)]


def test_what_is_no_record_of_videos_is_refused(tmp_path: Path) -> None:
    no_record = "does not hold what was learnt from"
    wrong_values = ((torch.zeros(3, dtype=torch.uint8), no_record), (torch.zeros(3), no_record), (7, "is damaged"))
    for number, (wrong, message) in enumerate(wrong_values):
        path = tmp_path / f"{number}.pt"
        write_detector(path, seed=1, learnt=wrong)
        with pytest.raises(IntegrityError, match=f"{path} {message}"):
            load_detector(path)


# ---- one score for a video -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["max", "mean"])
def test_videos_are_judged_by_the_rule_that_is_asked_for_and_recorded(
    rule: str, make: "Maker", clips: "Callable[..., list[Spec]]", checkpoint: Path, tmp_path: Path
) -> None:
    specs = [replace(each, face=int(each.start_frame > 0)) for each in clips()]
    result = call("--checkpoint", checkpoint, "--data", make.data_set([specs]), "--out", tmp_path / "out",
                  "--workers", 0, "--video-score", rule)  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out/metrics.json").read_bytes())
    assert record["request"]["video_score"] == rule
    assert ("its highest face" in result.stdout) == (rule == "max")
    rows = scores_of(tmp_path / "out")
    assert {row["face_id"] for row in rows} == {0, 1}
    judge = max if rule == "max" else np.mean
    videos = {(row["video_id"], row["label"]) for row in rows}
    judged = [(label, judge([row["p_fake"] for row in rows if row["video_id"] == video])) for video, label in videos]
    auc = roc_auc_score([label for label, _ in judged], [p for _, p in judged])
    assert record["data"][0]["results"]["all"]["video"]["auc"]["value"] == pytest.approx(auc)
    scores, _ = read_scores((tmp_path / "out/scores.parquet").read_bytes(), "here")
    assert scores.rule == rule
    assert sorted(scores.labelled().by_video().p_fake) == pytest.approx(sorted(p for _, p in judged))


def test_faces_of_data_sets_of_an_older_version_are_their_tracks_and_that_is_said(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    for number, (track, said) in enumerate(((0, []), (1, ["an older version prepared videos of several faces"]))):
        specs = [replace(each, face=None, track=track * (each.start_frame > 0)) for each in clips()]
        record, _ = run(loaded, [source(make.data_set([specs]))], tmp_path / str(number))
        assert [note.partition(":")[0] for note in record["data"][0]["notes"]] == said
        scores, _ = read_scores((tmp_path / str(number) / "scores.parquet").read_bytes(), "here")
        assert set(scores.labelled().face.tolist()) == {0, track}


def test_scores_of_an_older_version_are_judged_as_they_were() -> None:
    sink = io.BytesIO()
    marks = {"lps.schema_id": "lps.scores", "lps.schema_version": "1.0"}
    pq.write_table(SCORES.empty_table().drop_columns(["face_id"]).replace_schema_metadata(marks), sink)
    assert read_scores(sink.getvalue(), "here")[0].rule == "mean"


# ---- interrupted ---------------------------------------------------------------------------------------------------


def test_it_goes_on_with_the_first_data_set_that_is_not_done(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    sources = [source(make.data_set([clips(3, prefix=prefix)])) for prefix in "xy"]
    undisturbed, _ = run(loaded, sources, tmp_path / "undisturbed")

    def stop(event: EvaluateEvent) -> None:
        seen.append(event)
        if isinstance(event, ClipsScored) and sum(isinstance(each, DataSetBegun) for each in seen) == 2:
            raise KeyboardInterrupt

    seen: list[EvaluateEvent] = []
    with pytest.raises(KeyboardInterrupt):
        evaluate(loaded, sources, tmp_path / "out", OPTIONS, stop)
    assert not (tmp_path / "out/metrics.json").exists()
    record, events = run(loaded, sources, tmp_path / "out")
    assert len([event for event in events if isinstance(event, DataSetBegun)]) == 1
    assert any("12 clips were scored before" in event.text for event in events if isinstance(event, Note))
    assert record == undisturbed
    files = [tmp_path / name / "scores.parquet" for name in ("out", "undisturbed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_evaluation_is_kept_and_another_is_refused(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    data = make.data_set([clips()])
    first, _ = run(loaded, [source(data)], tmp_path / "out")
    again, events = run(loaded, [source(data)], tmp_path / "out")
    assert again == first
    assert not any(isinstance(event, ClipsScored) for event in events)
    other = EvaluateOptions(n_clips=1, n_workers=0, device="cpu", bootstrap=OPTIONS.bootstrap)
    with pytest.raises(RefusedError, match=r"another evaluation: clips was 3 and is 1; use another folder"):
        run(loaded, [source(data)], tmp_path / "out", other)
    write_detector(tmp_path / "other.pt", seed=2)
    with pytest.raises(RefusedError, match="checkpoint was"):
        run(load_detector(tmp_path / "other.pt"), [source(data)], tmp_path / "out")
    (tmp_path / "out/metrics.json").write_text("[]")
    with pytest.raises(UnreadableError, match="not a result"):
        run(loaded, [source(data)], tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_one_line(
    make: "Maker", clips: "Callable[..., list[Spec]]", loaded: LoadedDetector, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreadableError, match="cannot write"):
        run(loaded, [source(make.data_set([clips()]))], tmp_path / "file/out")


def test_foreign_damaged_and_newer_scores_are_refused() -> None:
    table = SCORES.empty_table()

    def file(**marks: str) -> bytes:
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({f"lps.{name}": text for name, text in marks.items()}), sink)
        return sink.getvalue()

    for data, says in (
        (b"PAR1 and nothing", "here is not a readable Parquet file"),
        (file(schema_id="lps.manifest", schema_version="1.0"), "here is not a table of scores"),
        (file(schema_id="lps.scores", schema_version="2.0"), "here has schema version '2.0'"),
    ):
        with pytest.raises(UnreadableError, match=says):
            read_scores(data, "here")
    table = table.drop_columns(["start_s", "p_fake"])
    with pytest.raises(UnreadableError, match="no column 'p_fake'"):
        read_scores(file(schema_id="lps.scores", schema_version="1.0"), "here")
    table = SCORES.empty_table().drop_columns(["start_s"])
    scores, marks = read_scores(file(schema_id="lps.scores", schema_version="1.7"), "here")
    assert scores.table.schema.names == SCORES.names
    assert marks["lps.schema_version"] == "1.7"


# ---- the command ---------------------------------------------------------------------------------------------------


def call(*args: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, args)])


def test_the_command_prints_a_table_or_json(
    make: "Maker", clips: "Callable[..., list[Spec]]", checkpoint: Path, tmp_path: Path
) -> None:
    data = make.data_set([clips()]), make.data_set([clips(labels=(0,))])
    args = [
        "--checkpoint",
        checkpoint,
        "--data",
        data[0],
        "--data",
        data[1],
        "--out",
        tmp_path / "out",
        "--workers",
        "0",
    ]
    result = call(*args)
    assert result.exit_code == 0, result.output
    assert "4 + 4" in result.stdout
    assert "AUC" in result.stdout
    assert "no metric where there is a dash: only real videos" in result.stdout
    assert "test/test: 16 clips" in result.stderr
    again = call(*args, "--json")
    assert json.loads(again.stdout) == json.loads((tmp_path / "out/metrics.json").read_bytes())
    assert "holds this evaluation already" in again.stderr


def test_how_many_samples_may_be_bad_is_an_option(
    make: "Maker", clips: "Callable[..., list[Spec]]", checkpoint: Path, tmp_path: Path
) -> None:
    def cut(members: dict[str, bytes]) -> None:
        members["01.jpg"] = members["01.jpg"][:200]

    data = make.data_set([clips()], spoil={"0-1": cut})
    args = ["--checkpoint", checkpoint, "--data", data, "--workers", "0", "--out"]
    refused = call(*args, tmp_path / "strict")
    assert refused.exit_code == 5
    assert refused.stderr.splitlines()[-1].endswith("run.max_bad_share in the settings, --max-bad-share of evaluate")
    assert call(*args, tmp_path / "out", "--max-bad-share", "0.2").exit_code == 0


def test_compressions_are_measured_apart_and_intervals_of_few_videos_mean_nothing(
    make: "Maker", clips: "Callable[..., list[Spec]]", checkpoint: Path, tmp_path: Path
) -> None:
    named = {
        name: [replace(each, compression=name) for each in clips(n, prefix=name)]
        for name, n in (("c23", 10), ("c40", 9))
    }
    data = make.data_set([named["c23"] + named["c40"]])
    result = call("--checkpoint", checkpoint, "--data", f"ff={data}", "--out", tmp_path / "out", "--workers", "0")
    assert result.exit_code == 0, result.output
    [entry] = json.loads((tmp_path / "out/metrics.json").read_bytes())["data"]
    assert entry["name"] == "ff"
    parts = {name: found["video"] for name, found in entry["results"]["compressions"].items()}
    assert {name: (found["n_real"], found["n_fake"]) for name, found in parts.items()} == {
        "c23": (10, 10),
        "c40": (9, 9),
    }
    scores, _ = read_scores((tmp_path / "out/scores.parquet").read_bytes(), "scores")
    alone = scores.labelled()
    mine = alone.select(alone.compression == "c40").by_video()
    assert parts["c40"]["auc"]["value"] == pytest.approx(roc_auc_score(mine.labels, mine.p_fake))
    assert "(few): interval not meaningful: a class has fewer than 10 videos" in result.stdout
    lines = result.stdout.splitlines()
    below = [lines[k + 1] for k, line in enumerate(lines) if " + " in line and "real" not in line]
    assert ["(few)" in line for line in below] == [False, False, True]


def test_data_sets_are_called_as_they_are_named_and_a_plain_place_stays_one(
    make: "Maker", clips: "Callable[..., list[Spec]]", checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make.data_set([clips(2)])
    monkeypatch.chdir(tmp_path)
    data.rename(tmp_path / "v=1")
    args = ["--checkpoint", checkpoint, "--workers", "0", "--out", "out"]
    assert call(*args, "--data", "v=1", "--data", "c-23_x=v=1").exit_code == 0
    record = json.loads(Path("out/metrics.json").read_bytes())
    assert record["matrix"]["columns"] == ["test/test", "c-23_x"]
    for words, says in (
        (["a=v=1", "a=v=1"], "two data sets are called 'a'"),
        (["a="], "must be OUT or NAME=OUT, got 'a='"),
        (["o ne=v=1"], "a NAME has letters, digits, '_' and '-', got 'o ne' (of 'o ne=v=1'"),
        (["=v=1"], "a NAME has letters, digits, '_' and '-', got ''"),
    ):
        result = call(*args, *(each for word in words for each in ("--data", word)))
        assert (result.exit_code, says in result.stderr) == (2, True), result.output
    result = call(*args, "--data", "a=v=1", "--shards", "a=v=1/shards/test/test-000000.tar")
    assert (result.exit_code, "two of --data and --shards are called 'a'" in result.stderr) == (2, True), result.output
    assert named(["s3://b/x=1", "./a.b=c"]) == (["", ""], ["s3://b/x=1", "./a.b=c"])


def test_thresholds_are_told_stored_and_tried_on_other_data(
    make: "Maker", clips: "Callable[..., list[Spec]]", checkpoint: Path, tmp_path: Path
) -> None:
    data = make.data_set([clips(10, split="val"), clips(3, prefix="t")])
    args = ["--checkpoint", checkpoint, "--data", f"ff={data}", "--workers", "0"]
    wanted = ["--split", "val", "--out", tmp_path / "val", "--fpr", "0.2", "--save-threshold", tmp_path / "t.json"]
    result = call(*args, *wanted)
    assert result.exit_code == 0, result.output
    [entry] = json.loads((tmp_path / "val/metrics.json").read_bytes())["data"]
    assert [point["at"] for point in entry["operating_points"]] == ["eer", "fpr <= 0.01", "fpr <= 0.05", "fpr <= 0.1"]
    assert entry["calibration"]["ece_before"] >= 0
    assert "fpr <= 0.2" in result.stdout
    assert "ff: calibration error (ECE)" in result.stdout
    scores, _ = read_scores((tmp_path / "val/scores.parquet").read_bytes(), "scores")
    videos = scores.labelled().by_video()
    stored = read_threshold(tmp_path / "t.json")
    assert (stored.at, stored.clips, stored.data, stored.n_real) == ("fpr <= 0.2", "3", "ff", 10)
    assert (videos.p_fake[videos.labels == 0] > stored.threshold).mean() == stored.fpr <= 0.2
    # a finished evaluation gives another threshold without scoring again
    again = call(*args, *wanted[:4], "--save-threshold", tmp_path / "t.json", "--fpr", "0.001")
    assert (again.exit_code, read_threshold(tmp_path / "t.json").fpr) == (0, 0.0)
    assert "10 real videos cannot tell a false-positive rate of 0.001" in again.stdout
    tried = call(*args, "--out", tmp_path / "test", "--threshold", tmp_path / "t.json")
    assert tried.exit_code == 0, tried.output
    assert "fpr <= 0.001 of ff" in tried.stdout


def test_thresholds_that_cannot_be_had_are_one_line(
    make: "Maker", clips: "Callable[..., list[Spec]]", checkpoint: Path, tmp_path: Path
) -> None:
    data = make.data_set([clips(2, labels=(1,))])
    args = ["--checkpoint", checkpoint, "--data", data, "--workers", "0", "--out", tmp_path / "out"]
    write_detector(tmp_path / "other.pt", seed=2)
    (tmp_path / "t.json").write_bytes(
        pretty_json(
            StoredThreshold(
                checkpoint_sha256="ab" * 32, video_score="max", clips="3", data="ff", n_real=9, n_fake=9, at="eer",
                threshold=0.5, fpr=0, recall=0, temperature=1, ece_before=0, ece_after=0,
            ).record()
        )
    )  # fmt: skip
    for words, code, says in (
        (["--save-threshold", tmp_path / "x.json"], 3, "gives no threshold: only fake videos"),
        (["--save-threshold", tmp_path / "x.json", "--data", data], 2, "takes one data set"),
        (["--threshold", "1.5"], 2, "a number from 0 to 1"),
        (["--threshold", tmp_path / "none.json"], 4, "cannot read the threshold"),
        (["--threshold", tmp_path / "t.json"], 3, "chosen for the detector abab"),
    ):
        result = call(*args, *words)
        assert (result.exit_code, says in result.stderr) == (code, True), result.output
    assert not (tmp_path / "x.json").exists()


def test_wrong_use_ends_with_its_code_and_says_why(
    make: "Maker", clips: "Callable[..., list[Spec]]", checkpoint: Path, tmp_path: Path
) -> None:
    data = make.data_set([clips()])
    write_detector(tmp_path / "pre.pt", seed=1, stage="pretrain")
    out = tmp_path / "out"
    for args, code, says in (
        (["--checkpoint", checkpoint, "--out", out], 2, "--data"),
        (["--checkpoint", checkpoint, "--out", out, "--data", data, "--clips", "0"], 2, "positive number or 'all'"),
        (["--checkpoint", tmp_path / "none.pt", "--out", out, "--data", data], 4, "none.pt"),
        (["--checkpoint", tmp_path / "pre.pt", "--out", out, "--data", data], 3, "no detector"),
        (["--checkpoint", checkpoint, "--out", out, "--data", data, "--split", "val"], 4, "has no videos in 'val'"),
        (["--checkpoint", checkpoint, "--out", out, "--data", tmp_path], 4, "index.json"),
    ):
        result = call(*args)
        assert result.exit_code == code, result.output
        assert says in result.output
        assert "Traceback" not in result.output
    assert not out.exists()
