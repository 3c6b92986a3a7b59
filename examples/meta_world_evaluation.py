"""Meta-World's own evaluation of a run on its benchmarks: `metaworld.evaluation.metalearning_evaluation`, unmodified.

    pip install metaworld==3.1.1 mujoco==3.3.0
    python examples/meta_world_evaluation.py RUN [--benchmark ML1 --env reach-v3] [--episodes 3]

For every test task: `--support` episodes that the policy adapts to, then `--episodes` that are judged, each from what
the policy knew after adapting. A judged episode ends with its first success. Every test goal comes up once, unless
`--tasks` says less. Benchmark, goals and horizon are the run's, unless stated.

There is one copy of each test environment. With several (Meta-World's default is 20 in all) its evaluation counts those
episodes that end first, and with them rather the successful ones.
"""

import argparse
import copy
from pathlib import Path

import metaworld
import numpy as np
from metarl_envs.meta_world_names import BENCHMARKS, NUM_GOALS
from metaworld.evaluation import Timestep, metalearning_evaluation

import metarl
from metarl.runs.build import load_run

EXTRAS = 6  # appended by Meta-World's recurrent_info_in_obs: the action before (4), its reward, whether it was the last


class MetaWorldAgent:
    """An agent per environment, behind the protocol that Meta-World's evaluation speaks."""

    def __init__(self, agents: list[metarl.Agent]):
        self.agents, self.judged, self.begins = agents, list(agents), [True] * len(agents)

    # --- adaptation: all environments step together, for whole episodes -----------------------------

    def init(self) -> None:
        for agent in self.agents:
            agent.begin_task()

    def adapt_action(self, observations: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return np.stack([a.act(row[:-EXTRAS]) for a, row in zip(self.agents, observations, strict=True)]), {}

    def step(self, timestep: Timestep) -> None:
        for i, agent in enumerate(self.agents):
            ends = bool(timestep.terminated[i] or timestep.truncated[i])
            # Meta-World's vector environments have reset by now: the observation before stands for the last one.
            after = timestep.observation[i][:-EXTRAS] if ends else None
            agent.observe(float(timestep.reward[i]), bool(timestep.terminated[i]), bool(timestep.truncated[i]), after)
            if ends:
                agent.end_episode()

    def adapt(self) -> None:
        """Nothing: an agent adapts within its episodes, or with `end_episode`."""

    # --- evaluation: each environment begins again with its first success ---------------------------

    def reset(self, env_mask: np.ndarray) -> None:
        for i in np.flatnonzero(env_mask):
            agent = self.agents[i]
            shared = {id(part): part for part in (agent.policy, agent.weights)}
            self.judged[i], self.begins[i] = copy.deepcopy(agent, shared), True

    def eval_action(self, observations: np.ndarray) -> np.ndarray:
        for i, row in enumerate(observations):
            if not self.begins[i]:
                self.judged[i].observe(float(row[-2]))  # the reward
            self.begins[i] = False
        return np.stack([a.act(row[:-EXTRAS]) for a, row in zip(self.judged, observations, strict=True)])


def evaluate(options: argparse.Namespace) -> tuple[float, float, dict[str, float]]:
    """Mean success rate, mean return of an episode, and the success rate of every test environment."""
    run = load_run(Path(options.run))
    own = run.distribution
    benchmark = options.benchmark or getattr(own, "benchmark", None)
    env = options.env or getattr(own, "env", None)
    horizon = options.horizon or own.horizon
    if benchmark is None or (benchmark == "ML1") != (env is not None) or own.reveals_task:
        raise SystemExit(f"{own.name}: say --benchmark ML1 --env NAME, or --benchmark with {', '.join(BENCHMARKS)}")
    names = [env] if env else BENCHMARKS[benchmark][1]
    envs = metaworld.make_ml_envs_test(
        env or benchmark,
        seed=getattr(own, "seed", 0),
        meta_batch_size=len(names),
        max_episode_steps=horizon,
        recurrent_info_in_obs=True,
        normalize_reward_in_recurrent_info=False,
    )
    agents = [
        metarl.load_agent(run, seed=i, horizon=horizon, support_episodes=options.support) for i in range(len(names))
    ]
    try:
        return metalearning_evaluation(
            MetaWorldAgent(agents),
            envs,
            num_evals=options.tasks,
            adaptation_episodes=options.support,
            evaluation_episodes=options.episodes,
        )
    finally:
        envs.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run's directory")
    parser.add_argument("--benchmark", choices=["ML1", *BENCHMARKS], help="default: the run's")
    parser.add_argument("--env", help="of ML1, such as reach-v3; default: the run's")
    parser.add_argument("--episodes", type=int, default=3, help="judged episodes of a test task (Meta-World's: 3)")
    parser.add_argument("--support", type=int, default=10, help="episodes to adapt to (Meta-World's: 10)")
    parser.add_argument("--tasks", type=int, default=NUM_GOALS, help="test tasks of every environment (all: 50)")
    parser.add_argument("--horizon", type=int, help="steps of an episode; default: the run's")
    success, mean_return, by_environment = evaluate(parser.parse_args())
    for name, rate in sorted(by_environment.items()):
        print(f"{name:30} {rate:7.1%}")
    print(f"{'success rate':30} {success:7.1%}\n{'return of an episode':30} {mean_return:7.1f}")


if __name__ == "__main__":
    main()
