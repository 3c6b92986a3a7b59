"""`report.html`: one page that needs no network, from studies of runs.

figures.py    the pictures of one run, as SVG
compare.py    several runs on equal tasks: table and pictures
page.py       template + studies -> HTML
report.html.jinja
"""
