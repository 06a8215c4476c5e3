"""What the scripts on images with texts share: small random models, and pictures of colors."""

import tempfile
from pathlib import Path

from helpers_images import TINY_VIT, write_classes
from helpers_models import write_checkpoint
from helpers_pairs import COLORS, write_clip

FOLDER = Path(tempfile.mkdtemp())
PICTURES = write_classes(FOLDER / "pictures", 8, COLORS)
WORDS = ("a", "the", "picture", "photo", "of", "something", "is", *COLORS)
CLIP = str(write_clip(FOLDER / "small-clip"))
VIT, BERT = str(TINY_VIT), str(write_checkpoint(FOLDER / "small-bert", WORDS))
