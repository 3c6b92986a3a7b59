"""Evaluation: what it computes, what it writes, what it must not touch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.errors import ConfigError, MetarlError, TaskError
from metarl.evaluation.evaluate import Evaluation, evaluate, evaluation_units, summarise
from metarl.rollout.local import LocalExecutor
from metarl.rollout.seeds import evaluation_tasks, evaluation_unit
from metarl.rollout.types import RoundPlan, TrialBatch, TrialPlan, Unit, Weights
from metarl.runs.records import evaluation_record
from metarl.tasks import SPLITS, Anchors, Choice, Parameter, Split, Task
from tests.guess import PLAN, Guess, GuessEnv, GuessPair, GuessPolicy, tasks_of, weights
from tests.toy import number

Run = Callable[..., Evaluation]
KEYS = {
    "last_minus_first", "anchors", "deterministic", "distribution", "env_steps", "episodes_per_round", "notes",
    "iteration", "num_tasks", "per_task", "rounds", "seed", "split", "splits_coincide", "success_rates", "is_whole",
    "adapts", "measures", "blank", "gain_over_blank",
}  # fmt: skip


class Recorder(LocalExecutor):
    """Keeps the units it was given."""

    units: tuple[Unit, ...] = ()

    def collect(self, units: Sequence[Unit], weights: Weights, version: int) -> list[TrialBatch]:
        self.units = tuple(units)
        return super().collect(units, weights, version)


def record(seed: int, split: Split = "test", tasks_per_unit: int = 5) -> tuple[Unit, ...]:
    executor = Recorder(Guess(), GuessPolicy())
    evaluate(executor, Guess(), PLAN, weights(), split=split, num_tasks=12, seed=seed, tasks_per_unit=tasks_per_unit)
    return executor.units


# --- what is computed --------------------------------------------------------------------------------


def summary(goals: Sequence[float], returns: np.ndarray, distribution: Guess | None = None) -> Evaluation:
    distribution = distribution or Guess()
    plan = replace(PLAN, num_streams=returns.shape[2])
    return summarise(distribution, plan, "test", tasks_of(distribution, goals), returns, env_steps=0, seed=0)


def test_scores_are_those_worked_out_by_hand() -> None:
    # tasks' means before: -3 and -1, mean -2; after: -1 and -0.5, mean -0.75
    returns = np.array([[[-4.0, -2.0], [-1.0, -1.0]], [[-1.0, -1.0], [-0.75, -0.25]]])
    result = summary((-0.25, 0.25), returns)
    before, after = result.rounds
    assert (before.mean, after.mean) == (-2.0, -0.75)
    assert (before.iqm, after.iqm) == (-2.0, -0.75)
    assert (before.cvar5, after.cvar5) == (-4.0, -1.0)  # the worst of four episodes
    # anchors of the toy: task-blind -0.75, expert 0: (-2 + 0.75) / 0.75 = -5 / 3 and 0
    assert before.normalised == pytest.approx(-5 / 3)
    assert after.normalised == 0.0
    assert result.last_minus_first is not None
    assert result.last_minus_first.mean == 1.25  # (2 + 0.5) / 2
    assert [score.returns for score in result.per_task] == [(-3.0, -1.0), (-1.0, -0.5)]


def test_gain_is_paired_per_task() -> None:
    # tasks differ by thousands, each gains between 0.9 and 1.1: unpaired, the interval would span thousands
    rng = np.random.default_rng(0)
    before = rng.normal(0, 5000, size=(1, 30, 1))
    gains = rng.uniform(0.9, 1.1, size=(1, 30, 1))
    result = summary(tuple(rng.uniform(-0.5, 0.5, 30)), np.concatenate([before, before + gains]))
    assert result.last_minus_first is not None
    low, high = result.last_minus_first.ci95
    assert 0.9 < low < result.last_minus_first.mean < high < 1.1
    assert result.rounds[0].ci95[1] - result.rounds[0].ci95[0] > 1000


def test_repeated_tasks_are_joined_and_weigh_the_same() -> None:
    # -0.5 comes up twice: its mean is (1 + 3) / 2 = 2; with 0.5 at 8 the mean is 5, not (1 + 3 + 8) / 3 = 4
    returns = np.array([[[1.0], [8.0], [3.0]]] * 2)
    result = summary((-0.5, 0.5, -0.5), returns, GuessPair())
    assert result.rounds[0].mean == 5.0
    assert [(score.label, score.episodes) for score in result.per_task] == [("goal=-0.5", 2), ("goal=0.5", 1)]
    assert result.num_tasks == 3


def test_an_interval_over_all_tasks_of_a_family_holds_their_noise_alone() -> None:
    rng = np.random.default_rng(0)
    returns = np.array([0.0, 10.0] * 10)[None, :, None] + rng.normal(size=(2, 20, 5))
    result = summary((-0.5, 0.5) * 10, returns, GuessPair())
    low, high = result.rounds[0].ci95
    assert low < result.rounds[0].mean < high
    assert high - low < 2 * 1.96 / np.sqrt(100) * 1.5  # 100 episodes of standard deviation 1; the tasks are 10 apart
    assert any("All tasks of the family" in note for note in result.notes)


def test_adaptation_of_the_toy_shows_as_gain(run: Run) -> None:
    result = run(GuessPair(), num_tasks=20)
    assert result.last_minus_first is not None
    assert result.last_minus_first.is_above_zero
    assert result.rounds[1].mean > result.rounds[0].mean


@pytest.mark.parametrize("is_deterministic", [False, True])
def test_only_rounds_that_act_alike_are_subtracted(run: Run, is_deterministic: bool) -> None:
    first, last = PLAN.rounds
    result = run(plan=replace(PLAN, rounds=(first, replace(last, deterministic=is_deterministic))))
    measures = result.measures
    assert measures is not None
    is_alike = is_deterministic == first.deterministic
    assert (result.last_minus_first is not None, measures.area is not None) == (is_alike, is_alike)
    assert ("gain" in evaluation_record(result, 0, 0.0, 0.0)) == is_alike


def test_without_noise_the_return_is_the_distance_times_the_horizon(run: Run) -> None:
    result = run(noise=0.0)
    for score in result.per_task:
        goal = score.task["goal"]
        assert isinstance(goal, float)
        assert score.returns == pytest.approx((-3 * abs(goal), -3 * abs(goal)), abs=1e-6)  # horizon 3, guess 0


def test_all_environment_steps_are_counted(run: Run) -> None:
    assert run().env_steps == 12 * 4 * 2 * 3  # tasks x streams x rounds x horizon


# --- what it says ------------------------------------------------------------------------------------


def test_a_two_task_family_says_that_it_shows_no_generalisation(run: Run) -> None:
    result = run(GuessPair())
    assert result.splits_coincide
    assert result.notes[0] == (
        "Train and test tasks coincide: two-task family, shows adaptation but no generalisation to new tasks."
    )
    assert "12 trials on 2 distinct tasks: each distinct task weighs the same." in result.notes


def test_validation_tasks_that_are_training_tasks_are_named(run: Run) -> None:
    assert run(GuessPair(), split="validation").notes[0].startswith("Train, validation and test tasks coincide: two-")

    class GuessBetween(GuessPair):
        parameters = (Parameter("goal", Choice((-0.5, 0.5)), test=Choice((0.0, 0.1))),)

    coinciding = "Train and validation tasks coincide: the training range is finite."
    assert run(GuessBetween(), split="validation").notes[0] == coinciding
    assert coinciding not in run(GuessBetween()).notes
    assert run(split="validation").notes == ()


def test_held_out_tasks_need_no_note(run: Run) -> None:
    result = run()
    assert not result.splits_coincide
    assert result.notes == ()


def test_training_tasks_single_tasks_and_single_rounds_are_named(run: Run) -> None:
    assert "One task" in run(num_tasks=1).notes[0]
    one_round = replace(PLAN, rounds=(RoundPlan("query"),))
    assert "One round" in run(plan=one_round).notes[0]
    assert run(plan=one_round).last_minus_first is None
    assert run(split="train").notes == ("Tasks drawn anew from the training split: not those that a run trained on.",)


def test_given_training_tasks_are_evaluated_on_and_named() -> None:
    given = tasks_of(Guess(), (0.1, -0.2))
    executor = Recorder(Guess(), GuessPolicy())
    result = evaluate(
        executor, Guess(), PLAN, weights(), split="train", num_tasks=2, seed=0, tasks_per_unit=1, trained_on=given
    )
    assert [unit.tasks for unit in executor.units] == [given[:1], given[1:]]
    assert result.notes[0] == "Evaluated on tasks that the run trained on: shows no generalisation to new tasks."


@pytest.mark.parametrize(
    ("goals", "shape", "why"),
    [
        ((0.1,), (1, 1), "One episode per round"),
        ((-0.5, 0.5), (2, 1), "One trial per task"),
    ],
)
def test_intervals_of_unknown_spread_carry_a_note(goals: tuple[float, ...], shape: tuple[int, int], why: str) -> None:
    distribution = Guess() if len(goals) == 1 else GuessPair()
    result = summary(goals, np.random.default_rng(0).normal(size=(2, *shape)), distribution)
    low, high = result.rounds[0].ci95
    assert low == high
    assert result.notes[-1] == f"{why}: intervals have no width where the spread is unknown."


@pytest.mark.parametrize("num_tasks", [1, 3, 12])
@pytest.mark.parametrize("score", [0.0, -2.7, 1e-5])
def test_intervals_over_equal_scores_carry_a_note(num_tasks: int, score: float) -> None:
    result = summary(tuple(np.linspace(-0.5, 0.5, num_tasks)), np.full((2, num_tasks, 3), score))
    assert result.notes[-1] == "Where an interval has no width all scores that it resamples are equal."


def test_a_gain_that_is_the_same_on_every_task_carries_the_note_and_intervals_with_width_none() -> None:
    before = np.random.default_rng(0).normal(size=(1, 12, 2))
    same_gain, other = (np.concatenate([before, before + gain]) for gain in (1.0, before**2))
    goals = tuple(np.linspace(-0.5, 0.5, 12))
    assert "no width" in summary(goals, same_gain).notes[-1]
    assert summary(goals, other).notes == ()


def test_a_difference_in_how_actions_are_taken_is_named(run: Run) -> None:
    plan = replace(PLAN, rounds=(RoundPlan("support"), RoundPlan("query", deterministic=True)))
    assert run(plan=plan).notes == (
        "The first round takes sampled actions, the last mean ones: their difference is no gain.",
    )


def test_anchors_normalise_only_where_they_hold(run: Run) -> None:
    assert run().rounds[0].normalised is not None
    assert run(GuessPair()).rounds[0].normalised is None  # no anchors
    outside = run(split="ood")
    assert outside.rounds[0].normalised is None
    assert "training range" in outside.notes[0]
    shorter = run(plan=replace(PLAN, horizon=2))
    assert shorter.rounds[0].normalised is None
    assert "2 steps" in shorter.notes[0]


def test_how_judged_actions_are_taken_is_recorded(run: Run) -> None:
    assert run().deterministic is False
    means = replace(PLAN, rounds=(RoundPlan("support"), RoundPlan("query", deterministic=True)))
    assert run(plan=means).deterministic is True


# --- success ------------------------------------------------------------------------------------------


class NearEnv(GuessEnv):
    """Reports success at steps whose action is within 0.1 of the goal, as Meta-World does: 0.0 or 1.0."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, {"success": float(reward > -0.1)}


