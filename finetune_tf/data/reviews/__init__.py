"""Everyday reviews: the data set that comes with finetune_tf.

1,560 short reviews of everyday products and services, written for this project: 520 each of
negative, neutral and positive; some with typos, irony or mixed feelings. The three files beside
this one hold them; a TFDS builder serves them like any other data set.
"""

from pathlib import Path

from finetune_tf.base.spelling import names_checked
from finetune_tf.data.examples import Examples
from finetune_tf.data.reviews.names import NAMES
from finetune_tf.data.sources.tfds import from_tfds


@names_checked
def reviews(split: str = "train", data_dir: str | Path | None = None) -> Examples:
    """The everyday reviews as examples.

    Args:
        split: "train" (738 reviews), "validation" (96) or "test" (726).
        data_dir: Where TFDS keeps the prepared data set; by default its own folder.
    """
    from finetune_tf.data.reviews.builder import EverydayReviews

    return from_tfds(EverydayReviews(data_dir=data_dir), split=split)


__all__ = ["NAMES", "reviews"]
