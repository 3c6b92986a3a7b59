"""Per-task replay on the learner's device, for algorithms that learn off-policy (PEARL, Rakelly et al. 2019, sec. 5).

        Episodes --add--> ring of `capacity` transitions per task --sample, sample_runs--> Transitions

One row holds one transition, so that a batch is one gather and a checkpoint one tensor:

        observation [O] | action [A] | next observation [O] | reward | terminated

Every row also knows its stream, so that a run of consecutive transitions stays within one. A stream's episodes follow
each other in the order in which they were added: the rounds of a trial, then those of the task's next trial.

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
        """`capacity` is in transitions per task. All memory is taken here, but for the order of runs."""
        assert min(num_tasks, capacity, obs_dim, action_dim) > 0
        self.num_tasks, self.capacity, self.obs_dim, self.action_dim = num_tasks, capacity, obs_dim, action_dim
        self._memory = torch.zeros(num_tasks, capacity, _row_width(obs_dim, action_dim), device=device)
        self._device_sizes = torch.zeros(num_tasks, dtype=torch.int64, device=device)
        self._sizes = [0] * num_tasks  # the same on the host, read without waiting for the device
        self._positions = [0] * num_tasks  # where the next transition goes: the size, or the oldest if the ring is full
        # For runs, brought up to date for the tasks in `_changed` when runs are sampled:
        self._streams = np.zeros((num_tasks, capacity), np.int32)  # of each row
        self._changed: set[int] = set()
        self._order = torch.zeros(num_tasks, 0, dtype=torch.int32, device=device)  # rows by stream, then by age
        self._stream_sizes = np.zeros((num_tasks, 1), np.int64)  # transitions stored of each stream [tasks, N]
        self._device_stream_sizes = torch.zeros(num_tasks, 1, dtype=torch.int64, device=device)

    @property
    def num_bytes(self) -> int:
        """Memory taken on the device."""
        tensors = (self._memory, self._device_sizes, self._order, self._device_stream_sizes)
        return sum(tensor.nbytes for tensor in tensors)

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
        lengths = episodes.lengths[k]
        streams = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[-self.capacity :]
        start = self._positions[task]
        before_end = min(len(rows), self.capacity - start)
        ring, ring_streams = self._memory[task], self._streams[task]
        first, rest = slice(start, start + before_end), slice(0, len(rows) - before_end)
        ring[first], ring_streams[first] = rows[:before_end], streams[:before_end]
        ring[rest], ring_streams[rest] = rows[before_end:], streams[before_end:]
        size = min(self._sizes[task] + len(rows), self.capacity)
        self._set_fill(task, size, (start + len(rows)) % self.capacity)

    def sample(self, tasks: Int[Tensor, " K"], batch_size: int, generator: torch.Generator) -> Transitions:
        """`batch_size` transitions of each of `tasks`, uniform over what is stored of it, with replacement.

        The host never waits for the device, with one exception: `tasks` that lie on the device are read
        while some task is empty. `generator` is the device's. Raises MetarlError naming the tasks that are empty.
        """
        tasks, u = self._draw(tasks, batch_size, generator)
        return self._gather(tasks, (u * self._device_sizes[tasks][:, None]).long())

    def sample_runs(self, tasks: Int[Tensor, " K"], length: int, generator: torch.Generator) -> Transitions:
        """`length` transitions of each of `tasks` that one stream had one after the other; uniform over the places
        where such a run can start. All runs are shorter where one of `tasks` has no stream with so many transitions:
        as long as its longest stream.

        A run never goes from the newest transition to the oldest, nor from one stream to another. It does continue
        from the end of an episode to the stream's next one. MetarlError is raised as in `sample`. The host waits for
        the device where `tasks` lie on it and some task has an empty or too short a ring.
        """
        self._sort_changed()
        length = self._run_length(tasks, length)
        tasks, u = self._draw(tasks, 1, generator)
        sizes = self._device_stream_sizes[tasks]  # [K, N]
        starts = (sizes - length + 1).clamp_min(0)  # where a run can start
        ends = starts.cumsum(1)
        drawn = (u * ends[:, -1:]).long()  # [K, 1]
        stream = (drawn >= ends).sum(1, keepdim=True)
        sizes_before, starts_before = ((part.cumsum(1) - part).gather(1, stream) for part in (sizes, starts))
        first = sizes_before + drawn - starts_before
        return self._gather(tasks, self._order[tasks[:, None], first + torch.arange(length, device=u.device)].long())

    def _run_length(self, tasks: Tensor, most: int) -> int:
        """`most`, or the longest stream of that task among `tasks` where it is the shortest."""
        longest = self._stream_sizes.max(axis=1)
        if (longest[longest > 0] >= most).all():  # whichever tasks these are
            return most
        return min(most, int(longest[tasks.tolist()].min()))

    def _sort_changed(self) -> None:
        """Bring `_order` and the sizes of streams up to date."""
        if not self._changed:
            return
        device = self._memory.device
        if self._order.shape[1] == 0:
            self._order = torch.zeros(self.num_tasks, self.capacity, dtype=torch.int32, device=device)
        num_streams = max(int(self._streams.max()) + 1, self._stream_sizes.shape[1])
        added = num_streams - self._stream_sizes.shape[1]
        self._stream_sizes = np.pad(self._stream_sizes, ((0, 0), (0, added)))
        for task in self._changed:
            size, oldest = self._sizes[task], self._positions[task] - self._sizes[task]
            by_age = (oldest + np.arange(size)) % self.capacity
            streams = self._streams[task, by_age]
            order = by_age[np.argsort(streams, kind="stable")].astype(np.int32)
            self._order[task, :size] = torch.from_numpy(order).to(device, non_blocking=True)
            self._stream_sizes[task] = np.bincount(streams, minlength=num_streams)
        self._device_stream_sizes = torch.from_numpy(self._stream_sizes.copy()).to(device, non_blocking=True)
        self._changed.clear()

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
        """What is stored, its streams, where it lies in the rings, and the sizes of the replay; on the host."""
        transitions = torch.empty(self.num_stored, self._memory.shape[2])
        streams = [ring[:size] for ring, size in zip(self._streams, self._sizes, strict=True)]
        for ring, size, saved in zip(self._memory, self._sizes, transitions.split(self._sizes), strict=True):
            saved.copy_(ring[:size])
        return {
            "transitions": transitions,
            "streams": torch.from_numpy(np.concatenate(streams)),
            "sizes": torch.tensor(self._sizes),
            "positions": torch.tensor(self._positions),
            "shape": torch.tensor(self._shape),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue exactly where `state` was taken. CheckpointError where it is of a replay of other sizes.

        A state without `streams`, as earlier versions wrote it, counts as that of a single stream.
        """
        shape, transitions = tuple(state["shape"].tolist()), state["transitions"]
        sizes, positions = state["sizes"].tolist(), state["positions"].tolist()
        if shape != self._shape:
            raise CheckpointError(
                f"replay of (tasks, capacity, observation, action) = {shape}, but this one has {self._shape}"
            )
        streams = state.get("streams", torch.zeros(len(transitions), dtype=torch.int32))
        fits = (sum(sizes), self._memory.shape[2]) == transitions.shape and len(streams) == len(transitions)
        if not (fits and len(sizes) == len(positions) == shape[0]):
            raise CheckpointError(
                f"replay state contradicts itself: {shape[0]} tasks, {len(sizes)} sizes that sum to {sum(sizes)}, "
                f"{len(positions)} positions, {len(streams)} streams, transitions of shape {tuple(transitions.shape)}"
            )
        for task, (saved, saved_streams) in enumerate(zip(transitions.split(sizes), streams.split(sizes), strict=True)):
            self._memory[task, : sizes[task]] = saved.to(self._memory.device)
            self._streams[task, : sizes[task]] = saved_streams.numpy()
            self._set_fill(task, sizes[task], positions[task])

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return self.num_tasks, self.capacity, self.obs_dim, self.action_dim

    def _set_fill(self, task: int, size: int, position: int) -> None:
        self._sizes[task], self._positions[task] = size, position
        self._device_sizes[task] = size
        self._changed.add(task)

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
