"""The cheap part of the checks, for the start of every run."""

from __future__ import annotations

from metarl.tasks.check.contract import require_finite
from metarl.tasks.check.observations import time_limit_remarks
from metarl.tasks.check.remarks import Remark
from metarl.tasks.distribution import TaskDistribution, require_description
from metarl.tasks.environment import CheckedEnv

_SEED = 11
_NUM_STEPS = 2


def quick_check(distribution: TaskDistribution) -> list[Remark]:
    """Build three environments side by side (of training and test tasks) and take two steps of random actions.

    Raises TaskError or EnvironmentFault where the distribution lacks an attribute, where an environment cannot be
    built, stepped or served by one policy with the others, or gives what is not finite. Returns what may be a mistake.
    """
    require_description(distribution)
    tasks = (*distribution.sample("train", 2, _SEED), *distribution.sample("test", 1, _SEED))
    require_finite(tasks, distribution, min(_NUM_STEPS, distribution.horizon))
    env = CheckedEnv(distribution.make(tasks[0]), tasks[0])
    remarks = time_limit_remarks(env.env, distribution.horizon)
    env.close()
    return remarks
