"""A convolution that is wrong in bf16 is found, by output or gradient; the layout that is right and quick is taken."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from lps.cli.train.main import main
from lps.manifests.errors import RefusedError
from lps.model.networks import conv_check
from lps.model.networks.conv import Conv3d
from lps.model.networks.conv_check import ConvShape, LayoutFound, check_layouts, choose_layout, worst

if TYPE_CHECKING:
    Settings = Callable[..., Path]

CPU = torch.device("cpu")
SMALL = ConvShape(n_blocks=1, n_frames=2, side_px=4)


Fault = Callable[[Tensor], Tensor]


def planted(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Tensor], bool], fault: Callable[[Tensor], Tensor]
) -> None:
    """Let the checked convolution be faulty in bf16 where `wrong` says so of its input."""

    class Planted(Conv3d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
            out = super().forward(input)
            return fault(out) if out.dtype == torch.bfloat16 and wrong(input) else out

    monkeypatch.setattr(conv_check, "Conv3d", Planted)


def innermost(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last_3d)


def one_row_lost(out: Tensor) -> Tensor:
    return torch.cat([out[..., :-1, :], out[..., -1:, :] * 0], dim=-2)


def doubled_gradient(out: Tensor) -> Tensor:
    return out + (out - out.detach())


def test_a_right_convolution_differs_by_rounding_only() -> None:
    before = torch.get_rng_state()
    found = check_layouts(SMALL, CPU)
    assert [each.channels_last for each in found] == [False, True]
    assert all(0 < each.error < conv_check.TOLERANCE / 2 for each in found)
    assert all(each.right for each in found)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fault", [one_row_lost, doubled_gradient, lambda out: out * torch.nan])
def test_a_planted_fault_of_one_layout_is_found(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    planted(monkeypatch, innermost, fault)
    assert [each.right for each in check_layouts(SMALL, CPU)] == [True, False]


def found(errors: tuple[float, float], bf16: tuple[float, float] = (1.0, 1.0), fp32: float = 2.0) -> list[LayoutFound]:
    """Return what was found of both layouts."""
    return [
        LayoutFound(channels_last=last, error=error, bf16_s=seconds, fp32_s=fp32)
        for last, error, seconds in zip((False, True), errors, bf16, strict=True)
    ]


@pytest.mark.parametrize(
    ("facts", "asked", "taken", "said"),
    [
        (found((0.01, 0.01)), True, True, ()),
        (found((0.01, 0.01)), False, False, ()),
        (found((0.01, 0.01), (1.9, 1.0)), False, False, ()),
        (found((0.01, 0.01), (2.1, 1.0)), False, True, ("take 2.1 times as long with channels outermost",)),
        (found((0.01, 0.4)), True, False, ("are wrong with channels innermost (v), by 0.4 of their size",)),
        (found((0.01, 0.4), (9.0, 1.0)), False, False, ("take 4.5 times as long in bf16 as in fp32 (v): set run.pre",)),
        (found((float("inf"), 0.01), fp32=0.5), False, True, ("are wrong with channels out", "2.0 times as long in")),
    ],
)
def test_the_layout_that_is_right_and_quick_is_taken(
    facts: list[LayoutFound],
    asked: bool,
    taken: bool,
    said: tuple[str, ...],  # noqa: FBT001
) -> None:
    choice = choose_layout(facts, asked, "v")
    assert choice.channels_last == taken
    assert len(choice.notes) == len(said)
    for note, part in zip(choice.notes, said, strict=True):
        assert part in note


def test_without_a_right_layout_it_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"wrong here, by 0\.4 of .* \(v\): set run.precision = \"fp32\""):
        choose_layout(found((0.4, 0.9)), asked=False, versions="v")


def test_processes_go_by_the_worst_of_them() -> None:
    one, two = found((0.01, 0.4), (1.0, 3.0)), found((0.02, 0.01), (2.0, 1.0))
    assert worst([*one, *two]) == found((0.02, 0.4), (2.0, 3.0))


def test_the_shape_is_that_of_a_step_as_far_as_memory_goes() -> None:
    gpu = torch.device("cuda")
    assert ConvShape.of_run(12, 5, 224, gpu) == ConvShape(n_blocks=12, n_frames=5, side_px=56)
    large = ConvShape.of_run(10_000, 5, 224, gpu)
    assert large.n_blocks * 64 * 5 * 56 * 56 <= conv_check.MAX_VALUES


def run(settings: "Settings", tiny_data: Path, out: Path, precision: str) -> tuple[int, str]:
    config = settings("epochs = 1", run=f'precision = "{precision}"')
    command = ["classify", out, "--data", tiny_data, "--init", "random", "--config", config]
    result = CliRunner().invoke(main, [str(arg) for arg in command])
    return result.exit_code, result.stderr


def test_a_run_in_bf16_is_refused_where_its_convolutions_are_wrong(
    settings: "Settings", tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, lambda _: True, one_row_lost)
    code, said = run(settings, tiny_data, tmp_path / "bf16", "bf16")
    assert code == 3
    assert "3-D convolutions in bf16 are wrong here" in said.splitlines()[-1]
    assert run(settings, tiny_data, tmp_path / "fp32", "fp32")[0] == 0


def test_a_run_in_bf16_takes_the_other_layout(
    settings: "Settings", tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, innermost, one_row_lost)
    code, said = run(settings, tiny_data, tmp_path / "run", "bf16")
    assert code == 0
    assert "this run takes channels outermost" in said


def call(*command: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(arg) for arg in command])
    return result.exit_code, result.stderr


def test_evaluation_and_support_vector_machine_in_bf16_are_checked_too(
    settings: "Settings", tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(settings, tiny_data, tmp_path / "run", "fp32")[0] == 0
    best, config = tmp_path / "run/checkpoints/best.pt", settings(run='precision = "bf16"')
    where = ("--checkpoint", best, "--data", tiny_data, "--split", "val", "--workers", 0, "--device", "cpu")
    evaluate = ("evaluate", *where, "--no-board", "--bf16", "--out")
    machine = ("--data", tiny_data, "--init", best, "--config", config, "--head", "svm")
    with monkeypatch.context() as faulty:
        planted(faulty, lambda _: True, one_row_lost)
        for command in ((*evaluate, tmp_path / "no"), ("classify", tmp_path / "none", *machine)):
            code, said = call(*command)
            assert code == 3
            assert "3-D convolutions in bf16 are wrong here" in said.splitlines()[-1]
        assert not (tmp_path / "no").exists()
        assert call(*evaluate[:-2], "--out", tmp_path / "fp32")[0] == 0
    planted(monkeypatch, innermost, one_row_lost)  # as `resnet…` has it: its first stage works on frames
    for command in ((*evaluate, tmp_path / "eval"), ("classify", tmp_path / "svm", *machine)):
        code, said = call(*command)
        assert code == 0, said
        assert said.count("this run takes channels outermost") == 1
