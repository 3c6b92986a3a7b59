"""Walker2d and Hopper with random dynamics: every mass, inertia, friction and damping has its own multiplier."""

from __future__ import annotations

from typing import Any

from metarl.tasks import Anchors, LogUniform, Mixture, Parameter, Prior, TaskParams
from metarl.tasks.mujoco import MujocoTaskDistribution
from metarl.tasks.physics import Physics
from metarl_envs.gymnasium_v5 import Hopper, Walker2d


class _RandParams(MujocoTaskDistribution):
    """Reward v + 1 while healthy - 1e-3 sum a^2. Observation: qpos without x, qvel clipped to +-10.

    Multipliers per element: body_mass, body_inertia and geom_friction 1.5^U(-3, 3), dof_damping 1.3^U(-3, 3).
    Out of distribution the exponent lies in [3, 4] (all elements of a field) or in [-4, -3]. Unlike in the code
    that introduced these families, derived constants are recomputed after the masses change, so that contact and
    limit forces fit the changed body. Model, frame skip and termination are those of Gymnasium's v5.
    """

    edits_model = True

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        model = self.model()
        self.parameters = (
            _multipliers("body_mass", 1.5, model.nbody - 1),  # without the world body, which has no mass
            _multipliers("body_inertia", 1.5, 3 * (model.nbody - 1)),
            _multipliers("geom_friction", 1.5, 3 * model.ngeom),
            _multipliers("dof_damping", 1.3, model.nv),
        )

    def edit(self, physics: Physics, params: TaskParams) -> None:
        model, n = physics.model, physics.num_sims
        physics.field("body_mass")[:, 1:] = model.body_mass[1:] * params["body_mass"]
        physics.field("body_inertia")[:, 1:] = model.body_inertia[1:] * params["body_inertia"].reshape(n, -1, 3)
        physics.field("geom_friction")[:] = model.geom_friction * params["geom_friction"].reshape(n, -1, 3)
        physics.field("dof_damping")[:] = model.dof_damping * params["dof_damping"]


class Walker2dRandParams(_RandParams, Walker2d):
    """Walker2d with random dynamics. Healthy: height in (0.8, 2), angle in (-1, 1). Observation 17.

    Shows little about adaptation: one policy that cannot know the task does about as well here as published
    meta-learners. Give a task-blind baseline beside any result.
    """

    name = "Walker2dRandParams"
    version = 1

    @property
    def anchors(self) -> Anchors:
        source = (
            "nothing: measured, H=200, 500 test tasks of seed 0, standard error 1.0. Published, H=200, older model and "
            "frame skip: a task-blind policy trained on many tasks earns above 1000 and VariBAD below 1000, experts "
            "about 1300: results show little about adaptation"
        )
        return Anchors(85.7 if self.horizon == 200 else None, source=source)


class HopperRandParams(_RandParams, Hopper):
    """Hopper with random dynamics. Healthy: height above 0.7, angle in (-0.2, 0.2), all else in (-100, 100).

    Observation 11.
    """

    name = "HopperRandParams"
    version = 1

    @property
    def anchors(self) -> Anchors:
        source = "nothing: measured, H=200, 500 test tasks of seed 0, standard error 1.9"
        return Anchors(142.4 if self.horizon == 200 else None, source=source)


def _multipliers(field: str, base: float, size: int) -> Parameter:
    """base^U(-3, 3) for each of `size` elements; out of distribution base^U(3, 4) or base^U(-4, -3)."""
    low, high = base**-3, base**3
    ood: Prior = Mixture(LogUniform(base**-4, low, size), LogUniform(high, base**4, size))
    return Parameter(field, LogUniform(low, high, size), "x", ood=ood)
