"""Measures a result and keeps it in experiments/results/NAME.json, from which `results.py` writes RESULTS.md.

    python experiments/measure.py NAME 'COMMAND' ['COMMAND' ...] [--run RUN]    a new result
    python experiments/measure.py NAME [NAME ...]                               the same commands again

Commands run one after the other in the repository's root; the last one's result is kept: of `metarl evaluate` the
evaluation, of `metarl compare` and `metarl baselines` with --out the comparison, of a script the JSON in the last line
that it prints, or the file that this line names. `--run RUN` keeps what a training run did as well: its evaluations on
the way, its steps and its time. With each result stand its commands, the commit, the processor, and how many processes
wanted to run at the time (the load average).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from metarl.kernels.processor import processor_description
from metarl.runs.records import METRICS, read_records, returns_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
MANY_TASKS = 8  # above, single tasks are kept as a list of their last returns alone


def measure(name: str, commands: list[str], run: str | None) -> dict[str, Any]:
    """Run the commands and return what is kept. CalledProcessError where one fails."""
    load = os.getloadavg()[0]
    for command in commands[:-1]:
        subprocess.run(_arguments(command), cwd=ROOT, check=True)
    document: dict[str, Any] = {
        "name": name,
        "commands": [" ".join(command.split()) for command in commands],
        "commit": commit(),
        "processor": processor_description()["model"],
        "num_processors": os.cpu_count(),
        "load": round(load, 1),
        "result": last_result(commands[-1]),
    }
    if run is not None:
        document["run"] = {"directory": run, **training(ROOT / run)}
    return document


def last_result(command: str) -> Any:
    """What the last command found."""
    arguments = _arguments(command)
    if "evaluate" in arguments[:4]:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*arguments, "--out", folder], cwd=ROOT, check=True)
            return compact(json.loads((Path(folder) / "evaluation.json").read_text()))
    if {"compare", "baselines"} & set(arguments[:4]):
        subprocess.run(arguments, cwd=ROOT, check=True)
        file = ROOT / arguments[arguments.index("--out") + 1] / "comparison.json"
        comparison: dict[str, Any] = json.loads(file.read_text())
        return comparison | {"evaluations": {name: compact(e) for name, e in comparison["evaluations"].items()}}
    done = subprocess.run(arguments, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    line = done.stdout.strip().splitlines()[-1]
    print(done.stdout, end="")
    return json.loads((ROOT / line).read_text() if line.endswith(".json") else line)


def compact(evaluation: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without what is known from its tasks' seed; of many tasks the last returns alone, in order."""
    kept = dict(evaluation)
    if len(kept["per_task"]) > MANY_TASKS:
        kept["last_returns"] = [round(task["returns"][-1], 3) for task in kept.pop("per_task")]
    return kept


def training(run: Path) -> dict[str, Any]:
    """Seed, iterations, steps and time of a run, and its evaluations on the way."""
    records = read_records(run / METRICS)
    last = records[-1]
    (meta,) = (run / "checkpoints" / f"{last['iteration']:06d}").glob("meta.json")
    evaluations = [
        {"iteration": r["iteration"], "env_steps": r["env_steps"], "split": r["split"], "returns": returns_of(r)}
        for r in records
        if r["kind"] == "evaluation"
    ]
    return {"iteration": last["iteration"], **json.loads(meta.read_text()), "evaluations": evaluations}


def commit() -> str:
    """The commit that is checked out; with a plus sign where tracked files of the package differ from it."""
    short = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "metarl", "envs"], cwd=ROOT, check=False)
    return short.stdout.decode().strip() + "+" * changed.returncode


def _arguments(command: str) -> list[str]:
    """A command as it stands in RESULTS.md, run by this Python."""
    first, *rest = shlex.split(command)
    assert first in ("metarl", "python"), f"a command begins with metarl or python, got {first}"
    return [sys.executable, *(["-m", "metarl"] if first == "metarl" else []), *rest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="+", metavar="NAME or COMMAND")
    parser.add_argument("--run", help="the run directory that the commands train")
    arguments = parser.parse_args()
    names = [word for word in arguments.words if " " not in word]
    commands = [word for word in arguments.words if " " in word]
    if commands and len(names) != 1:
        parser.error("commands belong to one NAME")
    for name in names:
        path = RESULTS / f"{name}.json"
        if not commands and not path.is_file():
            parser.error(f"{path} does not exist yet: give its commands")
        before = {} if commands else json.loads(path.read_text())
        run = arguments.run or before.get("run", {}).get("directory")
        document = measure(name, commands or before["commands"], run)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
