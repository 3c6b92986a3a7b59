"""What the documentation shows runs: its Python, its examples, and every command line in it."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import gymnasium
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import metarl as metarl_api
from metarl.cli.app import app
from metarl.tasks import TaskDistribution

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "generated" not in path.parts)
TEXTS = [ROOT / "README.md", *PAGES]
BLOCK = re.compile(r"^(?:<!-- needs (?P<needs>[\w.]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a page that need nothing that is missing."""
    found = []
    for match in BLOCK.finditer(path.read_text(encoding="utf-8")):
        if match["language"] == language and (match["needs"] is None or _is_there(match["needs"])):
            found.append(match["code"])
    return found


def _is_there(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("page", ["start.md", "tutorials/deploy.md"])
def test_the_python_of_a_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for code in blocks(DOCS / page, "python"):
        exec(compile(code, page, "exec"), names)


def test_the_python_of_deployment_trains_judges_and_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, but for a quickstart of one small iteration, in this process."""
    monkeypatch.chdir(tmp_path)
    small = {
        "task_distribution.options.horizon": 10,
        "algorithm.tasks_per_iteration": 2,
        "algorithm.num_streams": 2,
        "training.iterations": 1,
        "training.tasks_per_unit": 2,
        "evaluation.num_tasks": 2,
    }
    load_config, train = metarl_api.load_config, metarl_api.train
    monkeypatch.setattr(metarl_api, "load_config", lambda name, given: load_config(name, {**given, **small}))
    monkeypatch.setattr(metarl_api, "train", lambda config, run_dir: train(config, run_dir=run_dir, local=True))
    names: dict[str, Any] = {}
    first, second = blocks(DOCS / "deployment.md", "python")
    exec(compile(first, "deployment.md", "exec"), names)
    assert names["result"].iteration == 1
    env = names["env"]

    class Robot:
        def reset(self) -> Any:
            return env.reset(seed=1)

        def step(self, action: Any) -> Any:
            return env.step(action)[:4]

    exec(compile(second, "deployment.md", "exec"), {**names, "robot": Robot()})


def test_what_the_readme_shows_of_a_robot_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class, its configuration, and its agent; the model is Gymnasium's hopper."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    robot, agent = blocks(ROOT / "README.md", "python")
    (configuration,) = blocks(ROOT / "README.md", "yaml")
    Path("my_tasks.py").write_text(robot)
    Path("my_robot.yaml").write_text(configuration)
    model = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "hopper.xml"
    Path("my_robot.xml").write_text(model.read_text())
    small = ["algorithm.tasks_per_iteration=2", "algorithm.num_streams=2", "training.iterations=1"]
    metarl("train", "my_robot.yaml", "--local", *small, "evaluation.num_tasks=2")
    observation = metarl_api.make_env("runs/my_robot", seed=0).reset(seed=0)[0]
    exec(
        compile(agent, "README.md", "exec"),
        {"observation": observation, "reward": 1.0, "terminated": False, "truncated": False},
    )
    sys.modules.pop("my_tasks", None)


@pytest.mark.parametrize("text", blocks(DOCS / "task-distributions.md", "yaml"), ids=["hopper", "quadruped"])
def test_a_variation_in_yaml_keeps_the_contract(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("robot.yaml").write_text(text)
    assert "checks failed" not in metarl("tasks", "check", "robot.yaml")


@pytest.mark.parametrize("page", ["algorithms.md", "task-distributions.md"])
def test_sketches_are_python(page: str) -> None:
    """Classes with parts left out."""
    names: dict[str, Any] = {"TaskDistribution": TaskDistribution, "gymnasium": gymnasium, "np": np}
    for code in blocks(DOCS / page, "python"):
        exec(compile(code, page, "exec"), names)


def command_lines() -> list[str]:
    """Every `metarl ...` in a block without a language, continued lines joined, comments cut off."""
    found = []
    for path in TEXTS:
        for code in blocks(path, ""):
            for line in code.replace("\\\n", " ").splitlines():
                if line.startswith("metarl ") and not re.search(r"[A-Z]{3,} \||\[--|\.\.\.", line):
                    found.append(re.sub(r"\s+#.*", "", line))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_is_one(line: str) -> None:
    """Its commands and options exist, and its options have values of their kinds; nothing is run."""
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(app)
    context = click.Context(command)
    while isinstance(command, click.Group):
        word, *words = words
        found = command.get_command(context, word)
        assert found is not None, f"there is no command {word}"
        command = found
    command.make_context(command.name, words)


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example files in the current directory."""
    for path in (DOCS / "examples").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("my_tasks", "my_algorithm"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # of another test
    yield tmp_path
    for name in ("my_tasks", "my_algorithm"):
        sys.modules.pop(name, None)


def metarl(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_robot_of_the_tutorial_trains_and_is_filmed(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")  # not needed by it, and so not looked for
    metarl("tasks", "check", "my_tasks:Pendulum")
    small = ["algorithm.tasks_per_iteration=4", "training.iterations=1", "training.tasks_per_unit=4"]
    metarl("train", "my_pendulum.yaml", "--local", "--run-dir", "run", *small, "evaluation.num_tasks=2")
    out = metarl("record", "run", "--task", "length=1.8", "--every", "50", "--out", "long.gif")
    assert "long.gif" in out
    assert Path("long.gif").stat().st_size > 1000


def test_the_algorithm_of_the_tutorial_learns(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    options = ["algorithm={name: 'my_algorithm:MeanAction'}", "training.iterations=3", "training.evaluate_every=0"]
    metarl("train", "point_goal", *options, "--local", "--run-dir", "run")
    assert "gain over its blank context" in metarl("evaluate", "run", "--local", "--tasks", "4")


def commands(command: Any, words: str = "metarl") -> Iterator[tuple[str, Any]]:
    """Every command below this one, by its words."""
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{words} {name}")
    if not hasattr(command, "commands"):
        yield words, command


def test_every_command_and_long_option_is_in_the_reference() -> None:
    usage = (DOCS / "command-line.md").read_text(encoding="utf-8").split("```")[1]
    for words, command in commands(typer.main.get_command(app)):
        *group, name = words.split()
        line = re.search(rf"^{' '.join(group)} .*\b{name}\b.*(\n +.*)*", usage, re.M)
        assert line, words
        for parameter in command.params:
            names = [o for o in (*parameter.opts, *parameter.secondary_opts) if o.startswith("--") and o != "--help"]
            assert not names or any(option in line[0] for option in names), (words, names)


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = {
        name.strip()
        for path in PAGES
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
        for name in tree.splitlines()
    }
    missing = [
        name
        for path in PAGES
        if (name := path.relative_to(DOCS).with_suffix("").as_posix()) not in listed and name != "index"
    ]
    assert missing == []


def test_links_to_files_of_the_repository_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in TEXTS
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not (path.parent / link).exists() and "generated" not in link
    ]
    assert broken == []


# --- the reference -----------------------------------------------------------------------------------


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    yield importlib.import_module("generated")
    sys.modules.pop("generated")


def test_the_reference_has_every_public_module(generated) -> None:
    floors = {path.name for path in (ROOT / "metarl").iterdir() if (path / "__init__.py").is_file()}
    assert floors - set(generated.FLOORS) <= {"cli"}, "name the floor in docs/_ext/generated.py"
    assert "metarl.report.video.film" in generated.modules_of("report")
    assert ".. automodule:: metarl.tasks.priors" in generated.floor_page("tasks", "Tasks")


def test_the_reference_of_the_configuration_has_every_key_with_its_meaning(generated) -> None:
    from metarl.config import EvaluationConfig, TrainingConfig

    page = generated.configuration_page()
    for section in (EvaluationConfig, TrainingConfig):
        for key, field in section.model_fields.items():
            assert f"| `{key}` |" in page
            assert field.description is not None
            assert field.description.replace("|", "\\|") in page
    assert "## `algorithm`: rl2" in page
    assert "## `algorithm`: pearl" in page
    assert "## `evaluation`" in page


def test_plain_docstrings_become_lists_and_literal_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    from docstrings import as_rst  # type: ignore[import-not-found]

    text = ["What *it* does, with `code`.", "", "a: first", "b: second", "", "x  -->  y"]
    assert list(as_rst(text)) == [
        "What \\*it\\* does, with \\ ``code``\\ .", "", "* ``a``: first", "* ``b``: second", "", "::", "",
        "    x  -->  y", "",
    ]  # fmt: skip
    sys.modules.pop("docstrings")
