"""Split sets added to a data set: parameters, aliases that stay with it, and what an audit makes of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lps.cli.prep.main import main
from lps.manifests.audit.run import Audit
from lps.manifests.canonical import pretty_json
from lps.manifests.schemas import Row
from lps.manifests.splits.records import SplitParams
from lps.pipeline.job.split_sets import add_split_set

Mutated = Callable[..., Path]
Broken = Callable[..., dict[str, set[str]]]

SAME = (("ffpp/seq/000", "person/x"), ("person/x", "ffpp/seq/004"))
"""Sequences 000 and 004, of two pairs, show one person; nobody carries the key that says so."""
PARAMS = SplitParams(rule="ranked", giant="component", aliases=SAME)


def places(out: Path, split_set: str) -> dict[str, str]:
    """Return the split of every sequence of a split set."""
    uris = {row["video_id"]: row["uri"] for row in pq.read_table(out / "manifests/videos.parquet").to_pylist()}
    rows = pq.read_table(out / f"manifests/splits/{split_set}.parquet").to_pylist()
    return {Path(uris[row["video_id"]]).stem: row["split"] for row in rows}


def parted(row: Row) -> Row:
    """Move the pair of sequence 004 to where it was not."""
    if not {"ffpp/seq/004", "ffpp/seq/005"} & set(row["group_keys"]):
        return row
    return {**row, "split": "test" if row["split"] != "test" else "val"}


@pytest.fixture
def aliased(mutated: Mutated) -> Path:
    """Return a data set with a split set that was made with aliases."""
    out = mutated()
    add_split_set(str(out), "same", PARAMS, None)
    return out


def test_aliases_stay_with_the_split_set_and_are_audited(
    aliased: Path, audit: Callable[..., Audit], broken: Broken
) -> None:
    record = json.loads((aliased / "manifests/splits/same.json").read_bytes())
    assert record["aliases"] == [["ffpp/seq/000", "person/x"], ["ffpp/seq/004", "person/x"]]
    assert record["edge_kinds"] == ["PAIR", "ORIG", "SRC", "ID", "ALIAS"]
    where = places(aliased, "same")
    assert len({where["000"], where["001"], where["004"], where["005"]}) == 1
    states = {r.id: r.state for r in audit(aliased, "L1,L3,L4,R2", split_set="same").results}
    assert set(states.values()) == {"pass"}
    assert broken(aliased, "T4,R2", split_set="same") == {}


def test_people_parted_against_an_alias_are_found(aliased: Path, mutated: Mutated, broken: Broken) -> None:
    found = broken(mutated({"splits/same": parted}, base=aliased), "L1,L3,L4", split_set="same")
    assert found == {"L1": {"ffpp/seq/000"}, "L4": {"ffpp/seq/000"}}


def test_without_aliases_the_same_place_is_no_fault(mutated: Mutated, broken: Broken) -> None:
    out = mutated()
    add_split_set(str(out), "plain", replace(PARAMS, aliases=()), None)
    assert broken(mutated({"splits/plain": parted}, base=out), "L1,L3,L4", split_set="plain") == {}


@pytest.mark.parametrize(
    ("aliases", "why"),
    [
        ([], "does not hold"),
        (None, "wrong type"),
        ("x", "wrong type"),
        ([["a"]], "does not hold"),
        ([["a", 1]], "wrong type"),
        ([["ffpp/seq/000", "person/y"]], "does not hold"),
    ],
)
def test_aliases_that_are_not_those_used_leave_it_unknown(
    aliased: Path, mutated: Mutated, audit: Callable[..., Audit], aliases: object, why: str
) -> None:
    def forged(data: bytes) -> bytes:
        return pretty_json({**json.loads(data), "aliases": aliases})

    out = mutated(files={"manifests/splits/same.json": forged}, base=aliased)
    results = {r.id: r for r in audit(out, "L1,R2", split_set="same").results}
    assert results["R2"].state == "unknown"
    assert why in results["R2"].note
    assert ("cannot be read" if why == "wrong type" else why) in results["L1"].note


def test_a_set_keeps_the_aliases_of_its_base(aliased: Path, broken: Broken, audit: Callable[..., Audit]) -> None:
    add_split_set(str(aliased), "grown", SplitParams(rule="ranked", aliases=(("a", "b"),)), "same")
    record = json.loads((aliased / "manifests/splits/grown.json").read_bytes())
    assert record["aliases"] == [["a", "b"], ["ffpp/seq/000", "person/x"], ["ffpp/seq/004", "person/x"]]
    assert broken(aliased, "L1,L3,L4,R2,R3", split_set="grown") == {}
    assert audit(aliased, "R3", split_set="grown").results[0].state == "pass"


def test_the_command_takes_ratios_and_aliases_from_a_file(mutated: Mutated, tmp_path: Path) -> None:
    out = mutated()
    params = tmp_path / "split.toml"
    params.write_text(
        '[split]\nratios = [0.5, 0.0, 0.5]\ngiant = "component"\naliases = [["ffpp/seq/000", "ffpp/seq/004"]]\n'
    )
    args = ["split", str(out), "--rule", "ranked", "--name", "halves", "--params", str(params)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    record = json.loads((out / "manifests/splits/halves.json").read_bytes())
    assert (record["ratios"], record["giant"]["policy"]) == ([0.5, 0.0, 0.5], "component")
    where = places(out, "halves")
    assert set(where.values()) == {"train", "test"}
    assert where["000"] == where["004"]
    params.write_text("[split]\nratios = [0.5, 0.2, 0.2]\n")
    result = CliRunner().invoke(main, [*args[:5], "bad", "--params", str(params)])
    assert result.exit_code == 3
    assert "must be three shares" in result.output
