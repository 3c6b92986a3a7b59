"""Trained policies on robots: they act step by step and adapt to the task that the robot is on.

loading.py     from a run to an agent
agent.py       the loop of a task: begin_task, act, observe, end_episode
rounds.py      what is kept of a round's episodes
interface.py   observations and actions in the robot's own spaces
status.py      where an agent is in its task
saving.py      its state in a file, for a robot that starts again
"""

from metarl.agent.agent import Agent
from metarl.agent.loading import load_agent
from metarl.agent.status import Status

__all__ = ["Agent", "Status", "load_agent"]
