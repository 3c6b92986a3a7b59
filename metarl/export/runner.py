"""Runs an exported policy. Needs NumPy, and onnxruntime or torch for the graphs; nothing of metarl.

    policy = load("exported")
    policy.begin_task()                                   # forgets the task before
    for each episode:
        for each step:
            action = policy.act(observation)              # in the robot's units
            policy.observe(reward)
        policy.end_episode(truncated, last_observation)   # adapts where a round ends with it

Every export holds this file as run_policy.py, so that a robot runs what the export was checked with. What the arrays
are for stands in policy.json.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

DESCRIPTION, INITIAL = "policy.json", "initial_state.npz"
Format = Literal["onnx", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
METADATA = "metarl"  # the key under which the graphs hold policy.json too

Call = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def load(folder: str | Path, num_threads: int = 1) -> Runner:
    """The policy that was exported into `folder`. FileNotFoundError naming what is missing."""
    folder = Path(folder)
    if not (folder / DESCRIPTION).is_file():
        raise FileNotFoundError(f"{folder} holds no exported policy: it has no {DESCRIPTION}")
    told = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    calls = {}
    for name in told["graphs"]:
        files = [folder / f"{name}{suffix}" for suffix in SUFFIXES.values()]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{folder} lacks the graph {name} that its {DESCRIPTION} tells of")
        calls[name] = _open_onnx(found, num_threads) if found.suffix == SUFFIXES["onnx"] else _open_torch(found)
    with np.load(folder / INITIAL) as arrays:
        initial = dict(arrays)
    return Runner(calls["policy"], calls.get("adapt"), told, initial)


class Runner:
    """One robot on a policy's graphs. `description` is the content of policy.json, `initial` that of initial_state.npz.

    begin_task -> [ (act -> observe) x T -> end_episode ] x any number of episodes. Observations are flat, in the order
    that `description["observation"]` tells. RuntimeError where calls come in another order or more than the horizon's
    steps are taken, ValueError where what is given has another size or is not finite; both leave the runner as it was.
    """

    def __init__(
        self, act: Call, adapt: Call | None, description: Mapping[str, Any], initial: Mapping[str, np.ndarray]
    ):
        self._act, self._adapt, self.description, self._initial = act, adapt, description, dict(initial)
        inputs = description["graphs"]["policy"]["inputs"]
        self.noises = {port["name"]: port for port in inputs if "draw" in port}
        self._silence = {name: np.zeros(port["shape"], port["dtype"]) for name, port in self.noises.items()}
        ports = description["graphs"].get("adapt", {"inputs": []})["inputs"]
        self._reads_all = "adapts" in [port["name"] for port in ports]  # also rounds that are not adapted to
        self._obs_dim = int(description["observation"]["flat_size"])
        self._rounds, self.horizon = description["rounds"], int(description["horizon"])
        self._rng = np.random.default_rng()
        self.begin_task()

    def begin_task(self, seed: int | None = None) -> None:
        """Forget the task before; `seed` makes the actions that are sampled repeat."""
        self._rng = np.random.default_rng(seed)
        self.state = {f"state.{name}": value for name, value in self._initial.items()}
        self.round, self.episodes = 0, list[dict[str, np.ndarray]]()
        self._last_action: np.ndarray | None = None
        self._reward = np.zeros((1, 1), np.float32)
        self._begin_episode()

    def _begin_episode(self) -> None:
        self._first = np.ones((1, 1), np.float32)
        self._steps: list[tuple[np.ndarray, np.ndarray, np.float32]] = []
        self._acted: tuple[np.ndarray, np.ndarray] | None = None  # what the next observe is about

    @property
    def is_deterministic(self) -> bool:
        """Whether the plan takes the most likely action here, and samples none."""
        return bool(self._current["deterministic"])

    @property
    def _current(self) -> Mapping[str, Any]:
        current: Mapping[str, Any] = self._rounds[min(self.round, len(self._rounds) - 1)]
        return current

    def act(self, observation: Any, noise: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """The action in the robot's units, [A] or a number; of MultiDiscrete actions all parts.

        `noise`: values of the graph's noise inputs by name, zeros where they are left out; None: drawn here, where the
        plan samples actions.
        """
        if self._acted is not None:
            raise RuntimeError("act was called twice: call observe with what the first action earned before")
        if len(self._steps) == self.horizon:
            raise RuntimeError(f"the episode is over after {self.horizon} steps: call end_episode before act")
        obs = _observed(observation, self._obs_dim, "the observation")
        if noise is None:
            noise = {} if self.is_deterministic else self._drawn()
        given = {"observation": obs[None], "reward": self._reward, "first": self._first}
        found = self._act({**given, **self._silence, **self._checked(noise), **self.state})
        if not np.isfinite(found["policy_action"]).all():
            raise RuntimeError("the policy's action is not finite: its files are damaged, or an adaptation diverged")
        for name, value in found.items():
            if name.startswith("next."):
                self.state["state" + name[4:]] = value
        self._last_action = found["policy_action"][0]
        self._acted = obs, found["policy_action"][0]
        self._first = np.zeros((1, 1), np.float32)
        action: np.ndarray = found["action"][0]
        return action

    def _checked(self, noise: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`noise` as the graph reads it; ValueError where it is none of its inputs."""
        checked = {}
        for name, values in noise.items():
            if name not in self.noises:
                raise ValueError(
                    f"noise {name!r} is no input of the policy; allowed: {', '.join(self.noises) or 'none'}"
                )
            array, port = np.asarray(values), self.noises[name]
            if array.shape != tuple(port["shape"]) or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite numbers of shape {list(port['shape'])}, got {_shown(values)}")
            checked[name] = array.astype(port["dtype"])
        return checked

    def _drawn(self) -> dict[str, np.ndarray]:
        draw: dict[str, Callable[..., Any]] = {
            "normal": self._rng.standard_normal,
            "gumbel": lambda size: self._rng.gumbel(size=size),
        }
        return {
            name: np.asarray(draw[port["draw"]](port["shape"]), port["dtype"]) for name, port in self.noises.items()
        }

    @property
    def policy_action(self) -> np.ndarray:
        """The last action of the task in the policy's units."""
        if self._last_action is None:
            raise RuntimeError("there is no action yet: call act before")
        return self._last_action

    def observe(self, reward: float) -> None:
        """What the last action earned."""
        if self._acted is None:
            raise RuntimeError(
                f"observe was called {'twice for one action' if self._steps else 'before act'}: call act"
            )
        earned = _rewarded(reward)
        self._reward = np.full((1, 1), earned, np.float32)
        self._steps.append((*self._acted, earned))
        self._acted = None

    def end_episode(self, truncated: bool, last_observation: Any) -> None:
        """The episode has ended: terminated, or `truncated` where time ran out; adapts where a round ends with it."""
        if self._acted is not None:
            raise RuntimeError("end_episode was called after act: call observe with what the action earned before")
        if not self._steps:
            raise RuntimeError("end_episode was called before the episode's first step: call act and observe")
        if not isinstance(truncated, bool | np.bool_):
            raise ValueError(f"truncated must be True or False, got {_shown(truncated)}")
        last = _observed(last_observation, self._obs_dim, "the last observation")
        episodes = [*self.episodes, {} if self._adapt is None else self._recorded(bool(truncated), last)]
        if len(episodes) == self._current["episodes"]:
            adapts = self._current["adapt"]
            if self._adapt is not None and (adapts or self._reads_all):
                found = self._adapt({**_joined(episodes), "adapts": np.full((1, 1), adapts), **self.state})
                self.state.update({"state" + name[4:]: value for name, value in found.items()})
            self.round, episodes = self.round + 1, []
        self.episodes = episodes
        self._begin_episode()

    def _recorded(self, truncated: bool, last: np.ndarray) -> dict[str, np.ndarray]:
        """The episode as the adaptation's inputs without their first axis, padded with zeros to the horizon."""
        horizon, steps = self.horizon, self._steps

        def padded(values: list[Any]) -> np.ndarray:
            array = np.stack(values)
            return np.concatenate((array, np.zeros((horizon - len(array), *array.shape[1:]), array.dtype)))

        return {
            "observations": padded([step[0] for step in steps]),
            "actions": padded([step[1] for step in steps]),
            "rewards": padded([step[2] for step in steps]),
            "lengths": np.array(len(steps), np.int64),
            "truncated": np.array(truncated, bool),
            "last_observations": last,
        }


