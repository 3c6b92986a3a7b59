"""The page: right for runs with one task, many parameters, no reference returns, and names that are markup."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from metarl.algorithms.registry import build_algorithm
from metarl.cli.app import app
from metarl.config import load_config
from metarl.report.metrics import Curve, Run
from metarl.report.page.figures import splits
from metarl.report.page.learning import by_configuration, learning_over_seeds, on_common_steps
from metarl.report.page.page import MOST_BYTES, render
from metarl.report.study import Study, study
from metarl.rollout.local import LocalExecutor
from metarl.runs.build import TrainedRun, load_run, spaces_of
from metarl.runs.checkpoint import Checkpoint
from metarl.tasks import Choice, Parameter, Task, TaskDistribution, Uniform
from tests.guess import Guess, GuessEnv

PEARL_RUN = Path(__file__).parents[2] / "experiments" / "pretrained" / "point_goal_pearl"


YAML = """
task_distribution: {name: PointGoal}
algorithm: {name: "toy_algorithm:Toy", num_streams: 2}
training: {iterations: 3}
evaluation: {num_tasks: 4}
"""


class Page(HTMLParser):
    """What a browser would make of the page, as far as these tests ask."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.images: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [value for key in ("src", "href") if (value := given.get(key))]
        if tag == "img":
            self.images.append(given)

    def handle_data(self, data: str) -> None:
        self.text += data


class Many(Guess):
    """Twenty parameters, of which the first alone matters; nothing is out of distribution, no reference returns."""

    name = "Many"
    parameters = tuple(Parameter(f"p{i}", Uniform(-0.5, 0.5)) for i in range(20))

    @property
    def anchors(self):
        return TaskDistribution.anchors.fget(self)  # type: ignore[attr-defined]

    def make(self, task: Task) -> GuessEnv:
        return GuessEnv(float(task["p0"]))  # type: ignore[arg-type]


class One(Many):
    """One task alone."""

    name = "One"
    parameters = (Parameter("goal", Choice((0.25,))),)

    def make(self, task: Task) -> GuessEnv:
        return GuessEnv(float(task["goal"]))  # type: ignore[arg-type]


def trained(distribution: TaskDistribution, seed: int = 1, **evaluation: object) -> TrainedRun:
    """A run as it begins, of the small algorithm of these tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.yaml"
        path.write_text(YAML)
        config = load_config(
            path, [f"seed={seed}", *(f"evaluation.{key}={value}" for key, value in evaluation.items())]
        )
    algorithm = build_algorithm(config.algorithm, spaces_of(distribution, config), torch.device("cpu"), config.seed)
    return TrainedRun(config, distribution, algorithm, Checkpoint(3, {}, {"seed": seed}, Path("checkpoints")))


def measured(
    distribution: TaskDistribution, tmp_path: Path, name: str = "a run", seed: int = 1, has_grids: bool = True
) -> Study:
    run = trained(distribution, seed)
    return study(run, LocalExecutor(distribution, run.algorithm.policy), tmp_path, name, has_grids)


@pytest.fixture(scope="module")
def guess(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return measured(Guess(), tmp_path_factory.mktemp("guess"))


@pytest.fixture(scope="module")
def html(guess: Study) -> str:
    """The page of `guess`."""
    return render([guess])


@pytest.fixture
def _few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture of each run: others are looked at elsewhere."""
    monkeypatch.setattr("metarl.report.page.page.pictures_of", lambda study: [splits(study)])


# --- what is on the page -----------------------------------------------------------------------------


def test_a_page_says_what_was_trained_on_what_and_how_it_did(guess: Study, html: str) -> None:
    page = Page(html)
    score = guess.test.rounds[-1]
    for expected in ("a run", "Guess v1", "toy_algorithm:Toy", f"{score.mean:.2f}", guess.verdict, "U[-0.5, 0.5]"):
        assert expected in page.text
    assert "best non-adaptive policy" in page.text
    assert "name: toy_algorithm:Toy" in page.text  # the configuration
    titles = ("Adaptation over time", "Each task", "Splits, ablations and reference returns", "Return against goal")
    assert all(title in page.text for title in titles)
    assert "ood" in guess.evaluations


def test_a_page_fetches_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert page.images
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "script" not in page.tags
    assert all(image["alt"] for image in page.images)


@pytest.mark.usefixtures("_few_pictures")
def test_markup_in_names_is_text(guess: Study) -> None:
    evil = "<script>alert('$x$')</script><img src=http://x>"
    named = replace(guess, name=evil, config=f"name: {evil}", remarks=(evil,), versions={evil: evil})
    for studies in ([named], [named, replace(guess, name=f"{evil}2")]):
        page = Page(render(studies))
        assert "script" not in page.tags
        assert evil in page.text
        assert all(link.startswith(("data:", "#")) for link in page.links)


