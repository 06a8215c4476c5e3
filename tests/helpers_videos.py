"""Short clips in which only the direction of a motion tells the classes apart."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

import finetune_tf as ft

CLASSES = ("left", "right")


def moving_squares(
    pairs: int, seed: int, frames: int = 9, size: int = 32, square: int = 8
) -> tuple[list[np.ndarray], list[str]]:
    """Clips of a square that moves to the left or to the right over a textured background.

    The two clips of a pair have the same positions in opposite order, on different backgrounds. A
    single frame, or all frames without their order, therefore say nothing about the class; with an
    odd number of frames, the square is at the same place in the middle one.

    Args:
        pairs: Pairs of clips.
        seed: Determines all of them.
        frames: Frames of each clip.
        size: Height and width of the frames.
        square: Height and width of the square.

    Returns:
        The clips, arrays (frames, size, size, 3) uint8, and the class of each.
    """
    rng = np.random.default_rng(seed)
    clips, classes = [], []
    for _ in range(pairs):
        length = rng.integers((size - square) // 2, size - square + 1)
        start = rng.integers(0, size - square - length + 1)
        row = rng.integers(0, size - square + 1)
        path = np.round(start + np.linspace(0, length, frames)).astype(int)
        for name in CLASSES:
            clip = np.repeat(_texture(rng, size)[None], frames, axis=0)
            pattern = 255 - rng.integers(0, 60, (square, square, 3))
            for frame, left in zip(clip, path if name == "right" else path[::-1], strict=True):
                frame[row : row + square, left : left + square] = pattern
            clips.append(clip)
            classes.append(name)
    return clips, classes


def squares(name: str, pairs: int, seed: int, **options) -> ft.data.Examples:
    """Examples of `moving_squares`."""
    clips, classes = moving_squares(pairs, seed, **options)
    return ft.data.Examples({"video": clips, "label": classes}, ft.Labels(CLASSES), name)


def write_videos(folder: Path, pairs: int = 2) -> Path:
    """Writes a folder with a folder of animated GIFs for each class."""
    for i, (clip, name) in enumerate(zip(*moving_squares(pairs, seed=0), strict=True)):
        write_gif(folder / name / f"{i}.gif", clip)
    return folder


def write_gif(path, clip: np.ndarray):
    """Writes a clip as an animated GIF, without loss if a frame has at most 256 colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gif(clip))
    return path


def gif(clip: np.ndarray) -> bytes:
    """The bytes of an animated GIF."""
    buffer = io.BytesIO()
    first, *others = map(Image.fromarray, clip)
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=40)
    return buffer.getvalue()


def write_mp4(path, clip: np.ndarray):
    """Writes a clip with PyAV."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for levels in clip:
            frame = av.VideoFrame.from_ndarray(levels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise in cells of 4 x 4 pixels, darker than the square."""
    cells = rng.integers(0, 150, (-(-size // 4), -(-size // 4), 3))
    return cells.repeat(4, axis=0).repeat(4, axis=1)[:size, :size].astype("uint8")
