"""The command line: fast help, clear messages, exit codes that mean something."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from metarl.cli.app import app
from metarl.errors import EnvironmentFault
from metarl.rollout.local import LocalExecutor
from metarl.runs import checkpoint
from tests.child import PATIENCE_S, start, wait_for_iterations

YAML = """
task_distribution: {name: PointGoal, options: {horizon: 5}}
algorithm: {name: "toy_algorithm:Toy"}
training: {iterations: 2, evaluate_every: 0}
evaluation: {num_tasks: 3}
device: cpu
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(YAML)
    return "small.yaml"


def metarl_(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def error_of(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.stderr


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['metarl', '--help']\n"
        "from metarl.cli.app import main\n"
        "try: main()\nexcept SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'ray', 'numpy', 'gymnasium', 'mujoco', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("train", "evaluate", "tasks", "config", "sweep", "--traceback"))


def test_overrides_of_an_evaluation_are_noted_and_it_stands_beside_the_plain_one(config: str) -> None:
    metarl_("train", config, "--local")
    result = metarl_("evaluate", "runs/small", "evaluation.num_tasks=2", "--local")
    assert result.exit_code == 0, result.output
    (folder,) = Path("runs/small/evaluations").glob("test-000002-*")
    found = json.loads((folder / "evaluation.json").read_text())
    assert folder.name == "test-000002-evaluation.num_tasks=2"
    assert found["num_tasks"] == 2
    assert "Evaluated with evaluation.num_tasks=2." in found["notes"]
    assert "unknown key" in error_of(metarl_("evaluate", "runs/small", "algorithm.contxt=blank", "--local"), 2)


AFTER_RAY = """
import atexit, os, sys
from metarl.cli.errors import quick_exit
from metarl.distributed import cluster

class Blocks:  # as Ray's destructors do where its cluster is gone
    def __del__(self, end=os._exit):
        end(1)

kept = Blocks()
atexit.register(print, "atexit")
if sys.argv[1] == "connected":
    cluster._connected.set()
with quick_exit():
    sys.exit(143)
"""


@pytest.mark.parametrize(("ray", "code"), [("connected", 143), ("unused", 1)])
def test_destructors_of_a_ray_that_has_died_cannot_change_the_exit_code(ray: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", AFTER_RAY, ray], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "atexit\n"), done.stderr


def test_train_then_evaluate(config: str) -> None:
    result = metarl_("train", config, "--local", "seed=4")
    assert result.exit_code == 0, result.output
    assert "iteration 2/2" in result.stdout
    assert Path("runs/small/learning.png").is_file()
    assert "backend: local" in Path("runs/small/config.yaml").read_text()

    result = metarl_(
        "evaluate", "runs/small", "--local", "--tasks", "2", "--episodes", "3", "--rounds", "4", "--out", "x"
    )
    assert result.exit_code == 0, result.output
    assert "x/evaluation.json" in result.stdout
    assert "x/adaptation.png" in result.stdout
    found = json.loads(Path("x/evaluation.json").read_text())
    assert (found["num_tasks"], found["episodes_per_round"], len(found["rounds"])) == (2, 3, 4)
    assert found["env_steps"] == 2 * 3 * 4 * 5

    result = metarl_("evaluate", "runs/small", "--local")
    assert result.exit_code == 0, result.output
    assert Path("runs/small/evaluations/test-000002/adaptation.png").is_file()


def test_evaluating_twice_gives_the_same_bytes(config: str) -> None:
    assert metarl_("train", config, "--local").exit_code == 0
    for out in ("a", "b"):
        assert metarl_("evaluate", "runs/small", "--local", "--seed", "5", "--out", out).exit_code == 0
    assert Path("a/evaluation.json").read_bytes() == Path("b/evaluation.json").read_bytes()


def test_a_run_is_neither_overwritten_nor_mixed(config: str) -> None:
    assert metarl_("train", config, "--local").exit_code == 0
    assert "add --resume" in error_of(metarl_("train", config, "--local"), 2)
    assert "seed: 0 -> 9" in error_of(metarl_("train", config, "--local", "--resume", "seed=9"), 2)
    result = metarl_("train", config, "--local", "--resume", "training.iterations=3")
    assert result.exit_code == 0
    assert "iteration 3/3" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing.yaml"], "no configuration file nothing.yaml"),
        (["train", "small.yaml", "training.iteration=3"], "did you mean 'iterations'?"),
        (["train", "small.yaml", "oops"], "expected key.sub=value"),
        (["train", "small.yaml", "--local", "task_distribution.name=Cartpole"], "known: AntDir"),
        (["train", "small.yaml", "--local", "task_distribution.name=no_such_module:X"], "cannot import"),
        (["train", "small.yaml", "--local", "--address", "auto"], "exclude each other"),
        (["train", "small.yaml", "--local", "--run-dir", "small.yaml"], "cannot make the run directory"),
        (["evaluate", "nothing"], "not a run directory"),
        (["evaluate", "nothing", "--split", "held_out"], "allowed: train, test, ood, validation"),
        (["tasks", "show", "Cartpole"], "unknown task distribution 'Cartpole'"),
        (["tasks", "show", "PointGoal", "horizon"], "expected key=value"),
        (["tasks", "show", "PointGoal", "horizon=["], "invalid YAML"),
        (["tasks", "show", "PointGoal", "horizont=3"], "horizont"),
        (["tasks", "sample", "PointGoal", "--split", "tset"], "allowed: train, test, ood"),
        (["evaluate", "nothing", "--tasks", "0"], "--tasks"),
        (["fly"], "fly"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(config: str, arguments: list[str], message: str) -> None:
    assert message in error_of(metarl_(*arguments), 2)


def test_a_damaged_run_is_one_message_and_exit_code_2(config: str) -> None:
    assert metarl_("train", config, "--local").exit_code == 0
    for file in Path("runs/small/checkpoints").rglob("state.safetensors"):
        file.write_bytes(b"")
    assert "no intact checkpoint" in error_of(metarl_("evaluate", "runs/small", "--local"), 2)
    assert "no intact checkpoint" in error_of(metarl_("train", config, "--local", "--resume"), 2)


@pytest.mark.parametrize("error", [EnvironmentFault("PointGoal(x=1): hung"), OSError(28, "No space left on device")])
def test_a_run_that_fails_is_one_message_and_exit_code_1(
    config: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(LocalExecutor, "collect", fail)
    assert str(error) in error_of(metarl_("train", config, "--local"), 1)


def test_divergence_is_one_message_and_exit_code_1(config: str) -> None:
    message = error_of(metarl_("train", config, "--local", "algorithm.spoil_at=1"), 1)
    assert "training diverged" in message
    assert "last checkpoint: none yet" in message


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raise_make", "building the environment raised FileNotFoundError: robot.xml"),
        ("exit_make", "building the environment raised SystemExit: 0"),
        ("hang_make", "building the environment did not end within 0.5 s"),
        ("raise", "step raised ZeroDivisionError: the motor came off"),
    ],
)
def test_an_environment_at_fault_is_one_message_and_exit_code_1(config: str, fault: str, says: str) -> None:
    robot = ["task_distribution.name=tests.toy:Point", f"task_distribution.options={{fault: {fault}, above: -2}}"]
    message = error_of(metarl_("train", config, "--local", "executor.unit_deadline_s=0.5", *robot), 1)
    assert "Point(goal=" in message
    assert says in message
    if fault == "raise":  # anything else ends before there is a run
        assert checkpoint.load_latest(Path("runs/small/checkpoints")).iteration == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_says_how_to_go_on(config: str, number: signal.Signals) -> None:
    child = start("train", "small.yaml", "training.iterations=1000000", "--local")
    wait_for_iterations(Path("runs/small"), 3, child)
    child.send_signal(number)
    _, stderr = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 128 + number
    assert f"stopped by {number.name}" in stderr
    assert "metarl train small.yaml training.iterations=1000000 --run-dir runs/small --resume --local" in stderr
    assert "Traceback" not in stderr
    last = json.loads(Path("runs/small/metrics.jsonl").read_text().splitlines()[-1])
    assert checkpoint.load_latest(Path("runs/small/checkpoints")).iteration == last["iteration"]


def test_tasks_can_be_listed_shown_and_sampled(tmp_path: Path) -> None:
    assert "HalfCheetahVel" in metarl_("tasks", "list").stdout
    shown = metarl_("tasks", "show", "HalfCheetahVel", "horizon=50").stdout
    assert "velocity" in shown
    assert "horizon 50" in shown
    sampled = metarl_("tasks", "sample", "HalfCheetahVel", "-n", "3", "--split", "ood", "--seed", "2").stdout
    assert len(sampled.splitlines()) == 3
    assert sampled == metarl_("tasks", "sample", "HalfCheetahVel", "-n", "3", "--split", "ood", "--seed", "2").stdout


def test_a_distribution_of_your_own_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("my_tasks.py").write_text(
        "from metarl_envs.point import PointGoal\nclass Mine(PointGoal):\n    name = 'Mine'\n    horizon = 7\n"
    )
    result = metarl_("tasks", "check", "my_tasks:Mine")
    assert result.exit_code == 0, result.output
    assert "ok" in result.stdout
    Path("bad_tasks.py").write_text(
        "from metarl_envs.point import PointGoal\n"
        "class Bad(PointGoal):\n"
        "    def make(self, task): raise RuntimeError('no such robot')\n"
    )
    assert "checks failed" in error_of(metarl_("tasks", "check", "bad_tasks:Bad"), 2)


def test_the_robot_of_the_readme_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    example = readme.partition("```python\n")[2].partition("```")[0]
    Path("readme_tasks.py").write_text(example)
    model = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "hopper.xml"
    Path("my_robot.xml").write_text(model.read_text())
    result = metarl_("tasks", "check", "readme_tasks:MyRobot")
    assert result.exit_code == 0, result.output
