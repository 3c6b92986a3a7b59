"""RESULTS.md is what the kept files give; the pretrained runs' evaluations are those that are committed with them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from metarl.evaluation.statistics import seed_ci95
from tests.run_contents import EXPERIMENTS

sys.path.insert(0, str(EXPERIMENTS))

import measure
import results

NAMES = sorted(path.stem for path in (EXPERIMENTS / "results").glob("*.json") if path.stem != "published")
PRETRAINED = sorted(path.name for path in (EXPERIMENTS / "pretrained").iterdir())


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["results.py", *arguments])
    try:
        results.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_page_is_what_the_files_give(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(monkeypatch, "--check") == 0, capsys.readouterr().out


def test_a_changed_figure_is_found_and_named_and_writing_puts_it_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = results.PAGE.read_text()
    mean = results.spread(results.kept("half_cheetah_vel_rl2").last)
    assert written.count(mean) == 1
    monkeypatch.setattr(results, "PAGE", tmp_path / "RESULTS.md")
    assert run_main(monkeypatch, "--check") == 1  # there is none
    (tmp_path / "RESULTS.md").write_text(written.replace(mean, "-1.0 [-2.0, 0.00]"))
    capsys.readouterr()
    assert run_main(monkeypatch, "--check") == 1
    said = capsys.readouterr().out
    assert "-1.0 [-2.0, 0.00]" in said
    assert mean in said
    assert run_main(monkeypatch) == 0
    assert (tmp_path / "RESULTS.md").read_text() == written


def test_every_kept_file_is_used_and_says_how_it_was_made() -> None:
    template = (EXPERIMENTS / "results" / results.TEMPLATE).read_text()
    page = results.PAGE.read_text()
    for name in NAMES:
        content = results.kept(name).content
        assert content["name"] == name
        assert re.fullmatch(r"[0-9a-f]{7,}", content["commit"]), f"{name}: of no commit, but of changed files"
        assert content["processor"]
        base = re.sub(r"_seed\d$", "", name)  # other seeds stand in the page as "the same with seed=2"
        assert base in template or base.removesuffix("_baselines") + '")' in template  # of a list of (label, kind)
        for command in content["commands"] if base == name else ():
            assert f"    {command}\n" in page


def test_a_benchmark_that_is_kept_stands_in_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    for path in (EXPERIMENTS / "results").iterdir():
        if not path.name.startswith("benchmark_"):
            (folder / path.name).symlink_to(path)
    (tmp_path / "pretrained").symlink_to(EXPERIMENTS / "pretrained")
    about = {"commands": ["python x.py"], "commit": "1a2b3c4", "processor": "P", "num_processors": 2, "load": 0.1}
    result = {"speedup_2_actors": 1.926, "env_steps_per_s": {"1": 34_712, "2": 66_854}}
    (folder / "benchmark_scaling.json").write_text(json.dumps({"name": "benchmark_scaling", **about, "result": result}))
    monkeypatch.setattr(results, "HERE", tmp_path)
    assert "| 66,900 env steps/s | 1.93 times as fast, 34,700/s |" in results.page()
    assert "    python x.py\n\nMeasured with commit 1a2b3c4; P with 2 processors; load average 0.1.\n" in results.page()


def test_every_picture_is_shown() -> None:
    shown = results.PAGE.read_text() + (EXPERIMENTS.parent / "README.md").read_text()
    assert [path.name for path in (EXPERIMENTS / "figures").iterdir() if f"figures/{path.name})" not in shown] == []


def test_a_figure_without_a_file_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        results.kept("nothing")
    with pytest.raises(UndefinedError):
        results.environment().from_string("{{ kept('half_cheetah_vel_rl2').result.nothing + 1 }}").render()


def comparison(**means: float) -> dict[str, Any]:
    scores = {name: {"rounds": [{"mean": 0.0}, {"mean": mean}], "per_task": []} for name, mean in means.items()}
    return {"evaluations": scores, "pairs": []}


def test_shares_are_of_a_gap_that_the_seeds_show(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "a": comparison(oracle=10.0, adaptive=8.0, task_blind=0.0),
        "b": comparison(oracle=31.0, adaptive=20.0, task_blind=20.0),
        "c": comparison(oracle=10.0, adaptive=5.0, task_blind=40.0),
    }
    monkeypatch.setattr(results, "kept", lambda name: results.Kept(name, {"result": files[name]}))
    found = results.compared_over_seeds(["a", "b"])
    assert found["gap"]["mean"] == 10.5
    assert found["recovered"]["adaptive"]["mean"] == 0.4  # of 0.8 and 0, each of its own seed's gap
    assert found["recovered"]["adaptive"]["ci95"] == seed_ci95([0.8, 0.0])
    assert found["policies"]["adaptive"]["single"] == [8.0, 20.0]
    assert results.compared_over_seeds(["a", "c"])["recovered"] == {}


def test_of_a_comparison_the_file_in_its_folder_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ROOT", tmp_path)

    def run(arguments: list[str], **_: object) -> None:
        assert arguments[1:4] == ["-m", "metarl", "compare"]
        (tmp_path / "vs").mkdir()
        (tmp_path / "vs" / "comparison.json").write_text(json.dumps(comparison(oracle=1.0)))

    monkeypatch.setattr(subprocess, "run", run)
    assert measure.last_result("metarl compare a b --out vs") == comparison(oracle=1.0)


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_pretrained_run_is_judged_as_when_it_was_trained(name: str) -> None:
    """The kept evaluation was made anew: number by number it is the one committed with the weights."""
    then = measure.compact(json.loads((EXPERIMENTS / "pretrained" / name / "evaluation.json").read_text()))
    now = results.kept(name).result
    written_since = {"notes", "deterministic", "success_rates"}
    assert {key: now[key] for key in then.keys() - written_since} == {
        key: then[key] for key in then.keys() - written_since
    }
    assert results.checkpoint(name)["iteration"] == now["iteration"]


@pytest.mark.parametrize(
    ("value", "text"), [(123.4, "123"), (-28.51, "-28.5"), (-6.799, "-6.80"), (0.0, "0.00"), (-0.001, "0.00")]
)
def test_figures_have_three_digits_or_two_decimals(value: float, text: str) -> None:
    assert results.number(value) == text


def test_both_bounds_have_as_many_decimals() -> None:
    assert results.interval((-7.5, 12.04)) == "[-7.5, 12.0]"
    assert results.interval((-0.5, 312.4)) == "[0, 312]"
    assert results.thousands(61_283) == "61,300"
    assert results.millions(998_000) == "1.00 M"


def test_measuring_runs_the_commands_and_keeps_where_and_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "commit", lambda: "1a2b3c4")
    commands = ['python -c \'open("x", "w").write("4")\'', 'python -c \'print("text"); print(open("x").read())\'']
    monkeypatch.setattr(sys, "argv", ["measure.py", "four", *commands])
    measure.main()
    content = json.loads((tmp_path / "four.json").read_text())
    assert (content["result"], content["commit"], content["commands"]) == (4, "1a2b3c4", commands)
    (tmp_path / "four.json").write_text(json.dumps({**content, "result": 5}))
    monkeypatch.setattr(sys, "argv", ["measure.py", "four"])
    measure.main()
    assert json.loads((tmp_path / "four.json").read_text())["result"] == 4
    monkeypatch.setattr(sys, "argv", ["measure.py", "five"])
    with pytest.raises(SystemExit):
        measure.main()
    with pytest.raises(subprocess.CalledProcessError):
        measure.measure("bad", ["python -c 'raise SystemExit(3)'"], None)
