"""How a run ended, for those who start many: outcome.json in its directory. Without it the run is to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.config import RunConfig
from metarl.files import write_text

OUTCOME = "outcome.json"
STOPPED_EARLY, FAILED = "stopped early", "failed"


def outcome_of(folder: Path) -> dict[str, Any] | None:
    """How the run ended; None where it has not.

    `reason`: done, time limit, stopped early, failed. Then `error`, where it failed, or `iteration`, `env_steps`,
    `wall_s` and `returns`: the mean return on held-out tasks of every round.
    """
    try:
        content = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_outcome(folder: Path, content: Mapping[str, Any]) -> None:
    """Note how the run ended."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / OUTCOME, json.dumps(content, indent=1, allow_nan=False) + "\n")


def clear_outcome(folder: Path) -> None:
    """Forget how the run ended, because it is to go on."""
    (folder / OUTCOME).unlink(missing_ok=True)


def has_ended(folder: Path, config: RunConfig, may_stop_early: bool) -> bool:
    """Whether `config` leaves nothing to do in a run's directory; `may_stop_early`: what was stopped early stays so."""
    outcome = outcome_of(folder)
    if outcome is None or outcome["reason"] == FAILED:
        return False
    if outcome["reason"] == STOPPED_EARLY:
        return may_stop_early
    settings = config.training
    limit, limit_min = settings.env_steps_limit, settings.time_limit_minutes
    is_late = limit_min is not None and outcome["wall_s"] >= 60 * limit_min
    has_steps = limit is not None and outcome["env_steps"] >= limit
    return is_late or has_steps or outcome["iteration"] >= settings.iterations
