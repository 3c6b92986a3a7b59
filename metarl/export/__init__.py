"""Policies as files that other runtimes read: ONNX, or torch programs.

writing.py       from an agent to files
units.py         the robot's units, as a part of the graph
formats.py       graphs to ONNX and to torch programs, and running them
runner.py        the loop of a task around the graphs: what a robot's program does
check.py         the export beside the agent, on held-out tasks
description.py   policy.json
"""

from metarl.export.check import Comparison, compare
from metarl.export.runner import Runner
from metarl.export.writing import Export, export_run, load_runner

__all__ = ["Comparison", "Export", "Runner", "compare", "export_run", "load_runner"]
