"""slurm.sbatch on a real slurmctld and slurmd of this machine: a job that ends early goes on, bit by bit."""

from __future__ import annotations

import math
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metarl.runs.records import METRICS, read_records
from tests.child import PATIENCE_S
from tests.run_contents import left_by

ROOT = Path(__file__).parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "srun")
ITERATIONS = 40
# Slow, about 2.5 s per iteration, until the file FLAG is there: a job is not to end before it is interrupted.
CONFIG = f"""seed: 3
task_distribution: {{name: "tests.toy:Point", options: {{horizon: 5, fault: slow, above: -2, flag: FLAG}}}}
algorithm: {{name: promp, tasks_per_iteration: 2, num_streams: 2}}
training: {{iterations: {ITERATIONS}, tasks_per_unit: 1, evaluate_every: 0}}
executor: {{num_workers: 1}}
"""
CONF = """ClusterName=test
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""
os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian puts the daemons
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"SLURM is not installed: no {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd must be started by root"),
]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(happens: Callable[[], object], what: str, tell: Callable[[], str]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline_s, f"{what} did not happen in {PATIENCE_S:g} s: {tell()}"
        time.sleep(0.3)


class Slurm:
    """A cluster of this machine alone."""

    def __init__(self, folder: Path):
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        conf = folder / "slurm.conf"
        first = random.SystemRandom().randrange(1, 60_000)  # the script's port follows from it: clusters may be several
        conf.write_text(CONF.format(host=self.host, folder=folder, ports=(free_port(), free_port()), first_job=first))
        self.environment = {**os.environ, "SLURM_CONF": str(conf)}
        bin_ = Path(sys.executable).parent
        self.environment |= {"METARL": str(bin_ / "metarl"), "RAY": str(bin_ / "ray"), "TMPDIR": "/tmp"}

    def start(self) -> None:
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self("munged", "--force", *(f"--{option}={self.folder}/munge.{end}" for option, end in files.items()))
        self("slurmctld")
        self("slurmd")
        wait_until(lambda: "idle" in self("sinfo", "--noheader", "--format=%T"), "an idle node", self.log)

    def stop(self) -> None:
        subprocess.run(["scancel", "--user=root"], env=self.environment, check=False)
        deadline_s = time.monotonic() + 30
        while self("squeue", "--noheader") and time.monotonic() < deadline_s:
            time.sleep(0.3)
        for daemon in ("slurmd", "slurmctld", "munge"):
            pid = self.folder / f"{daemon}.pid"
            if pid.exists():
                subprocess.run(["kill", pid.read_text().strip()], check=False)

    def __call__(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, (command, done.stdout, done.stderr, self.log())
        return done.stdout.strip()

    def log(self) -> str:
        logs = sorted(self.folder.rglob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def submit(self, config: Path, run: Path) -> str:
        options = ["--parsable", "--cpus-per-task=1", "--time=10", f"--output={self.folder}/job-%j.log"]
        return self("sbatch", *options, "slurm.sbatch", str(config), "--run-dir", str(run))

    def state(self, job: str) -> str:
        return next(word for word in self("scontrol", "show", "job", job).split() if word.startswith("JobState="))[9:]

    def wait_for_iterations(self, job: str, run: Path, number: int) -> None:
        def has_come() -> bool:
            assert self.state(job) in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "COMPLETED"), self.log()
            return len(read_records(run / METRICS)) >= number

        wait_until(has_come, f"iteration {number}", self.log)

    def wait_for(self, job: str, state: str) -> None:
        def is_so() -> bool:
            now = self.state(job)
            assert now == state or now not in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), (now, self.log())
            return now == state

        wait_until(is_so, f"job {job} {state}", self.log)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    config, flag = folder / "run.yaml", folder / "flag"
    flag.touch()
    config.write_text(CONFIG.replace("FLAG", str(flag)))
    command = [sys.executable, "-m", "metarl", "train", str(config), "--local", "--run-dir", str(folder / "run")]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return folder / "run"


def at_the_time_limit(slurm: Slurm, job: str, config: Path, run: Path) -> str:
    """The limit is set to what is left of the present minute and one more: SLURM sends its signal at once."""
    elapsed = slurm("squeue", "--noheader", f"--jobs={job}", "--format=%M").split(":")
    slurm(
        "scontrol", "update", f"JobId={job}", f"TimeLimit={int(elapsed[-2]) + math.ceil((int(elapsed[-1]) + 1) / 60)}"
    )
    slurm.wait_for(job, "PENDING")
    log = (slurm.folder / f"job-{job}.log").read_text()
    assert "stopped by SIGTERM" in log
    assert "the job is queued again" in log
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=10")  # SLURM waits for two minutes
    return job


def preempted(slurm: Slurm, job: str, config: Path, run: Path) -> str:
    options = ["--parsable", "--partition=high", "--ntasks=2", "--time=1", f"--output={slurm.folder}/high.log"]
    urgent = slurm("sbatch", *options, "--wrap=sleep 1")
    slurm.wait_for(urgent, "COMPLETED")
    assert "Restarts=1" in slurm("scontrol", "show", "job", job)
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
    return job


def cancelled_and_submitted_again(slurm: Slurm, job: str, config: Path, run: Path) -> str:
    slurm("scancel", job)
    slurm.wait_for(job, "CANCELLED")
    return slurm.submit(config, run)


@pytest.mark.parametrize("interrupt", [at_the_time_limit, preempted, cancelled_and_submitted_again])
def test_a_job_that_slurm_ends_goes_on_bit_by_bit(
    interrupt: Callable[[Slurm, str, Path, Path], str], slurm: Slurm, undisturbed: Path, tmp_path: Path
) -> None:
    run, config, flag = tmp_path / "run", tmp_path / "run.yaml", tmp_path / "flag"
    config.write_text(CONFIG.replace("FLAG", str(flag)))
    job = slurm.submit(config, run)
    slurm.wait_for_iterations(job, run, 3)
    job = interrupt(slurm, job, config, run)
    flag.touch()
    slurm.wait_for(job, "COMPLETED")
    assert left_by(run, ITERATIONS) == left_by(undisturbed, ITERATIONS)
