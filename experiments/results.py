"""Writes experiments/RESULTS.md: the text of results/RESULTS.md.jinja, every figure from the files kept beside it.

    python experiments/results.py [--check]

`--check` writes nothing: it ends with 0 where RESULTS.md is what the files give, with 1 and the first difference where
it is not. The files of results/ come from `measure.py`, those of pretrained/ from training.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from metarl.config import load_config
from metarl.config.schema import TrainingConfig
from metarl.evaluation import aggregate
from metarl.evaluation.statistics import seed_ci95

HERE = Path(__file__).parent
PAGE = HERE / "RESULTS.md"
TEMPLATE = "RESULTS.md.jinja"


@dataclass(frozen=True)
class Kept:
    """One file of results/: what was run, where, and what came of it."""

    name: str
    content: dict[str, Any]

    @property
    def result(self) -> Any:
        return self.content["result"]

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Of an evaluation: `mean`, `ci95`, `iqm`, `cvar5`, `normalised` of each round."""
        rounds: list[dict[str, Any]] = self.result["rounds"]
        return rounds

    @property
    def first(self) -> dict[str, Any]:
        return self.rounds[0]

    @property
    def last(self) -> dict[str, Any]:
        return self.rounds[-1]

    @property
    def difference(self) -> dict[str, Any]:
        """Of an evaluation: last minus first round, paired per task."""
        difference: dict[str, Any] = self.result["last_minus_first"]
        return difference

    @property
    def gain(self) -> dict[str, Any]:
        """Of an evaluation: over the same policy with its context kept blank, paired per task."""
        gain: dict[str, Any] = self.result["gain_over_blank"]
        return gain

    @property
    def run(self) -> dict[str, Any]:
        """What training did: `iteration`, `env_steps`, `wall_s`, `seed`, `evaluations` on the way."""
        run: dict[str, Any] = self.content["run"]
        return run


# --- what the template calls -------------------------------------------------------------------------


