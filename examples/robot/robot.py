"""A stand-in robot: a simulation that runs in real time, in a process of its own.

Every period it moves by the action that has arrived for what it sent last, and sends what it sees. Where none has
arrived, or no controller is connected, it stands still for a period. A message is one line of JSON:

    robot -> controller    {"step": 7, "observation": [...], "reward": 1.5, "terminated": false, "truncated": false}
                           step counts in an episode, whose first message has step 0 and reward null
    controller -> robot    {"step": 7, "action": [...]} answers message 7
                           {"reset": true} after an episode has ended, {"stop": true} at the end

    python examples/robot/robot.py --port 5555
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from typing import Any

import numpy as np

import metarl


class Connection:
    """Messages over a TCP connection; ConnectionError where the other end has closed it."""

    def __init__(self, endpoint: socket.socket):
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.endpoint, self._buffer = endpoint, b""

    def send(self, message: dict[str, Any]) -> None:
        self.endpoint.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_s: float) -> list[dict[str, Any]]:
        """The whole messages that have arrived, waiting for one no longer than that."""
        self.endpoint.settimeout(max(timeout_s, 1e-3))
        try:
            data = self.endpoint.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self._buffer += data
        except TimeoutError:
            pass
        *whole, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in whole]


class Robot:
    """The simulation, and where it is in its episode."""

    def __init__(self, env: Any, seed: int):
        self.env, self.action = env, np.zeros(env.action_space.shape, np.float32)
        self.observation, _ = env.reset(seed=seed)
        self.step, self.reward, self.terminated, self.truncated = 0, None, False, False
        self.stopped, self.answered, self.late = False, False, 0

    def message(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "observation": [float(value) for value in self.observation],
            "reward": self.reward,
            "terminated": self.terminated,
            "truncated": self.truncated,
        }

    def take(self, message: dict[str, Any]) -> bool:
        """Do what a message says; whether it began an episode."""
        self.stopped |= "stop" in message
        if message.get("step") == self.step:
            self.action[:], self.answered = message["action"], True
        if "reset" not in message or not (self.terminated or self.truncated):
            return False
        self.observation, _ = self.env.reset()
        self.step, self.reward, self.terminated, self.truncated = 0, None, False, False
        return True

    def move(self) -> None:
        self.answered = False
        self.observation, reward, self.terminated, self.truncated, _ = self.env.step(self.action)
        self.step, self.reward = self.step + 1, float(reward)


def control(connection: Connection, robot: Robot, period_s: float) -> None:
    """Real time, until the controller stops the robot."""
    connection.send(robot.message())
    next_s = time.monotonic() + period_s
    while not robot.stopped:
        for message in connection.receive(next_s - time.monotonic()):
            if robot.take(message):
                connection.send(robot.message())
                next_s = time.monotonic() + period_s
        if time.monotonic() >= next_s:
            next_s = max(next_s + period_s, time.monotonic())
            is_over = robot.terminated or robot.truncated
            robot.late += not (is_over or robot.answered)
            if not is_over and robot.answered:
                robot.move()
                connection.send(robot.message())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="experiments/pretrained/half_cheetah_vel_rl2", help="whose tasks")
    parser.add_argument("--port", type=int, default=5555)
    parser.add_argument("--period", type=float, help="seconds of a step; default: the simulation's own")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds without a controller until it gives up")
    parser.add_argument("--seed", type=int, default=0, help="of the task, one that training has not seen")
    arguments = parser.parse_args()
    env: Any = metarl.make_env(arguments.run, seed=arguments.seed)
    period_s, robot = arguments.period or 1 / env.metadata["render_fps"], Robot(env, arguments.seed)
    with socket.create_server(("127.0.0.1", arguments.port)) as server:
        server.settimeout(arguments.wait)
        print(f"{env.task}, {1 / period_s:.0f} Hz, port {server.getsockname()[1]}", flush=True)
        while not robot.stopped:
            endpoint, _ = server.accept()
            with endpoint:
                try:
                    control(Connection(endpoint), robot, period_s)
                except ConnectionError:
                    print(f"no controller; standing still at step {robot.step}", flush=True)
    print(f"{robot.late} periods without an action", flush=True)


if __name__ == "__main__":
    main()
