"""The parts of `gpu_check.py`.

install.py      makes metarl and what it needs importable, from wheels alone
learners.py     the learners that are checked, and what they learn from
parts.py        the checks
host_syncs.py   counts where the host waits for the device, on a machine without one
figure.py       the figure
"""
