"""Checks that a task distribution keeps its contract: for built-in families, and for a user's plug-in.

Each check is a function of the distribution that raises TaskError saying what is wrong, or returns remarks. They use
the public interface, a few tasks and short episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from metarl.errors import EnvironmentFault, TaskError
from metarl.plugins import describe
from metarl.tasks.check.contract import ENVIRONMENT_CHECKS, check_environments_run
from metarl.tasks.check.declared_space import check_observations_in_space
from metarl.tasks.check.description import DESCRIPTION_CHECKS
from metarl.tasks.check.drawing import check_drawing
from metarl.tasks.check.effects import EFFECT_CHECKS
from metarl.tasks.check.observations import check_observations, check_time_limits
from metarl.tasks.check.quick import quick_check
from metarl.tasks.check.remarks import Remark
from metarl.tasks.check.servos import check_servos
from metarl.tasks.check.variation import VARIATION_CHECKS
from metarl.tasks.distribution import TaskDistribution

__all__ = ["CHECKS", "CheckResult", "Remark", "check_distribution", "quick_check"]

Check = Callable[[TaskDistribution], list[Remark] | None]
CHECKS: tuple[Check, ...] = (
    *DESCRIPTION_CHECKS,
    check_environments_run,
    *ENVIRONMENT_CHECKS,
    *EFFECT_CHECKS,
    check_observations_in_space,
    check_observations,
    check_time_limits,
    check_drawing,
    check_servos,
    *VARIATION_CHECKS,
)


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check; `message` says what is wrong where it did not pass. Remarks do not fail it."""

    name: str
    passed: bool
    message: str = ""
    remarks: tuple[Remark, ...] = ()


def check_distribution(distribution: TaskDistribution) -> list[CheckResult]:
    """The result of every check, in order. An exception of the plug-in counts as a failed check.

    Where no environment can be built and stepped, the checks that need one are left out.
    """
    results = []
    for check in CHECKS:
        results.append(_run(check, distribution))
        if check is check_environments_run and not results[-1].passed:
            break
    return results


def _run(check: Check, distribution: TaskDistribution) -> CheckResult:
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        return CheckResult(name, True, remarks=tuple(check(distribution) or ()))
    except (TaskError, EnvironmentFault) as error:
        return CheckResult(name, False, str(error))
    except (Exception, SystemExit) as error:
        return CheckResult(name, False, describe(error))
