"""What is wrong with a configuration is named with its key, its value and what is allowed; exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from metarl.algorithms.base import AlgorithmPlugin
from metarl.algorithms.registry import available_algorithms, load_algorithm
from metarl.cli.app import app
from metarl.config import load_config
from metarl.config.messages import choices_of
from metarl.errors import ConfigError

YAML = """
seed: 3
task_distribution: {name: HalfCheetahVel, options: {horizon: 20}}
algorithm: {name: "toy_algorithm:Toy", outer_lr: 1e-2, hidden: [16, 16]}
training: {iterations: 10, time_limit_minutes: 1.5}
executor: {backend: local}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(YAML)
    return file


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (
            "training.iteratons=5",
            ["override: training.iteratons = 5", "did you mean 'iterations'?", "checkpoint_every"],
        ),
        ("sed=5", ["sed = 5", "did you mean 'seed'?", "task_distribution"]),
        (
            "algorithm.outer_lrr=5",
            ["algorithm.outer_lrr = 5", "did you mean 'outer_lr'?", "num_streams"],
        ),
        ("algorithm.outer_lr=-1", ["algorithm.outer_lr = -1", "greater than 0"]),
        ("algorithm.name=mamll", ["algorithm.name = 'mamll'", "did you mean 'maml'", "known: anil"]),
        ("algorithm.name=", ["override: algorithm.name = None", "known: anil"]),
        ("algorithm=7", ["algorithm = 7", "must be a section, such as algorithm: {name: maml"]),
        ("algorithm=pearl", ["algorithm = 'pearl'", "algorithm: {name: pearl"]),
        ("training.iterations=0", ["training.iterations = 0", "greater than or equal to 1"]),
        ("training.iterations=many", ["training.iterations = 'many'", "valid integer"]),
        ("training.time_limit_minutes=.inf", ["training.time_limit_minutes = inf", "finite"]),
        ("executor.backend=rya", ["executor.backend = 'rya'", "'ray' or 'local'"]),
        ("seed.deep=1", ["seed.deep", "'deep' cannot be set in the value 3"]),
        ("training", ["override 'training'", "key.sub=value"]),
        ("=5", ["override '=5'", "key.sub=value"]),
        ("training..iterations=5", ["key.sub=value"]),
        ("seed=[1,", ["override 'seed=[1,'", "invalid YAML"]),
        ("device=${oc.env:HOME}", ["device = '${oc.env:HOME}'", "not allowed"]),
        ("device=${", ["override 'device=${'", "not allowed"]),
        ("task_distribution.options.x=[a, '${seed}']", ["options.x", "not allowed"]),
        ("device=???", ["not allowed"]),
        # numbers are numbers
        ("training.keep_checkpoints=yes", ["training.keep_checkpoints = 'yes'", "valid integer"]),
        ("training.keep_checkpoints=true", ["training.keep_checkpoints = True", "valid integer"]),
        ("training.time_limit_minutes=5:30", ["training.time_limit_minutes = '5:30'", "valid number"]),
        ("seed=010", ["seed = '010'", "valid integer"]),
        ("seed=-1", ["seed = -1", "greater than or equal to 0"]),
        ("seed=9223372036854775808", ["seed = 9223372036854775808", "less than 9223372036854775808"]),
        ("algorithm.outer_lr=yes", ["algorithm.outer_lr = 'yes'", "valid number"]),
        ("algorithm.outer_lr=true", ["algorithm.outer_lr = True", "valid number"]),
        ("algorithm.outer_lr=.nan", ["algorithm.outer_lr = nan", "finite"]),
        ("algorithm.num_tasks=2.5", ["algorithm.num_tasks = 2.5", "valid integer"]),
        ("training.overlap=1", ["training.overlap = 1", "valid boolean"]),
        ("seed=" + "9" * 5000, ["seed=999", "invalid YAML value"]),
        ("seed=!!int x", ["invalid YAML value"]),
        ("seed=!!timestamp 2020", ["invalid YAML value"]),
        ("seed=" + "[" * 5000, ["nested too deeply"]),
        # sections and lists
        ("algorithm.hidden.0=0", ["algorithm.hidden.0 = 0", "greater than or equal to 1"]),
        ("algorithm.hidden.5=16", ["algorithm.hidden.5", "allowed: 0 to 1"]),
        ("algorithm.hidden=[-3]", ["algorithm.hidden.0 = -3", "greater than or equal to 1"]),
        ("algorithm.hidden=16", ["algorithm.hidden = 16", "list"]),
        ("task_distribution.options=[1]", ["task_distribution.options = [1]", "must be a section"]),
        ("task_distribution.options={1: 2}", ["task_distribution.options.1", "string"]),
        ("task_distribution=PointGoal", ["task_distribution = 'PointGoal'", "task_distribution: {name: ..."]),
        ("training=", ["training = None", "must be a section"]),
        ("training=[{a: 1}]", ["training = [{'a': 1}]", "must be a section"]),
        ("executor=ray", ["executor = 'ray'", "executor: {backend: ..."]),
        ("training={1: 2, iterations: 1}", ["training.1", "strings"]),
        # choices
        ("algorithm={name: maml, outer: ppo}", ["algorithm.outer = 'ppo'", "outer: {name: ppo}", "trpo"]),
        ("algorithm={name: maml, outer: {name: pp}}", ["algorithm.outer.name = 'pp'", "'ppo'?", "reptile"]),
        ("algorithm={name: maml, outer: {name: [1]}}", ["algorithm.outer.name = [1]", "allowed: ppo"]),
        ("algorithm={name: maml, outer: {name: trpo, clip: 0.2}}", ["algorithm.outer.clip = 0.2", "belongs to ppo"]),
        ("algorithm={name: maml, outer: null}", ["algorithm.outer = None", "must be a section"]),
        ("algorithm={name: pearl, contrastive: 1}", ["algorithm.contrastive = 1", "{weight: ..."]),
        ("algorithm={name: pearl, contrastive: {weight: 0}}", ["algorithm.contrastive.weight = 0", "greater than 0"]),
        ("algorithm={name: rl2, minibatches: 99}", ["minibatches (99) must not exceed the trials"]),
        (
            "algorithm={name: rl2, core: {name: transformer, num_heads: 3}}",
            ["algorithm.core: num_heads (3) must divide hidden_dim (128)"],
        ),
        ("algorithm={name: rl2, fine_tuning: {}}", ["algorithm: fine_tuning does not apply to memory trial"]),
        ("evaluation.context=empty", ["evaluation.context = 'empty'", "'own', 'blank' or 'shuffled'"]),
        ("evaluation.split=train", ["evaluation.split = 'train'", "'validation', 'ood' or 'test'"]),
        ("evaluation.split=test", ["evaluation.split: 'test' is for `metarl evaluate` alone", "'validation' or 'ood'"]),
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


