"""The bandit references: indices by hand, against the exact optimum, in their order; and the script end to end."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from metarl_envs.tabular import Bandit

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import bandit_regret
from bandit_regret import bayes_optimal_regret, cumulative_regret, gittins, gittins_indices, play, thompson, ucb, ucb1

from metarl.config import load_config
from metarl.rollout.local import LocalExecutor
from metarl.runs.build import load_run
from metarl.training.loop import train

ARMS, PULLS = 2, 10
YAML = """
seed: 3
task_distribution: {name: Bandit, options: {num_arms: 3, horizon: 4}}
algorithm: {name: maml, tasks_per_iteration: 4, num_streams: 5, hidden: [4]}
training: {iterations: 2, evaluate_every: 0, tasks_per_unit: 7}
executor: {backend: local}
device: cpu
"""


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


# --- indices -----------------------------------------------------------------------------------------


def test_with_one_pull_left_the_index_is_the_posterior_mean():
    tables = gittins_indices(12)
    s, f = np.indices(tables[0].shape)
    np.testing.assert_allclose(tables[0], (s + 1) / (s + f + 2), atol=1e-14)
    assert [table.shape for table in tables] == [(12 - left,) * 2 for left in range(12)]


def test_indices_with_two_and_three_pulls_left_by_hand():
    # a fresh arm, two left, 1/3 < l < 2/3: 1/2 - l + 1/2 (2/3 - l) = 0  ->  l = (5/6) / (3/2) = 5/9
    # one success, two left, 1/2 < l < 3/4:  2/3 - l + 2/3 (3/4 - l) = 0  ->  l = (7/6) / (5/3) = 7/10
    # fresh, three left: after a success w = 2/3 - l + 2/3 (3/4 - l) = 7/6 - 5/3 l; after a failure (1/3) go on only
    # where 1/3 - l + 1/3 (1/2 - l) > 0, l < 3/8:  1/2 - l + 1/2 (7/6 - 5/3 l) = 0  ->  l = (13/12) / (11/6) = 13/22
    tables = gittins_indices(3)
    np.testing.assert_allclose(
        [tables[1][0, 0], tables[1][1, 0], tables[2][0, 0]], [5 / 9, 7 / 10, 13 / 22], atol=1e-12
    )


def test_more_pulls_left_make_an_unknown_arm_worth_more_and_a_finer_grid_changes_little():
    tables, fine = gittins_indices(40), gittins_indices(40, num_rates=2048)
    for less, more in itertools.pairwise(tables):  # one pull more left: a table smaller by one
        assert (more >= less[:-1, :-1] - 1e-9).all()
    assert max(np.abs(a - b).max() for a, b in zip(tables, fine, strict=True)) < 1 / bandit_regret.NUM_RATES
    assert 0.7 < tables[39][0, 0] < 0.9


# --- policies ----------------------------------------------------------------------------------------


def exact_return(score: bandit_regret.Score, num_arms: int, num_pulls: int) -> float:
    """The expected return of a deterministic index policy over the prior, by following every outcome."""

    @functools.cache
    def value(s: tuple[int, ...], f: tuple[int, ...]) -> float:
        left = num_pulls - sum(s) - sum(f)
        if left == 0:
            return 0.0
        k = int(score(np.array([s]), np.array([f]), left, generator(0)).argmax())
        p = (s[k] + 1) / (s[k] + f[k] + 2)
        won, lost = ((*counts[:k], counts[k] + 1, *counts[k + 1 :]) for counts in (s, f))
        return p * (1 + value(won, f)) + (1 - p) * value(s, lost)

    return value((0,) * num_arms, (0,) * num_arms)


@pytest.mark.parametrize(("num_arms", "num_pulls"), [(2, 10), (2, 20), (3, 8)])
def test_the_index_policy_is_all_but_optimal(num_arms, num_pulls):
    optimum = Bandit(num_arms, num_pulls).bayes_optimal_return()
    assert 0 <= optimum + 1e-12 - exact_return(gittins(num_pulls), num_arms, num_pulls) < 1e-3 * optimum


def test_the_last_pull_goes_to_the_best_posterior_mean_and_its_return_is_the_optimal_one():
    assert exact_return(gittins(1), 2, 1) == Bandit(2, 1).bayes_optimal_return() == 0.5
    s, f = np.array([[3, 9, 0]]), np.array([[1, 5, 0]])  # means 4/6, 10/16, 1/2
    assert gittins(19)(s, f, 1, generator(0)).argmax() == 0


def test_played_out_the_index_policy_earns_the_optimal_return_and_thompson_lies_between_it_and_chance():
    p = generator(0).random((20_000, ARMS))
    policies = {"gittins": gittins(PULLS), "thompson": thompson, "random": bandit_regret.uniform_random}
    arms = {name: play(score, p, PULLS, generator(1)) for name, score in policies.items()}
    returns = np.take_along_axis(p, arms["gittins"], axis=1).sum(axis=1)
    noise = returns.std() / np.sqrt(len(p))
    assert returns.mean() == pytest.approx(Bandit(ARMS, PULLS).bayes_optimal_return(), abs=4 * noise)
    regrets = {name: cumulative_regret(p, pulled).mean() for name, pulled in arms.items()}
    assert regrets["gittins"] * 1.1 < regrets["thompson"] < regrets["random"] * 0.9
    # chance: H (E max p - 1/2) = 10 (2/3 - 1/2)
    assert regrets["random"] == pytest.approx(10 / 6, abs=0.03)
    assert regrets["gittins"] == pytest.approx(bayes_optimal_regret(ARMS, PULLS), abs=0.02)


def test_ucb1_by_hand_and_every_arm_once_first():
    # t = 4: 2/3 + sqrt(2 ln 4 / 3), 0 + sqrt(2 ln 4 / 1)
    scores = ucb1(np.array([[2, 0]]), np.array([[1, 1]]), 5, generator(0))
    np.testing.assert_allclose(scores, [[2 / 3 + (2 * np.log(4) / 3) ** 0.5, (2 * np.log(4)) ** 0.5]])
    arms = play(ucb1, generator(0).random((50, 4)), 4, generator(1))
    np.testing.assert_array_equal(np.sort(arms, axis=1), np.tile(np.arange(4), (50, 1)))


def test_ucb1_is_tuned_to_explore_less_than_its_bound_does_and_has_less_regret():
    on, judged_on = generator(2).random((600, 5)), generator(3).random((600, 5))
    c = bandit_regret.tuned_ucb(on, 100, seed=0)
    assert 0.05 <= c <= 0.5
    assert bandit_regret.tuned_ucb(on, 100, seed=0) == c
    plain, tuned = (cumulative_regret(judged_on, play(ucb(x), judged_on, 100, generator(4))).mean() for x in (2.0, c))
    assert tuned < plain / 2


def test_regret_by_hand_and_none_for_the_best_arm():
    p = np.array([[0.1, 0.9], [0.5, 0.25]])
    np.testing.assert_allclose(cumulative_regret(p, np.array([[0, 1, 0], [0, 1, 1]])), [1.6, 0.5])
    best = lambda s, f, left, rng: p  # noqa: E731
    np.testing.assert_array_equal(cumulative_regret(p, play(best, p, 30, generator(0))), 0)


def test_play_counts_what_was_paid():
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    seen = []

    def watching(s, f, left, rng):
        seen.append((s.copy(), f.copy(), left))
        return np.array([[1.0, 0.0]] * 2)

    play(watching, p, 3, generator(0))
    np.testing.assert_array_equal(seen[-1][0], [[2, 0], [0, 0]])
    np.testing.assert_array_equal(seen[-1][1], [[0, 0], [2, 0]])
    assert [left for *_, left in seen] == [3, 2, 1]


def test_the_exact_optimum_is_given_where_it_is_quick():
    assert bayes_optimal_regret(5, 100) is None
    assert bayes_optimal_regret(2, 10) == pytest.approx(20 / 3 - Bandit(2, 10).bayes_optimal_return())


# --- the script --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bandit")
    (folder / "config.yaml").write_text(YAML)
    train(load_config(folder / "config.yaml"), folder / "run", LocalExecutor)
    return folder / "run"


def test_a_trial_of_the_run_is_one_bandit_of_all_rounds_on_held_out_tasks(run):
    trained = load_run(run)
    p, arms = bandit_regret.pulls_of_run(trained, 10, seed=5)
    assert arms.shape == (10, 2 * 4)  # maml: a support and a query round of four pulls
    assert set(np.unique(arms)) <= {0, 1, 2}
    tasks = trained.distribution.sample("test", 10, (5, 1, 1))
    np.testing.assert_array_equal(p, [task["probabilities"] for task in tasks])
    again = bandit_regret.pulls_of_run(trained, 10, seed=5)
    np.testing.assert_array_equal(again[1], arms)


def test_the_command_line_prints_a_table_and_the_regrets_as_its_last_line(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bandit_regret.py", str(run), "--tasks", "40"])
    bandit_regret.main()
    lines = capsys.readouterr().out.splitlines()
    assert any("Thompson" in line for line in lines[:-1])
    document = json.loads(lines[-1])
    assert (document["num_tasks"], document["num_arms"], document["num_pulls"]) == (40, 3, 8)
    tuned = f"UCB1, c = {document['tuned_c']:g}"
    assert list(document["regret"]) == ["run: maml", "uniform random", "UCB1", "Thompson", "Gittins", tuned]
    for score in document["regret"].values():
        assert 0 < score["ci95"][0] < score["mean"] < score["ci95"][1]
    assert document["bayes_optimal_regret"] == bayes_optimal_regret(3, 8)


def test_without_a_run_the_references_are_played_on_the_same_tasks(run, monkeypatch, capsys):
    documents = []
    for given in ([str(run)], ["--arms", "3", "--pulls", "8"]):
        monkeypatch.setattr(sys, "argv", ["bandit_regret.py", *given, "--tasks", "40", "--seed", "3"])
        bandit_regret.main()
        documents.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    of_run, alone = documents
    assert next(iter(of_run["regret"])) == "run: maml"
    assert alone["regret"] == {name: score for name, score in of_run["regret"].items() if name != "run: maml"}
    assert alone["tuned_c"] == of_run["tuned_c"]


def test_a_run_on_other_tasks_is_refused(tmp_path, monkeypatch, capsys):
    text = YAML.replace("{name: Bandit, options: {num_arms: 3, horizon: 4}}", "{name: PointGoal}")
    (tmp_path / "config.yaml").write_text(text.replace("iterations: 2", "iterations: 1"))
    train(load_config(tmp_path / "config.yaml"), tmp_path / "run", LocalExecutor)
    for path, message in ((tmp_path / "run", "PointGoal; allowed: Bandit"), (tmp_path, "is not a run directory")):
        if path == tmp_path:
            (tmp_path / "config.yaml").unlink()
        monkeypatch.setattr(sys, "argv", ["bandit_regret.py", str(path)])
        with pytest.raises(SystemExit):
            bandit_regret.main()
        assert message in capsys.readouterr().err
