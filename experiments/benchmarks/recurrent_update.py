"""Learning speed of recurrent PPO against a bare recurrent net: samples per second, on the same data.

One PPO epoch (encoders, core of 128, policy and critic heads, losses, clipping of the gradient, Adam; minibatches of
whole trials) on 128 trials of 400 steps, observations 17, actions 6; and one forward and backward pass of
`torch.nn.GRU` (or LSTM) on the same encoded inputs, all trials at once. They run in turn in this process; the last
line is one JSON object.

    python experiments/benchmarks/recurrent_update.py [--core gru] [--device cuda] [--repeats 5] [--trials 128]
"""

from __future__ import annotations

import argparse
import statistics

import torch
from _timing import ms_in_turn, paired_ratio, reported

from metarl.algorithms.rl2 import RL2
from metarl.algorithms.rl2.config import RL2Config
from metarl.algorithms.rl2.policy import net_of
from metarl.algorithms.rl2.tensors import TrialTensors
from metarl.ops.distributions import Gaussian
from metarl.ops.ppo import PPOBatch
from metarl.rollout.spaces import Spaces

T, NUM_OBS, NUM_ACTIONS = 400, 17, 6


def make_data(rl2: RL2, B: int) -> TrialTensors:
    """Trials as the learner's own policy would have logged them, on random observations."""
    g = torch.Generator().manual_seed(0)
    inputs = torch.randn(T, B, rl2.net.input_dim, generator=g).to(rl2.device)
    params = {name: torch.from_numpy(value).to(rl2.device) for name, value in net_of(rl2.weights()).items()}
    distribution, _ = rl2.net.forward(params, inputs)
    assert isinstance(distribution, Gaussian)
    noise = torch.randn(T, B, NUM_ACTIONS, generator=g).to(rl2.device)
    actions = distribution.mean + distribution.log_std.exp() * noise
    advantages, targets = (torch.randn(T, B, generator=g).to(rl2.device) for _ in range(2))
    mask = torch.ones(T, B, device=rl2.device)
    old_log_prob = distribution.log_prob(actions)
    return TrialTensors(inputs, PPOBatch(actions, distribution, old_log_prob, advantages, targets, mask))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", default="gru", choices=("gru", "lstm", "transformer"))
    parser.add_argument("--minibatches", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=128)
    given = parser.parse_args()
    with reported() as result:
        result |= measure(given.core, given.trials, given.minibatches, torch.device(given.device), given.repeats)


def measure(core: str, B: int, minibatches: int, device: torch.device, repeats: int) -> dict[str, object]:
    """Samples per second on B trials: of one epoch and of the bare net."""
    rl2 = RL2(
        RL2Config.model_validate(
            {
                "name": "rl2",
                "core": {"name": core},
                "tasks_per_iteration": B,
                "epochs": 1,
                "minibatches": minibatches,
            }
        ),
        Spaces(NUM_OBS, NUM_ACTIONS),
        device,
        seed=0,
    )
    data = make_data(rl2, B)
    bare = (torch.nn.LSTM if core == "lstm" else torch.nn.GRU)(rl2.net.core.input_dim, 128).to(device)
    encoded = torch.relu(torch.randn(T, B, rl2.net.core.input_dim, device=device))
    cotangent = torch.randn(T, B, 128, device=device)

    def bare_pass() -> None:
        bare.zero_grad()
        outputs, _ = bare(encoded)
        outputs.backward(cotangent)

    epoch, bare_net = ms_in_turn([lambda: rl2.optimise(data), bare_pass], repeats, device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "core": core,
        "trials": B,
        "samples_per_s": round(1e3 * T * B / statistics.median(epoch)),
        "bare_samples_per_s": round(1e3 * T * B / statistics.median(bare_net)),
        f"ratio_to_bare_{'lstm' if core == 'lstm' else 'gru'}": round(paired_ratio(bare_net, epoch), 3),
    }


if __name__ == "__main__":
    main()
