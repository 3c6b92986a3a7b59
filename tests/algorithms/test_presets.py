"""Presets: what they stand for is what a run stores, and a configuration's own keys come first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from metarl.algorithms.base import Preset
from metarl.algorithms.registry import available_algorithms, load_algorithm
from metarl.config import load_config, load_stored_config, to_yaml
from metarl.errors import ConfigError

RUN = "task_distribution: {name: PointGoal}\ntraining: {iterations: 1}\n"
EXPECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "promp": ("maml", {"variant": "maml", "outer.name": "ppo"}),
    "maml_trpo": ("maml", {"variant": "maml", "outer.name": "trpo"}),
    "fomaml": ("maml", {"variant": "fomaml", "outer.name": "trpo"}),
    "anil": ("maml", {"variant": "anil", "outer.name": "trpo"}),
    "meta_sgd": ("maml", {"variant": "meta_sgd", "outer.name": "trpo"}),
    "reptile": ("maml", {"variant": "maml", "outer.name": "reptile"}),
    "e_maml": ("maml", {"exploration_coef": 1.0, "inner_objective": "plain", "outer.name": "pg"}),
    "rl2": ("rl2", {"memory": "trial"}),
    "robust": ("rl2", {"memory": "none"}),
    "pearl": ("pearl", {"latent_dim": 5}),
}


def write(tmp_path: Path, algorithm: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(f"{RUN}algorithm: {algorithm}\n")
    return path


def at(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data[part]
    return data


@pytest.mark.parametrize("name", EXPECTED)
def test_a_run_stores_what_a_preset_stands_for(name, tmp_path):
    config = load_config(write(tmp_path, f"{{name: {name}}}"))
    stored = yaml.safe_load(to_yaml(config))["algorithm"]
    algorithm, values = EXPECTED[name]
    assert stored["name"] == algorithm
    assert {key: at(stored, key) for key in values} == values
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_stored_config(tmp_path / "config.yaml") == config


def test_every_registered_preset_is_listed_here():
    presets = {name for name in available_algorithms() if isinstance(load_algorithm(name), Preset)}
    assert presets <= set(EXPECTED)


def test_keys_of_the_configuration_come_before_those_of_the_preset(tmp_path):
    path = write(tmp_path, "{name: fomaml, inner_lr: 0.5, outer: {max_kl: 0.02}}")
    algorithm = load_config(path, ["algorithm.outer.cg_iterations=5"]).algorithm.model_dump()
    assert algorithm["variant"] == "fomaml"
    assert algorithm["inner_lr"] == 0.5
    assert algorithm["outer"]["name"] == "trpo"
    assert (algorithm["outer"]["max_kl"], algorithm["outer"]["cg_iterations"]) == (0.02, 5)


def test_another_choice_in_the_configuration_replaces_the_presets_section(tmp_path):
    algorithm = load_config(write(tmp_path, "{name: fomaml, outer: {name: pg, lr: 0.01}}")).algorithm.model_dump()
    assert algorithm["outer"] == {"name": "pg", "lr": 0.01, "lr_schedule": "constant"}


def test_a_preset_named_on_the_command_line_keeps_the_files_keys(tmp_path):
    path = write(tmp_path, "{name: promp, num_streams: 7}")
    algorithm = load_config(path, ["algorithm.name=reptile"]).algorithm.model_dump()
    assert algorithm["outer"]["name"] == "reptile"
    assert algorithm["num_streams"] == 7


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("{name: maml_trpo, outer: {name: ppo}}", "outer.name = 'ppo'"),
        ("{name: promp, outer: {name: trpo}}", "outer.name = 'trpo'"),
        ("{name: anil, variant: maml}", "variant = 'maml'"),
    ],
)
def test_a_key_that_contradicts_the_presets_name_is_refused(tmp_path, section, key):
    with pytest.raises(ConfigError, match=rf"algorithm\.{key} contradicts algorithm\.name"):
        load_config(write(tmp_path, section))
