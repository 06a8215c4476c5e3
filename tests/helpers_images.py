"""Small image files, and the folder of a tiny random vision transformer."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

#: A random ViT for images of 21 x 21 pixels, with three labels.
TINY_VIT = Path(__file__).resolve().parent / "references" / "vit" / "image-classification"
COLORS = {"red": (200, 20, 20), "blue": (20, 20, 200), "green": (20, 200, 20)}


def levels(color: str = "red", size: tuple[int, int] = (24, 30), seed: int = 0) -> np.ndarray:
    """Levels (height, width, 3) of a color with a little noise, which `seed` determines."""
    noise = np.random.default_rng(seed).integers(0, 40, (*size, 3))
    return (np.array(COLORS[color]) + noise).astype("uint8")


def content(array: np.ndarray, kind: str = "PNG") -> bytes:
    """The bytes of a file with these levels."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def write_image(path: Path, color: str = "red", seed: int = 0, kind: str = "PNG") -> Path:
    """Writes an image; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(levels(color, seed=seed), kind))
    return path


def write_classes(folder: Path, count: int = 3, colors: tuple[str, ...] = ("red", "blue")) -> Path:
    """Writes a folder with a folder of images for each color."""
    for color in colors:
        for seed in range(count):
            write_image(folder / color / f"{seed}.png", color, seed)
    return folder
