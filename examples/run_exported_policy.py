"""An exported policy on a robot's computer, with NumPy and onnxruntime alone.

    metarl export experiments/pretrained/sparse_point_rl2 --out exported
    python examples/run_exported_policy.py exported [EPISODES]

`step` stands for the robot: it is given an action in the robot's units and gives observation, reward and whether it
fell. What every array is for stands in exported/policy.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def step(action, size=[]):  # replace by your robot; here everything stands still
    return np.zeros(size[0], np.float32), -1.0, False


folder, episodes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
told = json.loads((folder / "policy.json").read_text())
step.__defaults__[0].append(told["observation"]["flat_size"])
graphs = {name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in told["graphs"]}
state = {f"state.{name}": value for name, value in np.load(folder / "initial_state.npz").items()}
rng, reward, kept, number = np.random.default_rng(), 0.0, [], 0


def run(name, given):
    """One graph's outputs; what it gives as next.* is the state from now on."""
    given = {port["name"]: given[port["name"]] for port in told["graphs"][name]["inputs"]}
    found = dict(zip((port["name"] for port in told["graphs"][name]["outputs"]), graphs[name].run(None, given)))
    state.update({"state" + key[4:]: value for key, value in found.items() if key.startswith("next.")})
    return found


for episode in range(episodes):
    plan, (observation, _, fell), steps = told["rounds"][min(number, len(told["rounds"]) - 1)], step(None), []
    while len(steps) < told["horizon"] and not fell:
        inputs = {"observation": observation[None], "reward": np.full((1, 1), reward, np.float32)}
        inputs["first"] = np.full((1, 1), not steps, np.float32)
        for port in told["graphs"]["policy"]["inputs"]:
            if "draw" in port:
                draw = {"normal": rng.standard_normal, "gumbel": lambda size: rng.gumbel(size=size)}[port["draw"]]
                inputs[port["name"]] = (draw(port["shape"]) * (not plan["deterministic"])).astype(port["dtype"])
        found = run("policy", {**inputs, **state})
        before, (observation, reward, fell) = observation, step(found["action"][0])
        steps.append((before, found["policy_action"][0], np.float32(reward)))
    arrays = [np.stack(column) for column in zip(*steps)]
    padded = [np.concatenate((a, np.zeros((told["horizon"] - len(a), *a.shape[1:]), a.dtype))) for a in arrays]
    kept.append((*padded, np.int64(len(steps)), np.bool_(not fell), observation))
    if len(kept) == plan["episodes"]:
        if plan["adapt"] and "adapt" in graphs:
            names = ("observations", "actions", "rewards", "lengths", "truncated", "last_observations")
            run("adapt", {**dict(zip(names, map(np.stack, zip(*kept)))), **state})
        number, kept = number + 1, []
    print(f"episode {episode + 1}: return {arrays[2].sum():.2f}, last action {np.round(found['action'][0], 3)}")
