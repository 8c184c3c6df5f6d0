"""Checks T1 to T4 and the seals behind them: forgeries of every depth."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lps.manifests.audit.core.policy import Policy, Require
from lps.manifests.audit.core.seal import (
    SealedFile,
    merkle_root,
    read_seals,
    seal_dataset,
    sealable,
    sign_seal,
)
from lps.manifests.audit.run import Audit
from lps.manifests.canonical import canonical_json, pretty_json, rows_digest
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.manifests.rows import row_to_json
from lps.manifests.schemas import Row, parquet_bytes, read_table, rows_table
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store
from lps.pipeline.job.split_sets import add_split_set

Mutated = Callable[..., Path]
Broken = Callable[..., dict[str, set[str]]]
NO_FACE = "original_sequences/youtube/c23/videos/003.mp4"


def lighter(row: Row) -> Row:
    """Change a value that no other check looks at."""
    return {**row, "n_frames_with_face": 1} if row["uri"] == NO_FACE else row


def states(audit: Audit) -> dict[str, str]:
    return {result.id: str(result.state) for result in audit.results}


@pytest.fixture
def sealed(mutated: Mutated) -> Path:
    """Return a copy of the data set with a seal."""
    out = mutated()
    seal_dataset(Store(str(out)))
    return out


# ---- the seal ------------------------------------------------------------------------------------------------------


def test_without_a_seal_nothing_is_proven(dataset: Path, audit: Callable[..., Audit]) -> None:
    found = audit(dataset, "T")
    assert states(found) == {"T1": "skip", "T2": "skip", "T3": "skip", "T4": "pass"}
    assert {result.note for result in found.results[:3]} == {"not sealed"}
    assert found.facts["data"]["seal"] == "not sealed"


def test_required_seal_is_missed(dataset: Path, audit: Callable[..., Audit]) -> None:
    found = audit(dataset, "T", policy=Policy(require=Require(seal=True)))
    assert states(found) == {"T1": "fail", "T2": "fail", "T3": "skip", "T4": "pass"}
    assert found.exit_code == 5


def test_sealed_data_set_passes_and_says_that_nobody_signed(
    sealed: Path, audit: Callable[..., Audit], broken: Broken
) -> None:
    assert broken(sealed) == {}
    found = audit(sealed, "T")
    assert states(found) == {"T1": "pass", "T2": "pass", "T3": "skip", "T4": "pass"}
    assert found.results[2].note == found.facts["data"]["seal"] == "sealed, not signed"


def test_forgery_of_everything_but_the_seal_is_found(sealed: Path, mutated: Mutated, broken: Broken) -> None:
    found = broken(mutated({"videos": lighter}, base=sealed))
    assert set(found) == {"T1"}
    assert {"manifests/videos.parquet", "index.json"} < found["T1"]


def test_without_a_seal_that_forgery_passes(mutated: Mutated, broken: Broken) -> None:
    assert broken(mutated({"videos": lighter})) == {}


def test_added_removed_and_flipped_files_are_found(sealed: Path, mutated: Mutated, broken: Broken) -> None:
    tar = "shards/train/train-000000.tar"
    assert broken(mutated(files={"notes.txt": lambda _: b"x"}, base=sealed), "T") == {"T1": {"notes.txt"}}
    gone = mutated(files={"plan/splits.parquet": lambda _: None}, base=sealed)
    assert broken(gone, "T1") == {"T1": {"plan/splits.parquet"}}
    flip = mutated(files={tar: lambda data: data[:-1] + b"\1"}, base=sealed)
    assert broken(flip, "T") == {"T1": {tar}}
    assert broken(flip, "T", level="quick") == {}


def test_what_runs_and_audits_write_is_not_sealed(sealed: Path, mutated: Mutated, broken: Broken) -> None:
    files = {"runs/x/run.json": lambda _: b"{}", "audits/1/report.json": lambda _: b"{}"}
    assert broken(mutated(files=files, base=sealed)) == {}


def test_sealing_again_extends_the_chain_only_after_a_change(sealed: Path, broken: Broken) -> None:
    store = Store(str(sealed))
    assert seal_dataset(store).number == 1
    add_split_set(str(sealed), "third", SplitParams(rule="ranked", seed=7, giant="component"), None)
    assert set(broken(sealed, "T")) == {"T1"}
    second = seal_dataset(store)
    assert (second.number, second.prev_seal_sha256) == (2, read_seals(store)[0].sha256)
    assert broken(sealed) == {}


def test_replaced_manifest_with_a_broken_chain_is_found(sealed: Path, mutated: Mutated, broken: Broken) -> None:
    add_split_set(str(sealed), "third", SplitParams(rule="ranked", seed=7, giant="component"), None)
    seal_dataset(Store(str(sealed)))
    forged = mutated({"videos": lighter}, base=sealed)
    (forged / "seals/000002.json").unlink()
    (forged / "seals/000001.json").unlink()
    seal_dataset(Store(str(forged)))  # a new first seal, then the old second one on top
    (forged / "seals/000002.json").write_bytes((sealed / "seals/000002.json").read_bytes())
    found = broken(forged)
    assert found["T2"] == {"seals/000002.json"}
    assert set(found) == {"T1", "T2"}


def test_removed_and_edited_seals_are_found(sealed: Path, mutated: Mutated, broken: Broken) -> None:
    add_split_set(str(sealed), "third", SplitParams(rule="ranked", seed=7, giant="component"), None)
    seal_dataset(Store(str(sealed)))
    gone = mutated(files={"seals/000001.json": lambda _: None}, base=sealed)
    assert broken(gone, "T") == {"T2": {"seals/000002.json"}}

    def other_root(data: bytes) -> bytes:
        return canonical_json({**json.loads(data), "merkle_root": "0" * 64})

    edited = mutated(files={"seals/000002.json": other_root}, base=sealed)
    assert broken(edited, "T") == {"T2": {"seals/000002.json"}}
    noise = mutated(files={"seals/000002.json": lambda _: b"{}"}, base=sealed)
    assert set(broken(noise, "T")) == {"T1", "T2"}


def test_broken_chain_is_not_sealed_over(sealed: Path) -> None:
    (sealed / "seals/000001.json").rename(sealed / "seals/000002.json")
    with pytest.raises(IntegrityError, match="a new seal would hide that"):
        seal_dataset(Store(str(sealed)))


def test_damaged_data_set_is_not_sealed(mutated: Mutated) -> None:
    out = mutated(files={"shards/train/train-000000.tar": lambda data: data[:-1] + b"\1"})
    with pytest.raises(IntegrityError, match="nothing was sealed"):
        seal_dataset(Store(str(out)))
    assert not (out / "seals").exists()


def test_passing_faults_are_not_sealed_unless_asked(mutated: Mutated) -> None:
    def timed_out(row: Row) -> Row:
        return {**row, "error_code": "E_TIMEOUT"} if row["uri"] == NO_FACE else row

    store = Store(str(mutated({"videos": timed_out})))
    with pytest.raises(RefusedError, match="1 videos ended with E_TIMEOUT"):
        seal_dataset(store)
    assert seal_dataset(store, allow_transient=True).number == 1


def test_newer_seal_is_not_read(sealed: Path) -> None:
    path = sealed / "seals/000001.json"
    path.write_bytes(canonical_json({**json.loads(path.read_bytes()), "schema_version": "2.0"}))
    with pytest.raises(UnreadableError, match="schema version '2.0'"):
        read_seals(Store(str(sealed)))


# ---- the tree ------------------------------------------------------------------------------------------------------


def sealed_files(n: int) -> list[SealedFile]:
    return [SealedFile(path=f"f{k:03d}", n_bytes=k, sha256=f"{k:064x}", rows=None) for k in range(n)]


def test_root_is_that_of_rfc_6962() -> None:
    assert merkle_root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    a, b, c = (file.leaf() for file in sealed_files(3))
    assert merkle_root([a, b, c]) == merkle_root([merkle_root([a, b]), c])
    assert merkle_root([a, b]) != merkle_root([b, a])


def test_seal_lists_every_sealable_file_in_order(sealed: Path) -> None:
    store = Store(str(sealed))
    [seal] = read_seals(store)
    assert [file.path for file in seal.files] == sorted(sealable(store))


# ---- T3 ------------------------------------------------------------------------------------------------------------


def new_key(folder: Path, name: str) -> Path:
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True)
    return key


def signers(folder: Path, key: Path) -> Path:
    path = folder / f"signers-{key.name}"
    path.write_text(f"{key.name}@lab {key.with_suffix('.pub').read_text()}")
    return path


def test_signature_of_a_listed_key_passes(sealed: Path, tmp_path: Path, audit: Callable[..., Audit]) -> None:
    store = Store(str(sealed))
    key, stranger = new_key(tmp_path, "auditor"), new_key(tmp_path, "stranger")
    assert sign_seal(store, read_seals(store)[0], key) == "seals/000001.json.sig"
    listed = Policy(require=Require(signature=True, allowed_signers=signers(tmp_path, key)))
    found = audit(sealed, "T", policy=listed)
    assert set(states(found).values()) == {"pass"}
    assert found.facts["data"]["seal"] == "sealed, signed by auditor@lab"
    unlisted = Policy(require=Require(allowed_signers=signers(tmp_path, stranger)))
    assert states(audit(sealed, "T", policy=unlisted))["T3"] == "fail"
    assert states(audit(sealed, "T"))["T3"] == "unknown"
    nobody = Policy(require=Require(signature=True))
    assert states(audit(sealed, "T", policy=nobody))["T3"] == "fail"


def test_signature_of_another_seal_fails(
    sealed: Path, tmp_path: Path, audit: Callable[..., Audit], broken: Broken
) -> None:
    store = Store(str(sealed))
    key = new_key(tmp_path, "auditor")
    sign_seal(store, seal_dataset(store), key)
    add_split_set(str(sealed), "third", SplitParams(rule="ranked", seed=7, giant="component"), None)
    seal_dataset(store)
    assert states(audit(sealed, "T"))["T3"] == "skip"
    (sealed / "seals/000001.json.sig").rename(sealed / "seals/000002.json.sig")
    assert broken(sealed, "T") == {"T3": {"seals/000002.json.sig"}}
    policy = Policy(require=Require(allowed_signers=signers(tmp_path, key)))
    assert broken(sealed, "T", policy=policy) == {"T3": {"seals/000002.json.sig"}}


def test_missing_signature_fails_where_it_is_required(sealed: Path, audit: Callable[..., Audit]) -> None:
    assert states(audit(sealed, "T", policy=Policy(require=Require(signature=True))))["T3"] == "fail"


def test_key_that_cannot_sign_is_refused(sealed: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("no key")
    key.chmod(0o600)
    store = Store(str(sealed))
    with pytest.raises(RefusedError, match="cannot sign"):
        sign_seal(store, read_seals(store)[0], key)


# ---- T4 ------------------------------------------------------------------------------------------------------------


def test_replaced_manifest_that_the_index_does_not_name_is_found(mutated: Mutated, broken: Broken) -> None:
    out = mutated({"videos": lighter}, digests=False, commits=False)
    found = broken(out, level="quick")
    assert "manifests/videos.parquet" in found["T4"]
    assert set(found) == {"T4"}


def test_forged_index_does_not_hide_what_was_committed(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    out = mutated({"videos": lighter}, commits=False)
    found = broken(out)
    assert set(found) == {"T4"}
    assert len(found["T4"]) == 1
    [video_id] = found["T4"]
    assert len(bytes.fromhex(video_id)) == 16


@pytest.mark.parametrize("table", ["videos", "clips", "shards"])
def test_deleted_rows_are_found_in_the_commit_records(mutated: Mutated, broken: Broken, table: str) -> None:
    seen: list[Row] = []

    def without_first(row: Row) -> Row | None:
        seen.append(row)
        return None if len(seen) == 1 else row

    assert "T4" in broken(mutated({table: without_first}, commits=False), "T4")


def test_rows_that_no_record_holds_are_found(mutated: Mutated, broken: Broken) -> None:
    """A row is dropped from a commit record, so that an edit of it in the manifest has nothing to differ from."""
    out = mutated()
    rewrite_rows(out, lambda rows: rows[1:], counted=False)
    assert broken(out, "T4") == {"T4": {"commits/train-000000.videos.parquet"}}
    rewrite_rows(out, lambda rows: rows, counted=True)
    assert broken(out, "T4") == {"T4": {"manifests/videos.parquet"}}


def test_a_video_in_two_records_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    [row, *_] = read_table("videos", (dataset / "commits/val-000000.videos.parquet").read_bytes()).to_pylist()
    out = mutated()
    rewrite_rows(out, lambda rows: [*rows, row], counted=True)
    assert broken(out, "T4")["T4"] >= {row["video_id"].hex(), "manifests/videos.parquet"}


def rewrite_rows(out: Path, edit: Callable[[list[Row]], list[Row]], *, counted: bool) -> None:
    """Edit the rows of the videos of a commit record, which names the new file; `counted`: and the new rows."""
    path, record = out / "commits/train-000000.videos.parquet", out / "commits/train-000000.json"
    table = read_table("videos", path.read_bytes())
    rows = edit(table.to_pylist())
    data = parquet_bytes("videos", rows_table("videos", rows), {})
    path.write_bytes(data)
    values = json.loads(record.read_bytes())
    entry = values["rows"]["videos"]
    entry |= {"sha256": hashlib.sha256(data).hexdigest(), "n_bytes": len(data)}
    if counted:
        entry |= {"n_rows": len(rows), "rows_sha256": rows_digest(row_to_json(row) for row in rows)}
    record.write_bytes(canonical_json(values))


def test_row_digest_of_the_table_is_held_against_its_rows(mutated: Mutated, broken: Broken) -> None:
    def other_u(row: Row) -> Row:
        return {**row, "u": 0.5}

    out = mutated({"splits/ranked": other_u}, digests=False)
    found = broken(out, "T4", split_set="ranked")
    assert found == {"T4": {"manifests/splits/ranked.parquet"}}


@pytest.mark.parametrize(
    ("path", "edit"),
    [
        ("plan/plan.json", lambda data: data + b"\n"),
        ("plan/videos.parquet", lambda _: None),
        ("plan/splits.parquet", lambda data: data + b"\0"),
        ("manifests/splits/ranked.json", lambda data: data + b"\n"),
        ("manifests/extra.parquet", lambda _: b"x"),
        ("commits/train-000000.json", lambda _: b"{}"),
        ("commits/train-000000.json", lambda data: canonical_json({**json.loads(data), "plan_sha256": "0" * 64})),
    ],
)
def test_edited_file_is_found_by_name(
    mutated: Mutated, broken: Broken, path: str, edit: Callable[[bytes], bytes | None]
) -> None:
    out = mutated(files={path: edit})
    assert broken(out, "T4") == {"T4": {path}}


def test_shard_list_of_the_index_must_be_that_of_the_manifest(mutated: Mutated, broken: Broken) -> None:
    def other(data: bytes) -> bytes:
        index = json.loads(data)
        index["shards"]["train"][0]["sha256"] = "0" * 64
        return pretty_json(index)

    assert broken(mutated(files={"index.json": other})) == {"T4": {"train-000000"}}


def test_parameters_must_have_the_digest_that_the_index_names(replanned: Callable[[Row], Path], broken: Broken) -> None:
    out = replanned({"params": {"seed": 1}})
    assert "plan/plan.json" in broken(out, "T4")["T4"]


def test_large_tables_are_sampled_at_level_quick(mutated: Mutated, audit: Callable[..., Audit]) -> None:
    out = mutated({"clips": lambda row: {**row, "jitter_px": 9.0}}, commits=False)
    sampled = audit(out, "T4", level="quick", policy=Policy(limits={"t4_quick_rows": 5}))
    whole = audit(out, "T4", level="full", policy=Policy(limits={"t4_quick_rows": 5}))
    assert "of 6 shards" in sampled.results[0].note
    assert 0 < len(sampled.results[0].offenders) < len(whole.results[0].offenders)
