"""Videos: they show the trials that evaluations judge, of every environment that renders and of those that do not."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.errors import ConfigError, EnvironmentFault
from metarl.report.video.files import add_to_tensorboard, write_video
from metarl.report.video.film import Belief, Clip, Film, film, film_ablation
from metarl.report.video.headless import choose_opengl, opengl, works
from metarl.report.video.panels import pictures
from metarl.rollout import seeds
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import Context, Unit
from metarl.runs.build import TrainedRun, load_run
from metarl.tasks import Choice, InDisc, LogUniform, Mixture, Parameter, Prior, Task, TaskDistribution, Uniform
from metarl.tasks.middle import middle
from metarl.tasks.rendering import rendering_batch

PEARL_RUN = Path(__file__).parents[2] / "experiments" / "pretrained" / "point_goal_pearl"


@pytest.fixture(scope="module")
def trained() -> TrainedRun:
    return load_run(PEARL_RUN, ["evaluation.episodes=2"])


# --- what is filmed ----------------------------------------------------------------------------------


def test_a_film_shows_the_trial_that_an_evaluation_of_the_same_tasks_judges(trained: TrainedRun) -> None:
    tasks = trained.distribution.sample("test", 2, 5)
    shown = film(trained, tasks, "test", "ends")
    plan = trained.algorithm.evaluation_plan(trained.distribution.horizon, trained.config.evaluation.settings)
    unit = Unit(0, tasks, plan, seeds.evaluation_unit(trained.config.seed, "test", 0))
    executor = LocalExecutor(trained.distribution, trained.algorithm.policy)
    (trial,) = executor.collect([unit], trained.algorithm.weights(), 0)
    for k, row in enumerate(shown.rows):
        for clip, episodes in zip(row, (trial.rounds[0], trial.rounds[-1]), strict=True):
            np.testing.assert_array_equal(clip.rewards, episodes.rewards[k, 0, : clip.length])
            assert clip.task == tasks[k]


def test_an_ablation_shows_the_same_task_with_its_context_and_without(trained: TrainedRun) -> None:
    tasks = trained.distribution.sample("test", 3, 5)
    shown = film_ablation(trained, tasks, "test", every=20)
    contexts: tuple[Context, ...] = ("own", "blank")
    for column, context in enumerate(contexts):
        alone = film(trained, tasks, "test", "last", every=20, context=context)
        for k, row in enumerate(alone.rows):
            np.testing.assert_array_equal(shown.rows[k][column].rewards, row[0].rewards)
    own, blank = (sum(float(row[i].rewards.sum()) for row in shown.rows) for i in (0, 1))
    assert own > blank + 10


def test_pictures_are_taken_every_few_steps_and_at_the_start(trained: TrainedRun) -> None:
    shown = film(trained, trained.distribution.sample("test", 1, 5), "test", "last", every=5)
    (clip,) = shown.rows[0]
    assert clip.length == 20
    assert clip.steps == (0, 5, 10, 15, 20)
    assert all(frame.shape == (240, 320, 3) and frame.dtype == np.uint8 for frame in clip.frames)
    assert not np.array_equal(clip.frames[0], clip.frames[-1])


def test_the_belief_is_the_prior_before_adaptation_and_the_posterior_after(trained: TrainedRun) -> None:
    shown = film(trained, trained.distribution.sample("test", 1, 5), "test", "ends")
    before, after = (clip.belief for clip in shown.rows[0])
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.std, 1.0)
    np.testing.assert_array_equal(before.mean, 0.0)
    assert after.std.min() < 0.5


def test_rounds_that_are_no_choice_are_refused(trained: TrainedRun) -> None:
    with pytest.raises(ConfigError, match="unknown rounds to film 'first'; allowed: all, ends, last"):
        film(trained, trained.distribution.sample("test", 1, 5), "test", "first")


class ColourEnv(gymnasium.Env):
    """Renders the level of grey that its task names, where it is told how to."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, grey: float, render_mode: str | None = None):
        self.grey, self.render_mode = grey, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros(1), 0.0, False, False, {}

    def render(self) -> np.ndarray:
        assert self.render_mode == "rgb_array"
        return np.full((24, 32, 3), self.grey, np.uint8)


class Colours(TaskDistribution):
    name = "Colours"
    parameters = (Parameter("grey", Uniform(0.0, 255.0)),)
    horizon = 4

    def make(self, task: Task) -> gymnasium.Env:
        return ColourEnv(task["grey"])  # type: ignore[arg-type]


class ColoursWithMode(Colours):
    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        return ColourEnv(task["grey"], render_mode)  # type: ignore[arg-type]


