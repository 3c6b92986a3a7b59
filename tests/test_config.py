"""Configuration: what is wrong is named with its key, its value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from metarl.config import differences, load_config, to_yaml
from metarl.errors import ConfigError

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


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (
            "training.iteratons=5",
            ["override: training.iteratons = 5", "did you mean 'iterations'?", "checkpoint_every"],
        ),
        ("sed=5", ["sed = 5", "did you mean 'seed'?", "task_distribution"]),
        ("algorithm.outer_lrr=5", ["algorithm.outer_lrr = 5", "did you mean 'outer_lr'?", "num_streams"]),
        ("algorithm.outer_lr=-1", ["algorithm.outer_lr = -1", "greater than 0"]),
        ("algorithm.name=mamll", ["algorithm.name = 'mamll'", "did you mean 'maml'?", "known: maml"]),
        ("algorithm.name=", ["algorithm.name = None", "known: maml"]),
        ("algorithm=7", ["algorithm = 7"]),
        ("training.iterations=0", ["training.iterations = 0", "greater than or equal to 1"]),
        ("training.iterations=many", ["training.iterations = 'many'", "valid integer"]),
        ("training.time_limit_minutes=.inf", ["training.time_limit_minutes = inf", "finite"]),
        ("executor.backend=rya", ["executor.backend = 'rya'", "'ray' or 'local'"]),
        ("seed.deep=1", ["seed = {'deep': 1}", "valid integer"]),
        ("training", ["override 'training'", "key.sub=value"]),
        ("=5", ["override '=5'", "key.sub=value"]),
        ("training..iterations=5", ["key.sub=value"]),
        ("seed=[1,", ["override 'seed=[1,'", "invalid YAML"]),
        ("device=${oc.env:HOME}", ["device = '${oc.env:HOME}'", "not allowed"]),
        ("device=${", ["override 'device=${'", "not allowed"]),
        ("task_distribution.options.x=[a, '${seed}']", ["options.x", "not allowed"]),
        ("device=???", ["not allowed"]),
    ],
)
def test_a_wrong_override_is_named(path: Path, override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: [", ["invalid YAML"]),
        ("seed: 1\nseed: 2", ["duplicate key"]),
        ("- 1", ["got a list"]),
        ("3", ["run.yaml"]),
        ("", ["task_distribution is missing", "algorithm is missing", "training is missing"]),
        ("1: 2", ["run.yaml"]),
        ("seed: ${oc.env:HOME}", ["seed = '${oc.env:HOME}'", "not allowed"]),
        ("seed: ${", ["not allowed"]),
        ("seed: !!python/object/apply:os.system ['true']", ["invalid YAML"]),
        (YAML.replace("seed", "sede"), ["run.yaml: sede = 3", "did you mean 'seed'?"]),
    ],
)
def test_a_wrong_file_is_named(path: Path, text: str, parts: list[str]) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml") as caught:
        load_config(path)
    for part in parts:
        assert part in str(caught.value)


def test_all_mistakes_are_reported_at_once(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["algorithm.num_tasks=0", "training.checkpoint_every=0", "device=tpu"])
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file .*nothing\.yaml"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(tmp_path)


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
