"""Train, evaluate and act, in one program: seconds on a laptop, and no use as a policy.

python examples/train_and_act.py [RUN_DIR]
"""

import sys

import metarl

run = sys.argv[1] if len(sys.argv) > 1 else "runs/example"

config = metarl.load_config(
    "point_goal", {"training.iterations": 3, "algorithm.tasks_per_iteration": 4, "evaluation.num_tasks": 5}
)
result = metarl.train(config, run_dir=run, local=True)
print(result.frame()[["kind", "iteration", "return/round0", "return/round1"]])

evaluation = metarl.evaluate(run, tasks=5)
assert evaluation.gain_over_blank is not None  # what adaptation brings, over the same policy given no experience
print(f"adaptation gains {evaluation.gain_over_blank.mean:.2f} per episode on tasks that training has not seen")

env = metarl.make_env(run, seed=0)
agent = metarl.load_agent(run, support_episodes=2)
agent.begin_task()
for _ in range(4):
    print(agent.status)
    observation, _ = env.reset()
    while not agent.episode_over:
        action = agent.act(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        agent.observe(reward, terminated, truncated, observation)
    agent.end_episode()
