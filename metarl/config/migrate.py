"""Configurations of runs that earlier versions made: the same run in today's words.

Earlier versions had one flat section per algorithm, in which keys of other choices were ignored, and settings of
evaluations stood among those of the algorithm. They evaluated on test tasks during training, and trained on what are
validation tasks today: `evaluation.split` stays `test` for them, and `task_distribution.hold_out_validation` is false.
Only stored configurations are migrated; in a user's file an old key is a mistake, and the message says where it went.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Settings = dict[str, Any]

_TRPO = ("max_kl", "cg_iterations", "cg_damping", "line_search_steps", "line_search_backtrack")
_PPO = {"outer_steps": "steps", "clip": "clip", "inner_kl_coef": "inner_kl_coef"}


_MOVED = {
    "algorithm.outer_lr": "algorithm.outer.lr",
    "algorithm.outer_steps": "algorithm.outer.steps",
    "algorithm.lr_decay_iterations": "algorithm.lr_schedule = linear",
    "algorithm.fine_tune_steps": "algorithm.fine_tuning.steps",
    "algorithm.fine_tune_lr": "algorithm.fine_tuning.lr",
    "algorithm.deterministic_evaluation": "evaluation.deterministic",
    "algorithm.context": "evaluation.context",
    "algorithm.encoder_dim": "algorithm.encoder.hidden_dim",
    "algorithm.exploration_episodes": "evaluation.support_episodes",
    "algorithm.contrastive_weight": "algorithm.contrastive.weight",
    "algorithm.contrastive_temperature": "algorithm.contrastive.temperature",
}
_MOVED_VALUES = {("algorithm.variant", "reptile"): "algorithm.outer.name = reptile"}


def moved_key(key: Sequence[str], beside: Sequence[str]) -> str | None:
    """Where a key of earlier versions went; None for any other. `beside`: the keys of its section today."""
    new = _MOVED.get(".".join(key))
    parts = (new or "").split(" ")[0].split(".")
    return new if new and (parts[0] != key[0] or parts[1] in beside) else None


def moved_value(key: str, value: Any) -> str | None:
    """What stands for a value of earlier versions; None for any other."""
    return _MOVED_VALUES.get((key, value)) if isinstance(value, str) else None


def migrate(data: Settings) -> Settings:
    """Today's form of a stored configuration; one that has it already is returned as it is."""
    data = _episodes_judged(_splits_of_then(data))
    evaluation = data.get("evaluation", {})
    if not isinstance(evaluation, dict) or not isinstance(data.get("algorithm"), dict) or "deterministic" in evaluation:
        return data
    evaluation = dict(evaluation)
    algorithm = dict(data["algorithm"])
    change = _ALGORITHMS.get(algorithm.get("name", ""))
    if change is not None:
        algorithm = change(algorithm, evaluation)
    evaluation.setdefault("deterministic", True)
    return {**data, "algorithm": algorithm, "evaluation": evaluation}


def _splits_of_then(data: Settings) -> Settings:
    """Without the key, a run is of an earlier version: it trained on validation tasks, and was watched on test."""
    tasks, evaluation = data.get("task_distribution"), data.get("evaluation", {})
    if not isinstance(tasks, dict) or not isinstance(evaluation, dict) or "hold_out_validation" in tasks:
        return data
    tasks = {**tasks, "hold_out_validation": False}
    return {**data, "task_distribution": tasks, "evaluation": {"split": "test", **evaluation}}


def _episodes_judged(data: Settings) -> Settings:
    """Earlier versions of MAML judged as many episodes as were adapted to where `evaluation.episodes` named fewer."""
    algorithm, evaluation = data.get("algorithm"), data.get("evaluation")
    if not isinstance(algorithm, dict) or not isinstance(evaluation, dict) or algorithm.get("name") != "maml":
        return data
    judged, adapted_to = evaluation.get("episodes"), evaluation.get("support_episodes") or algorithm.get("num_streams")
    if not isinstance(judged, int) or not isinstance(adapted_to, int) or judged >= adapted_to:
        return data
    return {**data, "evaluation": {**evaluation, "episodes": adapted_to}}


def _maml(old: Settings, evaluation: Settings) -> Settings:
    """`outer` becomes a section; the baseline stays as it was; actions of evaluations were always samples."""
    taken = {key: old.pop(key) for key in (*_TRPO, *_PPO, "outer_lr") if key in old}
    outer: Settings = {"name": old.pop("outer", "ppo")}
    if old.get("variant") == "reptile":
        old["variant"], outer["name"] = "maml", "reptile"
    if outer["name"] == "trpo":
        outer |= {key: taken[key] for key in _TRPO if key in taken}
    elif "outer_lr" in taken:
        outer["lr"] = taken["outer_lr"]
    if outer["name"] == "ppo":
        outer |= {new: taken[key] for key, new in _PPO.items() if key in taken}
    if not old.get("bootstrap_truncated"):
        old["baseline"] = "cubic"
    evaluation["deterministic"] = False
    return {**old, "outer": outer}


def _rl2(old: Settings, evaluation: Settings) -> Settings:
    """`core` becomes a section, the learning rate falls over the run where it fell at all, credit stays as it was."""
    own = ("num_layers", "num_heads") if old.get("core") == "transformer" else ("bptt_steps",)
    sizes = {key: old.pop(key) for key in ("hidden_dim", "bptt_steps", "num_layers", "num_heads") if key in old}
    core = {"name": old.pop("core", "gru"), **{key: sizes[key] for key in ("hidden_dim", *own) if key in sizes}}
    if old.pop("lr_decay_iterations", None) is not None:
        old["lr_schedule"] = "linear"
    steps, lr = old.pop("fine_tune_steps", 0), old.pop("fine_tune_lr", 0.01)
    if steps:
        old["fine_tuning"] = {"steps": steps, "lr": lr}
    if old.get("memory", "trial") == "trial":
        old["episode_credit"] = "elapsed"
    evaluation["deterministic"] = old.pop("deterministic_evaluation", True)
    evaluation["context"] = old.pop("context", "own")
    return {**old, "core": core}


def _pearl(old: Settings, evaluation: Settings) -> Settings:
    """`encoder` and `contrastive` become sections, exploration in evaluations moves there."""
    encoder: Settings = {"name": old.pop("encoder", "permutation_invariant")}
    if "encoder_dim" in old:
        encoder["hidden_dim"] = old.pop("encoder_dim")
    sampling = old.pop("context_sampling", None)
    if encoder["name"] == "permutation_invariant" and sampling is not None:
        encoder["context_sampling"] = sampling
    weight, temperature = old.pop("contrastive_weight", 0.0), old.pop("contrastive_temperature", 1.0)
    if weight:
        old["contrastive"] = {"weight": weight, "temperature": temperature}
    evaluation["deterministic"] = True
    evaluation["support_episodes"] = old.pop("exploration_episodes", 2)
    evaluation["context"] = old.pop("context", "own")
    return {**old, "encoder": encoder}


_ALGORITHMS: dict[str, Callable[[Settings, Settings], Settings]] = {"maml": _maml, "rl2": _rl2, "pearl": _pearl}
