"""What a plan does with families of originals and fakes, and how the fakes of a data set are counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pytest

from lps.manifests.canonical import sha256_hex
from lps.manifests.records import SourceVideo
from lps.pipeline.clips.effort import bytes_bound
from lps.pipeline.config.params import PairParams, Params
from lps.pipeline.job.finalize import count_paired
from lps.pipeline.job.plan import Plan, build_plan
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.probe import Probe
from tests.builders import folder_spec, folder_video

NONE = Params(localizer="mtcnn")
PAIRED = replace(NONE, pair=PairParams(mode="original"))


def fake_of(original: str, number: int) -> SourceVideo:
    return replace(folder_video(f"fake/{number}/{original}", 1, method=f"m{number}"), original_uri=f"real/{original}")


def planned(videos: Sequence[SourceVideo], params: Params, n_clips: int) -> Plan:
    """Plan shards that hold at most so many clips; every video gives one."""
    spec = folder_spec(params, shard_bytes=n_clips * bytes_bound(params))
    probes = {v.uri: Probe(n_bytes=1, sha256=sha256_hex(v.video_id), n_frames_promised=60) for v in videos}
    return build_plan(spec, videos, Probes.of(probes))


@pytest.mark.parametrize("n_clips", [1, 4, 7])
def test_a_family_is_in_one_shard(n_clips: int) -> None:
    names = [f"{k}.mp4" for k in range(40)]
    videos = [folder_video(f"real/{name}", 0) for name in names]
    videos += [fake_of(name, number) for k, name in enumerate(names) for number in range(k % 4)]
    shards = {row["uri"]: row["shard_id"] for row in planned(videos, PAIRED, n_clips).rows.to_pylist()}
    for video in videos:
        assert shards[video.uri] == shards[video.original_uri or video.uri]
    sizes = Counter(shards.values())
    families = {name: 1 + k % 4 for k, name in enumerate(names)}
    for shard_id, size in sizes.items():
        # larger than asked for is only a family of which none would fit
        assert size <= n_clips or size in {n for name, n in families.items() if shards[f"real/{name}"] == shard_id}
    torn = {row["uri"]: row["shard_id"] for row in planned(videos, NONE, n_clips).rows.to_pylist()}
    assert any(torn[video.uri] != torn[video.original_uri or video.uri] for video in videos)


def test_a_fake_that_shares_takes_less() -> None:
    videos = [folder_video("real/a.mp4", 0), fake_of("a.mp4", 1), fake_of("a.mp4", 2)]
    own, shared = (planned(videos, params, 9).effort for params in (NONE, PAIRED))
    assert own.n_frames == shared.n_frames
    assert shared.core_seconds < own.core_seconds
    strangers = [folder_video("real/a.mp4", 0), fake_of("b.mp4", 1), fake_of("b.mp4", 2)]
    assert planned(strangers, PAIRED, 9).effort == own


def test_fakes_are_counted_once_whatever_their_clips_lie_in() -> None:
    clips = [
        (b"a", "own", None),
        (b"b", "shared", None),
        (b"b", "fallback", "P_SHIFTED"),
        (b"c", "fallback", "P_SIZE"),
        (b"c", "fallback", "P_SIZE"),
        (b"d", "fallback", "P_FRAMES"),
        (b"e", "fallback", "P_SHIFTED"),
        (b"e", "shared", None),
    ]
    names = ("video_id", "pair_mode", "pair_fallback")
    rows = [dict(zip(names, (ids * 16, *rest), strict=True)) for ids, *rest in clips]
    schema = pa.schema([("video_id", pa.binary(16)), ("pair_mode", pa.string()), ("pair_fallback", pa.string())])
    for n in (1, 3, len(rows)):
        pieces = [pa.Table.from_pylist(rows[k : k + n], schema=schema) for k in range(0, len(rows), n)]
        assert count_paired(pieces) == {"shared": 2, "P_FRAMES": 1, "P_SIZE": 1}
    assert count_paired([]) == {}


def test_original_may_be_of_another_data_set() -> None:
    """A table's rows name their data sets; a video of the fake's own data set comes first, of several others none."""
    real = folder_video("real/a.mp4", 0)
    fake = replace(fake_of("a.mp4", 0), dataset="wild")

    def original_of(*videos: SourceVideo) -> bytes | None:
        plan = planned(videos, Params(), 1)
        originals = dict(zip((v.uri for v in plan.sources), plan.original_ids.to_pylist(), strict=True))
        found: bytes | None = originals[fake.uri]
        return found

    assert original_of(real, fake) == real.video_id
    other, own = (replace(real, dataset=name) for name in ("other", "wild"))
    assert original_of(real, own, fake) == own.video_id
    assert original_of(real, other, fake) is None
