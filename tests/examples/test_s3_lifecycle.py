"""examples/s3_lifecycle.sh: S3 takes its rules, and they expire nothing but what the code writes for a while."""

import json
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from lps.manifests.storage import Store
from lps.pipeline.job.lease import LEASES, driver_lease
from lps.pipeline.video.kept_probes import PROBE_CACHE
from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "examples/s3_lifecycle.sh"


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    """Return the rules for the prefix `ffpp`, which may be given with a slash, or as a URL."""
    plain, *others = (
        subprocess.run([SCRIPT, prefix], capture_output=True, text=True, check=True).stdout
        for prefix in ("ffpp", "ffpp/", "s3://out/ffpp", "s3://out/ffpp/")
    )
    assert {plain} == {*others}
    found: list[dict[str, Any]] = json.loads(plain)["Rules"]
    return found


def test_s3_takes_the_rules_and_gives_them_back(rules: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "none")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="out")
        client.put_bucket_lifecycle_configuration(Bucket="out", LifecycleConfiguration={"Rules": rules})
        found = client.get_bucket_lifecycle_configuration(Bucket="out")["Rules"]
        client.close()
    assert found == rules


@pytest.mark.parametrize("prefix", ["/", "/ffpp", "s3://out", "s3://out/", 'a"b', "a\\b"])
def test_rules_that_would_match_nothing_are_refused(prefix: str) -> None:
    ended = subprocess.run([SCRIPT, prefix], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "is no prefix" in ended.stderr


def test_only_what_is_written_for_a_while_expires(rules: list[dict[str, Any]]) -> None:
    expiring = {
        rule["Filter"]["Prefix"] for rule in rules if "Expiration" in rule or "NoncurrentVersionExpiration" in rule
    }
    assert expiring == {f"ffpp/{LEASES}/", f"ffpp/{Path(PROBE_CACHE).parent}/"}
    (uploads,) = [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]
    assert set(uploads) == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}, "it touches no object"
    assert uploads["Filter"]["Prefix"] == "ffpp/"
    assert all(rule["Status"] == "Enabled" and len(rule["ID"]) <= 255 for rule in rules)


def test_a_lease_lies_where_the_rule_looks(rules: list[dict[str, Any]], tmp_path: Path) -> None:
    out = Store(str(tmp_path / "ffpp"))
    with driver_lease(out, "run"):
        (lease,) = [f"ffpp/{file.path}" for file in out.walk()]
    named = [rule["Filter"]["Prefix"] for rule in rules if "Expiration" in rule and rule["Expiration"]["Days"] == 1]
    assert [lease.startswith(prefix) for prefix in named] == [True]
