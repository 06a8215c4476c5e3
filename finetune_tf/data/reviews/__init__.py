"""Everyday reviews: the data set that comes with finetune_tf.

1,560 short reviews of everyday products and services, written for this project: 520 each of
negative, neutral and positive; some with typos, irony or mixed feelings. The three files beside
this one hold them; a TFDS builder serves them like any other data set, in the same order.
"""

from pathlib import Path

from finetune_tf.base.extras import require_tensorflow
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.examples import Examples
from finetune_tf.data.reviews.names import NAMES, SPLITS, VERSION
from finetune_tf.data.sources.json_lines import from_jsonl
from finetune_tf.data.sources.tfds import from_tfds


@names_checked
def reviews(split: str = "train", data_dir: str | Path | None = None) -> Examples:
    """The everyday reviews as examples.

    Args:
        split: "train" (738 reviews), "validation" (96) or "test" (726). A part of one, such as
            "train[:10%]", is read with TensorFlow Datasets.
        data_dir: Where TensorFlow Datasets prepares the data set, to read it from there; by default
            the files of the package are read, which gives the same examples.

    Raises:
        DataError: If there is no such split, or `data_dir` cannot be written.
        MissingExtraError: If TensorFlow Datasets is needed and cannot be imported.

    Example:
        >>> len(ft.data.reviews("test"))
        726
    """
    if data_dir is None and split in SPLITS:
        read = from_jsonl(Path(__file__).with_name(f"{split}.jsonl"), labels=NAMES)
        return Examples(read.columns, read.labels, f"everyday_reviews/{VERSION} {split}")
    require_tensorflow(
        f"Splits of the reviews other than {', '.join(SPLITS)}, and data_dir=, need",
        "tensorflow_datasets",
    )
    from finetune_tf.data.reviews.builder import EverydayReviews

    return from_tfds(EverydayReviews(data_dir=data_dir), split=split)


__all__ = ["NAMES", "reviews"]
