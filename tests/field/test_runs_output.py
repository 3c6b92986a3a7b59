"""Output that nobody reads any more, and encodings that lack characters: training goes on, or saves and says so."""

from __future__ import annotations

import os
import pty
import signal
from pathlib import Path

from metarl.runs import checkpoint
from metarl.runs.records import METRICS, read_records
from tests.child import PATIENCE_S, start, wait_for_iterations

LONG = ("train", "small.yaml", "training.iterations=1000000", "training.checkpoint_every=1000000")


def last_iteration(run: Path) -> int:
    return int(read_records(run / METRICS)[-1]["iteration"])


def test_training_goes_on_where_nobody_reads_its_output(config: str) -> None:
    """`metarl train ... | head -3`."""
    child = start(*LONG)
    assert child.stdout is not None
    while not child.stdout.readline().startswith("iteration"):
        assert child.poll() is None, child.communicate()
    child.stdout.close()
    wait_for_iterations(Path("runs/small"), last_iteration(Path("runs/small")) + 20, child)
    child.send_signal(signal.SIGTERM)
    assert child.wait(PATIENCE_S) == 128 + signal.SIGTERM
    assert child.stderr is not None
    with child.stderr:
        said = child.stderr.read()
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said
    assert checkpoint.load_latest(Path("runs/small/checkpoints")).iteration == last_iteration(Path("runs/small"))


def test_a_terminal_that_closes_ends_training_with_a_checkpoint(config: str) -> None:
    """The window is closed, or the connection breaks: SIGHUP, and writing fails."""
    master, slave = pty.openpty()
    child = start(*LONG, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    wait_for_iterations(Path("runs/small"), 3, child)
    os.close(master)
    child.send_signal(signal.SIGHUP)
    assert child.wait(PATIENCE_S) == 128 + signal.SIGHUP
    assert checkpoint.load_latest(Path("runs/small/checkpoints")).iteration == last_iteration(Path("runs/small"))


def test_training_under_nohup_ignores_a_terminal_that_closes(config: str) -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which processes started from here inherit
    try:
        child = start(*LONG)
    finally:
        signal.signal(signal.SIGHUP, former)
    wait_for_iterations(Path("runs/small"), 3, child)
    child.send_signal(signal.SIGHUP)
    wait_for_iterations(Path("runs/small"), last_iteration(Path("runs/small")) + 3, child)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 128 + signal.SIGTERM


def test_characters_that_the_output_cannot_show_are_replaced(tmp_path: Path, config: str) -> None:
    """PYTHONIOENCODING=ascii and a run directory with an umlaut."""
    child = start(
        "train", config, "training.iterations=1", "--run-dir", "läufe/ü", environment={"PYTHONIOENCODING": "ascii"}
    )
    out, said = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, said
    assert "run directory: l?ufe/?" in out
    assert (tmp_path / "läufe" / "ü" / "config.yaml").is_file()