class NoPictures(Colours):
    def make(self, task: Task) -> gymnasium.Env:
        env = ColourEnv(task["grey"])  # type: ignore[arg-type]
        env.metadata = {"render_modes": []}
        return env


@pytest.mark.parametrize("family", [Colours(), ColoursWithMode()])
def test_an_environment_that_renders_is_pictured_whether_or_not_make_takes_a_mode(family: TaskDistribution) -> None:
    batch = rendering_batch(family, [family.task(grey=7.0), family.task(grey=9.0)])
    batch.reset(seed=0)
    for index, grey in enumerate((7, 9)):
        frame = batch.render_frame(index)
        assert frame is not None
        assert (frame == grey).all()
    batch.close()


def test_an_environment_without_a_renderer_has_no_picture() -> None:
    family = NoPictures()
    batch = rendering_batch(family, [family.task(grey=7.0)])
    assert batch.render_frame() is None
    assert Colours().make_batch([family.task(grey=7.0)]).render_frame() is None


def test_a_render_that_gives_no_picture_names_the_task() -> None:
    class Broken(ColoursWithMode):
        def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
            env = super().make(task, render_mode)
            env.render = lambda: None  # type: ignore[method-assign]
            return env

    batch = rendering_batch(Broken(), [Broken().task(grey=3.0)])
    with pytest.raises(EnvironmentFault, match=r"Colours\(grey=3\): render .* returned NoneType"):
        batch.render_frame()


# --- what is drawn -----------------------------------------------------------------------------------


def clip(name: str, length: int, frames: int, belief: Belief | None = None) -> Clip:
    taken = tuple(range(frames))
    shots = tuple(np.full((12, 16, 3), 10 * step, np.uint8) for step in taken)
    task = Task.of("T", {"mass": 1.0})
    return Clip(task, 0, name, taken, shots, np.linspace(-1, 1, length), np.zeros((length, 9)), belief)


@pytest.mark.parametrize("frames", [0, 5])
@pytest.mark.parametrize("belief", [None, Belief(np.linspace(-4, 4, 40), np.ones(40))])
def test_every_picture_has_one_even_size(frames: int, belief: Belief | None) -> None:
    shown = Film(((clip("a", 4, frames, belief), clip("b", 2, frames)),), 1, 20.0, "between", "test")
    drawn = list(pictures(shown, "<a title> " * 30))
    sizes = {picture.shape for picture in drawn}
    assert len(sizes) == 1
    height, width, _ = sizes.pop()
    assert (height % 2, width % 2) == (0, 0)
    assert len(drawn) == 5 + 12  # steps 0 to 4, and the end held


def test_the_picture_changes_with_the_steps() -> None:
    shown = Film(((clip("a", 4, 5),),), 1, 20.0, "between", "test")
    drawn = list(pictures(shown, "title"))
    assert all(not np.array_equal(one, next_one) for one, next_one in itertools.pairwise(drawn[:5]))


def test_the_step_at_which_the_task_changes_is_marked() -> None:
    plain = clip("a", 20, 5)
    marks = []
    for step in (None, 9.5):
        shown = Film(((replace(plain, change_step=step),),), 1, 20.0, "between", "test")
        picture = next(iter(pictures(shown, "title"))).astype(int)
        is_red = (picture[..., 0] > 180) & (picture[..., 2] < 60)
        marks.append(np.flatnonzero(is_red[-60:].sum(axis=0) > 30))  # columns of the chart of rewards
    assert marks[0].size == 0
    np.testing.assert_allclose(marks[1], 8 + 1 + 10 / 19 * 317, atol=1)


# --- files -------------------------------------------------------------------------------------------

FRAMES = [np.full((16, 32, 3), level, np.uint8) for level in (0, 120, 240)]


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_video_holds_its_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"video{suffix}"
    if suffix == ".gif":
        assert write_video(FRAMES, path, 10.0) == 3
        found = [frame[..., :3] for frame in imageio.imread(path)]
    else:
        imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
        assert write_video(FRAMES, path, 10.0) == 3
        decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        found = list(np.frombuffer(subprocess.run(decode, capture_output=True).stdout, np.uint8).reshape(-1, 16, 32, 3))
    assert [round(float(frame.mean()) / 120) for frame in found] == [0, 1, 2]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_name_that_is_no_video_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one of \.mp4, \.gif"):
        write_video(FRAMES, Path("video.avi"), 10.0)