def test_twenty_parameters_and_no_reference_returns(tmp_path: Path) -> None:
    many = measured(Many(), tmp_path)
    html = render([many])
    page = Page(html)
    assert "reference return:" not in page.text
    assert "the first 6 of 20 parameters" in page.text
    assert "Return against p5" in page.text
    assert "Return against each parameter; the first 12 of 14" in page.text
    assert "no out-of-distribution range" in page.text
    assert len(html) < MOST_BYTES


def test_one_task_is_a_right_page(tmp_path: Path) -> None:
    one = measured(One(), tmp_path)
    page = Page(render([one]))
    assert "One task" in page.text or "All tasks of the family are here" in page.text
    assert "Train and test tasks coincide" in page.text
    assert "NaN" not in page.text
    assert "nan" not in re.findall(r"\bnan\b", page.text)


def test_one_round_is_a_right_page(tmp_path: Path) -> None:
    run = trained(Guess(), rounds=1)
    single = study(run, LocalExecutor(Guess(), run.algorithm.policy), tmp_path, "single", has_grids=False)
    page = Page(render([single]))
    assert "Nothing to compare with" in page.text
    assert "Each task" not in page.text


@pytest.mark.usefixtures("_few_pictures")
def test_videos_of_the_run_are_in_the_page_as_long_as_there_is_room(guess: Study, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "small.gif").write_bytes(b"GIF89a")
    (tmp_path / "videos" / "large.mp4").write_bytes(bytes(MOST_BYTES))
    html = render([replace(guess, folder=tmp_path)])
    assert "data:image/gif;base64," in html
    assert "large.mp4" in html
    assert "Too large for this page" in html
    assert len(html) < MOST_BYTES


# --- several runs ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_few_pictures")
def test_runs_on_equal_tasks_are_compared(guess: Study) -> None:
    html = render([guess, replace(guess, name="another")])
    page = Page(html)
    assert "2 runs" in page.text
    assert "probability of improvement" in page.text
    assert "0.50 [0.50, 0.50]" in page.text  # a run against itself


@pytest.mark.usefixtures("_few_pictures")
def test_runs_on_different_tasks_are_not_compared(guess: Study, tmp_path: Path) -> None:
    page = Page(render([guess, measured(Guess(), tmp_path, "other", seed=2, has_grids=False)]))
    assert "judged on different tasks, so that their returns are not compared" in page.text
    assert "probability of improvement" not in page.text


def with_curve(study_: Study, name: str, seed: int, returns: list[float]) -> Study:
    curve = Curve(np.array([0.0, 100.0]), np.array(returns)[:, None])
    config = study_.config.replace("seed: 1", f"seed: {seed}")
    return replace(study_, name=name, config=config, curves=Run(name, curve, {}))


def test_seeds_of_one_configuration_are_one_learning_curve(guess: Study) -> None:
    studies = [with_curve(guess, f"s{seed}", seed, [0.0, float(seed)]) for seed in (1, 2, 3)]
    assert [len(group) for group in by_configuration(studies)] == [3]
    (shown,) = learning_over_seeds(studies)
    assert "toy_algorithm:Toy (3 seeds) 2.00" in shown.alt


def test_curves_of_different_lengths_meet_where_all_have_values() -> None:
    at, returns = on_common_steps(
        [(np.array([0.0, 10.0]), np.array([0.0, 10.0])), (np.array([2.0, 4.0, 20.0]), np.array([2.0, 4.0, 20.0]))]
    )
    assert (at[0], at[-1]) == (2.0, 10.0)
    np.testing.assert_allclose(returns, np.stack([at, at]))


# --- the command -------------------------------------------------------------------------------------


def test_report_writes_one_page(tmp_path: Path) -> None:
    run = tmp_path / "my<b>run"
    shutil.copytree(PEARL_RUN, run)
    options = ["--local", "--tasks", "3", "--no-grids", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["report", str(run), *options])
    assert done.exit_code == 0, done.output
    html = (tmp_path / "out" / "report.html").read_text()
    page = Page(html)
    assert "my<b>run" in page.text
    assert "Calibration of the posterior" in page.text
    assert len(html) < MOST_BYTES


def test_report_without_a_run_says_so() -> None:
    done = CliRunner().invoke(app, ["report", "seed=3"])
    assert done.exit_code == 2
    assert "give at least one run directory" in done.stderr


def test_compare_judges_runs_on_the_first_run_s_tasks(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(PEARL_RUN, other)
    stored = other / "config.yaml"
    stored.write_text(stored.read_text().replace("seed: 1", "seed: 9"))
    options = ["--local", "--tasks", "3", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["compare", str(PEARL_RUN), str(other), *options])
    assert done.exit_code == 0, done.output
    assert "better on a task with probability 0.50" in " ".join(done.stdout.split())
    assert (tmp_path / "out" / "comparison.png").is_file()
    assert load_run(other).config.seed == 9
