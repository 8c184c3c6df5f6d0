"""The scripts of examples/ that start or join a Ray cluster, with a real Ray on this machine, and no Slurm."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from lps.manifests.index import INDEX_JSON
from lps.pipeline.tools.demo_videos import make_face_video

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
SRUN = """#!/usr/bin/env bash
# Stands for Slurm's: the command as one task on each of two nodes; ends them when it is ended.
while [[ $1 == --* ]]; do shift; done
for id in 0 1; do SLURM_PROCID=$id "$@" & tasks+=($!); done
trap 'kill "${tasks[@]}"' TERM
wait; wait
"""
SCONTROL = "#!/usr/bin/env bash\n[ \"$*\" = 'show hostnames node[1-2]' ] && printf 'localhost\\nlocalhost\\n'\n"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a source of two videos, in a folder with a blank in its name."""
    folder = tmp_path_factory.mktemp("clusters") / "two videos"
    for seed in range(2):
        make_face_video(folder / f"real/{seed}.mp4", n_frames=61, width=320, height=240, seed=seed, fake=False)
    return folder


def environment(*first: Path, **more: str) -> dict[str, str]:
    """Return the environment of a shell in which this environment's programs are found, and no cluster is known."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    path = os.pathsep.join([*map(str, first), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**known, "PATH": path, **more}


def test_a_job_of_slurm_starts_ray_on_all_nodes_and_leaves_nothing(videos: Path, tmp_path: Path) -> None:
    slurm = tmp_path / "bin"
    slurm.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (slurm / name).write_text(text)
        (slurm / name).chmod(0o755)
    scratch = tmp_path / "-".join(["a scratch folder whose path no socket could have"] * 3)
    job = str(os.getpid())
    asked = {"JOB_ID": job, "JOB_NODELIST": "node[1-2]", "JOB_NUM_NODES": "2", "CPUS_PER_TASK": "1"}
    env = environment(slurm, LOCAL_SCRATCH=str(scratch), **{f"SLURM_{name}": value for name, value in asked.items()})
    command = [str(EXAMPLES / "prepare_slurm.sh"), str(videos), "out", "--localizer", "mtcnn"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 nodes, 2 CPUs, 0 GPUs" in done.stdout
    assert "2 input files: 2 with clips" in done.stdout
    assert (tmp_path / "out" / INDEX_JSON).exists()
    assert list(scratch.iterdir()) == []
    assert not Path(f"/tmp/lps-{job}").exists()


def free_ports(n: int) -> list[str]:
    """Return ports that nothing listens at now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """Start a Ray with its dashboard, of its own folder and ports, and return the dashboard's address."""
    if find_spec("aiohttp_cors") is None:
        pytest.skip("the extra cluster is not installed: pip install 'lps-prep[cluster]'")
    port, agent, board = free_ports(3)
    folder = f"/tmp/lps-board-{os.getpid()}"
    how = [f"--port={port}", f"--dashboard-port={board}", f"--dashboard-agent-listen-port={agent}", "--num-cpus=2"]
    how += [f"--temp-dir={folder}", "--object-store-memory=100000000", "--disable-usage-stats"]
    env = environment(RAY_AUTH_MODE="disabled")
    started = subprocess.run(
        ["ray", "start", "--head", *how], env=env, capture_output=True, text=True, check=False, start_new_session=True
    )
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield f"http://127.0.0.1:{board}"
    finally:
        for process in Path("/proc").glob("[0-9]*"):  # not `ray stop`, which ends every Ray of this user
            if is_of(process, folder):
                os.kill(int(process.name), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def is_of(process: Path, folder: str) -> bool:
    """Tell whether a process was started for the Ray of a folder."""
    try:
        return folder.encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.fixture
def submit(dashboard: str, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return a function that submits a run."""

    def run(source: Path) -> "subprocess.CompletedProcess[str]":
        command = [str(EXAMPLES / "submit_ray_job.sh"), dashboard, str(source), str(tmp_path / "out")]
        env = environment(RAY_AUTH_MODE="disabled", JOB_ID=source.name.replace(" ", "-"))
        return subprocess.run([*command, "--localizer", "mtcnn"], env=env, capture_output=True, text=True, check=False)

    return run


def test_a_submitted_job_is_followed_to_its_end(
    submit: "Callable[..., subprocess.CompletedProcess[str]]", videos: Path, tmp_path: Path
) -> None:
    done = submit(videos)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 input files: 2 with clips" in done.stdout
    assert (tmp_path / "out" / INDEX_JSON).exists()

    failed = submit(tmp_path / "nowhere")
    assert failed.returncode == 1
    assert "is empty or not there" in failed.stdout + failed.stderr