OLD_KEYS = {
    "maml": {
        "outer=trpo": "outer: {name: trpo}",
        "outer_lr=0.1": "algorithm.outer.lr",
        "outer_steps=2": "algorithm.outer.steps",
        "clip=0.2": "algorithm.outer.clip",
        "inner_kl_coef=0.1": "algorithm.outer.inner_kl_coef",
        "max_kl=0.1": "algorithm.outer.max_kl, of name trpo",
        "line_search_steps=3": "algorithm.outer.line_search_steps",
        "variant=reptile": "algorithm.outer.name = reptile",
    },
    "rl2": {
        "core=lstm": "core: {name: lstm}",
        "hidden_dim=16": "algorithm.core.hidden_dim",
        "bptt_steps=16": "algorithm.core.bptt_steps",
        "num_layers=16": "algorithm.core.num_layers, of name transformer",
        "lr_decay_iterations=100": "algorithm.lr_schedule = linear",
        "fine_tune_steps=3": "algorithm.fine_tuning.steps",
        "fine_tune_lr=0.1": "algorithm.fine_tuning.lr",
        "deterministic_evaluation=false": "evaluation.deterministic",
        "context=blank": "evaluation.context",
    },
    "pearl": {
        "encoder=recurrent": "encoder: {name: recurrent}",
        "encoder_dim=8": "algorithm.encoder.hidden_dim",
        "context_sampling=runs": "algorithm.encoder.context_sampling",
        "exploration_episodes=3": "evaluation.support_episodes",
        "contrastive_weight=1": "algorithm.contrastive.weight",
        "contrastive_temperature=1": "algorithm.contrastive.temperature",
        "context=blank": "evaluation.context",
    },
}


@pytest.mark.parametrize(
    ("algorithm", "old", "new"), [(name, old, new) for name, keys in OLD_KEYS.items() for old, new in keys.items()]
)
def test_a_key_of_earlier_versions_says_where_it_went(path: Path, algorithm: str, old: str, new: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, [f"algorithm={{name: {algorithm}}}", f"algorithm.{old}"])
    key, _, value = old.partition("=")
    assert f"override: algorithm.{key} = " in str(caught.value)
    assert value in str(caught.value).lower()
    assert new in str(caught.value)


def keys_of_other_choices() -> Iterator[tuple[str, str, str, str, str]]:
    """(algorithm, section, choice, key, owner) of every key that one choice of a section has and another has not."""
    for algorithm in available_algorithms():
        plugin = load_algorithm(algorithm)
        if not isinstance(plugin, AlgorithmPlugin):
            continue
        for section, field in plugin.config.model_fields.items():
            choices = choices_of(field.annotation)
            for owner, model in choices.items():
                for key in model.model_fields:
                    for choice, other in choices.items():
                        if key not in other.model_fields:
                            yield algorithm, section, choice, key, owner


def value_of(model: type[BaseModel], key: str) -> object:
    default = model.model_fields[key].get_default()
    assert default is not PydanticUndefined
    return "null" if default is None else default


def test_choices_differ_in_keys() -> None:
    assert len(set(keys_of_other_choices())) > 25


@pytest.mark.parametrize("case", sorted(set(keys_of_other_choices())), ids=lambda case: "-".join(case))
def test_a_key_of_another_choice_is_refused_and_says_whose_it_is(
    path: Path, case: tuple[str, str, str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, section, choice, key, owner = case
    plugin = load_algorithm(algorithm)
    assert isinstance(plugin, AlgorithmPlugin)
    value = value_of(choices_of(plugin.config.model_fields[section].annotation)[owner], key)
    monkeypatch.chdir(path.parent)
    arguments = [f"algorithm={{name: {algorithm}, {section}: {{name: {choice}, {key}: {value}}}}}"]
    result = CliRunner().invoke(app, ["train", "run.yaml", *arguments])
    assert result.exit_code == 2
    assert f"algorithm.{section}.{key} = " in result.stderr
    assert f"does not apply to algorithm.{section}.name = {choice}" in result.stderr
    assert owner in result.stderr.partition("belongs to")[2]
    assert "valid keys here: name, " in result.stderr
    assert not (path.parent / "runs").exists()


def test_all_mistakes_are_reported_at_once(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["algorithm.num_tasks=0", "training.checkpoint_every=0", "device=tpu"])
    assert len(str(caught.value).splitlines()) == 3
