"""Process the videos of open shards, commit each shard when its last video is there."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from lps.manifests.codes import Stage, Status
from lps.manifests.errors import LpsError
from lps.manifests.records import Outcome, VideoResult
from lps.manifests.schemas import Row
from lps.pipeline.job.plan import Plan
from lps.pipeline.job.pool import Done, Job, LostInputs, Pool, Quarantined
from lps.pipeline.job.request import MIB, Log, PrepRequest, RunOptions
from lps.pipeline.job.shards import ShardJob, ShardVideo
from lps.pipeline.job.survey import source_store
from lps.pipeline.job.tasks import run_commit, run_process

COMMIT_SECONDS = 3600.0
"""Deadline of writing one shard."""


class ShardScheduler:
    """Process the videos of open shards and commit each shard when its last video is there."""

    def __init__(
        self,
        plan: Plan,
        jobs: Sequence[ShardJob],
        request: PrepRequest,
        options: RunOptions,
        detectors: Sequence[Any],
        start_times: Any,
        log: Log,
    ) -> None:
        import ray

        self.options, self.log, self.start_times = options, log, start_times
        self.source, _ = source_store(request)
        self.params = request.params
        self.frames = {v.source.video_id: v.n_frames_promised for v in plan.videos}
        self.closed: deque[ShardJob] = deque(jobs)
        self.queue: deque[Job] = deque()
        self.open: dict[str, ShardJob] = {}
        self.missing: dict[str, set[str]] = {}
        """Shard -> names of its videos without a result."""
        self.results: dict[str, Any] = {}
        """Video name -> its result, or the reference to it in the object store."""
        self.detectors = detectors
        self.detector_of: dict[str, int] = {}
        """Name of a running video -> its detector. Videos that run at the same time are spread evenly over them."""
        self.process_task = ray.remote(num_cpus=1, max_retries=0, max_calls=100, num_returns=2)(run_process)
        self.commit_task = ray.remote(num_cpus=0.5, max_retries=0)(run_commit)

    def run(self, pool: Pool) -> None:
        """Work until every shard is committed."""
        for end in pool.run(self):
            name = end.job.name
            if name.startswith("commit/"):
                shard_id = name.removeprefix("commit/")
                if isinstance(end, LostInputs):
                    self._reopen(shard_id)
                elif isinstance(end, Quarantined):
                    raise LpsError(f"shard {shard_id} cannot be written: {end.code}, {end.detail}")
                else:
                    self._close(shard_id, end.value)
                continue
            shard_id, _, video_hex = name.partition("/")
            if isinstance(end, Quarantined):
                self.results[name] = _quarantined(video_hex, end)
                self.log(
                    "video", {"video": name, "status": "failed", "code": str(end.code), "n_clips": 0, "n_frames": 0}
                )
            elif isinstance(end, Done):
                self.log("video", {"video": name, **end.value})
            self._finish(shard_id, name)

    # The pool asks for jobs as long as it has room. Shards are opened one by one, so that what waits in the object
    # store for its shard mates stays small.
    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        if not self.queue and self.closed:
            self._open(self.closed.popleft())
        if not self.queue:
            raise StopIteration
        return self.queue.popleft()

    def _open(self, job: ShardJob) -> None:
        self.open[job.shard_id] = job
        self.missing[job.shard_id] = {_video_name(job, video) for video in job.videos}
        # The longest first, so that no core is left with one at the end while the others have nothing to do.
        videos = sorted(job.videos, key=lambda video: -self.frames[video.source.video_id])
        self.queue.extend(self._video_job(job, video) for video in videos)

    def _video_job(self, job: ShardJob, video: ShardVideo) -> Job:
        name = _video_name(job, video)
        work = (self.options.process, self.source, video, self.params)
        memory = self.options.memory_mb * MIB

        def submit(label: str) -> Any:
            detector = self.detectors[self._assign_detector(name)]
            brief, result = self.process_task.remote(self.start_times, label, detector, work, memory)
            self.results[name] = result
            return brief

        frames = self.frames[video.source.video_id]
        return Job(name, submit, self.options.deadline_seconds + frames * self.options.deadline_seconds_per_frame)

    def _assign_detector(self, name: str) -> int:
        self.detector_of.pop(name, None)
        taken = Counter(self.detector_of.values())
        self.detector_of[name] = min(range(len(self.detectors)), key=lambda k: (taken[k], k))
        return self.detector_of[name]

    def _finish(self, shard_id: str, name: str) -> None:
        """Note that a video has its result; queue the commit when it was the shard's last."""
        job, missing = self.open[shard_id], self.missing[shard_id]
        self.detector_of.pop(name, None)
        missing.discard(name)
        if missing:
            return

        def submit(label: str) -> Any:
            results = [self.results[_video_name(job, video)] for video in job.videos]
            work = (job, self.params, self.log.out)
            return self.commit_task.remote(self.start_times, label, work, self.options.scratch, *results)

        self.queue.appendleft(Job(f"commit/{shard_id}", submit, COMMIT_SECONDS, has_inputs=True))

    def _close(self, shard_id: str, brief: Row) -> None:
        for video in self.open[shard_id].videos:
            del self.results[_video_name(self.open[shard_id], video)]
        del self.open[shard_id], self.missing[shard_id]
        self.log("shard", dict(brief))
        self.log.flush()

    def _reopen(self, shard_id: str) -> None:
        """Results were lost with a node before they were written: make the shard's videos again, uncharged."""
        self.log("retry", {"job": f"commit/{shard_id}", "cause": "results lost", "pause_s": 0.0})
        self._open(self.open[shard_id])


def _video_name(job: ShardJob, video: ShardVideo) -> str:
    return f"{job.shard_id}/{video.source.video_id.hex()}"


def _quarantined(video_hex: str, end: Quarantined) -> VideoResult:
    outcome = Outcome(status=Status.FAILED, code=end.code, stage=Stage.DECODE, detail=end.detail)
    return VideoResult(video_id=bytes.fromhex(video_hex), outcome=outcome)
