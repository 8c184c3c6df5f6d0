"""A stage trained on several data sets: what its files say of them, and that it resumes with these only."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lps.manifests.canonical import sha256_hex
from lps.manifests.schemas import read_table, table_bytes
from lps.model.report.errors import recorded_locations
from lps.model.report.runs import read_folders
from lps.model.report.settings import LEAKY, identities, setting_rows
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.run_log import read_log
from lps.model.training.validate import Tally, metrics_of
from tests.model.board_events import without_times
from tests.model.training.test_learnt import seen

if TYPE_CHECKING:
    from tests.model.conftest import Ended, Maker, Runner, Spec, WebServer

    Settings = Callable[..., Path]
    Family = Callable[..., list[Spec]]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, maker: "type[Maker]", family: "Family") -> dict[str, Path]:
    """Return two data sets, of 7 and 4 clips to train on, with videos of equal ids in both. Tests only read them."""
    make = maker(tmp_path_factory.mktemp("sets"))
    one = make.data_set([family("a", 7), family("v", 6, "val")])
    other = family("a", 4, content="other")
    return {"one": one, "two": make.data_set([other, family("w", 4, "val")])}


@pytest.fixture(scope="module")
def trained(
    sets: dict[str, Path], lps_train: "Runner", settings: "Settings", tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a finished run of `classify` on both."""
    out = tmp_path_factory.mktemp("trained") / "run"
    ended = lps_train("classify", out, *data(sets), "--init", "random", "--config", weighted(settings))
    assert ended.code == 0, ended.stderr
    return out


def data(sets: dict[str, Path]) -> list[object]:
    return [word for name, path in sets.items() for word in ("--data", f"{name}={path}")]


def weighted(settings: "Settings", train: str = 'augment = "light"', weight: float = 2.0) -> Path:
    return settings(train, mix=f"two = {weight}")


