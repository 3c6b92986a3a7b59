"""A control loop that gets observations from a robot, sends actions, adapts on the job, and survives its own restart.

Before an action is sent the agent's state is on the disk, in --state. A controller that was killed and is started again
continues in the middle of the episode: what it was about to send is sent again where the robot has not moved, and what
it missed is at most the one message that the robot repeats. What it did is in --log, one line of JSON per step.

    python examples/robot/robot.py --port 5555 &
    python examples/robot/controller.py --port 5555 --state agent.state --log log.jsonl --episodes 4
    python examples/robot/plot.py log.jsonl adaptation.png
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from robot import Connection

import metarl


def answer(agent: metarl.Agent, message: dict[str, Any], log: TextIO) -> dict[str, Any]:
    """What the robot is to do next: move, or begin an episode."""
    start_s, observation = time.perf_counter(), np.array(message["observation"])
    taken, awaited = agent.status.step, agent.awaited_action
    if awaited is not None and message["step"] == taken:  # the robot has not moved: it may not have got the action
        return {"step": message["step"], "action": awaited.tolist()}
    if awaited is not None and message["step"] > taken + 1:  # what came of the action is not known any more
        raise SystemExit(f"the robot is at step {message['step']}, this program at {taken}: the period is too short")
    if awaited is not None:
        agent.observe(message["reward"], message["terminated"], message["truncated"], observation)
        entry = {"episode": agent.status.episode, "step": taken, "reward": message["reward"]}
        log.write(json.dumps({**entry, "time": time.time(), "status": str(agent.status)}) + "\n")
        log.flush()
        if agent.episode_over:
            agent.end_episode()
    if message["terminated"] or message["truncated"]:
        return {"reset": True}
    action = agent.act(observation)
    log.write(json.dumps({"act_us": round(1e6 * (time.perf_counter() - start_s), 1)}) + "\n")
    return {"step": message["step"], "action": action.tolist()}


def connect(port: int, wait_s: float) -> Connection:
    """A connection to the robot, which may not be up yet."""
    end_s = time.monotonic() + wait_s
    while True:
        try:
            return Connection(socket.create_connection(("127.0.0.1", port), timeout=1.0))
        except OSError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="experiments/pretrained/half_cheetah_vel_rl2", help="whose policy")
    parser.add_argument("--port", type=int, default=5555)
    parser.add_argument("--state", type=Path, default=Path("agent.state"))
    parser.add_argument("--log", type=Path, default=Path("log.jsonl"))
    parser.add_argument("--episodes", type=int, default=4, help="on this task, before and after restarts")
    parser.add_argument("--wait", type=float, default=30.0, help="seconds for the robot to be there")
    arguments = parser.parse_args()
    agent = metarl.load_agent(arguments.run)
    if arguments.state.exists():
        agent.load_state(arguments.state)
        print(f"continues: {agent.status}", flush=True)
    else:
        agent.begin_task()
    connection = connect(arguments.port, arguments.wait)
    with arguments.log.open("a") as log:
        while agent.status.episode <= arguments.episodes:
            for message in connection.receive(1.0):
                reply = answer(agent, message, log)
                agent.save_state(arguments.state)
                connection.send(reply)
    connection.send({"stop": True})
    print(f"done: {agent.status}", flush=True)


if __name__ == "__main__":
    main()
