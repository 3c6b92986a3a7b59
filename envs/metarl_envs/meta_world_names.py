"""The names of Meta-World 3.1.1's environments and the lists of its meta-learning benchmarks, for a learner that does
not have Meta-World. A test compares them with Meta-World's own where it is installed."""

from __future__ import annotations

import textwrap


def _names(text: str) -> tuple[str, ...]:
    return tuple(f"{name}-v3" for name in textwrap.dedent(text).split())


# In Meta-World's order: the parameter `env` of a task is an index into it.
ENVIRONMENTS = _names("""
    assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press
    button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open
    door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer handle-press-side handle-press
    handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole pick-place plate-slide plate-slide-side
    plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push push-wall
    push-back reach reach-wall shelf-place sweep-into sweep window-open window-close
""")

# benchmark: (environments to train on, environments to test on); ML1 has one of ENVIRONMENTS for both
BENCHMARKS = {
    "ML10": (
        _names("""
            reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open sweep
            basketball
        """),
        _names("drawer-open door-close shelf-place sweep-into lever-pull"),
    ),
    "ML25": (
        _names("""
            reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side window-open
            window-close coffee-pull pick-out-of-hole disassemble pick-place-wall basketball stick-pull
            button-press-wall faucet-open door-lock lever-pull sweep-into faucet-close coffee-button
            button-press-topdown-wall dial-turn
        """),
        _names("basketball door-close shelf-place sweep button-press"),  # basketball is in both, with other goals
    ),
    "ML45": (
        _names("""
            assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall
            coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-open drawer-close drawer-open
            faucet-open faucet-close hammer handle-press-side handle-press handle-pull-side handle-pull lever-pull
            pick-place-wall pick-out-of-hole push-back pick-place plate-slide plate-slide-side plate-slide-back
            plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push-wall push
            reach-wall reach shelf-place sweep-into sweep window-open window-close
        """),
        _names("bin-picking box-close hand-insert door-lock door-unlock"),
    ),
}
NUM_GOALS = 50  # of an environment, in training as in the test
