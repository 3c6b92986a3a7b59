"""An exported policy on a robot's computer, with NumPy and onnxruntime alone.

    metarl export experiments/pretrained/sparse_point_rl2 --out exported
    python examples/run_exported_policy.py exported [EPISODES]

`Robot` stands for yours.
"""

import sys

import numpy as np

folder, episodes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
sys.path.insert(0, folder)
import run_policy  # noqa: E402  (the folder holds it)


class Robot:
    """Stands still: every step costs 1, and it never falls."""

    def observe(self):
        return np.zeros(policy.description["observation"]["flat_size"])

    def move(self, action):
        return -1.0, False


policy = run_policy.load(folder)
robot = Robot()
for episode in range(episodes):
    total, fell = 0.0, False
    for _ in range(policy.horizon):
        action = policy.act(robot.observe())  # in the robot's units
        reward, fell = robot.move(action)
        policy.observe(reward)
        total += reward
        if fell:
            break
    policy.end_episode(not fell, robot.observe())  # adapts where a round ends with it
    print(f"episode {episode + 1}: return {total:.2f}, last action {np.round(action, 3)}")
