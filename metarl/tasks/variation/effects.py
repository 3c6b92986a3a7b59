"""Effects of the body between policy and physics, one class each, over n robots.

    action      -> action_delay -> dead_band -> motor_strength -> action_noise -> stuck_motor -> dead_motor -> physics
    observation <- observation_delay <- sensor_dropout <- sensor_freeze <- observation_noise <- sensor_drift
                <- encoder_bias <- physics

An effect gets rows of actions or observations [m, W], its current value of each row ([m], or [m, k] for k dimensions),
and random numbers of each row's own; what it remembers is kept per row and begins anew at a reset.

Effects of actions change what a motor is told. What that means for servos, see `metarl.tasks.variation.servos`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

Side = Literal["action", "observation"]


@dataclass(frozen=True)
class Channel:
    """The W dimensions that an effect is in: `half_range` [W] (1 where there is none) and `rest` [W], the number that
    means doing nothing (of discrete actions the first of their space, whatever it means)."""

    half_range: np.ndarray
    rest: np.ndarray
    num_rows: int

    @property
    def width(self) -> int:
        return len(self.rest)


class Effect:
    """Base of all effects. low, high: what its values may be; high None: no bound."""

    side: ClassVar[Side]
    neutral: ClassVar[float] = 0.0
    low: ClassVar[float | None] = 0.0
    high: ClassVar[float | None] = None
    unit: ClassVar[str] = ""
    is_index: ClassVar[bool] = False  # its value is the index of a dimension, or -1 for none
    has_one_value: ClassVar[bool] = False  # whether all dimensions must share it
    num_normal: ClassVar[int] = 0  # random numbers per dimension
    num_uniform: ClassVar[int] = 0

    def __init__(self, channel: Channel, dimensions: Sequence[int]):
        self.channel, self.count = channel, len(dimensions)
        is_all = list(dimensions) == list(range(channel.width))
        self.dimensions: Any = slice(None) if is_all else np.asarray(dimensions, np.int64)

    def expect(self, largest: float) -> None:
        """New tasks come, whose values are not above `largest`; a reset of all rows follows."""

    def reset(self, rows: np.ndarray) -> None:
        """Forget the episode of these rows."""

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        """x [m, W] after the effect, in place or not. random [m, W']: W' numbers for the effect's dimensions."""
        raise NotImplementedError

    def _each(self, value: np.ndarray) -> np.ndarray:
        """The value for each dimension concerned, [m, 1] or [m, k]."""
        return value[:, None] if value.ndim == 1 else value


class _Delay(Effect):
    """y_t = (1 - f) x_(t-k) + f x_(t-k-1), with k + f the value [steps]. Before there is a past, its start."""

    unit, has_one_value = "steps", True

    def __init__(self, channel: Channel, dimensions: Sequence[int]):
        super().__init__(channel, dimensions)
        self._length = 0
        self._time = np.zeros(channel.num_rows, np.int64)

    def expect(self, largest: float) -> None:
        length = int(np.floor(largest)) + 2
        if length > self._length:
            self._length, self._past = length, np.zeros((self.channel.num_rows, length, self.count))

    def reset(self, rows: np.ndarray) -> None:
        self._time[rows] = 0

    def _start(self, x: np.ndarray) -> np.ndarray:
        """What the past is filled with, [m, k] or [k]."""
        raise NotImplementedError

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        mine, time = x[:, self.dimensions], self._time[rows]
        is_first = time == 0
        if is_first.any():
            start = np.broadcast_to(self._start(mine), mine.shape)
            self._past[rows[is_first]] = start[is_first][:, None]
        self._past[rows, time % self._length] = mine
        whole = np.floor(value).astype(np.int64)
        part = (value - whole)[:, None]
        newer = self._past[rows, (time - whole) % self._length]
        if part.any():
            older = self._past[rows, (time - whole - 1) % self._length]
            newer = np.where(part > 0, (1 - part) * newer + part * older, newer)
        x[:, self.dimensions] = newer
        self._time[rows] += 1
        return x


class ActionDelay(_Delay):
    """Actions arrive late, by whole steps and fractions of them. Before the first one arrives the robot is at rest.

    Discrete actions have no known rest: until the first action arrives a robot with discrete actions gets the first
    action of its space, and of MultiDiscrete ones the first of each part.
    """

    side = "action"

    def _start(self, x: np.ndarray) -> np.ndarray:
        return self.channel.rest[self.dimensions]


class ObservationDelay(_Delay):
    """Observations arrive late. Before the first one has had time to arrive, it is seen all the same."""

    side = "observation"

    def _start(self, x: np.ndarray) -> np.ndarray:
        return x


class DeadBand(Effect):
    """Actions nearer to rest than value x half their range do nothing."""

    side, unit = "action", "of the half range"

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        d, rest = self.dimensions, self.channel.rest[self.dimensions]
        is_small = np.abs(x[:, d] - rest) < self._each(value) * self.channel.half_range[d]
        x[:, d] = np.where(is_small, rest, x[:, d])
        return x


class MotorStrength(Effect):
    """The action times the value: of a motor its torque, of a servo its target and not its force."""

    side, neutral, unit = "action", 1.0, "x"

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        x[:, self.dimensions] *= self._each(value)
        return x


class ActionNoise(Effect):
    """Plus value x half the range x N(0, 1), new at every step."""

    side, unit, num_normal = "action", "of the half range", 1

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        d = self.dimensions
        x[:, d] += self._each(value) * self.channel.half_range[d] * random
        return x


class _Hold(Effect):
    """The dimension whose index is the value keeps what it last was; -1: none."""

    neutral, low, is_index, has_one_value = -1.0, -1.0, True, True

    def __init__(self, channel: Channel, dimensions: Sequence[int]):
        super().__init__(channel, dimensions)
        self._last = np.zeros((channel.num_rows, channel.width))
        self._is_new = np.ones(channel.num_rows, bool)

    def reset(self, rows: np.ndarray) -> None:
        self._is_new[rows] = True

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        holds = np.flatnonzero((value >= 0) & ~self._is_new[rows])
        which = value[holds].astype(np.int64)
        x[holds, which] = self._last[rows[holds], which]
        self._last[rows], self._is_new[rows] = x, False
        return x


class StuckMotor(_Hold):
    """A motor stays at the action that it had when it got stuck: at the first one, where it is so from the start.

    A motor goes on with that torque; a servo goes on to hold that target.
    """

    side = "action"


class SensorFreeze(_Hold):
    """A dimension stays what it was when its sensor froze: the first observation, where it is so from the start."""

    side = "observation"


class DeadMotor(Effect):
    """The motor whose index is the value is at rest whatever its action; -1: none.

    At rest a servo drives to 0: `MujocoVariation` also sets its gear to 0, which leaves it without torque.
    """

    side, neutral, low, is_index, has_one_value = "action", -1.0, -1.0, True, True

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        dead = np.flatnonzero(value >= 0)
        which = value[dead].astype(np.int64)
        x[dead, which] = self.channel.rest[which]
        return x


class EncoderBias(Effect):
    """Plus the value, throughout."""

    side, low, unit = "observation", None, "of the observation"

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        x[:, self.dimensions] += self._each(value)
        return x


class SensorDrift(Effect):
    """Plus the sum of the value over the steps so far; nothing at the reset."""

    side, low, unit = "observation", None, "of the observation per step"

    def __init__(self, channel: Channel, dimensions: Sequence[int]):
        super().__init__(channel, dimensions)
        self._sum = np.zeros((channel.num_rows, self.count))
        self._is_new = np.ones(channel.num_rows, bool)

    def reset(self, rows: np.ndarray) -> None:
        self._sum[rows], self._is_new[rows] = 0.0, True

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        self._sum[rows] += np.where(self._is_new[rows][:, None], 0.0, self._each(value))
        self._is_new[rows] = False
        x[:, self.dimensions] += self._sum[rows]
        return x


class ObservationNoise(Effect):
    """Plus value x N(0, 1), new at every step."""

    side, unit, num_normal = "observation", "of the observation", 1

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        x[:, self.dimensions] += self._each(value) * random
        return x


class SensorDropout(Effect):
    """Each dimension reads 0 with the probability that is the value, drawn anew at every step."""

    side, high, unit, num_uniform = "observation", 1.0, "probability", 1

    def __call__(self, x: np.ndarray, value: np.ndarray, rows: np.ndarray, random: np.ndarray) -> np.ndarray:
        d = self.dimensions
        x[:, d] = np.where(random < self._each(value), 0.0, x[:, d])
        return x


EFFECTS: dict[str, type[Effect]] = {  # in the order in which they are applied
    "action_delay": ActionDelay,
    "dead_band": DeadBand,
    "motor_strength": MotorStrength,
    "action_noise": ActionNoise,
    "stuck_motor": StuckMotor,
    "dead_motor": DeadMotor,
    "encoder_bias": EncoderBias,
    "sensor_drift": SensorDrift,
    "observation_noise": ObservationNoise,
    "sensor_freeze": SensorFreeze,
    "sensor_dropout": SensorDropout,
    "observation_delay": ObservationDelay,
}
