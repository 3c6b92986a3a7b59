"""An exported policy on a robot's computer, with NumPy and onnxruntime alone.

    metarl export experiments/pretrained/sparse_point_rl2 --out exported
    python examples/run_exported_policy.py exported [EPISODES]

`Robot` stands for yours. What every array is for stands in exported/policy.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

folder, episodes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
told = json.loads((folder / "policy.json").read_text())
graphs = {name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in told["graphs"]}
state = {f"state.{name}": value for name, value in np.load(folder / "initial_state.npz").items()}
rng, reward, number, kept = np.random.default_rng(), 0.0, 0, []
reads_all = "adapts" in [port["name"] for port in told["graphs"].get("adapt", {"inputs": []})["inputs"]]
EPISODE = ("observations", "actions", "rewards", "lengths", "truncated", "last_observations")


class Robot:
    """Stands still: observations are zeros, every step costs 1, and it never falls."""

    def observe(self):
        return np.zeros(told["observation"]["flat_size"], np.float32)

    def move(self, action):
        return -1.0, False


def run(name, given):
    """The outputs of a graph by name; what it gives as next.* is the state from now on."""
    ports, outputs = told["graphs"][name]["inputs"], told["graphs"][name]["outputs"]
    values = graphs[name].run(None, {port["name"]: {**given, **state}[port["name"]] for port in ports})
    found = {port["name"]: value for port, value in zip(outputs, values, strict=True)}
    state.update({"state" + key[4:]: value for key, value in found.items() if key.startswith("next.")})
    return found


def noise(sampled):
    """Random numbers for sampled actions, zeros for the most likely ones."""
    ports = [port for port in told["graphs"]["policy"]["inputs"] if "draw" in port]
    draw = {"normal": rng.standard_normal, "gumbel": lambda size: rng.gumbel(size=size)}
    return {p["name"]: (sampled * draw[p["draw"]](p["shape"])).astype(p["dtype"]) for p in ports}


robot = Robot()
for episode in range(episodes):
    plan, steps, fell = told["rounds"][min(number, len(told["rounds"]) - 1)], [], False
    while len(steps) < told["horizon"] and not fell:
        seen = {"observation": robot.observe()[None], "reward": np.float32([[reward]])}
        first = {"first": np.float32([[not steps]])}
        found = run("policy", {**seen, **first, **noise(not plan["deterministic"])})
        reward, fell = robot.move(found["action"][0])  # in the robot's units
        steps.append((seen["observation"][0], found["policy_action"][0], np.float32(reward)))
    columns = [np.stack(column) for column in zip(*steps, strict=True)]
    padding = told["horizon"] - len(steps)
    padded = [np.concatenate((a, np.zeros((padding, *a.shape[1:]), a.dtype))) for a in columns]
    kept.append((*padded, np.int64(len(steps)), np.bool_(not fell), robot.observe()))
    if len(kept) == plan["episodes"]:
        if "adapt" in graphs and (plan["adapt"] or reads_all):
            episodes_kept = {name: np.stack(a) for name, a in zip(EPISODE, zip(*kept, strict=True), strict=True)}
            run("adapt", {**episodes_kept, "adapts": np.array([[plan["adapt"]]])})
        number, kept = number + 1, []
    print(f"episode {episode + 1}: return {columns[2].sum():.2f}, last action {np.round(found['action'][0], 3)}")
