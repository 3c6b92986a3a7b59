"""Studies and their pictures as one HTML page."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

import metarl.report.table as text
from metarl.evaluation.comparison import Comparison, compare
from metarl.report.labels import RETURN, reference_returns
from metarl.report.page.compare import comparison_pictures, kind_of
from metarl.report.page.figures import Picture, pictures_of
from metarl.report.page.learning import learning_over_seeds
from metarl.report.study import Study

MOST_BYTES = 5_000_000  # of a page
_MOST_TASK_ROWS = 40
_VIDEOS = {".mp4": "video/mp4", ".gif": "image/gif"}


@dataclass(frozen=True)
class Video:
    """A recorded video in the page; without `uri` where it is too large, and named alone."""

    name: str
    kind: str
    uri: str | None


@dataclass(frozen=True)
class Section:
    """One run's part of the page."""

    study: Study
    pictures: tuple[Picture, ...]
    videos: tuple[Video, ...]
    kind: str


def render(studies: Sequence[Study]) -> str:
    """The page of one or several runs. Nothing in it is fetched, and nothing that a run contains can run in it."""
    sections = [Section(study, tuple(pictures_of(study)), (), kind_of(study.test)) for study in studies]
    comparison = _comparison(studies)
    joint: list[Picture] = []
    if comparison is not None:
        joint += comparison_pictures(comparison)
    if len(studies) > 1:
        joint += learning_over_seeds(studies)
    spent = sum(len(p.uri) for section in sections for p in section.pictures) + sum(len(p.uri) for p in joint)
    room = MOST_BYTES - spent - 500_000  # tables and configurations
    finished = []
    for section in sections:
        videos, room = _videos(section.study.folder / "videos", room)
        finished.append(Section(section.study, section.pictures, videos, section.kind))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metarl.report.page", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals.update(
        number=text.number,
        interval=text.interval,
        meaning=text.meaning,
        round_label=text.round_label,
        threshold_label=text.threshold_label,
        threshold_value=text.threshold_value,
        references=lambda study: reference_returns(study.test.anchors),
        unit=RETURN,
        most_task_rows=_MOST_TASK_ROWS,
    )
    page = environment.get_template("report.html.jinja")
    return page.render(sections=finished, comparison=comparison, joint=joint, remark=_remark(studies, comparison))


def write(studies: Sequence[Study], folder: Path) -> Path:
    """Write `folder`/report.html; it appears whole, or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    temporary = folder / f".report.html.{os.getpid()}"
    try:
        temporary.write_text(render(studies), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _comparison(studies: Sequence[Study]) -> Comparison | None:
    """Of all runs where they were judged on the same tasks."""
    if len(studies) < 2 or len({_tasks(study) for study in studies}) > 1:
        return None
    return compare({study.name: study.test for study in studies}, studies[0].test.seed)


def _tasks(study: Study) -> tuple[object, ...]:
    test = study.test
    return (test.distribution, test.version, test.horizon, test.seed, *(score.name for score in test.per_task))


def _remark(studies: Sequence[Study], comparison: Comparison | None) -> str:
    if len(studies) > 1 and comparison is None:
        return "These runs were judged on different tasks, so that their returns are not compared."
    return ""


def _videos(folder: Path, room: int) -> tuple[tuple[Video, ...], int]:
    """What was recorded, the smallest first, as long as there is room for it."""
    found = []
    for path in sorted(_files(folder), key=lambda one: one.stat().st_size):
        kind, size = _VIDEOS[path.suffix.lower()], path.stat().st_size * 4 // 3
        fits = size < room
        room -= size * fits
        uri = f"data:{kind};base64,{b64encode(path.read_bytes()).decode()}" if fits else None
        found.append(Video(path.name, kind, uri))
    return tuple(found), room


def _files(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.suffix.lower() in _VIDEOS and not path.name.startswith(".")]
