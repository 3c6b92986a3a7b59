"""Where an agent is in its task, as numbers and as a sentence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """episode, round: of the task, counted from 1. step: steps taken in the episode.

    episodes_until_adaptation: how many must still end, the one under way included, before the policy adapts between
        episodes; None where it does so no more on this task.
    adaptations: how often it has adapted between episodes on this task.
    deterministic: whether actions are means (or most likely actions) instead of samples.
    adapts_within_episodes: whether the policy adapts at every step, by its memory.
    """

    episode: int
    step: int
    round: int
    episodes_until_adaptation: int | None
    adaptations: int
    deterministic: bool
    adapts_within_episodes: bool = False

    def __str__(self) -> str:
        """`episode 3, step 0: sampled actions; 18 episodes are to end before it adapts`."""
        actions = "most likely actions" if self.deterministic else "sampled actions"
        return f"episode {self.episode}, step {self.step}: {actions}; {self._adaptation}"

    @property
    def _adaptation(self) -> str:
        if self.adapts_within_episodes:
            return "adapts at every step, by its memory"
        times = {0: "has not adapted yet", 1: "has adapted once"}.get(
            self.adaptations, f"has adapted {self.adaptations} times"
        )
        if self.episodes_until_adaptation is None:
            return f"{times} and does not adapt to further episodes" if self.adaptations else "does not adapt"
        if self.episodes_until_adaptation == 1:
            return f"{times}, and adapts when this episode ends"
        left = self.episodes_until_adaptation
        return f"{times}: collects, and adapts when {left} episodes have ended, this one included"
