"""One picture of a film: its episodes side by side at the same step, with reward, task values and belief drawn in.

+--------------------------------------------+
| title                                      |
| task values of row 1                       |
| +------------+ +------------+              |
| | episode 1  | | episode 2  |   name, step, return so far
| | picture    | | picture    |
| | reward     | | reward     |   reward per step, one scale for all
| | belief     | | belief     |   mean and standard deviation of each latent, where there are any
| +------------+ +------------+              |
+--------------------------------------------+
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from metarl.report.style import BLUE, CATEGORIES, GREY, INK, VERMILLION
from metarl.report.table import number
from metarl.report.video.film import Belief, Clip, Film

WIDTH = 320  # of a panel's picture
_GAP, _LINE = 8, 20
_CAPTION, _REWARD_HEIGHT, _BELIEF_HEIGHT = 14, 46, 60
_MOST_LATENTS = 16
_BELIEF_RANGE = 3.0  # latents are drawn from -3 to 3; the prior's standard deviation is 1
_PAUSE = 12  # pictures of the end
_GRID = "#e0e0e0"


def pictures(film: Film, title: str) -> Iterator[np.ndarray]:
    """The film's pictures [height, width, 3] uint8 in order, even in size; the end is held for a moment."""
    layout = _Layout(film, title)
    for step in (*range(0, film.length, film.every), film.length):
        last = layout.draw(step)
        yield last
    for _ in range(_PAUSE):
        yield last


