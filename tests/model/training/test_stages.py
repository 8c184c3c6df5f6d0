"""Every stage through the command line, from shards to the checkpoint that the next one starts from."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from lps.cli.train.main import main
from lps.manifests.names import STAGES, Kernel
from lps.model.data.frames import frames_to_blocks
from lps.model.data.sources import Sources
from lps.model.evaluation.loading import load_detector
from lps.model.networks.context_net import NetParams
from lps.model.networks.losses import DistillParams
from lps.model.networks.svm import fit_svm, svm_from_state
from lps.model.training.build import RANDOM, build_stage
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.feed import open_feed, open_run_data, still_reader
from lps.model.training.job import TrainJob
from lps.model.training.presets import PRESETS, Preset, preset_for, preset_from_record, read_settings
from lps.model.training.run_log import read_log
from lps.model.training.stages import ClassifyStage, DistillOptions, DistillStage
from tests.model.board_events import without_times

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Runner, Spec

    Settings = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is found in shards out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def ran(*args: object, code: int = 0) -> Result:
    """Run `lps-train` here, to its end."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return result


@pytest.fixture(scope="module")
def stages(settings: "Settings", tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of a run of each stage; tests only read them."""
    root = tmp_path_factory.mktemp("stages")
    config = ["--data", tiny_data, "--config", settings("lr = 0.01")]
    ran("encoder", root / "encoder", *config)
    ran("pretrain", root / "pretrain", *config, "--init", root / "encoder/checkpoints/best.pt")
    ran("classify", root / "classify", *config, "--init", root / "pretrain/checkpoints/best.pt")
    ran("classify", root / "random", *config, "--init", "random")
    ran("distill", root / "distill", *config, "--init", root / "classify/checkpoints/best.pt")
    ran("classify", root / "svm", *config, "--init", root / "pretrain/checkpoints/best.pt", "--head", "svm")
    return {path.name: path for path in root.iterdir()}


def best(run: Path) -> Any:
    """Return a run's best checkpoint."""
    return read_checkpoint(run / "checkpoints/best.pt")


@pytest.mark.slow
def test_installed_command_trains(settings: "Settings", tiny_data: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("lps-train")
    args = ["classify", "run", "--data", tiny_data, "--init", "random", "--config", settings("epochs = 1")]
    done = subprocess.run([program, *map(str, args)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "best checkpoint: run/checkpoints/best.pt (step 4)"
    assert "classify: 13 clips" in done.stderr
    assert "Warning" not in done.stderr


def test_every_stage_leaves_the_files_of_a_run(stages: dict[str, Path]) -> None:
    assert sorted(stages) == ["classify", "distill", "encoder", "pretrain", "random", "svm"]
    for name, run in stages.items():
        result = json.loads((run / "result.json").read_text())
        config = json.loads((run / "config.json").read_text())
        assert config["preset"]["net"]["width"] == 4
        assert config["stage"] == result["stage"]
        found = read_checkpoint(run / result["checkpoint"])
        assert json.loads(json.dumps(found.config)) == config
        assert found.data == result["data"]
        assert len(found.data["index_sha256"]) == len(found.data["samples_sha256"]) == 64
        assert found.data["leaky"] is False
        assert set(found.code) >= {"lps-prep", "torch"}
        assert not found.training
        if name != "svm":
            log = read_log(run / "log.jsonl")
            assert [r["step"] for r in log if r["kind"] == "step"] == list(range(1, 9))
            assert [r["step"] for r in log if r["kind"] == "validation"] == [4, 8]
            assert result["last"] == {k: v for k, v in log[-1].items() if k not in ("kind", "step")}


def test_resolved_configuration_is_enough_to_run_again(stages: dict[str, Path], settings: "Settings") -> None:
    record = json.loads((stages["classify"] / "config.json").read_text())["preset"]
    assert preset_from_record(record) == preset_for("paper", "classify", read_settings(settings("lr = 0.01")))


def test_stages_start_from_the_one_before(stages: dict[str, Path], settings: "Settings") -> None:
    preset = preset_for("paper", "classify", read_settings(settings()))
    for stage, before, prefixes in (
        ("pretrain", "encoder", ("backbone.",)),
        ("classify", "pretrain", ("backbone.", "agg_")),
        ("classify", "encoder", ("backbone.",)),
        ("pretrain", "pretrain", ("",)),
        ("distill", "classify", ("",)),
    ):
        start = best(stages[before]).network
        network = build_stage(stage, preset, str(stages[before] / "checkpoints/best.pt")).network.state_dict()  # type: ignore[arg-type]
        same = {name for name in network if name in start and torch.equal(network[name], start[name])}
        assert same >= {name for name in network if name.startswith(prefixes)}


def test_a_detector_is_fine_tuned_with_its_head(
    stages: dict[str, Path], settings: "Settings", lps_train: "Runner", tiny_data: Path, tmp_path: Path
) -> None:
    still = settings("epochs = 1\nlr = 1e-30\nmin_lr = 0.0\nweight_decay = 0.0")
    command = ["classify", tmp_path / "run", "--data", tiny_data, "--config", still, "--keep-head", "--init"]
    ended = lps_train(*command, stages["classify"] / "checkpoints/best.pt")
    assert ended.code == 0, ended.stderr
    before, after = best(stages["classify"]).network, best(tmp_path / "run").network
    assert all(torch.equal(after[name], before[name]) for name in before if name.endswith(("weight", "bias")))
    again = ["classify", tmp_path / "again", *command[2:]]
    for init, says in (
        ("random", "--keep-head needs a trained detector"),
        (stages["pretrain"] / "checkpoints/best.pt", "is of stage 'pretrain' and has no head to keep"),
        (stages["svm"] / "checkpoints/best.pt", "support vector machine"),
    ):
        refused = lps_train(*again, init)
        assert (refused.code, says in refused.last_line) == (3, True), refused.stderr
    other = ["--config", settings(head="final_bn = false"), "--init", stages["classify"] / "checkpoints/best.pt"]
    refused = lps_train(*again[:4], *other, "--keep-head")
    assert "has head.final_bn = True, this configuration False" in refused.last_line
    wrong = lps_train(*command, "random", "--head", "svm")
    assert (wrong.code, wrong.last_line) == (2, "Error: --keep-head and --epochs are for --head linear")


def test_pretraining_logs_both_directions(stages: dict[str, Path]) -> None:
    names = set(read_log(stages["pretrain"] / "log.jsonl")[0])
    for direction in ("forward", "backward"):
        assert {f"loss_{direction}", f"top1_{direction}", f"top5_{direction}"} <= names
    assert {"share_of_chance", "grad_norm", "lr"} <= names
    (validation, *_) = [r for r in read_log(stages["pretrain"] / "log.jsonl") if r["kind"] == "validation"]
    assert {"loss_copy", "top1_copy", "share_of_chance"} <= set(validation)
    shares = [validation[name] for name in ("top1_forward", "wrong_step", "wrong_place", "wrong_clip")]
    assert sum(shares) == pytest.approx(1)


def test_best_is_by_auc_for_detectors_and_by_loss_before(stages: dict[str, Path]) -> None:
    for name, wanted in (("pretrain", "loss"), ("encoder", "loss"), ("classify", "auc"), ("distill", "auc")):
        validations = [r for r in read_log(stages[name] / "log.jsonl") if r["kind"] == "validation"]
        score = [r[wanted] if wanted == "auc" else -r[wanted] for r in validations]
        found = best(stages[name])
        assert found.metrics[wanted] == validations[score.index(max(score))][wanted]
        assert found.progress["best"] == max(score)


# ---- distillation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_distillation_moves_head_and_out_gates_only(
    cached: bool, stages: dict[str, Path], settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    run = stages["distill"]
    start = stages["classify"] / "checkpoints/best.pt"
    if not cached:
        run = tmp_path / "run"
        config = settings("lr = 0.01", run="cache_maps = false")
        ran("distill", run, "--data", tiny_data, "--config", config, "--init", start)
    before, after = read_checkpoint(start).network, best(run).network
    assert before.keys() == after.keys()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    learnt = {name for name in after if name.startswith("final_") or "out_gate" in name}
    assert moved == learnt


@pytest.mark.parametrize("part", ["all", "none", "gates", "forward"])
def test_other_parts_of_the_aggregator(
    part: str, stages: dict[str, Path], settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    start = stages["classify"] / "checkpoints/best.pt"
    config = settings("lr = 0.01", f'agg_part = "{part}"')
    ran("distill", tmp_path / "run", "--data", tiny_data, "--config", config, "--init", start)
    before, after = read_checkpoint(start).network, best(tmp_path / "run").network
    moved = {name for name in after if name.startswith("agg_") and not torch.equal(before[name], after[name])}
    parts: dict[str, Callable[[str], bool]] = {
        "all": lambda name: True,
        "none": lambda name: False,
        "gates": lambda name: "out_gate" not in name,
        "forward": lambda name: name.startswith("agg_f"),
    }
    assert moved == {name for name in after if name.startswith("agg_") and parts[part](name)}


def test_maps_are_made_once_and_for_one_encoder(
    stages: dict[str, Path], settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    shared = f'maps_folder = "{tmp_path}/maps"'
    start = stages["classify"] / "checkpoints/best.pt"

    def distilled(name: str, init: Path, train: str = "epochs = 1") -> str:
        command = ["distill", tmp_path / name, "--data", tiny_data, "--config", settings(train, run=shared)]
        return ran(*command, "--init", init).stderr

    assert distilled("first", start).count("clips were made") == 2
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").rglob("*.f16")}
    assert len(kept) == 2
    assert distilled("second", start, "epochs = 1\nlr = 0.002").count("were there already") == 2
    assert distilled("other", stages["random"] / "checkpoints/best.pt").count("clips were made") == 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    damaged = sorted(kept)[0]
    damaged.write_bytes(damaged.read_bytes()[:-2])
    said = distilled("third", start, "epochs = 1\nlr = 0.003")
    assert said.count("clips were made") == said.count("were there already") == 1


def test_maps_give_the_logits_of_the_frames(
    stages: dict[str, Path], settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    preset = preset_for("paper", "distill", read_settings(settings("batch_size = 2")))
    stage = build_stage("distill", preset, str(stages["classify"] / "checkpoints/best.pt"))
    assert isinstance(stage, DistillStage)
    job = TrainJob(stage="distill", out=tmp_path, sources=Sources(data=str(tiny_data)), preset=preset, init="")
    data = open_run_data(job)
    assert data.val is not None
    with open_feed(job, data, stage, torch.device("cpu")) as feed, still_reader(job, data.val) as reader:
        assert feed.validation is not None
        for of_maps, of_frames in zip(feed.validation, reader.epoch(0), strict=True):
            assert of_maps.keys == of_frames.keys
            assert torch.equal(of_maps.labels, of_frames.labels)
            with torch.no_grad():
                ours = stage(of_maps.frames, of_maps.labels).logits
                wanted = load_detector(stages["classify"] / "checkpoints/best.pt").network(
                    frames_to_blocks(of_frames.frames, 2)
                )
            assert torch.allclose(ours, wanted, atol=2e-3)


def test_teacher_moves_with_the_student() -> None:
    net = NetParams(width=4, n_blocks=2, block_frames=2)
    preset = Preset(net=net, image_px=32)
    stages_ = [build_stage("classify", preset, RANDOM) for _ in range(2)]
    student, teacher = (stage.network for stage in stages_ if isinstance(stage, ClassifyStage))
    stage = DistillStage(student, teacher, DistillOptions(DistillParams()), 2).double()
    assert {p.dtype for p in stage.teacher.parameters()} == {torch.float64}
    assert not {*map(id, stage.parameters())} & {*map(id, stage.teacher.parameters())}


# ---- support vector machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_machine_is_that_of_scikit_learn(kernel: Kernel) -> None:
    random = np.random.default_rng(0)
    contexts, labels = random.normal(size=(40, 6)) * [1, 2, 3, 4, 5, 0], random.integers(0, 2, 40)
    more = random.normal(size=(9, 6)) * 3
    scaler = StandardScaler().fit(contexts)
    machine = SVC(kernel=kernel, C=1.0).fit(scaler.transform(contexts), labels)
    ours = svm_from_state(fit_svm(contexts, labels, kernel).state())
    wanted = machine.decision_function(scaler.transform(more))
    assert np.allclose(ours.decision(torch.from_numpy(more)).numpy(), wanted, rtol=1e-9, atol=1e-9)
    assert ((ours.p_fake(torch.from_numpy(more)) > 0.5).long().numpy() == machine.predict(scaler.transform(more))).all()


def test_svm_head_judges_the_contexts_of_a_frozen_network(
    stages: dict[str, Path], settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    detector = load_detector(stages["svm"] / "checkpoints/best.pt")
    assert detector.svm is not None
    start = best(stages["pretrain"]).network
    network = detector.network.state_dict()
    assert all(torch.equal(network[n], start[n]) for n in network if n.startswith(("backbone.", "agg_")))
    preset = preset_for("paper", "classify", read_settings(settings()))
    by_split = {}
    job = TrainJob(stage="classify", out=tmp_path, sources=Sources(data=str(tiny_data)), preset=preset, init="")
    data = open_run_data(job)
    assert data.val is not None
    for split, samples in (("train", data.train), ("val", data.val)):
        with torch.no_grad(), still_reader(job, samples) as reader:
            batches = list(reader.epoch(0))
            z = [detector.network.encode_clips(frames_to_blocks(b.frames, 2)) for b in batches]
            contexts = torch.cat([detector.network.context(each) for each in z])
        by_split[split] = contexts.double().numpy(), torch.cat([b.labels for b in batches]).numpy()
    scaler = StandardScaler().fit(by_split["train"][0])
    machine = SVC(C=1.0).fit(scaler.transform(by_split["train"][0]), by_split["train"][1])
    wanted = machine.decision_function(scaler.transform(by_split["val"][0]))
    assert np.allclose(detector.svm.decision(torch.from_numpy(by_split["val"][0])), wanted, atol=1e-5)
    auc = json.loads((stages["svm"] / "result.json").read_text())["last"]["auc"]
    assert auc == pytest.approx(roc_auc_score(by_split["val"][1], wanted))


def test_svm_run_is_held_to_its_configuration(
    stages: dict[str, Path], settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run", "--data", tiny_data, "--config", settings(), "--head", "svm"]
    command += ["--init", stages["pretrain"] / "checkpoints/best.pt"]
    first = ran(*command, "--kernel", "linear")
    assert ran(*command, "--kernel", "linear").stdout == first.stdout
    refused = CliRunner().invoke(main, [str(arg) for arg in command])
    assert refused.exit_code == 3
    assert "kernel was 'linear' and is 'rbf'" in refused.stderr


# ---- data ------------------------------------------------------------------------------------------------------------


def test_shards_alone_train_as_the_data_set_does(
    stages: dict[str, Path], settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    train, val = (f"{tiny_data}/shards/{split}/{split}-{{{n}}}.tar" for split, n in
                  (("train", "000000..000001"), ("val", "000002..000002")))  # fmt: skip
    options = ["--config", settings("lr = 0.01"), "--init", "random"]
    ran("classify", tmp_path / "run", "--shards", train, "--val-shards", val, *options)
    assert without_times(tmp_path / "run/log.jsonl") == without_times(stages["random"] / "log.jsonl")
    assert best(tmp_path / "run").data["shards"] == train
    said = ran("classify", tmp_path / "alone", "--shards", train, *options).stderr
    assert "no validation: the last checkpoint counts as the best, and the learning rate stays as it is" in said
    assert json.loads((tmp_path / "alone/result.json").read_text())["best_step"] == 8


def test_pairs_are_trained_side_by_side(settings: "Settings", tiny_data: Path, tmp_path: Path) -> None:
    said = ran("classify", tmp_path / "run", "--data", tiny_data, "--init", "random",
               "--config", settings('sampling = "pairs"\naugment = "light"'))  # fmt: skip
    assert "6 steps on cpu" in said.stderr  # 6 pairs, 2 a batch, 2 epochs
    assert (
        "note: 6 pairs of a fake and its original, 0 of them of the same frames; 0 fake and 1 real clips are in no pair"
    ) in " ".join(said.stderr.split())
    counts = {"n_pairs": 6, "n_shared": 0, "n_fakes_in_no_pair": 0, "n_reals_in_no_pair": 1}
    assert json.loads((tmp_path / "run/result.json").read_text())["data"]["pairs"] == counts
    assert best(tmp_path / "run").data["pairs"] == counts
    ran("report", tmp_path / "run", "--html", tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert "6, 0 of them of the same frames; in no pair 0 fake and 1 real clips" in page
    only = settings('sampling = "shared_pairs"')
    refused = ran("classify", tmp_path / "no", "--data", tiny_data, "--init", "random", "--config", only, code=3)
    assert "prepare with `lps-prep run --pairing original`" in " ".join(refused.stderr.split())


def test_clip_left_alone_in_a_batch_trains(
    make: "Maker", family: "Callable[..., list[Spec]]", settings: "Settings", tmp_path: Path
) -> None:
    """Batch norm of the head has no variance to go by; 5 clips in batches of 4 leave one."""
    data = make.data_set([family("a", 5), family("v", 4, "val")])
    ran("classify", tmp_path / "cls", "--data", data, "--init", "random", "--config", settings())
    ran("distill", tmp_path / "ssd", "--data", data, "--init", tmp_path / "cls/checkpoints/best.pt",
        "--config", settings())  # fmt: skip


@pytest.mark.slow
def test_i3d_runs_through_its_stages(make: "Maker", family: "Callable[..., list[Spec]]", tmp_path: Path) -> None:
    data = make.data_set([family("a", 2, n_frames=4), family("v", 2, "val", n_frames=4)])
    config = tmp_path / "i3d.toml"
    config.write_text(
        'image_px = 32\n[net]\nencoder = "i3d"\nproj_dim = 8\nn_blocks = 2\nblock_frames = 2\n'
        "[pretrain]\nmin_context = 1\nn_slots = 8\n[train]\nepochs = 1\nbatch_size = 2\n"
        '[run]\nworkers = 0\nthreads = 1\ndevice = "cpu"\n'
    )
    options = ["--data", data, "--config", config]
    ran("encoder", tmp_path / "0", *options)
    ran("pretrain", tmp_path / "1", *options, "--init", tmp_path / "0/checkpoints/best.pt")
    ran("classify", tmp_path / "2", *options, "--init", tmp_path / "1/checkpoints/best.pt")
    assert load_detector(tmp_path / "2/checkpoints/best.pt").network.n_context == 8


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_a_network_for_every_stage(name: str) -> None:
    for stage in STAGES:
        preset = preset_for(name, stage)
        if stage == "distill":
            assert preset.train.augment == "none"
            assert preset.train.sampling != "pairs"
            assert preset.run.cache_maps
        else:
            with torch.device("meta"):  # shapes only
                build_stage(stage, preset, RANDOM)
