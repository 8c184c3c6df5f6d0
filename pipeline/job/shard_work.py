"""Process the videos of open shards, commit each shard when its last video is there."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from lps.manifests.codes import Stage, Status
from lps.manifests.errors import LpsError
from lps.manifests.records import NO_WINDOWS, Outcome, VideoResult
from lps.pipeline.job.events import JobRetried, VideoDone
from lps.pipeline.job.plan import Plan
from lps.pipeline.job.pool import CommitJob, Done, End, FirstVideos, Job, LostInputs, Pool, Quarantined, VideoJob
from lps.pipeline.job.request import RunContext
from lps.pipeline.job.shards import ShardJob, ShardVideo
from lps.pipeline.job.tasks import VideoTasks, process_task, run_commit

COMMIT_SECONDS = 3600.0
"""Deadline of writing one shard."""


class ShardScheduler:
    """Yields the jobs of a run's shards to the pool, and takes what comes of them."""

    def __init__(self, run: RunContext, plan: Plan, shards: Sequence[ShardJob], detectors: Sequence[Any]) -> None:
        import ray

        self.context, self.options, self.log = run, run.options, run.log
        self.params = run.request.params
        self.frames = plan.frames_promised()
        n_videos = sum(len(shard.videos) for shard in shards)
        is_fresh = n_videos == len(self.frames)
        self.first = FirstVideos(n_videos) if is_fresh else None
        self.closed: deque[ShardJob] = deque(shards)
        self.queue: deque[Job] = deque()
        self.open: dict[str, ShardJob] = {}
        self.missing: dict[str, set[VideoJob]] = {}
        """Shard -> its videos without a result."""
        self.results: dict[VideoJob, Any] = {}
        """Result of a video, or the reference to it in the object store."""
        self.windows: dict[VideoJob, Any] = {}
        """Original that is processed -> the reference to what its fakes need."""
        self.waiting: dict[VideoJob, list[tuple[VideoJob, ShardVideo]]] = {}
        """Original without a result -> its fakes in the shard, which wait for it."""
        self.n_detectors = len(detectors)
        self.detector_of: dict[VideoJob, int] = {}
        """Detector of each running video. Videos that run at the same time are spread evenly over them."""
        self.process_task = process_task(
            VideoTasks(
                process=run.options.process,
                source=run.source,
                params=self.params,
                memory_bytes=run.options.memory_bytes,
                detectors=tuple(detectors),
                start_times=run.start_times,
            )
        )
        self.commit_task = ray.remote(num_cpus=0.5, max_retries=0)(run_commit)

    def run(self) -> None:
        """Work until every shard is committed. Raises as `Pool.run` does."""
        context = self.context
        pool = Pool(
            width=context.cluster.n_workers,
            start_times=context.start_times,
            on_event=self.log,
            check=context.lease.check,
            first=self.first,
        )
        for end in pool.run(self):
            match end.job.key:
                case CommitJob(shard_id):
                    self._take_commit(shard_id, end)
                case VideoJob() as video:
                    self._take_video(video, end)

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

    def _open(self, shard: ShardJob) -> None:
        self.open[shard.shard_id] = shard
        self.missing[shard.shard_id] = set(_video_jobs(shard))
        # The longest first, so that no core is left with one at the end while the others have nothing to do.
        videos = sorted(shard.videos, key=lambda video: -self.frames[video.source.video_id])
        # A video that names an original is none itself: nothing waits for what waits.
        originals = {video.source.video_id for video in videos if video.is_original}
        for video in videos:
            key = VideoJob(shard.shard_id, video.source.video_id)
            if self.params.pair.mode == "original" and not video.is_original and video.pair_id in originals:
                self.waiting.setdefault(VideoJob(shard.shard_id, video.pair_id), []).append((key, video))
            else:
                self.queue.append(self.process_job(key, video))

    def process_job(self, key: VideoJob, video: ShardVideo, windows: Any = None) -> Job:
        """Return the job of one video; of a fake with `windows` of its original, or the reference to them."""
        task = self.process_task.options(name=f"process {video.source.uri}")

        def submit(label: str) -> Any:
            made = task.remote(label, str(key), self._assign_detector(key), video, windows)
            done, self.results[key], self.windows[key] = made
            return done

        frames = self.frames[key.video_id]
        deadline_seconds = self.options.deadline_seconds + frames * self.options.deadline_seconds_per_frame
        return Job(key, submit, deadline_seconds, has_inputs=windows is not None and windows is not NO_WINDOWS)

    def _assign_detector(self, key: VideoJob) -> int:
        self.detector_of.pop(key, None)
        taken = Counter(self.detector_of.values())
        self.detector_of[key] = min(range(self.n_detectors), key=lambda k: (taken[k], k))
        return self.detector_of[key]

    def _take_video(self, key: VideoJob, end: End) -> None:
        """Note that a video has its result; queue its fakes, and the commit when it was the shard's last."""
        windows = self.windows.pop(key, None)
        if isinstance(end, LostInputs):
            self._process_original_again(key)
            return
        if isinstance(end, Quarantined):
            windows = NO_WINDOWS
            outcome = Outcome(status=Status.FAILED, code=end.code, stage=Stage.DECODE, detail=end.detail)
            self.results[key] = VideoResult(video_id=key.video_id, outcome=outcome)
            code = str(end.code)
            self.log(VideoDone(video=str(key), status="failed", code=code, n_clips=0, n_frames=0, seconds=None))
        elif isinstance(end, Done):
            self.context.traffic.n_bytes_fetched += end.value.n_bytes_fetched
            self.log(end.value)
        del self.detector_of[key]
        self.queue.extendleft(self.process_job(*fake, windows) for fake in reversed(self.waiting.pop(key, [])))
        missing = self.missing[key.shard_id]
        missing.discard(key)
        if not missing:
            self.queue.appendleft(self._commit_job(self.open[key.shard_id]))

    def _process_original_again(self, fake: VideoJob) -> None:
        """Let a fake wait for its original once more, uncharged: what that gave was lost."""
        del self.detector_of[fake]
        videos = {video.source.video_id: video for video in self.open[fake.shard_id].videos}
        video = videos[fake.video_id]
        assert video.pair_id is not None  # only fakes have inputs
        original = VideoJob(fake.shard_id, video.pair_id)
        self.log(JobRetried(str(original), "results lost", 0.0))
        if original not in self.waiting:
            self.missing[fake.shard_id].add(original)
            self.queue.appendleft(self.process_job(original, videos[video.pair_id]))
        self.waiting.setdefault(original, []).append((fake, video))

    def _commit_job(self, shard: ShardJob) -> Job:
        task = self.commit_task.options(name=f"commit {shard.shard_id}")

        def submit(label: str) -> Any:
            results = [self.results[key] for key in _video_jobs(shard)]
            work = (shard, self.params, self.context.out)
            return task.remote(self.context.start_times, label, work, self.options.scratch, *results)

        return Job(CommitJob(shard.shard_id), submit, COMMIT_SECONDS, has_inputs=True)

    def _take_commit(self, shard_id: str, end: End) -> None:
        """Forget a shard that is written; process its videos again, uncharged, if their results were lost."""
        if isinstance(end, Quarantined):
            raise LpsError(f"shard {shard_id} cannot be written: {end.code}, {end.detail}")
        if isinstance(end, LostInputs):
            self.log(JobRetried(end.job.name, "results lost", 0.0))
            self._open(self.open[shard_id])
            return
        for key in _video_jobs(self.open[shard_id]):
            del self.results[key]
        del self.open[shard_id], self.missing[shard_id]
        self.log(end.value)
        self.log.flush()


def _video_jobs(shard: ShardJob) -> list[VideoJob]:
    return [VideoJob(shard.shard_id, video.source.video_id) for video in shard.videos]