def _joined(episodes: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([episode[name] for episode in episodes]) for name in episodes[0]}


def _observed(given: Any, size: int, what: str) -> np.ndarray:
    """`given` as float32 [O]; ValueError where it has another size, or is not finite in float32."""
    values = _numbers(given)
    if values is None or values.shape != (size,):
        raise ValueError(f"{what} must be {size} finite numbers, flat, got {_shown(given)}")
    with np.errstate(over="ignore"):
        observed = values.astype(np.float32)
    if not np.isfinite(observed).all():
        wrong = int(np.argmin(np.isfinite(observed)))
        too_large = ", too large for float32," if np.isfinite(values[wrong]) else ""
        raise ValueError(
            f"{what} must be {size} finite numbers, got {values[wrong]:.4g}{too_large} in dimension {wrong}"
        )
    return observed


def _rewarded(given: Any) -> np.float32:
    """`given` as float32; ValueError where it is no single number, or is not finite in float32."""
    value = _numbers(given)
    if value is None or value.shape != ():
        raise ValueError(f"the reward must be a single number, got {_shown(given)}")
    with np.errstate(over="ignore"):
        reward = np.float32(value)
    if not np.isfinite(reward):
        raise ValueError(
            f"the reward is {value:.4g}{', too large for float32' if np.isfinite(value) else ''}; it must be finite"
        )
    return reward


def _numbers(given: Any) -> np.ndarray | None:
    """`given` as an array of numbers; None where it is none."""
    try:
        values = np.asarray(given)
    except ValueError:  # rows of different lengths
        return None
    return values if values.dtype.kind in "fiub" else None


def _shown(given: Any) -> str:
    if isinstance(given, np.ndarray):
        return f"an array of shape {given.shape}, {given.dtype}"
    text = repr(given)
    return f"{type(given).__name__} {text if len(text) < 60 else text[:57] + '...'}"


def _open_onnx(path: Path, num_threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}

    def call(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = session.run(names, {name: value for name, value in given.items() if name in wanted})
        return dict(zip(names, values, strict=True))

    return call


def _open_torch(path: Path) -> Call:
    import torch

    extra = {METADATA: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path, extra_files=extra).module()
    ports = json.loads(extra[METADATA])["graphs"][path.stem]
    inputs, outputs = ([port["name"] for port in ports[kind]] for kind in ("inputs", "outputs"))

    def call(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            values = module(*(torch.from_numpy(np.ascontiguousarray(given[name])) for name in inputs))
        return {name: value.numpy() for name, value in zip(outputs, values, strict=True)}

    return call
