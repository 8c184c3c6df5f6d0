"""What stops a run at once: a fault of the program that all videos meet, and the end of Ray on this machine."""

from types import SimpleNamespace

import pytest
from ray import exceptions

from lps.manifests.codes import Code
from lps.manifests.errors import LpsError
from lps.pipeline.job import pool as engine
from lps.pipeline.job.cluster import Cluster, start_detectors
from lps.pipeline.job.events import PrepEvent
from lps.pipeline.job.pool import CommitJob, Done, FirstVideos, Job, Pool, ProbeJob, Quarantined

DETAIL = "TypeError: open() got an unexpected keyword argument 'x'"


def job(name: str = "a.mp4") -> Job:
    return Job(ProbeJob(name), lambda label: label, 1.0)


def fault(detail: str = DETAIL, code: Code = Code.E_INTERNAL) -> Quarantined:
    return Quarantined(job(), code, detail)


@pytest.mark.parametrize(("n_videos", "says"), [(1, "all 1 videos"), (19, "all 19"), (5000, "the first 20 videos")])
def test_the_same_fault_of_all_the_first_videos_stops_the_job(n_videos: int, says: str) -> None:
    first = FirstVideos(n_videos)
    for _ in range(min(n_videos, 20) - 1):
        first.note(fault())
    with pytest.raises(LpsError, match=rf"^{says}.* ended with E_INTERNAL \(TypeError: open\(\) got") as caught:
        first.note(fault("TypeError: open() got something else"))  # the text may name the file
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "other", [Done(job(), None), fault(code=Code.E_TIMEOUT), fault("KeyError: 7")], ids=["good", "code", "fault"]
)
@pytest.mark.parametrize("place", [0, 1, 18])
def test_one_video_that_ends_otherwise_is_enough_to_go_on(other: Done | Quarantined, place: int) -> None:
    first = FirstVideos(20)
    for k in range(100):
        first.note(other if k == place else fault())


def test_commits_are_not_counted() -> None:
    first = FirstVideos(2)
    first.note(fault())
    first.note(Done(Job(CommitJob("train-000000"), lambda label: label, 1.0), None))
    with pytest.raises(LpsError, match="all 2 videos"):
        first.note(fault())


def failing(error: exceptions.RayError) -> SimpleNamespace:
    """Return what stands for Ray: every attempt ends at once with `error`."""

    def get(ref: object) -> object:
        raise error

    return SimpleNamespace(wait=lambda refs, **_: (refs, []), get=get, cancel=lambda ref, force: None)


def test_a_pool_stops_with_its_first_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = exceptions.RayTaskError("run_probe", "", KeyError("x"))
    monkeypatch.setattr(engine, "ray", failing(fault))
    pool = Pool(width=2, start_times=None, on_event=lambda event: None, first=FirstVideos(3))
    pool._deadlines_checked = float("inf")
    with pytest.raises(LpsError, match=r"^all 3 videos ended with E_INTERNAL \(KeyError: 'x'\)"):
        list(pool.run(job(name) for name in "abc"))


def test_without_the_raylet_of_this_machine_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ray", failing(exceptions.LocalRayletDiedError()))
    events: list[PrepEvent] = []
    with pytest.raises(LpsError, match=r"\(raylet\) has ended; .* run the same command again to resume") as caught:
        list(Pool(width=2, start_times=None, on_event=events.append).run(job(name) for name in "abc"))
    assert caught.value.exit_code == 4
    assert events == []


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_it_is_seen_that_a_process_of_the_own_ray_has_ended(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def process(code: int | None) -> list[SimpleNamespace]:
        return [SimpleNamespace(process=SimpleNamespace(poll=lambda: code))]

    processes = {"raylet": process(None), "gcs_server": process(None), name: process(-9)}
    monkeypatch.setattr("ray._private.worker.global_worker.node", SimpleNamespace(all_processes=processes))
    waiting = SimpleNamespace(wait=lambda refs, **_: ([], refs), cancel=lambda ref, force: None)
    monkeypatch.setattr(engine, "ray", waiting)
    with pytest.raises(LpsError, match=rf"\({name}\) has ended; .* run the same command again to resume"):
        list(Pool(width=2, start_times=None, on_event=lambda event: None).run(job(name) for name in "abc"))


def test_the_own_ray_is_looked_at_before_the_localizers_load(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [SimpleNamespace(process=SimpleNamespace(poll=lambda: -9))]
    monkeypatch.setattr("ray._private.worker.global_worker.node", SimpleNamespace(all_processes={"gcs_server": ended}))
    with pytest.raises(LpsError, match=r"\(gcs_server\) has ended; .* run the same command again to resume"):
        start_detectors(Cluster(n_workers=1, n_gpus=0), "mtcnn", None, None)