def kept(name: str) -> Kept:
    """The file results/NAME.json."""
    return Kept(name, json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8")))


def kept_of(kind: str) -> list[str]:
    """The names of all results that begin so, in order."""
    return sorted(path.stem for path in (HERE / "results").glob(f"{kind}*.json"))


def published(what: str) -> dict[str, Any]:
    """Figures that others have published, with their source, from results/published.json."""
    figures: dict[str, Any] = json.loads((HERE / "results" / "published.json").read_text(encoding="utf-8"))
    return dict(figures[what])


def checkpoint(run: str) -> dict[str, Any]:
    """What a pretrained run's checkpoint says of its training: `iteration`, `env_steps`, `wall_s`, `seed`."""
    (folder,) = (HERE / "pretrained" / run / "checkpoints").iterdir()
    return {"iteration": int(folder.name), **json.loads((folder / "meta.json").read_text(encoding="utf-8"))}


def training_of(name: str) -> TrainingConfig:
    """The section `training` of a configuration."""
    return load_config(name).training


def source(*names: str) -> str:
    """The commands of some results as a block of code, and below it where they were run."""
    contents = [kept(name).content for name in names]
    commands = dict.fromkeys(command for content in contents for command in content["commands"])
    seeds = {c["result"]["seed"] for c in contents if "seed" in c["result"]}
    loads = sorted(content["load"] for content in contents)
    parts = [f"seed {' and '.join(map(str, sorted(seeds)))}"] if seeds else []
    commits = dict.fromkeys(content["commit"] for content in contents)
    parts.append(f"commit{'s' * (len(commits) > 1)} {', '.join(commits)}")
    parts += dict.fromkeys(f"{c['processor']} with {c['num_processors']} processors" for c in contents)
    parts.append(f"load average {loads[0]:g}" + (f" to {loads[-1]:g}" if loads[-1] > loads[0] else ""))
    measured = textwrap.fill(f"Measured with {'; '.join(parts)}.", 120)
    return "\n".join([*(f"    {command}" for command in commands), "", measured])


def number(value: float, digits: int | None = None) -> str:
    """`digits` decimals; by default one from 100 on none, from 10 on one, below two."""
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    # sums differ in their last bits between processors: a value halfway between two texts is rounded the same on each
    text = f"{round(value, 10):.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def interval(bounds: Sequence[float], digits: int | None = None) -> str:
    """`[low, high]`, both with as many decimals as the larger bound asks for."""
    if digits is None:
        largest = max(map(abs, bounds))
        digits = 0 if largest >= 100 else 1 if largest >= 10 else 2
    return f"[{number(bounds[0], digits)}, {number(bounds[1], digits)}]"


def spread(score: dict[str, Any]) -> str:
    """`mean [low, high]` of a round or a gain."""
    return f"{number(score['mean'])} {interval(score['ci95'])}"


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits."""
    return f"{float(f'{value:.10g}'):.{digits}g}"


def thousands(value: float, digits: int = 3) -> str:
    """61,300: `digits` significant digits and separators."""
    return f"{round(value, digits - 1 - math.floor(math.log10(abs(value)))):,.0f}" if value else "0"


def millions(value: float) -> str:
    """12.3 M."""
    return f"{value / 1e6:.{2 if value < 1e7 else 1}f} M"


def share_of_expert(value: float, anchors: dict[str, float]) -> float:
    """0: the best policy that cannot know the task; 1: the expert that knows it."""
    return (value - anchors["task_blind"]) / (anchors["expert"] - anchors["task_blind"])


def below(evaluation: Kept, bound: float) -> int:
    """How many tasks of an evaluation return less after adaptation."""
    return sum(value < bound for value in evaluation.result["last_returns"])


def matrix(names: Sequence[str]) -> np.ndarray:
    """Returns after adaptation [seeds, tasks] of evaluations of several trainings on the same tasks."""
    results = [kept(name).result for name in names]
    tasks = {(r["distribution"]["name"], r["split"], r["seed"], r["num_tasks"]) for r in results}
    assert len(tasks) == 1, f"{names}: evaluated on different tasks: {tasks}"
    return np.array([r.get("last_returns") or [task["returns"][-1] for task in r["per_task"]] for r in results])


def over_seeds(names: Sequence[str]) -> dict[str, Any]:
    """Mean and interquartile mean over seeds and tasks, with the 95 % interval of the mean (`crossed_ci95`): over other
    tasks too, unless these are all that there are."""
    scores = matrix(names)
    mean, iqm = float(aggregate.mean(scores)), float(aggregate.iqm(scores))
    are_drawn = not kept(names[0]).result["splits_coincide"]
    ci95 = aggregate.crossed_ci95(aggregate.mean, scores, tasks_are_drawn=are_drawn)
    return {"mean": mean, "iqm": iqm, "ci95": ci95}


def mean_of(names: Sequence[str], part: str, key: str) -> float:
    """The mean over results of one of their figures, as `run` and `env_steps`."""
    return float(np.mean([getattr(kept(name), part)[key] for name in names]))


def single_of(names: Sequence[str]) -> str:
    """The last round's mean of each result."""
    return ", ".join(number(kept(name).last["mean"]) for name in names)


def improvement(names: Sequence[str], on: Sequence[str]) -> float:
    """The probability that a seed of the first method does better on a task than one of the second."""
    return float(aggregate.probability_of_improvement(matrix(names), matrix(on)))


def regret_over_seeds(names: Sequence[str]) -> dict[str, Any]:
    """Of several trainings judged on the same bandits: `mean`, `ci95` over seeds, the `single` ones, and the mean
    difference to the tuned UCB1's regret there, `less_than_ucb`."""
    results = [kept(name).result for name in names]
    assert len({(r["seed"], r["num_tasks"], r["tuned_c"]) for r in results}) == 1, f"{names}: judged on other bandits"
    ucb = results[0]["regret"][f"UCB1, c = {results[0]['tuned_c']:g}"]["mean"]
    values = [result["regret"]["run: rl2"]["mean"] for result in results]
    less = [value - ucb for value in values]
    return {
        **_mean_over_seeds(values),
        "single": values,
        "less_than_ucb": _mean_over_seeds(less),
    }


def compared_over_seeds(names: Sequence[str]) -> dict[str, Any]:
    """Of comparisons of several trainings: `policies`, `gap` and `recovered`.

    policies: by name the last round's `mean` and `ci95` over seeds, the `single` values, and `changes`, what a change
    in mid-episode did, per seed. gap: `oracle` minus `task_blind`, paired per seed. recovered: by name the share of its
    seed's gap that a policy gets, `mean` and `ci95` over seeds; empty where the gap's interval reaches 0.
    """
    comparisons = [kept(name).result["evaluations"] for name in names]
    last = {policy: [e[policy]["rounds"][-1]["mean"] for e in comparisons] for policy in comparisons[0]}
    gaps = np.subtract(last["oracle"], last["task_blind"])
    gap = _mean_over_seeds(list(gaps))
    others = [policy for policy in last if policy not in ("oracle", "task_blind") and gap["ci95"][0] > 0]
    policies = {
        policy: {
            **_mean_over_seeds(values),
            "single": values,
            "changes": [e[policy].get("change") for e in comparisons],
        }
        for policy, values in last.items()
    }
    shares = {policy: np.subtract(last[policy], last["task_blind"]) / gaps for policy in others}
    recovered = {policy: _mean_over_seeds(list(values)) for policy, values in shares.items()}
    return {"policies": policies, "gap": gap, "recovered": recovered}


def _mean_over_seeds(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "ci95": seed_ci95(values)}


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


CALLED: tuple[Callable[..., Any], ...] = (
    kept,
    checkpoint,
    kept_of,
    training_of,
    published,
    source,
    number,
    interval,
    spread,
    significant,
    thousands,
    millions,
    share_of_expert,
    below,
    over_seeds,
    mean_of,
    single_of,
    improvement,
    regret_over_seeds,
    compared_over_seeds,
    row,
)


# --- the page ----------------------------------------------------------------------------------------


def environment() -> jinja2.Environment:
    """Templates of results/, which may call CALLED; what is not there is an error."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "results"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    found.globals.update({function.__name__: function for function in CALLED})
    found.filters["number"] = number
    return found


def page() -> str:
    """RESULTS.md as the template and the kept files give it."""
    return environment().get_template(TEMPLATE).render()


def first_difference(stands: str, given: str) -> str | None:
    """The first place where what stands in the page is not what the files give; None where there is none."""
    lines = difflib.unified_diff(
        stands.splitlines(), given.splitlines(), PAGE.name, "what the files give", "", "", 0, ""
    )
    found = list(lines)
    return "\n".join(found[:8]) if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where RESULTS.md is not this")
    arguments = parser.parse_args()
    given = page()
    if not arguments.check:
        PAGE.write_text(given, encoding="utf-8")
        return
    difference = first_difference(PAGE.read_text(encoding="utf-8") if PAGE.is_file() else "", given)
    if difference is not None:
        print(difference)
        print("experiments/RESULTS.md is not what the kept files give: python experiments/results.py writes it")
        sys.exit(1)


if __name__ == "__main__":
    main()
