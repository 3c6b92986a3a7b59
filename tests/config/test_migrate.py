"""Configurations that earlier versions stored: the same run in today's words; today's own are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metarl.config import load_config, load_stored_config, scalars, to_yaml
from metarl.config.migrate import migrate
from metarl.errors import ConfigError
from tests.run_contents import EXPERIMENTS

PRETRAINED = sorted(path.parent for path in (EXPERIMENTS / "pretrained").glob("*/config.yaml"))
REST = """
task_distribution: {name: PointGoal, options: {}}
training: {iterations: 10}
evaluation: {num_tasks: 20, split: ood}
"""


def migrated(tmp_path: Path, algorithm: str) -> dict[str, Any]:
    """The resolved configuration of an old one."""
    (tmp_path / "config.yaml").write_text(f"algorithm: {algorithm}\n{REST}")
    resolved = scalars.parse(to_yaml(load_stored_config(tmp_path / "config.yaml")))
    assert isinstance(resolved, dict)
    assert resolved["evaluation"]["split"] == "ood"
    return resolved


@pytest.mark.parametrize("run", PRETRAINED, ids=lambda run: run.name)
def test_pretrained_runs_load_and_keep_what_their_files_say(run: Path) -> None:
    old = scalars.parse((run / "config.yaml").read_text())
    new = load_stored_config(run / "config.yaml")
    assert (new.seed, new.training.iterations) == (old["seed"], old["training"]["iterations"])
    today = new.algorithm.model_dump()
    same = {key: value for key, value in old["algorithm"].items() if key in today and not isinstance(today[key], dict)}
    assert len(same) > 8
    assert {key: scalars.parse(scalars.dump(today[key])) for key in same} == same


def test_there_are_six_pretrained_runs_of_all_families() -> None:
    names = [load_stored_config(run / "config.yaml").algorithm.name for run in PRETRAINED]  # type: ignore[attr-defined]
    assert sorted(names) == ["maml", "pearl", "pearl", "rl2", "rl2", "rl2"]


def test_promp_becomes_an_outer_step_of_its_own(tmp_path: Path) -> None:
    old = "{name: maml, outer: ppo, outer_lr: 0.002, outer_steps: 3, clip: 0.2, inner_kl_coef: 0.1, max_kl: 0.5}"
    new = migrated(tmp_path, old)
    assert new["algorithm"]["outer"] == {
        "name": "ppo",
        "lr": 0.002,
        "lr_schedule": "constant",
        "steps": 3,
        "clip": 0.2,
        "inner_kl_coef": 0.1,
    }
    assert new["evaluation"]["deterministic"] is False, "evaluations of MAML always sampled"


def test_trpo_keeps_its_own_keys_and_drops_what_it_never_used(tmp_path: Path) -> None:
    old = "{name: maml, variant: fomaml, outer: trpo, outer_lr: 0.5, clip: 0.2, max_kl: 0.02, cg_iterations: 7}"
    algorithm = migrated(tmp_path, old)["algorithm"]
    assert algorithm["variant"] == "fomaml"
    assert (algorithm["outer"]["name"], algorithm["outer"]["max_kl"]) == ("trpo", 0.02)
    assert algorithm["outer"]["cg_iterations"] == 7


def test_the_policy_gradient_and_reptile_keep_their_learning_rate(tmp_path: Path) -> None:
    plain = migrated(tmp_path, "{name: maml, outer: pg, outer_lr: 0.5, clip: 0.2}")["algorithm"]
    assert plain["outer"] == {"name": "pg", "lr": 0.5, "lr_schedule": "constant"}
    reptile = migrated(tmp_path, "{name: maml, variant: reptile, outer: pg, outer_lr: 0.25}")["algorithm"]
    assert (reptile["variant"], reptile["outer"]["name"], reptile["outer"]["lr"]) == ("maml", "reptile", 0.25)


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_a_recurrent_core_keeps_its_size_and_the_reach_of_its_gradients(tmp_path: Path, core: str) -> None:
    old = f"{{name: rl2, core: {core}, hidden_dim: 32, bptt_steps: 9, num_layers: 5, num_heads: 2}}"
    algorithm = migrated(tmp_path, old)["algorithm"]
    assert algorithm["core"] == {"name": core, "hidden_dim": 32, "bptt_steps": 9}
    assert (algorithm["lr_schedule"], algorithm["fine_tuning"]) == ("constant", None)


def test_a_transformer_keeps_its_layers_and_heads(tmp_path: Path) -> None:
    old = "{name: rl2, core: transformer, hidden_dim: 32, bptt_steps: null, num_layers: 5, num_heads: 2}"
    core = migrated(tmp_path, old)["algorithm"]["core"]
    assert core == {"name": "transformer", "hidden_dim": 32, "num_layers": 5, "num_heads": 2}


def test_what_rl2_kept_for_evaluations_moves_there(tmp_path: Path) -> None:
    old = (
        "{name: rl2, memory: none, lr_decay_iterations: 300, fine_tune_steps: 4, fine_tune_lr: 0.2, "
        "deterministic_evaluation: false, context: shuffled}"
    )
    new = migrated(tmp_path, old)
    assert new["algorithm"]["fine_tuning"] == {"steps": 4, "lr": 0.2}
    assert new["algorithm"]["lr_schedule"] == "linear"
    assert (new["evaluation"]["deterministic"], new["evaluation"]["context"]) == (False, "shuffled")


def test_pearl_keeps_its_encoder_its_contrast_and_its_exploration(tmp_path: Path) -> None:
    old = (
        "{name: pearl, encoder: permutation_invariant, encoder_dim: 32, context_sampling: runs, "
        "contrastive_weight: 0.5, contrastive_temperature: 2.0, exploration_episodes: 4, context: blank}"
    )
    new = migrated(tmp_path, old)
    encoder = {"name": "permutation_invariant", "hidden_dim": 32, "context_sampling": "runs"}
    assert new["algorithm"]["encoder"] == encoder
    assert new["algorithm"]["contrastive"] == {"weight": 0.5, "temperature": 2.0}
    assert (new["evaluation"]["support_episodes"], new["evaluation"]["context"]) == (4, "blank")
    assert new["evaluation"]["deterministic"] is True


def test_a_recurrent_encoder_has_no_sampling_and_no_contrast_where_it_weighed_nothing(tmp_path: Path) -> None:
    old = "{name: pearl, encoder: recurrent, encoder_dim: 32, context_sampling: transitions, contrastive_weight: 0.0}"
    new = migrated(tmp_path, old)
    assert new["algorithm"]["encoder"] == {"name": "recurrent", "hidden_dim": 32}
    assert new["algorithm"]["contrastive"] is None
    assert new["evaluation"]["support_episodes"] == 2, "the default of that version"


@pytest.mark.parametrize(("support", "judged"), [(None, 6), (4, 4), (2, 3)])
def test_maml_judges_what_it_judged(support: int | None, judged: int) -> None:
    """Of 3 judged episodes and more that were adapted to, all of the latter were judged."""
    old = {"algorithm": {"name": "maml", "num_streams": 6}, "evaluation": {"episodes": 3, "support_episodes": support}}
    assert migrate(old)["evaluation"]["episodes"] == judged


def test_a_configuration_of_today_is_left_as_it_is() -> None:
    today = scalars.parse(to_yaml(load_config("sparse_point_pearl")))
    assert migrate(today) is today
    assert migrate({"algorithm": 3}) == {"algorithm": 3}
    assert migrate({"algorithm": {"name": "maml"}, "evaluation": 3})["evaluation"] == 3


def test_overrides_of_a_migrated_run_use_todays_keys(tmp_path: Path) -> None:
    migrated(tmp_path, "{name: rl2, core: gru}")
    blank = load_stored_config(tmp_path / "config.yaml", ["evaluation.context=blank"])
    assert blank.evaluation.context == "blank"
    with pytest.raises(ConfigError, match=r"algorithm\.context = 'blank': it is evaluation\.context now"):
        load_stored_config(tmp_path / "config.yaml", ["algorithm.context=blank"])
    with pytest.raises(ConfigError, match=r"algorithm\.core = 'gru': must be a section, such as core: \{name: gru\}"):
        load_config(tmp_path / "config.yaml")