def test_tensorboard_shows_the_video(tmp_path: Path) -> None:
    add_to_tensorboard(FRAMES, 10.0, tmp_path, "videos/grid", 7)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (image,) = events.Images("videos/grid")
    assert (image.step, image.width, image.height) == (7, 32, 16)
    assert image.encoded_image_string.startswith(b"GIF")


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture
def _has_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if one worked, which these tasks do not need."""
    monkeypatch.setenv("MUJOCO_GL", "egl")


@pytest.mark.usefixtures("_has_opengl")
def test_record_writes_a_video_and_says_where(tmp_path: Path) -> None:
    out = tmp_path / "adapting.gif"
    options = ["--task", "goal=[0.5,-0.5]", "--view", "before-after", "--every", "10", "evaluation.episodes=1"]
    done = CliRunner().invoke(app, ["record", str(PEARL_RUN), "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    assert str(out) in done.stdout
    assert imageio.imread(out).shape[0] >= 3


@pytest.mark.slow
def test_a_simulated_robot_is_filmed_without_a_screen_or_the_reason_is_given(tmp_path: Path) -> None:
    """In a process of its own: what draws is chosen before mujoco is imported."""
    run, out = PEARL_RUN.with_name("half_cheetah_dir_rl2"), tmp_path / "robot.gif"
    words = [sys.executable, "-m", "metarl", "record", str(run), "--every", "100", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    if choose_opengl_here():
        assert done.returncode == 0, done.stderr
        frames = imageio.imread(out)
        assert frames.shape[0] >= 3
        assert len(np.unique(frames[0].reshape(-1, frames.shape[-1]), axis=0)) > 100  # a picture, not a blank
    else:
        assert done.returncode == 2
        assert "neither EGL nor OSMesa works" in done.stderr


def choose_opengl_here() -> bool:
    return any(works(backend) for backend in ("egl", "osmesa"))


@pytest.mark.usefixtures("_has_opengl")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--view", "sideways"], "--view sideways: allowed: episodes, before-after, grid, ablation"),
        (["--task", "goal=[0,0]", "--split", "ood"], "--task and --split exclude each other"),
        (["--out", "x.png"], "a video's name ends with one of .mp4, .gif"),
    ],
)
def test_wrong_options_of_record_end_with_what_is_allowed(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["record", str(PEARL_RUN), *options])
    assert done.exit_code == 2
    assert message in done.stderr


# --- OpenGL ------------------------------------------------------------------------------------------


@pytest.fixture
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")  # so that it is put back
    monkeypatch.delenv("DISPLAY", raising=False)


@pytest.mark.usefixtures("_headless")
def test_the_first_opengl_that_works_is_chosen() -> None:
    assert choose_opengl(lambda name: name == "osmesa") == "osmesa"


@pytest.mark.usefixtures("_headless")
def test_a_choice_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert choose_opengl(lambda name: True) == "glfw"


@pytest.mark.usefixtures("_headless")
def test_without_any_opengl_the_error_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"neither EGL nor OSMesa works. Install one of them"):
        choose_opengl(lambda name: False)


@pytest.mark.parametrize("error", [EnvironmentFault("cannot render Point(1)"), EnvironmentFault("reward is NaN")])
def test_only_what_fails_to_render_asks_for_opengl(error: EnvironmentFault) -> None:
    def none_here() -> str | None:
        raise ConfigError("neither EGL nor OSMesa works")

    with opengl(none_here):
        pass  # environments that draw by other means
    expected = ConfigError if "render" in str(error) else EnvironmentFault
    with pytest.raises(expected), opengl(none_here):
        raise error


@pytest.mark.slow
def test_a_contact_sheet_is_drawn_without_a_screen_or_the_reason_is_given(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "metarl", "tasks", "check", "HalfCheetahVel", "--sheet", str(tmp_path / "a.png")]
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    if choose_opengl_here():
        assert done.returncode == 0, done.stderr
        assert len(np.unique(imageio.imread(tmp_path / "a.png").reshape(-1, 3), axis=0)) > 100
    else:
        assert done.returncode == 2
        assert "neither EGL nor OSMesa works" in done.stderr


# --- the middle of a range ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "value"),
    [
        (Uniform(1.0, 3.0), 2.0),
        (Uniform(-1.0, 1.0, 2), (0.0, 0.0)),
        (LogUniform(0.5, 2.0), 1.0),
        (Choice((-1.0, 0.0, 5.0)), -1.0),
        (Mixture(Uniform(0.0, 1.0), Uniform(5.0, 6.0)), 0.5),
        (InDisc(2.0), (-1.0, 0.0)),
    ],
)
def test_the_middle_of_a_prior_lies_in_it(prior: Prior, value: Any) -> None:
    assert middle(prior) == pytest.approx(value)
    assert prior.contains(middle(prior))
