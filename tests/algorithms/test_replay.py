"""Replay with identifiable data: every number says which task, stream and step it comes from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metarl.algorithms.pearl.replay import Replay, Transitions
from metarl.errors import CheckpointError, MetarlError
from metarl.rollout.types import Round
from metarl.runs import checkpoint

CPU = torch.device("cpu")
ACTION, REWARD = 10_000, 20_000  # added to the code of a step, so that no field passes for another
LAST = 50  # the "step" of the observation after an episode's last step


def code(task, stream, step):
    """Task 2, stream 3, step 4 is 2304; always above 0, which is padding."""
    return 1000 * task + 100 * stream + step


def make_round(tasks, lengths, horizon, terminated=None):
    """Row k is of task `tasks[k]`; observations are (code, -code), actions and rewards offset codes."""
    lengths = np.array(lengths)
    K, N = lengths.shape
    tasks, streams, steps = np.array(tasks)[:, None, None], np.arange(N)[:, None], np.arange(horizon) + 1
    codes = code(tasks, streams, steps).astype(np.float32)
    last = code(tasks, streams, LAST)[:, :, 0].astype(np.float32)
    real = np.arange(horizon) < lengths[:, :, None]
    ends = np.zeros((K, N), bool) if terminated is None else np.array(terminated)
    return Round(
        observations=np.stack([codes, -codes], 3) * real[..., None],
        actions=((codes + ACTION) * real)[..., None],
        rewards=(codes + REWARD) * real,
        lengths=lengths,
        terminated=ends,
        truncated=~ends,
        last_observations=np.stack([last, -last], 2),
        extras={},
        derived={},
    )


def make_replay(num_tasks=4, capacity=20):
    return Replay(num_tasks, capacity, obs_dim=2, action_dim=1, device=CPU)


def generator(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def sample(replay, tasks, batch_size=1000, seed=0):
    return replay.sample(torch.tensor(tasks), batch_size, generator(seed))


def stored(replay, task):
    """The codes of all transitions of a task, as 1000 samples of at most 20 show them: a miss has p < 1e-20."""
    return sorted({int(c) for c in sample(replay, [task]).observations[0, :, 0]})


def assert_same(a: Transitions, b: Transitions):
    for field in dataclasses.fields(Transitions):
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


def test_the_fields_of_a_transition_belong_together():
    replay = make_replay()
    episodes = make_round([1, 3], [[4, 2], [3, 4]], horizon=4)
    replay.add(1, episodes, 0)
    replay.add(3, episodes, 1)
    batch = sample(replay, [3, 1])
    codes = batch.observations[..., 0]
    assert (codes // 1000 == torch.tensor([[3], [1]])).all()
    assert torch.equal(batch.observations[..., 1], -codes)
    assert torch.equal(batch.actions[..., 0], codes + ACTION)
    assert torch.equal(batch.rewards, codes + REWARD)
    lengths = torch.tensor([[0, 0], [4, 2], [0, 0], [3, 4]])[codes.long() // 1000, codes.long() % 1000 // 100]
    is_last = codes % 100 == lengths
    expected = torch.where(is_last, codes // 100 * 100 + LAST, codes + 1)
    assert torch.equal(batch.next_observations[..., 0], expected)
    assert torch.equal(batch.next_observations[..., 1], -expected)


def test_shapes_and_types_are_as_stated():
    replay = make_replay()
    replay.add(0, make_round([0], [[3]], horizon=3), 0)
    batch = sample(replay, [0, 0, 0], batch_size=5)
    assert batch.observations.shape == batch.next_observations.shape == (3, 5, 2)
    assert batch.actions.shape == (3, 5, 1)
    assert batch.rewards.shape == batch.terminated.shape == (3, 5)
    assert {getattr(batch, field.name).dtype for field in dataclasses.fields(Transitions)} == {torch.float32}
    assert replay.sizes.dtype == torch.int64


def test_padding_is_never_stored():
    replay = make_replay()
    replay.add(1, make_round([1], [[1, 3, 2]], horizon=4), 0)
    assert replay.sizes.tolist() == [0, 6, 0, 0]  # 1 + 3 + 2 real steps
    assert replay.num_stored == 6
    assert stored(replay, 1) == [1001, 1101, 1102, 1103, 1201, 1202]


def test_the_last_observation_follows_the_last_step_of_short_and_full_episodes():
    replay = make_replay()
    replay.add(1, make_round([1], [[1, 3]], horizon=3), 0)
    batch = sample(replay, [1])
    follows = set(zip(batch.observations[0, :, 0].tolist(), batch.next_observations[0, :, 0].tolist(), strict=True))
    assert follows == {(1001, 1050), (1101, 1102), (1102, 1103), (1103, 1150)}


def test_terminated_stops_and_truncated_does_not():
    replay = make_replay()
    # Stream 0 dies early, 1 dies at the horizon, 2 runs out of time early, 3 at the horizon.
    replay.add(1, make_round([1], [[2, 3, 2, 3]], horizon=3, terminated=[[True, True, False, False]]), 0)
    batch = sample(replay, [1])
    assert set(batch.observations[0, batch.terminated[0] == 1, 0].tolist()) == {1002, 1103}
    assert set(batch.terminated.unique().tolist()) == {0, 1}


def test_the_oldest_are_overwritten_first():
    replay = make_replay(capacity=5)
    replay.add(1, make_round([1], [[4]], horizon=4), 0)
    replay.add(1, make_round([2], [[3]], horizon=3), 0)  # 7 into 5: the first two go
    assert stored(replay, 1) == [1003, 1004, 2001, 2002, 2003]
    replay.add(1, make_round([3], [[1]], horizon=3), 0)
    assert stored(replay, 1) == [1004, 2001, 2002, 2003, 3001]
    assert replay.sizes.tolist() == [0, 5, 0, 0]


def test_a_ring_filled_exactly_to_its_end_goes_on_at_its_beginning():
    replay = make_replay(capacity=4)
    replay.add(1, make_round([1], [[4]], horizon=4), 0)
    assert stored(replay, 1) == [1001, 1002, 1003, 1004]
    replay.add(1, make_round([2], [[1]], horizon=4), 0)
    assert stored(replay, 1) == [1002, 1003, 1004, 2001]


@pytest.mark.parametrize("before", [0, 1, 3], ids="after {} steps".format)
def test_of_more_than_the_capacity_the_newest_stay(before):
    replay = make_replay(capacity=3)
    if before:
        replay.add(1, make_round([3], [[before]], horizon=3), 0)
    replay.add(1, make_round([1], [[4, 2]], horizon=4), 0)  # streams one after the other: 1004 is the third newest
    assert stored(replay, 1) == [1004, 1101, 1102]
    replay.add(1, make_round([2], [[1]], horizon=3), 0)
    assert stored(replay, 1) == [1101, 1102, 2001]


def test_sampling_is_uniform_over_what_is_stored():
    replay = make_replay(capacity=20)
    replay.add(1, make_round([1], [[8, 2]], horizon=8), 0)
    replay.add(2, make_round([2], [[3]], horizon=3), 0)
    batch = sample(replay, [1, 2], batch_size=10_000)
    for codes, num, bound in ((batch.observations[0, :, 0], 10, 27.9), (batch.observations[1, :, 0], 3, 13.8)):
        counts = codes.unique(return_counts=True)[1].double()
        assert len(counts) == num
        expected = 10_000 / num
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi_square < bound  # 99.9 % quantiles for num - 1 = 9 and 2 degrees of freedom


def test_other_tasks_and_unwritten_rows_are_never_sampled():
    replay = make_replay(capacity=20)
    for task in range(1, 4):
        replay.add(task, make_round([task], [[task]], horizon=3), 0)
    batch = sample(replay, [1, 2, 3, 1])
    codes = batch.observations[..., 0]
    assert (codes // 1000 == torch.tensor([1, 2, 3, 1])[:, None]).all()
    assert (codes % 1000 >= 1).all()
    assert (codes % 1000 <= torch.tensor([1, 2, 3, 1])[:, None]).all()


def test_the_seed_alone_decides_the_samples():
    replay = make_replay()
    replay.add(1, make_round([1], [[9]], horizon=9), 0)
    assert_same(sample(replay, [1], seed=3), sample(replay, [1], seed=3))
    assert not torch.equal(sample(replay, [1], seed=3).rewards, sample(replay, [1], seed=4).rewards)


def test_an_empty_task_is_refused_by_name():
    replay = make_replay()
    replay.add(1, make_round([1], [[2]], horizon=2), 0)
    with pytest.raises(MetarlError, match=r"stored of task 0, 3$"):
        sample(replay, [1, 3, 0, 3])
    sample(replay, [1, 1])  # that others are empty is no matter


def test_samples_and_sizes_do_not_change_with_later_adds():
    replay = make_replay(capacity=2)
    replay.add(1, make_round([1], [[1]], horizon=2), 0)
    batch, sizes = sample(replay, [1]), replay.sizes
    replay.add(1, make_round([2], [[2]], horizon=2), 0)
    assert (batch.observations[..., 0] == 1001).all()
    assert sizes.tolist() == [0, 1, 0, 0]


def filled():
    """Task 1 is full and its ring has turned, 2 is partly filled, 0 and 3 are empty."""
    replay = make_replay(capacity=5)
    replay.add(1, make_round([1], [[4, 3]], horizon=4), 0)
    replay.add(1, make_round([3], [[2]], horizon=4, terminated=[[True]]), 0)
    replay.add(2, make_round([2], [[3]], horizon=4), 0)
    return replay


def test_a_saved_and_loaded_replay_goes_on_bitwise_the_same(tmp_path):
    replay, resumed = filled(), make_replay(capacity=5)
    resumed.add(0, make_round([3], [[4]], horizon=4), 0)  # what was there before does not matter
    checkpoint.save(tmp_path, 1, replay.state_dict(), {})
    resumed.load_state_dict(checkpoint.load_latest(tmp_path).tensors)
    for later in ([[2]], [[3]], [[4, 4]], [[1]]):
        assert torch.equal(resumed.sizes, replay.sizes)
        assert resumed.num_stored == replay.num_stored
        assert_same(sample(resumed, [1, 2]), sample(replay, [1, 2]))
        for r in (replay, resumed):
            r.add(1, make_round([2], later, horizon=4), 0)
            r.add(2, make_round([1], later, horizon=4), 0)
    with pytest.raises(MetarlError, match="task 0"):
        sample(resumed, [0])


def test_the_filled_tasks_are_those_that_can_be_sampled():
    replay = filled()
    assert replay.filled == [1, 2]
    sample(replay, replay.filled)


def runs(replay, tasks, length, number=500):
    """The codes of `number` runs of each task, [number, K, length]."""
    g = generator()
    return torch.stack(
        [replay.sample_runs(torch.tensor(tasks), length, g).observations[..., 0].long() for _ in range(number)]
    )


def test_a_run_holds_consecutive_transitions_of_one_stream_also_across_episode_ends():
    replay = make_replay(capacity=20)
    replay.add(1, make_round([1], [[4, 2]], horizon=4), 0)
    replay.add(1, make_round([2], [[3, 1]], horizon=4), 0)
    first, second = [1001, 1002, 1003, 1004, 2001, 2002, 2003], [1101, 1102, 2101]
    found = {tuple(run.tolist()) for run in runs(replay, [1], 3)[:, 0]}
    assert found == {tuple(first[i : i + 3]) for i in range(5)} | {tuple(second)}


def test_no_run_joins_two_streams_whatever_was_added_and_overwritten():
    """Against the streams as lists: every run is a piece of one of them."""
    rng = np.random.default_rng(0)
    replay, episodes = make_replay(capacity=37), []
    for index in range(30):
        lengths = rng.integers(1, 6, 3)
        replay.add(1, make_round([index], [lengths], horizon=5), 0)
        episodes += [(n, [code(index, n, t + 1) for t in range(length)]) for n, length in enumerate(lengths)]
        kept = [(n, c) for n, codes in episodes for c in codes][-37:]
        streams = [[c for n, c in kept if n == stream] for stream in range(3)]
        length = min(4, *(len(stream) for stream in streams if stream))
        pieces = {tuple(s[i : i + length]) for s in streams for i in range(len(s) - length + 1)}
        found = {tuple(run.tolist()) for run in runs(replay, [1], length, number=40)[:, 0]}
        assert found <= pieces


def test_no_run_crosses_from_the_newest_transition_to_the_oldest():
    replay = make_replay(capacity=5)
    replay.add(1, make_round([1], [[4]], horizon=4), 0)
    replay.add(1, make_round([2], [[3]], horizon=4), 0)  # the last two over 1001 and 1002, at the ring's beginning
    found = {tuple(run.tolist()) for run in runs(replay, [1], 2)[:, 0]}
    assert found == {(1003, 1004), (1004, 2001), (2001, 2002), (2002, 2003)}
    assert {tuple(run.tolist()) for run in runs(replay, [1], 5)[:, 0]} == {(1003, 1004, 2001, 2002, 2003)}


def test_runs_start_uniformly_over_all_streams():
    replay = make_replay(capacity=20)
    replay.add(1, make_round([1], [[7, 2, 5]], horizon=7), 0)  # runs of 4: four starts, none, two
    counts = runs(replay, [1], 4, number=6000)[:, 0, 0].unique(return_counts=True)[1].double()
    assert len(counts) == 6
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 20.5  # 99.9 % quantile for 5 degrees of freedom


def test_runs_start_uniformly():
    replay = make_replay(capacity=20)
    replay.add(1, make_round([1], [[9]], horizon=9), 0)
    counts = runs(replay, [1], 5, number=4000)[:, 0, 0].unique(return_counts=True)[1].double()
    assert len(counts) == 5
    assert float(((counts - 800) ** 2 / 800).sum()) < 18.5  # 99.9 % quantile for 4 degrees of freedom


def test_runs_are_as_short_as_the_shortest_of_the_tasks_asked_for_and_belong_to_them():
    replay = make_replay(capacity=20)
    replay.add(1, make_round([1], [[9]], horizon=9), 0)
    replay.add(2, make_round([2], [[3, 1]], horizon=9), 0)
    replay.add(3, make_round([3], [[8, 7]], horizon=9), 0)
    found = runs(replay, [2, 1], 6)
    assert found.shape[1:] == (2, 3)
    assert (found[:, 0] == torch.tensor([2001, 2002, 2003])).all()
    assert (found[:, 1] // 1000 == 1).all()
    assert runs(replay, [1, 3], 6).shape[1:] == (2, 6)  # that task 2 has fewer is no matter
    assert runs(replay, [3], 100).shape[1:] == (1, 8)
    with pytest.raises(MetarlError, match="task 0"):
        runs(replay, [1, 0], 2)


def test_a_loaded_replay_has_the_same_runs():
    replay, resumed = filled(), make_replay(capacity=5)
    resumed.add(0, make_round([3], [[4]], horizon=4), 0)
    resumed.load_state_dict(replay.state_dict())
    assert torch.equal(runs(resumed, [1, 2], 3), runs(replay, [1, 2], 3))


def test_a_state_without_streams_is_that_of_one_stream():
    """Earlier versions wrote it so."""
    state = filled().state_dict()
    del state["streams"]
    resumed = make_replay(capacity=5)
    resumed.load_state_dict(state)
    assert {tuple(run.tolist()) for run in runs(resumed, [1], 5)[:, 0]} == {(1101, 1102, 1103, 3001, 3002)}


@pytest.mark.parametrize("task", [-1, 4])
def test_a_task_that_does_not_exist_is_refused(task):
    replay = make_replay()
    for each in range(4):
        replay.add(each, make_round([each], [[2]], horizon=2), 0)
    with pytest.raises(IndexError):
        sample(replay, [task])


def test_an_empty_replay_can_be_saved_and_loaded():
    replay = filled()
    replay.load_state_dict(make_replay(capacity=5).state_dict())
    assert replay.num_stored == 0


def test_a_state_holds_the_filled_part_alone():
    state = filled().state_dict()
    assert state["transitions"].shape == (5 + 3, 2 * 2 + 1 + 2)


def test_a_state_is_no_view_of_the_replay():
    replay = filled()
    before = {name: tensor.clone() for name, tensor in replay.state_dict().items()}
    state = replay.state_dict()
    replay.add(1, make_round([2], [[4]], horizon=4), 0)
    assert all(torch.equal(state[name], before[name]) for name in state)


@pytest.mark.parametrize("sizes", [(3, 5, 2, 1), (4, 6, 2, 1), (4, 5, 1, 3)], ids=["tasks", "capacity", "dims"])
def test_a_state_of_other_sizes_is_refused(sizes):
    # The last has the same row width: 2 * 1 + 3 = 2 * 2 + 1.
    num_tasks, capacity, obs_dim, action_dim = sizes
    other = Replay(num_tasks, capacity, obs_dim, action_dim, CPU)
    with pytest.raises(CheckpointError, match=r"= \(4, 5, 2, 1\), but this one has "):
        other.load_state_dict(filled().state_dict())


def test_a_state_that_contradicts_itself_is_refused_and_changes_nothing():
    replay, other = filled(), filled()
    state = replay.state_dict()
    with pytest.raises(CheckpointError, match=r"sum to 8.*transitions of shape \(7, 7\)"):
        other.load_state_dict({**state, "transitions": state["transitions"][1:]})
    assert_same(sample(other, [1, 2]), sample(replay, [1, 2]))


def test_the_bytes_stated_are_the_bytes_allocated():
    replay = make_replay(num_tasks=3, capacity=7)
    tensors = [value for value in vars(replay).values() if isinstance(value, torch.Tensor)]
    assert replay.num_bytes == sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    assert replay.num_bytes == 4 * 3 * 7 * (2 + 1 + 2 + 1 + 1) + 16 * 3


def test_adding_takes_no_more_memory():
    replay = make_replay(capacity=5)
    before = replay._memory.data_ptr()
    replay.add(1, make_round([1], [[4, 4]], horizon=4), 0)
    assert replay._memory.data_ptr() == before


@pytest.mark.gpu
def test_sampling_on_a_gpu_never_waits_for_it():
    device = torch.device("cuda")
    replay = Replay(2, 20, obs_dim=2, action_dim=1, device=device)
    for task in range(2):
        replay.add(task, make_round([task + 1], [[4, 2]], horizon=4), 0)
    rng = torch.Generator(device).manual_seed(0)
    on_host, on_device = torch.tensor([1, 0]), torch.tensor([1, 0], device=device)
    replay.sample(on_device, 10, rng)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = [replay.sample(tasks, 1000, rng) for tasks in (on_host, on_device)]
        batches += [replay.sample_runs(tasks, 4, rng) for tasks in (on_host, on_device)]
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    for batch in batches:
        codes = batch.observations[..., 0].cpu()
        assert (codes // 1000 == torch.tensor([[2], [1]])).all()
    resumed = Replay(2, 20, obs_dim=2, action_dim=1, device=device)
    resumed.load_state_dict(replay.state_dict())
    draws = [r.sample(on_host, 100, torch.Generator(device).manual_seed(1)) for r in (replay, resumed)]
    assert_same(*draws)
