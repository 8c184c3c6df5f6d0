"""What a run keeps of headers is only a cache: what is damaged in it is read again."""

import json
from pathlib import Path

import pytest

from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.storage import Store
from lps.pipeline.job.survey import PROBE_CACHE, kept_probes
from lps.pipeline.video.probe import Probe

PROBE = Probe(n_bytes=1, sha256="ab", n_frames_promised=60)
ENTRY = {"mark": "m", "probe": PROBE.record(), "sha256": sha256_hex(canonical_json(PROBE.record()))}
GOOD = json.dumps({"a.mp4": ENTRY})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, {"a.mp4": PROBE}),
        (GOOD.replace('"m"', '"n"'), {}),
        (GOOD.replace('"ab"', '"ac"'), {}),
        (GOOD.replace("60", "61"), {}),
        (GOOD[:-9], {}),
        ("[]", {}),
        ('{"a.mp4": 3}', {}),
        ('{"a.mp4": {"mark": "m", "probe": 3}}', {}),
        ("[" * 200_000, {}),
    ],
    ids=["whole", "another file", "digest", "number", "cut", "list", "no entry", "no probe", "nested"],
)
def test_only_what_is_whole_is_taken(tmp_path: Path, text: str, found: dict[str, Probe]) -> None:
    store = Store(str(tmp_path))
    store.publish(PROBE_CACHE, text.encode())
    assert kept_probes(store, {"a.mp4": "m", "b.mp4": "n"}) == found
