"""Where the host waits for the device: what the counter counts, and how often the learners wait in an update."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

# In a process of its own: the stand-in device must be registered before the first backward pass.
SCRIPT = """
import json, sys
import torch
from gpu_checks.host_syncs import counted, stand_in_device, totals
from gpu_checks.learners import SMALL_LEARNERS
from gpu_checks.parts import count_on_stand_in

torch.set_num_threads(1)
device = stand_in_device()
host = torch.arange(6.0).view(2, 3)
operations = {
    "arithmetic, an in-place step and gradients": lambda x: torch.autograd.grad(
        (x.clone().mul_(2) @ x.T).tanh().sum(), x
    ),
    "item": lambda x: x.sum().detach().item(),
    "float": lambda x: float(x.sum().detach()),
    "bool": lambda x: bool((x > 0).any()),
    "tolist": lambda x: x.detach().tolist(),
    "cpu": lambda x: x.detach().cpu().numpy(),
    "copy_ to the host": lambda x: torch.empty(2, 3).copy_(x.detach()),
    "comparison of two elements": lambda x: x[0, 0] < x[0, 1] and 1,
    "a host tensor to the device": lambda x: host.to(device),
    "numbers to the device": lambda x: torch.tensor([1, 2], device=device),
    "a number like a tensor": lambda x: x.new_tensor(0.5),
    "a host index": lambda x: x[torch.tensor([1])],
    "nonzero": lambda x: x.nonzero(),
    "a boolean index": lambda x: x[x > 0],
    "values on the host alone": lambda x: (host.sum().item(), host[host > 0], host.tolist()),
}
found = {}
with counted() as counts:
    for name, operation in operations.items():
        x = host.to(device).requires_grad_()
        counts.clear()
        operation(x)
        found[name] = totals(counts)
    x = host.to(device)
    values = torch.linalg.vector_norm(x @ x.T).cpu().item()
print(json.dumps({
    "operations": found,
    "is_right": values == torch.linalg.vector_norm(host @ host.T).item(),
    "learners": {name: count_on_stand_in(learner, device) for name, learner in SMALL_LEARNERS.items()},
}))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=EXPERIMENTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def counts(to_host: int = 0, to_device: int = 0, data_shape: int = 0) -> dict[str, int]:
    return {"to_host": to_host, "to_device": to_device, "data_shape": data_shape}


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("arithmetic, an in-place step and gradients", counts()),
        ("item", counts(to_host=1)),
        ("float", counts(to_host=1)),
        ("bool", counts(to_host=1)),
        ("tolist", counts(to_host=1)),
        ("cpu", counts(to_host=1)),
        ("copy_ to the host", counts(to_host=1)),
        ("comparison of two elements", counts(to_host=1)),
        ("a host tensor to the device", counts(to_device=1)),
        ("numbers to the device", counts(to_device=1)),
        ("a number like a tensor", counts(to_device=1)),
        ("a host index", counts(to_device=1)),
        ("nonzero", counts(data_shape=1)),
        ("a boolean index", counts(data_shape=1)),
        ("values on the host alone", counts()),
    ],
)
def test_an_operation_counts_by_why_the_host_waits(found, operation, expected):
    assert found["operations"][operation] == expected


def test_the_stand_in_computes_what_the_cpu_computes(found):
    assert found["is_right"]


# Upper bounds of a second update with the sizes of SMALL_LEARNERS. A bound is lowered when a learner waits less often;
# it is raised for a reason alone, which the commit states.
@pytest.mark.parametrize(
    ("learner", "to_host", "to_device"),
    [
        ("MAML, ppo", 1, 2),  # all metrics; 2 rounds
        ("MAML, trpo", 19, 2),  # a line search that finds nothing: 15 tries and the loss before; all metrics
        ("RL2", 3, 3),  # the weights, the metrics of all minibatches, the deviation; the trials, 2 minibatches' rows
        ("RL2, transformer", 3, 5),  # and the mask of each minibatch
        ("PEARL", 2, 18),  # the metrics and the temperature; 8 episodes into 2 replays, 1 list of tasks a step
    ],
)
def test_an_update_waits_for_the_device_at_most_so_often(found, learner, to_host, to_device):
    waits = found["learners"][learner]
    assert waits["to_host"] <= to_host, waits["places"]
    assert waits["to_device"] <= to_device, waits["places"]
    assert waits["data_shape"] == 0, waits["places"]
