"""Checks the learner on a GPU: one command, under nine minutes, no network, no Ray.

    python experiments/gpu_check.py --out DIR [--wheels DIR] [--rehearse]

Parts: the tests marked `gpu`; updates on the GPU against the CPU's; exact resume; updates per second in every mode;
short training runs; peak memory; operations for which the host waits. Each part runs in a process of its own within a
time of its own, and each of its checks stands alone: a failure is recorded with its traceback, and the rest continues.

DIR/gpu_check.json is written after every check, DIR/gpu_check.png at the end. Exit code 0 where everything is ok, 1
where something is not, 2 where the command cannot start. `--rehearse` does all of it on the CPU with small sizes.

    gpu_check.py --> a process per part --> (name, result) of each check --> gpu_check.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_checks import install

if TYPE_CHECKING:
    from gpu_checks.parts import Setting

_LIMIT_S = 520.0  # of all parts together
_PATIENCE = 10.0  # a rehearsal is no measurement: its times are so much longer, for machines that do other things
_LEAST_S = 5.0  # a part that has less time left is not started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu_check.json and gpu_check.png")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, for what is not installed")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with small sizes")
    arguments = parser.parse_args()
    install.ensure(arguments.wheels)
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic mode needs it before CUDA starts
    report = check(arguments.out, arguments.rehearse)

    from gpu_checks.figure import draw

    draw(report, arguments.out / "gpu_check.png")
    for name, part in report["parts"].items():
        print(f"{name:17} {'ok' if part['ok'] else 'FAILED'} {part['seconds']:6.1f} s {', '.join(part['failed'])}")
    return 0 if all(part["ok"] for part in report["parts"].values()) else 1


def check(out: Path, is_rehearsal: bool) -> dict[str, Any]:
    """All parts; the report, which is also in `out`."""
    from gpu_checks.parts import PARTS

    started_s, patience = time.monotonic(), _PATIENCE if is_rehearsal else 1.0
    report: dict[str, Any] = {"device": None, "is_rehearsal": is_rehearsal, "parts": {}}
    for name, (_, budget_s) in {"machine": (None, 60.0), **PARTS}.items():
        left_s = min(patience * budget_s, patience * _LIMIT_S - (time.monotonic() - started_s))
        part: dict[str, Any] = {"ok": False, "failed": ["not run"], "seconds": 0.0, "results": {}}
        report["parts"][name] = part
        if left_s > _LEAST_S:
            run_part(name, is_rehearsal, left_s, part, lambda: write(report, out / "gpu_check.json"))
        if name == "machine":
            report["device"] = part["results"].get("machine", {}).get("device")
        write(report, out / "gpu_check.json")
    return report


def run_part(name: str, is_rehearsal: bool, limit_s: float, part: dict[str, Any], write_report: Any) -> None:
    """Fill in `part` from a process of its own; the process ends with what it started when the time is up."""
    start_s = time.monotonic()
    # CUDA must start anew in every process; a rehearsal imports modules once and forks, which is faster.
    context: Any = multiprocessing.get_context("fork" if is_rehearsal else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, is_rehearsal, sender))
    process.start()
    sender.close()
    part["failed"] = ["did not end"]
    try:
        while receiver.poll(max(0.0, limit_s - (time.monotonic() - start_s))):
            message = receiver.recv()
            if message is None:
                part["failed"] = []
                break
            key, result = message
            part["results"][key] = result
            part["seconds"] = time.monotonic() - start_s
            write_report()
        else:
            part["failed"] = [f"cut off after {limit_s:.0f} s"]
    except EOFError:
        part["failed"] = ["its process died"]
    finally:
        _end(process)
    part["failed"] += [key for key, result in part["results"].items() if not result.get("ok", True)]
    part["ok"] = not part["failed"]
    part["seconds"] = round(time.monotonic() - start_s, 2)


def _end(process: Any) -> None:
    """Wait for a process that is done; kill one that is not, with all that it has started."""
    process.join(2.0)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()


def _work(name: str, is_rehearsal: bool, sender: Connection) -> None:
    """A part's process: send (key, result) after every check, and None at the end."""
    os.setsid()
    from gpu_checks.parts import PARTS

    setting = _setting(is_rehearsal)
    checks = [("machine", lambda: machine(setting))] if name == "machine" else PARTS[name][0](setting)
    for key, function in checks:
        start_s = time.monotonic()
        try:
            result = function()
        except Exception:
            result = {"ok": False, "traceback": traceback.format_exc()}
        sender.send((key, {**result, "check_s": round(time.monotonic() - start_s, 2)}))
    sender.send(None)


def _setting(is_rehearsal: bool) -> Setting:
    import torch
    from gpu_checks.learners import LEARNERS, SMALL_LEARNERS
    from gpu_checks.parts import Setting

    if is_rehearsal:
        torch.set_num_threads(1)
        return Setting(torch.device("cpu"), SMALL_LEARNERS, True)
    return Setting(torch.device("cuda"), LEARNERS, False)


def machine(setting: Setting) -> dict[str, Any]:
    """What is measured on. Not ok where a GPU is wanted and none is usable, and where the checks have imported Ray."""
    import torch

    found: dict[str, Any] = {
        "device": "cpu",
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cpus": len(os.sched_getaffinity(0)),
        "imports_ray": any(module.split(".")[0] == "ray" or module == "metarl.distributed" for module in sys.modules),
    }
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "bytes": properties.total_memory, "cudnn": torch.backends.cudnn.version()}
    return {"ok": not found["imports_ray"], **found}


def write(report: dict[str, Any], path: Path) -> None:
    """Whole or not at all: a command that is cut off leaves the last report."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1, allow_nan=True) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
