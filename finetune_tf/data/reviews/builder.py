"""The TFDS builder of the everyday reviews."""

import json
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from finetune_tf.data.reviews.names import NAMES, SPLITS, VERSION

_FOLDER = Path(__file__).parent


class EverydayReviews(tfds.core.GeneratorBasedBuilder):
    """Short reviews of everyday products and services, in three classes."""

    VERSION = tfds.core.Version(VERSION)
    RELEASE_NOTES = {
        "1.0.0": "First release: 738 train, 96 validation, 426 test reviews.",
        "1.1.0": "300 more test reviews, 726 in all: differences of a few points show.",
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Short English reviews of everyday products and services, written for the "
                "finetune_tf project and released under its licence, Apache-2.0."
            ),
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=NAMES)}
            ),
            supervised_keys=("text", "label"),
            license="Apache-2.0",
            # The files have the order in which the first releases shuffled them.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {split: self._generate_examples(_FOLDER / f"{split}.jsonl") for split in SPLITS}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict]]:
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            yield i, json.loads(line)
