"""Per-task replay on the learner's device, for algorithms that learn off-policy (PEARL, Rakelly et al. 2019, sec. 5).

        Episodes --add--> ring of `capacity` transitions per task --sample, sample_runs--> Transitions

One row holds one transition, so that a batch is one gather and a checkpoint one tensor:

        observation [O] | action [A] | next observation [O] | reward | terminated

Shape letters: K task, B sample, N stream, T time, O observation, A action, M transition, D = 2 O + A + 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import CheckpointError, MetarlError
from metarl.rollout.types import Episodes


@dataclass(frozen=True)
class Transitions:
    """Transitions of K tasks, B of each: views of one tensor. `terminated` is 1 where the next state is
    terminal and so worth nothing; running out of time is no terminal state."""

    observations: Float[Tensor, "K B O"]
    actions: Float[Tensor, "K B A"]
    rewards: Float[Tensor, "K B"]
    next_observations: Float[Tensor, "K B O"]
    terminated: Float[Tensor, "K B"]


class Replay:
    """A ring buffer of transitions for each task. Tasks are numbered 0, ..., num_tasks - 1."""

    def __init__(self, num_tasks: int, capacity: int, obs_dim: int, action_dim: int, device: torch.device) -> None:
        """`capacity` is in transitions per task; all memory is taken here."""
        assert min(num_tasks, capacity, obs_dim, action_dim) > 0
        self.num_tasks, self.capacity, self.obs_dim, self.action_dim = num_tasks, capacity, obs_dim, action_dim
        self._memory = torch.zeros(num_tasks, capacity, _row_width(obs_dim, action_dim), device=device)
        self._device_sizes = torch.zeros(num_tasks, dtype=torch.int64, device=device)
        self._device_oldest = torch.zeros(num_tasks, dtype=torch.int64, device=device)
        self._sizes = [0] * num_tasks  # the same on the host, read without waiting for the device
        self._positions = [0] * num_tasks  # where the next transition goes: the size, or the oldest if the ring is full

    @staticmethod
    def bytes_of(num_tasks: int, capacity: int, obs_dim: int, action_dim: int) -> int:
        """What a replay of these sizes takes on the device."""
        return 4 * num_tasks * capacity * _row_width(obs_dim, action_dim) + 16 * num_tasks

    @property
    def num_bytes(self) -> int:
        """Memory taken on the device."""
        return self.bytes_of(self.num_tasks, self.capacity, self.obs_dim, self.action_dim)

    @property
    def sizes(self) -> Int[Tensor, " num_tasks"]:
        """Transitions stored of each task, int64 on the device."""
        return self._device_sizes.clone()

    @property
    def num_stored(self) -> int:
        """Transitions stored of all tasks."""
        return sum(self._sizes)

    @property
    def filled(self) -> list[int]:
        """The tasks that can be sampled: those with any transition stored. Known on the host."""
        return [task for task, size in enumerate(self._sizes) if size]

    def add(self, task: int, episodes: Episodes, k: int) -> None:
        """Store all real steps of row `k` of `episodes` as transitions of `task`, over its oldest where it is full.

        Streams count as one after the other, so whole episodes grow old and not the beginnings of all.
        Of more transitions than the capacity the newest stay.
        """
        assert 0 <= task < self.num_tasks
        assert episodes.observations.shape[3] == self.obs_dim
        assert episodes.actions.shape[3:] == (self.action_dim,)
        rows = torch.from_numpy(_rows(episodes, k)[-self.capacity :]).to(self._memory.device)
        start = self._positions[task]
        before_end = min(len(rows), self.capacity - start)
        ring = self._memory[task]
        ring[start : start + before_end] = rows[:before_end]
        ring[: len(rows) - before_end] = rows[before_end:]
        size = min(self._sizes[task] + len(rows), self.capacity)
        self._set_fill(task, size, (start + len(rows)) % self.capacity)

    def clear(self, task: int) -> None:
        """Forget the transitions of `task`."""
        assert 0 <= task < self.num_tasks
        self._set_fill(task, 0, 0)

    def sample(self, tasks: Int[Tensor, " K"], batch_size: int, generator: torch.Generator) -> Transitions:
        """`batch_size` transitions of each of `tasks`, uniform over what is stored of it, with replacement.

        The host never waits for the device, with one exception: `tasks` that lie on the device are read
        while some task is empty. `generator` is the device's. Raises MetarlError naming the tasks that are empty.
        """
        tasks, u = self._draw(tasks, batch_size, generator)
        return self._gather(tasks, (u * self._device_sizes[tasks][:, None]).long())

    def sample_runs(self, tasks: Int[Tensor, " K"], length: int, generator: torch.Generator) -> Transitions:
        """`length` transitions of each of `tasks` in the order in which they were added, without a gap; where a run
        starts is uniform. All runs are as short as the fewest transitions that are stored of any task, the empty ones
        aside.

        A run never goes from the newest transition on to the oldest. It does go on from the end of an episode to the
        one that was added after it. The host waits, and MetarlError is raised, as in `sample`.
        """
        tasks, u = self._draw(tasks, 1, generator)
        length = min(length, *(size for size in self._sizes if size))
        starts = (u * (self._device_sizes[tasks] - length + 1)[:, None]).long()
        since_oldest = starts + torch.arange(length, device=starts.device)
        return self._gather(tasks, (self._device_oldest[tasks][:, None] + since_oldest) % self.capacity)

    def _draw(self, tasks: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The tasks on the device, and `number` uniform draws from [0, 1) for each."""
        if 0 in self._sizes:
            self._refuse_empty(tasks.tolist())
        tasks = tasks.to(self._memory.device, non_blocking=True)
        # float64 has 53 random bits: even over any size, and u < 1 times a size never rounds up to that size.
        u = torch.rand(len(tasks), number, dtype=torch.float64, device=tasks.device, generator=generator)
        return tasks, u

    def _gather(self, tasks: Tensor, places: Tensor) -> Transitions:
        """The transitions at `places` [K, B] of the rings of `tasks` [K]."""
        slots = tasks[:, None] * self.capacity + places
        # index_select copies whole rows: on a CPU six times as fast as self._memory[tasks[:, None], slots]
        rows = self._memory.flatten(0, 1).index_select(0, slots.flatten()).unflatten(0, slots.shape)
        widths = [self.obs_dim, self.action_dim, self.obs_dim, 1, 1]
        observations, actions, next_observations, rewards, terminated = rows.split(widths, dim=2)
        return Transitions(observations, actions, rewards[..., 0], next_observations, terminated[..., 0])

    def state_dict(self) -> dict[str, Tensor]:
        """What is stored, where it lies in the rings, and the sizes it was stored with; on the host."""
        transitions = torch.empty(self.num_stored, self._memory.shape[2])
        for ring, size, saved in zip(self._memory, self._sizes, transitions.split(self._sizes), strict=True):
            saved.copy_(ring[:size])
        return {
            "transitions": transitions,
            "sizes": torch.tensor(self._sizes),
            "positions": torch.tensor(self._positions),
            "shape": torch.tensor(self._shape),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on exactly where `state` was taken. CheckpointError where it is of a replay of other sizes."""
        shape, transitions = tuple(state["shape"].tolist()), state["transitions"]
        sizes, positions = state["sizes"].tolist(), state["positions"].tolist()
        if shape != self._shape:
            raise CheckpointError(
                f"replay of (tasks, capacity, observation, action) = {shape}, but this one has {self._shape}"
            )
        if (sum(sizes), self._memory.shape[2]) != transitions.shape or not len(sizes) == len(positions) == shape[0]:
            raise CheckpointError(
                f"replay state contradicts itself: {shape[0]} tasks, {len(sizes)} sizes that sum to {sum(sizes)}, "
                f"{len(positions)} positions, transitions of shape {tuple(transitions.shape)}"
            )
        for task, saved in enumerate(transitions.split(sizes)):
            self._memory[task, : sizes[task]] = saved.to(self._memory.device)
            self._set_fill(task, sizes[task], positions[task])

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return self.num_tasks, self.capacity, self.obs_dim, self.action_dim

    def _set_fill(self, task: int, size: int, position: int) -> None:
        self._sizes[task], self._positions[task] = size, position
        self._device_sizes[task] = size
        self._device_oldest[task] = (position - size) % self.capacity

    def _refuse_empty(self, tasks: list[int]) -> None:
        empty = sorted({task for task in tasks if self._sizes[task] == 0})
        if empty:
            names = ", ".join(str(task) for task in empty)
            raise MetarlError(f"replay: nothing to sample, no transitions are stored of task {names}")


def _row_width(obs_dim: int, action_dim: int) -> int:
    return 2 * obs_dim + action_dim + 2


def _rows(episodes: Episodes, k: int) -> Float[np.ndarray, "M D"]:
    """The real steps of row `k` as rows of the memory, stream by stream, each in the order of time."""
    task = episodes.of_task(k)
    terminated = np.zeros(task.rewards.shape, np.float32)
    terminated[0, np.arange(task.lengths.shape[1]), task.lengths[0] - 1] = task.terminated[0]
    columns = [
        task.observations,
        task.actions,
        task.next_observations,
        task.rewards[..., None],
        terminated[..., None],
    ]
    return np.concatenate(columns, axis=3, dtype=np.float32)[task.mask]
