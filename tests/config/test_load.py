"""Configurations are found, read, overridden, validated, written and compared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from metarl.config import available_configs, config_path, differences, json_schema, load_config, scalars, to_yaml
from metarl.errors import ConfigError
from tests.run_contents import EXPERIMENTS

YAML = """
seed: 3
task_distribution: {name: HalfCheetahVel, options: {horizon: 20}}
algorithm: {name: "toy_algorithm:Toy", outer_lr: 1e-2, hidden: [16, 16]}
training: {iterations: 10, time_limit_minutes: 1.5}
executor: {backend: local}
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(YAML)
    return file


def test_a_file_and_overrides_give_a_frozen_configuration(path: Path) -> None:
    config = load_config(
        path, ["training.iterations=1e2", "task_distribution.options.protocol=interpolation", "seed=4"]
    )
    assert config.training.iterations == 100
    assert config.seed == 4
    assert config.task_distribution.options == {"horizon": 20, "protocol": "interpolation"}
    assert config.algorithm.outer_lr == 0.01  # type: ignore[attr-defined]
    assert config.training.tasks_per_unit == 5
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.training.iterations = 1  # type: ignore[misc]


def test_the_resolved_file_loads_to_the_same_configuration(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    (tmp_path / "resolved.yaml").write_text(to_yaml(config))
    again = load_config(tmp_path / "resolved.yaml")
    assert again == config
    assert to_yaml(again) == to_yaml(config)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file .*nothing\.yaml"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="it is a folder"):
        load_config(tmp_path)


def test_configurations_of_the_package_are_found_by_name() -> None:
    assert config_path("sparse_point_pearl").read_text() == (EXPERIMENTS / "sparse_point_pearl.yaml").read_text()
    assert load_config("sparse_point_pearl").algorithm.name == "pearl"  # type: ignore[attr-defined]
    assert set(available_configs()) == {path.stem for path in EXPERIMENTS.glob("*.yaml")}
    with pytest.raises(ConfigError, match="did you mean 'sparse_point_pearl'"):
        config_path("sparse_point_perl")


def test_a_value_replaces_a_section_a_list_and_an_entry_of_a_list(path: Path) -> None:
    assert load_config(path, ["task_distribution.options={}"]).task_distribution.options == {}
    assert load_config(path, ["task_distribution.options={a: {b: 1}}"]).task_distribution.options == {"a": {"b": 1}}
    changed = load_config(path, ["algorithm.hidden.1=4", "task_distribution.options.a.b=[1]"])
    assert changed.algorithm.hidden == (16, 4)  # type: ignore[attr-defined]
    assert changed.task_distribution.options == {"horizon": 20, "a": {"b": [1]}}


def test_a_section_of_choices_without_a_name_is_the_default_one(path: Path) -> None:
    config = load_config(path, ["algorithm={name: maml}", "algorithm.outer.steps=2"])
    assert config.algorithm.outer.name == "ppo"  # type: ignore[attr-defined]
    assert config.algorithm.outer.steps == 2  # type: ignore[attr-defined]


def test_a_preset_gives_defaults_that_the_file_overrides(path: Path) -> None:
    config = load_config(path, ["algorithm={name: fomaml, inner_lr: 0.3, outer: {max_kl: 0.02}}"])
    stored = scalars.parse(to_yaml(config))["algorithm"]
    assert (stored["name"], stored["variant"], stored["inner_lr"]) == ("maml", "fomaml", 0.3)
    assert (stored["outer"]["name"], stored["outer"]["max_kl"]) == ("trpo", 0.02)


def test_options_that_are_not_finite_stay_as_they_are(path: Path) -> None:
    """`.inf` was once stored as null, and another environment judged."""
    config = load_config(path, ["task_distribution.options={cap: .inf, low: -.inf, word: yes, when: 5:30}"])
    path.write_text(to_yaml(config))
    assert load_config(path).task_distribution.options == {
        "cap": math.inf,
        "low": -math.inf,
        "word": "yes",
        "when": "5:30",
    }
    assert differences(config, load_config(path, ["task_distribution.options.cap="])) == [
        "task_distribution.options.cap: inf -> None"
    ]


def test_a_list_that_differs_is_one_line(path: Path) -> None:
    config = load_config(path, ["task_distribution.options.parts=[a, b]"])
    assert differences(config, load_config(path, ["task_distribution.options.parts=[a, c]"])) == [
        "task_distribution.options.parts: ['a', 'b'] -> ['a', 'c']"
    ]


def test_the_schema_holds_the_sections_and_choices_of_every_algorithm() -> None:
    schema = json_schema()
    names = {choice["$ref"].rpartition("/")[2] for choice in schema["properties"]["algorithm"]["anyOf"]}
    assert names == {"maml", "pearl", "rl2"}
    assert {"TRPO", "PPO"} <= {name.partition(".")[2] for name in schema["$defs"]}
    json.dumps(schema)


def test_differences_leave_out_what_resuming_may_change(path: Path) -> None:
    config = load_config(path)
    free = ["training.iterations=99", "training.time_limit_minutes=", "executor.num_workers=7", "executor.backend=ray"]
    assert differences(config, load_config(path, free)) == []
    changed = load_config(path, ["seed=5", "algorithm.hidden=[4]", "task_distribution.options.protocol=standard"])
    assert differences(config, changed) == [
        "seed: 3 -> 5",
        "algorithm.hidden: [16, 16] -> [4]",
        "task_distribution.options.protocol: not set -> standard",
    ]
