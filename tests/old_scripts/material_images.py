"""What the scripts on images share: small random models, and a folder of pictures of colors."""

import tempfile
from pathlib import Path

from helpers_images import TINY_VIT, write_classes

VIT = str(TINY_VIT)
RESNET = str(TINY_VIT.parents[1] / "resnet" / "image-classification")
FOLDER = write_classes(Path(tempfile.mkdtemp()) / "pictures", 12, ("red", "blue", "green"))
