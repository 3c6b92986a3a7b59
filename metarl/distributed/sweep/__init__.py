"""Many runs of one configuration: a grid of settings, several seeds of each, one comparison.

grid.py     the settings and the runs they make, checked before anything starts
work.py     one run of them, in whichever process
results.py  what came of the runs: statistics over seeds, sweep.json
table.py    the comparison for the terminal
figure.py   the comparison as a picture
"""
