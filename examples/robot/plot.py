"""What a controller's log shows of adaptation: the return of every episode, and the reward within each.

python examples/robot/plot.py log.jsonl adaptation.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def rewards_of(log: Path) -> dict[int, np.ndarray]:
    """The rewards of every episode; of a step that was logged twice, before and after a restart, the last."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    by_step = {(entry["episode"], entry["step"]): entry["reward"] for entry in entries if "reward" in entry}
    episodes = sorted({episode for episode, _ in by_step})
    return {e: np.array([by_step[key] for key in sorted(by_step) if key[0] == e]) for e in episodes}


def main() -> None:
    episodes = rewards_of(Path(sys.argv[1]))
    figure = Figure(figsize=(8, 3), layout="constrained")
    returns, within = figure.subplots(1, 2)
    returns.plot(list(episodes), [rewards.sum() for rewards in episodes.values()], "o-")
    returns.set(xlabel="episode", ylabel="return")
    for episode, rewards in episodes.items():
        within.plot(rewards, label=f"episode {episode}")
    within.set(xlabel="step", ylabel="reward")
    within.legend()
    figure.savefig(sys.argv[2])
    print({episode: round(float(rewards.sum()), 1) for episode, rewards in episodes.items()})


if __name__ == "__main__":
    main()
