"""The look at a run's environments before its first iteration."""

from __future__ import annotations

import logging

from metarl.rollout.worker import environment_faults, time_limit
from metarl.tasks import TaskDistribution
from metarl.tasks.check import quick_check
from metarl.tasks.requirements import unmet

_log = logging.getLogger(__name__)


def precheck(distribution: TaskDistribution, deadline_s: float) -> None:
    """Run `metarl.tasks.check.quick_check`, and log in one line what it found.

    Raises what it raises, and EnvironmentFault where it takes longer than `deadline_s`. Distributions whose
    requirements this Python lacks are left to the workers.
    """
    if unmet(distribution.requirements):
        return
    tasks, doing = distribution.sample("train", 1, 0), "checking a few environments"
    with environment_faults(tasks, doing), time_limit(deadline_s, tasks, doing):
        remarks = quick_check(distribution)
    found = "; ".join(remark.text for remark in remarks)
    level = logging.WARNING if remarks else logging.INFO
    _log.log(level, "%s: quick check %s", distribution.name, found or "passed (all checks: metarl tasks check)")
