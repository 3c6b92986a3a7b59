"""Videos as files and in TensorBoard."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Iterable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from metarl.errors import ConfigError

SUFFIXES = (".mp4", ".gif")


def usual_suffix() -> str:
    """.mp4 where ffmpeg is there, else .gif."""
    return ".mp4" if importlib.util.find_spec("imageio_ffmpeg") is not None else ".gif"


def require_format(path: Path) -> None:
    """ConfigError where no video can be written to a file of that name."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {path}: a video's name ends with one of {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ConfigError(f'--out {path}: mp4 needs ffmpeg: pip install "metarl[video]", or write a .gif')


def write_video(frames: Iterable[np.ndarray], path: Path, fps: float) -> int:
    """Write frames [height, width, 3] uint8, even in size, as mp4 (H.264) or gif by the name; how many there were.

    The file appears whole, or not at all.
    """
    require_format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        if path.suffix.lower() == ".gif":
            content, count = as_gif(frames, fps)
            temporary.write_bytes(content)
        else:
            count = _write_mp4(frames, temporary, fps)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write_mp4(frames: Iterable[np.ndarray], path: Path, fps: float) -> int:
    import imageio_ffmpeg

    writer, count = None, 0
    try:
        for frame in frames:
            if writer is None:
                height, width = frame.shape[:2]
                writer = imageio_ffmpeg.write_frames(
                    str(path), (width, height), fps=fps, macro_block_size=2, output_params=["-movflags", "+faststart"]
                )
                writer.send(None)
            writer.send(np.ascontiguousarray(frame))
            count += 1
    finally:
        if writer is not None:
            writer.close()
    return count


def as_gif(frames: Iterable[np.ndarray], fps: float) -> tuple[bytes, int]:
    """An animated GIF that repeats for ever, and how many pictures it has."""
    pictures = list(frames)
    buffer = io.BytesIO()
    imageio.imwrite(buffer, pictures, extension=".gif", duration=max(20, round(1000 / fps)), loop=0)
    return buffer.getvalue(), len(pictures)


def add_to_tensorboard(frames: Iterable[np.ndarray], fps: float, folder: Path, tag: str, iteration: int) -> None:
    """Add a video to the TensorBoard events in `folder`, under its Images."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import FileWriter

    pictures = list(frames)
    content, _ = as_gif(pictures, fps)
    height, width = pictures[0].shape[:2]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
    writer = FileWriter(str(folder))
    try:
        writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), iteration)
    finally:
        writer.close()