class GuessNear(Guess):
    def make(self, task: Task) -> NearEnv:
        return NearEnv(number(task["goal"]))


def test_the_success_rate_is_the_share_of_episodes_with_a_successful_step_each_task_weighing_the_same(run: Run) -> None:
    result = run(GuessNear(), num_tasks=12, noise=0.2)
    executor = LocalExecutor(GuessNear(), GuessPolicy())
    units = evaluation_units(GuessNear(), PLAN, "test", 12, 3, 5)
    rounds = [trial.rounds for trial in executor.collect(units, weights(noise=0.2), 0)]
    for r in range(2):
        succeeded = np.concatenate([(each[r].rewards > -0.1).any(axis=2) for each in rounds])
        assert result.success_rates is not None
        assert 0 < succeeded.mean() < 1
        assert result.success_rates[r] == pytest.approx(succeeded.mean())
    assert result.rounds == run(noise=0.2).rounds  # it changes nothing else


class Boastful(NearEnv):
    """Reports success where there is one, and nothing else."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        *answer, info = super().step(action)
        return *answer, info if info["success"] else {}  # type: ignore[return-value]


class GuessBoastful(Guess):
    def make(self, task: Task) -> Boastful:
        return Boastful(number(task["goal"]))


@pytest.mark.parametrize("tasks_per_unit", [1, 5])
def test_units_in_which_nothing_is_reported_count_as_failures_where_others_report(tasks_per_unit: int) -> None:
    executor = LocalExecutor(GuessBoastful(), GuessPolicy())
    asked = {"split": "test", "num_tasks": 12, "seed": 3, "tasks_per_unit": tasks_per_unit}
    result = evaluate(executor, GuessBoastful(), PLAN, weights(noise=0.2), **asked)  # type: ignore[arg-type]
    usual = evaluate(LocalExecutor(GuessNear(), GuessPolicy()), GuessNear(), PLAN, weights(noise=0.2), **asked)  # type: ignore[arg-type]
    assert result.success_rates == usual.success_rates
    assert 0 < usual.success_rates[0] < 1  # type: ignore[index]


@pytest.mark.parametrize(("num_tasks", "sizes"), [(10, [5, 5]), (11, [5, 6]), (12, [5, 5, 2]), (1, [1])])
def test_no_task_is_left_alone_in_a_unit_where_contexts_are_shuffled(num_tasks: int, sizes: list[int]) -> None:
    plan = replace(PLAN, context="shuffled")
    units = evaluation_units(Guess(), plan, "test", num_tasks, 0, 5)
    assert [len(unit.tasks) for unit in units] == sizes
    own = evaluation_units(Guess(), PLAN, "test", num_tasks, 0, 5)
    assert [t for unit in units for t in unit.tasks] == [t for unit in own for t in unit.tasks]


def test_tasks_that_report_no_success_have_no_rate(run: Run) -> None:
    assert run().success_rates is None


# --- the same seed, other seeds, training's seeds -----------------------------------------------------


def test_the_same_seed_writes_the_same_bytes(run: Run, tmp_path: Path) -> None:
    run().write(tmp_path / "a" / "evaluation.json")
    run().write(tmp_path / "b.json")
    first = (tmp_path / "a" / "evaluation.json").read_bytes()
    assert first == (tmp_path / "b.json").read_bytes()
    run(seed=4).write(tmp_path / "b.json")  # replaces
    assert first != (tmp_path / "b.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.json"]  # no temporary file stays


def test_different_seeds_draw_different_tasks() -> None:
    assert not {t for unit in record(3) for t in unit.tasks} & {t for unit in record(4) for t in unit.tasks}


def test_units_have_the_configured_shape() -> None:
    assert [len(unit.tasks) for unit in record(3)] == [5, 5, 2]
    assert [unit.index for unit in record(3)] == [0, 1, 2]
    assert len({unit.seed for unit in record(3)} | {unit.seed for unit in record(3, "train")}) == 6


def test_no_seed_of_evaluation_is_one_of_training() -> None:
    def state(path: Sequence[int]) -> bytes:  # what a seed path amounts to: numpy pads it with zeros
        return np.random.SeedSequence(list(path)).generate_state(4).tobytes()

    run_seed = 7
    training = {state((run_seed, 0, iteration, unit)) for iteration in range(60) for unit in range(20)}
    evaluation = {state(evaluation_unit(run_seed, split, unit)) for split in SPLITS for unit in range(20)}
    assert len(evaluation) == 80
    assert not training & evaluation
    drawn = {state((split, run_seed, iteration)) for split in range(4) for iteration in range(200)}
    assert not drawn & {state((split, *evaluation_tasks(run_seed))) for split in range(4)}


def test_the_training_tasks_of_no_iteration_are_those_of_an_evaluation_on_the_training_split() -> None:
    evaluated = {task for unit in record(7, "train") for task in unit.tasks}
    for iteration in range(100):
        assert not evaluated & set(Guess().sample("train", 12, (7, iteration)))


def test_weights_are_only_read() -> None:
    given = weights()
    for array in given.values():
        array.flags.writeable = False  # writing would raise
    before = {name: array.copy() for name, array in given.items()}
    evaluate(LocalExecutor(Guess(), GuessPolicy()), Guess(), PLAN, given, split="test", num_tasks=3, seed=0)
    assert given.keys() == before.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])


def test_test_tasks_are_held_out() -> None:
    assert all(Guess().split_of(task) == ("test",) for unit in record(3) for task in unit.tasks)


# --- the file ----------------------------------------------------------------------------------------


def test_json_has_exactly_the_documented_keys(run: Run) -> None:
    content = run(GuessPair()).to_json()
    assert set(content) == KEYS
    assert content["distribution"] == {"name": "GuessPair", "version": 1, "horizon": 3}
    assert [set(score) for score in content["rounds"]] == [{"mean", "iqm", "ci95", "cvar5", "normalised"}] * 2
    assert set(content["per_task"][0]) == {"task", "name", "returns", "episodes", "repeats"}
    assert content["per_task"][0]["task"] == {"goal": -0.5}
    assert set(content["last_minus_first"]) == {"mean", "ci95"}
    assert set(content["anchors"]) == {"nothing", "task_blind", "expert", "source"}
    assert json.loads(json.dumps(content)) == content


def test_what_is_written_is_what_is_loaded(run: Run, tmp_path: Path) -> None:
    for distribution in (Guess(), GuessPair()):
        result = run(distribution)
        result.write(tmp_path / "evaluation.json")
        assert Evaluation.load(tmp_path / "evaluation.json") == result


def test_success_rates_survive_the_file_and_files_without_the_later_keys_are_read(run: Run, tmp_path: Path) -> None:
    result = replace(run(), success_rates=(0.25, 1.0))
    result.write(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json") == result
    content = result.to_json()
    del content["deterministic"], content["success_rates"]
    earlier = Evaluation.from_json(content)
    assert (earlier.deterministic, earlier.success_rates) == (None, None)
    assert earlier.rounds == result.rounds


def test_a_task_of_several_numbers_survives_the_file(run: Run, tmp_path: Path) -> None:
    result = run(num_tasks=1)
    score = replace(result.per_task[0], task={"gains": (1.0, 0.5)})
    replace(result, per_task=(score,), anchors=Anchors(nothing=-1.0)).write(tmp_path / "e.json")
    assert Evaluation.load(tmp_path / "e.json").per_task[0].task == {"gains": (1.0, 0.5)}


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"split": "test"}'])
def test_a_file_that_is_no_evaluation_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(MetarlError, match=r"evaluation\.json: not an evaluation"):
        Evaluation.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetarlError, match="no such evaluation"):
        Evaluation.load(tmp_path / "evaluation.json")


def test_bad_arguments_are_named(run: Run) -> None:
    with pytest.raises(ConfigError, match="tasks_per_unit must be at least 1, got 0"):
        run(tasks_per_unit=0)
    with pytest.raises(TaskError, match="no out-of-distribution range"):
        run(GuessPair(), split="ood")
    with pytest.raises(TaskError, match="at least 1"):
        run(num_tasks=0)


def test_the_plan_is_taken_as_given() -> None:
    plan = TrialPlan(2, 3, (RoundPlan("support"), RoundPlan("support"), RoundPlan("query", deterministic=True)))
    result = evaluate(
        LocalExecutor(Guess(), GuessPolicy()), Guess(), plan, weights(), split="test", num_tasks=4, seed=0
    )
    assert len(result.rounds) == 3
    assert result.episodes_per_round == 2