class _Layout:
    """Where everything goes, found once for all pictures."""

    def __init__(self, film: Film, title: str):
        self.film, self.title = film, title
        clips = [clip for row in film.rows for clip in row]
        frames = [clip.frames[0] for clip in clips if clip.frames]
        shape = frames[0].shape if frames else (240, 320)
        self.picture_height = round(WIDTH * shape[0] / shape[1])
        self.rewards = _range(np.concatenate([clip.rewards for clip in clips]))
        self.has_belief = any(clip.belief is not None for clip in clips)
        self.panel_height = _LINE + self.picture_height + 4 + _CAPTION + _REWARD_HEIGHT
        self.panel_height += self.has_belief * (4 + _CAPTION + _BELIEF_HEIGHT)
        # a single column of many tasks is wrapped into a grid
        self.columns = len(film.rows[0]) if len(film.rows[0]) > 1 else math.ceil(math.sqrt(len(film.rows)))
        self.is_grid = len(film.rows[0]) == 1
        lines = math.ceil(len(clips) / self.columns) if self.is_grid else len(film.rows)
        self.row_height = _LINE + self.panel_height + _GAP
        width = _GAP + self.columns * (WIDTH + _GAP)
        height = _LINE + 10 + lines * self.row_height
        self.size = width + width % 2, height + height % 2  # codecs want even sizes

    def draw(self, step: int) -> np.ndarray:
        image = Image.new("RGB", self.size, "white")
        pen = ImageDraw.Draw(image)
        _text(pen, (_GAP, 5), self.title, 15, INK, self.size[0] - 2 * _GAP)
        for row, clips in enumerate(self.film.rows):
            column, line = (row % self.columns, row // self.columns) if self.is_grid else (0, row)
            top = _LINE + 10 + line * self.row_height
            left = _GAP + column * (WIDTH + _GAP)
            room = WIDTH if self.is_grid else self.size[0] - 2 * _GAP
            _text(pen, (left, top), task_label(clips[0]), 12, VERMILLION, room)
            for offset, clip in enumerate(clips):
                self._panel(image, pen, clip, left + offset * (WIDTH + _GAP), top + _LINE, step)
        return np.asarray(image)

    def _panel(self, image: Image.Image, pen: ImageDraw.ImageDraw, clip: Clip, left: int, top: int, step: int) -> None:
        done = min(step, clip.length)
        earned = number(float(clip.rewards[:done].sum()))
        _text(pen, (left, top), clip.name, 13, INK, WIDTH - 130)
        _text(pen, (left + WIDTH - 130, top), f"return {earned}", 13, INK, 130, align_right=True)
        top += _LINE
        frame = clip.frame_at(step)
        if frame is None:
            shown = observation_picture(clip, done, WIDTH, self.picture_height)
        else:
            shown = Image.fromarray(frame).resize((WIDTH, self.picture_height), Image.Resampling.LANCZOS)
        image.paste(shown, (left, top))
        pen.rectangle((left, top, left + WIDTH - 1, top + self.picture_height - 1), outline="#cccccc")
        if clip.length <= step and clip.length < self.film.length:
            _text(pen, (left + 6, top + 4), f"ended after {clip.length} steps", 11, GREY, WIDTH)
        top += self.picture_height + 4
        _draw_rewards(pen, clip, done, (left, top), self.rewards, self.film.length)
        if self.has_belief and clip.belief is not None:
            _draw_belief(pen, clip.belief, (left, top + _CAPTION + _REWARD_HEIGHT + 4))


def task_label(clip: Clip) -> str:
    """The task's values, without the distribution's name."""
    return str(clip.task).partition("(")[2].removesuffix(")")


def _draw_rewards(
    pen: ImageDraw.ImageDraw, clip: Clip, done: int, corner: tuple[int, int], scale: tuple[float, float], steps: int
) -> None:
    """Reward of every step so far; all panels share both axes."""
    left, top = corner
    low, high = scale
    change = "" if clip.change_step is None else f"; the task changes at step {math.ceil(clip.change_step)}"
    _text(pen, (left, top), f"reward per step, {number(low)} to {number(high)}{change}", 10, GREY, WIDTH)
    top += _CAPTION

    def height(value: float) -> float:
        return top + _REWARD_HEIGHT - 2 - (value - low) / (high - low) * (_REWARD_HEIGHT - 4)

    pen.rectangle((left, top, left + WIDTH - 1, top + _REWARD_HEIGHT - 1), outline=_GRID)
    if low < 0 < high:
        pen.line([(left, height(0)), (left + WIDTH - 1, height(0))], fill=_GRID)
    width = max(steps - 1, 1)
    if clip.change_step is not None and math.ceil(clip.change_step) < steps:
        x = left + 1 + math.ceil(clip.change_step) / width * (WIDTH - 3)
        pen.line([(x, top), (x, top + _REWARD_HEIGHT - 1)], fill=VERMILLION)
    points = [(left + 1 + t / width * (WIDTH - 3), height(float(r))) for t, r in enumerate(clip.rewards[:done])]
    if len(points) > 1:
        pen.line(points, fill=BLUE, width=2, joint="curve")


def _draw_belief(pen: ImageDraw.ImageDraw, belief: Belief, corner: tuple[int, int]) -> None:
    """A bar per latent: mean -+ one standard deviation, on a scale from -3 to 3."""
    left, top = corner
    middle = top + _CAPTION + _BELIEF_HEIGHT / 2
    half = _BELIEF_HEIGHT / 2 - 2
    pen.line([(left, middle), (left + WIDTH - 1, middle)], fill=_GRID)
    shown = min(len(belief.mean), _MOST_LATENTS)
    note = "" if shown == len(belief.mean) else f", the first {shown} of {len(belief.mean)}"
    _text(pen, (left, top), f"belief over the task: mean ± std of each latent{note}", 10, GREY, WIDTH)
    for i in range(shown):
        x = left + (i + 0.5) * WIDTH / shown
        mean, std = (float(np.clip(v[i], -_BELIEF_RANGE, _BELIEF_RANGE)) for v in (belief.mean, belief.std))
        y, reach = (half * v / _BELIEF_RANGE for v in (mean, std))
        pen.line([(x, middle - y - reach), (x, middle - y + reach)], fill=BLUE, width=4)
        pen.ellipse((x - 3, middle - y - 3, x + 3, middle - y + 3), fill=INK)


def observation_picture(clip: Clip, done: int, width: int, height: int) -> Image.Image:
    """The first observations against time, for environments without pictures."""
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    values = clip.observations[:, : len(CATEGORIES)]
    low, high = _range(values)
    for column, colour in zip(values.T, CATEGORIES, strict=False):
        points = [
            (
                4 + t / max(clip.length - 1, 1) * (width - 8),
                height - 6 - (float(v) - low) / (high - low) * (height - 34),
            )
            for t, v in enumerate(column[:done])
        ]
        if len(points) > 1:
            pen.line(points, fill=colour, width=2)
    total = clip.observations.shape[1]
    _text(pen, (6, 4), f"observations 1 to {values.shape[1]} of {total}; it renders no picture", 11, GREY, width - 12)
    return image


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _text(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    size: int,
    colour: str,
    room: int,
    align_right: bool = False,
) -> None:
    """One line, cut with an ellipsis where it is longer than `room` pixels."""
    font = _font(size)
    line = " ".join(text.split())
    while len(line) > 1 and font.getlength(line) > room:
        line = line.rstrip("…")[:-1] + "…"
    x = corner[0] + (room - font.getlength(line) if align_right else 0)
    pen.text((x, corner[1]), line, font=font, fill=colour)
