"""Videos of trials.

film.py     collects trials and keeps the pictures of one stream of each task
panels.py   one picture of all episodes side by side, with reward, task and belief drawn in
files.py    mp4, gif and TensorBoard
headless.py which OpenGL renders without a screen
"""
