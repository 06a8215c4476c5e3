"""Image classification: one label, several labels or a number for an image."""

from typing import Any

from finetune_tf.architectures import PIXELS
from finetune_tf.distribution.current import several_processes
from finetune_tf.tasks.classification import Classification
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.interfaces import Columns
from finetune_tf.tasks.usage import make_usage


class ImageClassification(Classification):
    """One value per label for an image."""

    name = "image-classification"
    class_suffix = "ForImageClassification"
    columns = ("image", "label")
    poolings = ("pooler",)
    preprocessor = "image_processor"
    usage = make_usage(predict='ft.predict(model, image=["photo.jpg"])', names_task=False)

    @property
    def evaluator(self) -> str:
        """The evaluator of images with the problem type."""
        return f"images/{self.problem_type}"

    def encode(self, examples: Columns, processor: Any, max_length: None = None) -> Encoded:
        """Prepares images; targets are in the order of the labels."""
        has_labels = "label" in examples.columns
        targets = Feature.of_array(self.targets(examples)) if has_labels else None
        return Encoded({PIXELS: image_feature(examples, processor)}, targets)

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Returns the images: the first argument of `predict`, or `image=`."""
        return asked_images(texts, text_pair, columns, self.name)


def image_feature(examples: Columns, processor: Any) -> Feature:
    """Returns the prepared images of examples, (rows, H, W, 3) uint8.

    Args:
        examples: Examples with images.
        processor: The `ImageProcessor` of the model.

    Raises:
        DataError: If an image cannot be used.
    """
    return prepared_feature(examples, "image", processor)


def prepared_feature(examples: Columns, column: str, processor: Any, **options: Any) -> Feature:
    """Returns the prepared images or clips of examples, (rows, …) uint8.

    Args:
        examples: Examples.
        column: The column with the images or clips.
        processor: The `ImageProcessor` of the model.
        **options: Further arguments of the column's method `prepared`, such as the number of
            frames of a clip.

    Raises:
        DataError: If an image cannot be used.
    """
    places, name = examples.places, examples.name

    def title(row: int) -> str:
        return f"{places.name(row)} of {name}"

    prepared = examples.columns[column].prepared(processor, title, **options)
    # Of several processes, each reads its own rows only, when batches have them.
    if prepared.is_stored and not several_processes():
        prepared.prepare_all()
    return Feature(prepared, axis=None, dtype="uint8")


def asked_images(images: Any, text_pair: Any, columns: dict[str, Any], task: str) -> dict[str, Any]:
    """Converts the arguments of `predict` to the column of images.

    Raises:
        DataError: If anything else is given.
    """
    from finetune_tf.errors import DataError

    if images is None:
        images = columns.pop("image", None)
    if text_pair is not None or columns or images is None:
        raise DataError(
            f"predict for {task} takes images: predict(model, paths), or predict(model, image=…)."
        )
    return {"image": images}