def weights(out: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(out / "checkpoints/best.pt").network


def test_files_of_a_run_name_all_data_sets(trained: Path, sets: dict[str, Path], family: "Family") -> None:
    asked = json.loads((trained / "config.json").read_bytes())["data"]
    assert asked["data"] is None
    assert asked["sets"] == [
        {"name": "one", "data": str(sets["one"]), "weight": 1.0},
        {"name": "two", "data": str(sets["two"]), "weight": 2.0},
    ]
    found = read_checkpoint(trained / "checkpoints/best.pt").data
    assert json.loads((trained / "result.json").read_bytes())["data"] == found
    assert [each["name"] for each in found["sets"]] == ["one", "two"]
    for each in found["sets"]:
        assert all(len(each[name]) == 64 for name in ("index_sha256", "samples_sha256", "val_samples_sha256"))
    assert len({each["index_sha256"] for each in found["sets"]} | {found["index_sha256"]}) == 3
    videos = seen(trained / "checkpoints/best.pt")
    assert videos["labels"] == {spec.video_id for spec in family("a", 7)}
    assert videos["validation"] == {spec.video_id for spec in (*family("v", 6), *family("w", 4))}
    learnt = json.loads((trained / "result.json").read_bytes())["learnt"]
    assert learnt["gaps"] == []


def test_configuration_names_all_data_sets_by_digest(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_bytes())
    checkpoint = read_checkpoint(trained / "checkpoints/best.pt")
    assert checkpoint.config == config
    digests = ("index_sha256", "samples_sha256", "val_samples_sha256")
    expected = {each["name"]: {name: each[name] for name in digests} for each in checkpoint.data["sets"]}
    whole = {name: checkpoint.data[name] for name in digests}
    assert config["data_sha256"] == {**whole, "sets": expected}


def test_one_data_set_under_two_names_is_refused(
    sets: dict[str, Path], lps_train: "Runner", settings: "Settings", tmp_path: Path
) -> None:
    copy = shutil.copytree(sets["one"], tmp_path / "copy")
    for again in (sets["one"], copy):
        given = data({"one": sets["one"], "again": again})
        refused = lps_train("classify", tmp_path / "run", *given, "--init", "random", "--config", settings())
        assert refused.code == 3
        assert "again and one are one data set (index.json has the SHA-256 " in refused.last_line
        assert refused.last_line.endswith("would count twice: give it once, with a weight ([mix] again = 2.0)")


def test_an_epoch_reads_each_data_set_as_its_weight_says(trained: Path) -> None:
    steps = [record for record in read_log(trained / "log.jsonl") if record["kind"] == "step"]
    assert len(steps) == 2 * 4, "7 clips, and 2 times 4, in batches of 4"


@pytest.mark.parametrize("stage", ["pretrain", "classify", "distill"])
def test_a_killed_run_resumes_to_the_same_weights(
    stage: str, trained: Path, sets: dict[str, Path], lps_train: "Runner", settings: "Settings", tmp_path: Path
) -> None:
    init = trained / "checkpoints/best.pt" if stage == "distill" else "random"
    train = "" if stage == "distill" else 'augment = "light"'
    options = ["--init", init, "--config", weighted(settings, train)]
    assert lps_train(stage, tmp_path / "undisturbed", *data(sets), *options).code == 0
    killed = tmp_path / "killed"
    assert lps_train(stage, killed, *data(sets), *options, kill=("outside", "StepDone", 3)).code == -9
    turned = dict(reversed(sets.items()))
    ended = lps_train(stage, killed, *data(turned), *options)
    assert ended.code == 0, ended.stderr
    assert "resumed at step" in ended.stderr[0]
    assert without_times(killed / "log.jsonl") == without_times(tmp_path / "undisturbed/log.jsonl")
    expected = weights(tmp_path / "undisturbed")
    assert all(torch.equal(value, expected[name]) for name, value in weights(killed).items())


def test_a_data_set_at_a_url_is_read_as_the_folder_is(
    trained: Path, lps_train: "Runner", settings: "Settings", web: "WebServer", sets: dict[str, Path]
) -> None:
    shutil.copytree(sets["two"], web.root / "remote")
    given = ["--data", f"two={web.url}/remote", "--data", f"one={sets['one']}"]
    out = web.root / "run"
    ended = lps_train("classify", out, *given, "--init", "random", "--config", weighted(settings))
    assert ended.code == 0, ended.stderr
    expected = weights(trained)
    assert all(torch.equal(value, expected[name]) for name, value in weights(out).items())
    found, there = (read_checkpoint(run / "checkpoints/best.pt") for run in (out, trained))
    assert found.data["sets"] == there.data["sets"]
    assert found.metrics == there.metrics


def test_two_processes_go_on_from_one_with_the_same_steps(
    sets: dict[str, Path], lps_train: "Runner", settings: "Settings", tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run", *data(sets), "--init", "random", "--config", weighted(settings)]
    assert lps_train(*command, kill=("self", "CheckpointWritten", 1)).code == -9
    ended = lps_train(*command, ranks=2)
    assert ended.codes == [0, 0], ended.stderr
    steps = [record["step"] for record in read_log(tmp_path / "run/log.jsonl") if record["kind"] == "step"]
    assert steps == list(range(1, 9))


def test_other_data_sets_weights_and_samples_are_refused_by_name(
    sets: dict[str, Path],
    lps_train: "Runner",
    settings: "Settings",
    make: "Maker",
    family: "Family",
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    options = ["--init", "random", "--config", weighted(settings)]
    assert lps_train("classify", run, *data(sets), *options, kill=("self", "CheckpointWritten", 1)).code == -9
    changed = make.data_set([family("a", 6), family("v", 4, "val")])
    plain = ["--init", "random", "--config", settings('augment = "light"')]
    heavier = ["--init", "random", "--config", weighted(settings, weight=3)]
    cases: list[tuple[list[Any], str]] = [
        (
            [*data({**sets, "three": changed}), *options],
            "with the data sets one, two and is given the data sets one",
        ),
        ([*data({"two": sets["two"]}), *options], "with the data sets one, two and is given the data set two"),
        (["--data", sets["one"], *plain], "with the data sets one, two and is given data without a name"),
        ([*data(sets), *heavier], "the weight of two in this run was 2 and is 3 (mix.two)"),
        ([*data({**sets, "one": changed}), *options], "the samples of one are not those that this run began with"),
    ]
    for args, says in cases:
        refused = lps_train("classify", run, *args)
        assert (refused.code, says in refused.last_line) == (3, True), refused.last_line
    moved = {"one": Path(shutil.copytree(sets["one"], tmp_path / "moved")), "two": sets["two"]}
    ended = lps_train("classify", run, *data(moved), *options)
    assert ended.code == 0, ended.stderr
    for args, says in cases:  # and so is a finished one
        refused = lps_train("classify", run, *args)
        assert (refused.code, says in refused.last_line) == (3, True), refused.last_line


def test_a_data_set_without_a_clip_to_learn_from_is_named(
    sets: dict[str, Path], lps_train: "Runner", settings: "Settings", make: "Maker", family: "Family", tmp_path: Path
) -> None:
    short = make.data_set([family("a", 4, n_frames=3), family("v", 4, "val")])
    command = ["classify", tmp_path / "run", *data({**sets, "short": short}), "--init", "random", "--config"]
    refused = lps_train(*command, settings())
    assert refused.code == 3
    assert "split 'train' of short has nothing to learn from" in refused.last_line
    no_val = make.data_set([family("a", 4, content="third")])
    command = ["classify", tmp_path / "run", *data({**sets, "three": no_val}), "--init", "random", "--config"]
    refused = lps_train(*command, settings())
    assert refused.code == 4
    assert f"validation: three: {no_val}: split set 'group' has no videos in 'val'" in refused.last_line


def test_a_machine_is_fitted_on_several_data_sets(
    trained: Path, sets: dict[str, Path], lps_train: "Runner", settings: "Settings", tmp_path: Path
) -> None:
    init = trained / "checkpoints/best.pt"
    ended = lps_train(
        "classify", tmp_path / "svm", *data(sets), "--init", init, "--config", settings(), "--head", "svm"
    )
    assert ended.code == 0, ended.stderr
    result = json.loads((tmp_path / "svm/result.json").read_bytes())
    assert [each["name"] for each in result["data"]["sets"]] == ["one", "two"]
    assert result["last"]["n_clips"] == 10
    assert result["best"] == pytest.approx((result["last"]["auc/one"] + result["last"]["auc/two"]) / 2)


# ---- validation ------------------------------------------------------------------------------------------------------


def test_validation_is_that_of_each_data_set_alone_and_of_all_together(
    trained: Path, sets: dict[str, Path], lps_train: "Runner", tmp_path: Path
) -> None:
    best = trained / "checkpoints/best.pt"
    ended = lps_train("evaluate", "--checkpoint", best, *data(sets), "--split", "val", "--clips", 1, "--workers", 0,
                      "--out", tmp_path / "out")  # fmt: skip
    assert ended.code == 0, ended.stderr
    rows = pq.read_table(tmp_path / "out/scores.parquet").to_pandas()
    rows["loss"] = -np.log(np.where(rows["label"] == 1, rows["p_fake"], 1 - rows["p_fake"]))
    parts = {"one": rows[rows["data"] == 0], "two": rows[rows["data"] == 1]}
    assert [len(part) for part in parts.values()] == [6, 4]
    found = read_checkpoint(best).metrics
    aucs = {name: roc_auc_score(part["label"], part["p_fake"]) for name, part in parts.items()}
    losses = {name: part["loss"].mean() for name, part in parts.items()}
    for name in parts:
        assert found[f"auc/{name}"] == pytest.approx(aucs[name], abs=1e-9)
        assert found[f"loss/{name}"] == pytest.approx(losses[name], rel=1e-4)
        assert found[f"n_clips/{name}"] == len(parts[name])
    assert found["auc"] == pytest.approx(np.mean(list(aucs.values())), abs=1e-9)
    assert found["loss"] == pytest.approx(np.mean(list(losses.values())), rel=1e-4)
    assert found["auc_micro"] == pytest.approx(roc_auc_score(rows["label"], rows["p_fake"]), abs=1e-9)
    assert found["loss_micro"] == pytest.approx(rows["loss"].mean(), rel=1e-4)
    assert found["n_clips"] == 10
    assert json.loads((trained / "result.json").read_bytes())["best"] == found["auc"]


def test_means_over_data_sets_pass_over_what_has_no_value() -> None:
    def tally(loss: float, *scores: tuple[str, int, float]) -> Tally:
        found = Tally(scores=[((video, 0), label, p) for video, label, p in scores])
        found.add({"loss": loss}, len(scores))
        return found

    both = tally(1.0, ("a", 0, 0.2), ("b", 1, 0.9), ("c", 1, 0.1))
    reals = tally(4.0, ("d", 0, 0.5))
    found = metrics_of([{"both": both}, {"reals": reals}], ("both", "reals", "gone"))
    assert found == {
        "loss": 2.5, "auc": 0.5, "loss_micro": 1.75, "auc_micro": 0.5,
        "loss/both": 1.0, "auc/both": 0.5, "n_clips/both": 3,
        "loss/reals": 4.0, "auc/reals": None, "n_clips/reals": 1, "n_clips/gone": 0, "n_clips": 4,
    }  # fmt: skip
    assert metrics_of([{"": both}], ()) == {"loss": 1.0, "auc": 0.5, "n_clips": 3}
    halves = [{"both": tally(1.0, ("a", 0, 0.2))}, {"both": tally(2.0, ("b", 1, 0.9), ("c", 1, 0.1))}]
    assert metrics_of(halves, ("both",))["loss/both"] == pytest.approx(5 / 3)


def test_data_sets_of_one_class_are_told(
    sets: dict[str, Path], lps_train: "Runner", settings: "Settings", make: "Maker", family: "Family", tmp_path: Path
) -> None:
    reals = make.data_set([family("r", 4), [each for each in family("v", 4, "val") if not each.label]])
    options = ["--init", "random", "--config", settings("epochs = 1")]
    ended = lps_train("classify", tmp_path / "run", *data({**sets, "reals": reals}), *options)
    assert ended.code == 0, ended.stderr
    said = ended.stderr[0]
    assert "note: validation of reals has one class only: its AUC is none, and not in the mean" in said
    found = read_checkpoint(tmp_path / "run/checkpoints/best.pt").metrics
    assert found["auc/reals"] is None
    assert found["auc"] == pytest.approx((found["auc/one"] + found["auc/two"]) / 2)
    assert f"; auc of one {found['auc/one']:.4g}, two {found['auc/two']:.4g}\n" in said
    ended = lps_train("classify", tmp_path / "reals", *data({"reals": reals}), *options)
    assert "note: validation has one class only in each data set, so no AUC: the lowest loss counts" in ended.stderr[0]
    assert read_checkpoint(tmp_path / "reals/checkpoints/best.pt").metrics["auc"] is None


def test_page_of_a_run_names_its_data_sets_without_their_paths(trained: Path, sets: dict[str, Path]) -> None:
    (run,), _ = read_folders([trained])
    rows = {row.name: row.cells[0] for row in setting_rows([run])}
    assert rows["data.two.weight"] == "2.0"
    assert rows["data.two.data"] == f"…/{'/'.join(sets['two'].parts[-2:])}"
    assert not any(str(sets["one"].parent) in cell for cell in rows.values())
    found = {row.name: row.cells[0] for row in identities([run], [])[1]}
    index = sha256_hex((sets["two"] / "index.json").read_bytes())
    assert found["two: SHA-256 of index.json"] == index
    places, notes = recorded_locations([run.config["data"], {"sets": [{"name": "x", "data": "s3://b/x"}]}])
    assert places == [str(path) for path in sets.values()]
    assert len(notes) == 1


# ---- what one data set learns from and another holds out -------------------------------------------------------------


def test_files_learnt_from_in_one_data_set_and_held_out_in_another_need_a_flag_and_leave_a_stamp(
    sets: dict[str, Path], lps_train: "Runner", settings: "Settings", make: "Maker", family: "Family", tmp_path: Path
) -> None:
    copies = [replace(each, content=f"a{each.video[1:]}") for each in family("k", 3, "test")]
    leaking = make.data_set([family("c", 4), copies, family("x", 4, "val")])
    run = tmp_path / "run"
    command = [
        "classify",
        run,
        *data({**sets, "three": leaking}),
        "--init",
        "random",
        "--config",
        settings("epochs = 1"),
    ]
    refused = lps_train(*command)
    assert refused.code == 3
    assert refused.last_line.endswith(
        "3 source files are learnt from in one and held out in three, in its split 'test' (such as kf0): results there "
        "would say little; use split sets that agree (`lps-prep split`), leave a data set out, or allow it with "
        "--allow-leaky"
    )
    assert not (run / "checkpoints").exists()
    ended = lps_train(*command, "--allow-leaky")
    assert ended.code == 0, ended.stderr
    assert "note: 3 source files are learnt from in one and held out in three, in its split 'test'" in ended.stderr[0]
    assert "on a LEAKY split set" in ended.stdout[0]
    found = read_checkpoint(run / "checkpoints/best.pt").data
    shared = {"learnt": "one", "held_out": "three", "split": "test", "kind": "file", "n_videos": 3}
    assert (found["leaky"], found["shared_videos"]) == (True, [shared])
    assert [each["leaky"] for each in found["sets"]] == [False, False, False]
    (read,), _ = read_folders([run])
    stamps, rows = identities([read], [])
    assert [stamp.mark for stamp in stamps] == [LEAKY]
    assert {row.name: row.cells[0] for row in rows}["Learnt from and held out"] == "3 of one in three, test (file)"
    best = run / "checkpoints/best.pt"
    asked = ["--data", f"three={leaking}", "--workers", 0, "--clips", 1, "--out", tmp_path / "out"]
    refused = lps_train("evaluate", "--checkpoint", best, *asked)
    assert refused.code == 3
    assert refused.last_line.endswith(
        "3 source files are learnt from in one and held out in three, in its split 'test' (such as kf0): results on it "
        "would say little; evaluate on another data set, or allow it with --allow-leaky"
    )
    ended = lps_train("evaluate", "--checkpoint", best, *asked, "--allow-leaky")
    assert ended.code == 0, ended.stderr
    (entry,) = json.loads((tmp_path / "out/metrics.json").read_bytes())["data"]
    assert (entry["leaky"], entry["shared_videos"]) == (True, [shared])
    assert "note: three: the detector learnt from 3 of these 3 videos" in ended.stderr[0]
    learnt = json.loads((tmp_path / "out/metrics.json").read_bytes())["checkpoint"]["learnt_from"]
    assert (learnt["leaky"], learnt["shared_videos"]) == (True, [shared])


def test_near_copies_and_people_of_another_data_set_are_refused_by_kind(
    lps_train: "Runner", settings: "Settings", make: "Maker", family: "Family", tmp_path: Path
) -> None:
    def hashed(specs: "list[Spec]", seed: str) -> "list[Spec]":
        random = Random(seed)
        return [replace(each, hashes=tuple(random.randbytes(32) for _ in range(3))) for each in specs]

    learnt = hashed(family("a", 24), "a")
    learnt[0] = replace(learnt[0], target_keys=("ffpp/seq/043",))
    one = make.data_set([learnt, family("v", 4, "val")])
    held = hashed(family("b", 24, "test"), "b")
    anew = [replace(held[k], hashes=learnt[k].hashes) if k < 2 else held[k] for k in range(24)]
    anew[5] = replace(anew[5], target_keys=("ffpp/seq/043",))
    two = make.data_set([family("c", 4), anew, family("w", 4, "val")])
    run = tmp_path / "run"
    command = ["classify", run, *data({"one": one, "two": two}), "--init", "random", "--config"]
    refused = lps_train(*command, settings("epochs = 1"))
    assert refused.code == 3
    assert refused.last_line.endswith(
        "2 videos are near copies of ones learnt from in one and held out in two, in its split 'test' (such as bf0), "
        "and 1 more such overlap: results there would say little; use split sets that agree (`lps-prep split`), leave "
        "a data set out, or allow it with --allow-leaky"
    )
    ended = lps_train(*command, settings("epochs = 1"), "--allow-leaky")
    assert ended.code == 0, ended.stderr
    said = "note: 1 video shares a person or recording with one learnt from in one and is held out in two"
    assert said in ended.stderr[0]
    found = read_checkpoint(run / "checkpoints/best.pt").data
    where = {"learnt": "one", "held_out": "two", "split": "test"}
    assert found["leaky"] is True
    assert found["shared_videos"] == [
        {**where, "kind": "near_copy", "n_videos": 2},
        {**where, "kind": "key", "n_videos": 1},
    ]
    (read,), _ = read_folders([run])
    rows = {row.name: row.cells[0] for row in identities([read], [])[1]}
    assert rows["Learnt from and held out"] == "2 of one in two, test (near copy); 1 of one in two, test (key)"


def test_kin_is_a_note(
    lps_train: "Runner", settings: "Settings", make: "Maker", family: "Family", tmp_path: Path
) -> None:
    one = make.data_set([family("a", 4, dataset="celebdf2"), family("v", 4, "val", dataset="celebdf2")])
    two = make.data_set([family("b", 4, dataset="df40"), family("w", 4, "val", dataset="df40")])
    command = ["classify", tmp_path / "run", *data({"one": one, "two": two}), "--init", "random", "--config"]
    ended = lps_train(*command, settings("epochs = 1"))
    assert ended.code == 0, ended.stderr
    kin = (
        "one and two are kin, though no file, near copy or key says so: DF40 is made from Celeb-DF (README of "
        "github.com/YZY-stack/DF40)"
    )
    assert f"note: {kin}" in ended.stderr[0]
    found = read_checkpoint(tmp_path / "run/checkpoints/best.pt").data
    assert kin in found["shared_notes"]
    assert (found["leaky"], "shared_videos" in found) == (False, False)


def test_what_a_detector_learnt_from_elsewhere_is_refused_in_evaluate_by_kind(
    lps_train: "Runner", settings: "Settings", make: "Maker", family: "Family", tmp_path: Path
) -> None:
    learnt = family("a", 4, target_keys=("ffpp/seq/043",), dataset="ffpp")
    train = make.data_set([learnt, family("v", 4, "val", dataset="ffpp")])
    best = tmp_path / "run/checkpoints/best.pt"
    command = ["classify", tmp_path / "run", "--data", train, "--init", "random", "--config", settings("epochs = 1")]
    assert lps_train(*command).code == 0

    def evaluated(out: Path, *asked: object, split: str = "test") -> "Ended":
        options = ["--split", split, "--workers", 0, "--clips", 1, "--out", out]
        return lps_train("evaluate", "--checkpoint", best, *options, *asked)

    def entry(out: Path) -> dict[str, Any]:
        return dict(json.loads((out / "metrics.json").read_bytes())["data"][0])

    held = family("b", 4, "test", target_keys=("ffpp/seq/043",), dataset="df40")
    test = make.data_set([held, family("c", 4, target_keys=("ffpp/seq/043",), dataset="df40")])
    refused = evaluated(tmp_path / "out", "--data", f"two={test}")
    assert refused.code == 3
    assert (
        "4 videos share a person or recording with ones learnt from in ffpp and are held out in two, in its split "
        "'test' (such as bf0 with ffpp/seq/043): results on it would say little"
    ) in refused.last_line
    ended = evaluated(tmp_path / "out", "--data", f"two={test}", "--allow-leaky")
    assert ended.code == 0, ended.stderr
    assert entry(tmp_path / "out")["shared_videos"] == [
        {"learnt": "ffpp", "held_out": "two", "split": "test", "kind": "key", "n_videos": 4}
    ]
    assert evaluated(tmp_path / "seen", "--data", f"two={test}", split="train").code == 0, "it is not held out"
    assert evaluated(tmp_path / "own", "--data", train, split="val").code == 0, "nor is its own data set another"
    shutil.move(train, tmp_path / "gone")
    ended = evaluated(tmp_path / "blind", "--data", f"two={test}")
    assert ended.code == 0, ended.stderr
    notes = entry(tmp_path / "blind")["notes"]
    gone = (
        "the data set ffpp that it learnt from is not at hand: copies encoded anew and people of both are not noticed"
    )
    assert notes[-2:] == [gone, "DF40 is made from FaceForensics++ (README of github.com/YZY-stack/DF40)"]
    assert f"note: two: {gone}" in ended.stderr[0]
    beside = evaluated(tmp_path / "beside", "--data", f"two={test}", "--data", f"moved={tmp_path / 'gone'}")
    assert beside.code == 3, "what it learnt from is evaluated beside"
    assert "share a person or recording with ones learnt from in ffpp" in beside.last_line


def test_same_files_to_learn_from_and_videos_without_clips_are_no_leak(
    sets: dict[str, Path], lps_train: "Runner", settings: "Settings", make: "Maker", family: "Family", tmp_path: Path
) -> None:
    copies = [replace(each, content=f"a{each.video[1:]}") for each in family("k", 4)]
    failed = [replace(each, content=f"a{each.video[1:]}") for each in family("m", 3, "test")]
    twice = make.data_set([copies, failed, family("x", 4, "val")])
    path = twice / "manifests/videos.parquet"
    ids = {each.video_id for each in failed}
    rows = read_table("videos", path.read_bytes()).to_pylist()
    path.write_bytes(
        table_bytes("videos", [{**r, "status": "failed"} if r["video_id"] in ids else r for r in rows], {})
    )
    command = ["classify", tmp_path / "run", *data({**sets, "twice": twice}), "--init", "random", "--config"]
    ended = lps_train(*command, settings("epochs = 1"))
    assert ended.code == 0, ended.stderr
    found = read_checkpoint(tmp_path / "run/checkpoints/best.pt").data
    assert (found["leaky"], "shared_videos" in found) == (False, False)


def test_with_pairs_a_data_set_without_any_is_refused(
    sets: dict[str, Path], lps_train: "Runner", settings: "Settings", make: "Maker", family: "Family", tmp_path: Path
) -> None:
    reals = make.data_set([[each for each in family("r", 4) if not each.label], family("x", 4, "val")])
    command = ["classify", tmp_path / "run", *data({**sets, "reals": reals}), "--init", "random", "--config"]
    refused = lps_train(*command, settings('sampling = "pairs"'))
    assert refused.code == 3
    assert "reals has no pair of a fake and the real video it was made from" in refused.last_line
