"""Certificates as `lps-train` meets them: demanded, refused, and named in what comes out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from lps.cli.train.main import main
from lps.manifests.canonical import canonical_json, sha256_hex
from lps.model.data.sources import Sources, data_identity, open_split
from lps.model.report.metrics import evaluated_data
from lps.model.report.runs import read_folders
from lps.model.report.settings import identities
from lps.model.training.checkpoint import read_checkpoint
from tests.model.certificates import CERTIFICATE, certified

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Runner, Spec


@pytest.fixture
def out(make: "Maker", family: "Callable[..., list[Spec]]") -> Path:
    """Return a data set of 4 clips to train on and 2 to validate with."""
    return make.data_set([family("a", 4), family("v", 2, "val")])


def refusal(*words: object) -> str:
    ended = CliRunner().invoke(main, [str(word) for word in words])
    assert ended.exit_code in (3, 5), ended.output
    assert len(ended.stderr.strip().splitlines()) == 1
    return f"{ended.exit_code} {ended.stderr}"


def classify(out: Path, *words: object) -> str:
    return refusal("classify", out.parent / "run", "--data", out, "--init", "random", "--require-certificate", *words)


def test_data_without_one_that_fits_are_refused(out: Path) -> None:
    assert "has no certificate.json, which --require-certificate asks for" in classify(out)
    for verdict in ("fail", "integrity", "incomplete"):
        certified(out, verdict)
        assert f"has the verdict {verdict.upper()}" in classify(out)
    group = "manifests/splits/group.parquet"
    certified(out, split_set={"name": "other", "path": group, "sha256": sha256_hex((out / group).read_bytes())})
    assert "is about split set 'other', not 'group'" in classify(out)
    certified(out, valid_until="2000-01-01")
    assert "rests on a waiver that expired on 2000-01-01" in classify(out)
    certified(out, schema="lps.seal")
    assert classify(out).startswith("5 ")
    certified(out)
    index = json.loads((out / "index.json").read_bytes())
    (out / "index.json").write_text(json.dumps({**index, "note": "changed"}))
    assert "is about another index.json" in classify(out)


def test_manifest_that_was_changed_is_refused(out: Path) -> None:
    certified(out)
    record = json.loads((out / CERTIFICATE).read_bytes())
    for file in record["files"]:
        if file["path"] == "manifests/clips.parquet":
            file["sha256"] = "0" * 64
    (out / CERTIFICATE).write_bytes(canonical_json(record))
    assert "is about another manifests/clips.parquet: it was changed since" in classify(out)


def test_forged_ones_are_refused(out: Path) -> None:
    certified(out, "superb")
    assert "its verdict is 'superb'" in classify(out)
    certified(out, checks=[])
    assert "it has no checks" in classify(out)
    certified(out, checks=[{"id": "A1", "state": "pass"}, {"id": "A1", "state": "fail"}])
    assert "its 'checks' has A1 twice" in classify(out)
    certified(out)
    record = json.loads((out / CERTIFICATE).read_bytes())
    record["files"].insert(0, {**record["files"][0], "sha256": "0" * 64})
    (out / CERTIFICATE).write_bytes(canonical_json(record))
    assert f"its 'files' has {record['files'][0]['path']} twice" in classify(out)


def test_named_data_sets_and_experiments_are_refused_and_plain_shards_too(
    out: Path, make: "Maker", family: "Callable[..., list[Spec]]"
) -> None:
    demand = "--require-certificate"
    mixed = refusal("classify", out.parent / "run", "--data", f"one={out}", "--init", "random", demand)
    assert "one: " in mixed
    assert "has no certificate.json" in mixed
    said = refusal("experiment", "table1", out.parent / "exp", "--data", f"one={out}", "--smoke", demand)
    assert "has no certificate.json" in said
    shards = make.shards([family("s", 4)])
    said = refusal("classify", out.parent / "run", "--shards", shards, "--init", "random", demand)
    assert "shards without manifests have no certificate" in said


def test_digest_is_recorded_where_there_is_one_that_fits(out: Path) -> None:
    sources = Sources(data=str(out))
    assert "certificate_sha256" not in data_identity(sources, open_split(sources, "train"))
    sha256 = certified(out, "fail")  # nobody demands a good one
    assert data_identity(sources, open_split(sources, "train"))["certificate_sha256"] == sha256
    certified(out, split_set={"name": "other", "path": "", "sha256": ""})
    assert "certificate_sha256" not in data_identity(sources, open_split(sources, "train"))
    (out / CERTIFICATE).write_text("{")
    assert "certificate_sha256" not in data_identity(sources, open_split(sources, "train"))
    assert "require_certificate" not in sources.record()


def test_checkpoint_evaluation_and_report_name_it(
    out: Path, lps_train: "Runner", settings: Callable[..., Path], tmp_path: Path
) -> None:
    run, config = tmp_path / "run", settings("epochs = 1")
    words = ("classify", run, "--data", out, "--init", "random", "--config", config)
    assert lps_train(*words).code == 0
    assert (
        "is a finished run, and its data set had no certificate that fits"
        in lps_train(*words, "--require-certificate").last_line
    )
    sha256, run = certified(out), tmp_path / "certified"
    words = ("classify", run, "--data", out, "--init", "random", "--config", config)
    ended = lps_train(*words, "--require-certificate")
    assert ended.code == 0, ended.stderr
    assert lps_train(*words, "--require-certificate").code == 0  # finished
    checkpoint = run / "checkpoints/best.pt"
    assert read_checkpoint(checkpoint).data["certificate_sha256"] == sha256
    measured = tmp_path / "eval"
    ended = lps_train(
        "evaluate", "--checkpoint", checkpoint, "--data", out, "--split", "val", "--out", measured,
        "--workers", 0, "--device", "cpu", "--require-certificate",
    )  # fmt: skip
    assert ended.code == 0, ended.stderr
    record = json.loads((measured / "metrics.json").read_bytes())
    assert record["data"][0]["certificate_sha256"] == sha256
    assert record["checkpoint"]["learnt_from"]["certificate_sha256"] == sha256
    runs, evaluations = read_folders([run, measured])
    _, rows = identities(runs, evaluated_data(evaluations, ()))
    cells = next(row.cells for row in rows if row.name == "SHA-256 of the certificate")
    assert {*cells} == {sha256}
