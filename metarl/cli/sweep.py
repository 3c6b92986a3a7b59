"""`metarl sweep CONFIG key=a,b --seeds N`: many runs side by side, and what they say about the settings.

check every combination -> connect to Ray -> Tune starts runs as there is room -> table, sweep.json, sweep.png
                                               Ctrl-C: each saves; the same command with --resume continues
Settings are compared on validation tasks; the chosen one is then judged on test tasks.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.options import expanded
from metarl.cli.output import result_console
from metarl.errors import ConfigError, MetarlError

if TYPE_CHECKING:
    from metarl.distributed.sweep.grid import Setting
    from metarl.distributed.sweep.results import SettingResult

Arguments = Annotated[list[str] | None, typer.Argument(metavar="[KEY=A,B,...]...", help="KEY=VALUE overrides")]


def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML file, see experiments/")],
    arguments: Arguments = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="runs of each setting, from seed= on [default: 1]")] = None,
    asha: Annotated[bool, typer.Option("--asha", help="stop early what does worst")] = False,
    cpus_per_run: Annotated[int, typer.Option(min=1, help="processors of each run")] = 1,
    run_dir: Annotated[str | None, typer.Option(help="where the runs go [default: runs/CONFIG's name-sweep]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the sweep there")] = False,
    address: Annotated[str | None, typer.Option(help="a running Ray cluster; without it one is started here")] = None,
) -> None:
    """Train every combination of the values given, several seeds of each, side by side, and compare them."""
    given, shown = list(arguments or []), expanded(run_dir or f"runs/{config.stem}-sweep")
    again = ["metarl", "sweep", str(config), *given, "--seeds", str(seeds or 1), "--run-dir", shown, "--resume"]
    again += ["--asha"] * asha + ["--cpus-per-run", str(cpus_per_run)] * (cpus_per_run > 1)
    again += ["--address", address] if address else []
    with exit_codes():
        from metarl.distributed import connect
        from metarl.distributed.sweep import grid, results, tuner
        from metarl.files import locked, make_folder
        from metarl.runs.outcome import clear_outcome, has_ended
        from metarl.runs.remote import is_url
        from metarl.training.stop import StopRequest, stop_signals

        if is_url(shown):
            raise ConfigError(f"--run-dir {shown}: a sweep's is a path")
        settings, root, stop = grid.plan_settings(config, given, seeds or 1), Path(shown).absolute(), StopRequest()
        if seeds is None and len(settings) == 1:
            raise ConfigError("nothing to compare: give values to compare, as key=a,b, or --seeds N")
        _check(settings, asha)
        about = {"config": str(config), "arguments": given, "num_seeds": seeds or 1, "asha": asha}
        make_folder(root, "sweep directory")
        with locked(root / ".lock", f"another sweep is training in {root}"):
            results.check_directory(root, settings, resume)
            runs, screen = grid.all_runs(settings), result_console()
            left = [name for name, run in runs.items() if not has_ended(root / name, run, may_stop_early=asha)]
            for name in left:
                clear_outcome(root / name)  # of a failure, or no end any more
            results.write_summary(root, about, results.read_results(root, settings))
            typer.echo(
                f"sweep directory: {shown}: {len(settings)} x {seeds or 1} runs, {len(runs) - len(left)} ended already"
            )
            if left:
                num_cpus = runs[left[0]].executor.num_workers
                with connect(address, num_cpus), stop_signals(stop):  # Ray sets handlers of its own before
                    tuner.run_trials(runs, root, cpus_per_run, asha, stop, typer.echo, may_grow=address is not None)
            found = results.read_results(root, settings)
            results.write_summary(root, about, found)
            failed = _report_ends(found, stop.signal_number, shlex.join(again))
            from metarl.report.sweep import save_figure, sweep_notes, sweep_table
            from metarl.report.table import with_notes

            save_figure(found, shown, root / "sweep.png")
            screen.print(with_notes(sweep_table(found, shown), sweep_notes(found)))
            typer.echo(f"{shown}/sweep.json\n{shown}/sweep.png")
            if failed:
                typer.echo(f"try the failed ones again with:\n  {shlex.join(again)}", err=True)
                raise typer.Exit(1)
            _judge(root, about, found)


def _judge(root: Path, about: dict[str, Any], found: Sequence[SettingResult]) -> None:
    """How the chosen setting does on test tasks: said, and added to sweep.json."""
    from metarl.distributed.sweep import judgement, results
    from metarl.report.table import interval, number

    judged = judgement.judge_chosen(root, found)
    if judged is None:
        return
    results.write_summary(root, {**about, "test": judged.to_json()}, found)
    spread = "" if judged.ci95 is None else f" {interval(judged.ci95)} over {len(judged.scores)} seeds"
    typer.echo(f"{judged.setting} on test tasks, which nothing was chosen by: return {number(judged.mean)}{spread}")


def _check(settings: Sequence[Setting], asha: bool) -> None:
    """Build every setting's task distribution and algorithm once: what is wrong with them shows before a run starts."""
    import torch

    from metarl.training.loop import prepare

    for setting in settings:
        config = next(iter(setting.runs.values()))
        every, last = config.training.evaluate_every, config.training.iterations - 1
        if asha and not 0 < every <= last:
            where = f"--asha: {setting.name}: training.evaluate_every = {every}"
            raise ConfigError(f"{where}: runs are compared by evaluations before their end; allowed: 1 to {last}")
        try:
            distribution, _ = prepare(config, torch.device("cpu"))
            distribution.sample(config.evaluation.split, 1, config.seed)  # evaluated at the end in any case
        except MetarlError as error:
            raise type(error)(f"{setting.name}: {error}") from error


def _report_ends(found: Sequence[SettingResult], signal_number: int | None, again: str) -> bool:
    """Name the runs that failed; whether there are any. Exits with 128 + n where signal n stopped the sweep."""
    runs = [run for result in found for run in result.runs]
    for run in runs:
        if run.status == "failed":
            typer.echo(f"error: {run.name} failed: {run.error}", err=True)
    if signal_number is not None:
        ended = sum(run.status not in ("unfinished", "not started") for run in runs)
        how = f"stopped by {signal.Signals(signal_number).name}: {ended} of {len(runs)} runs have ended"
        typer.echo(f"{how}, the others are saved. Continue with:\n  {again}", err=True)
        raise typer.Exit(128 + signal_number)
    return any(run.status == "failed" for run in runs)
