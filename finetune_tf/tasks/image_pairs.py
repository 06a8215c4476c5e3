"""What tasks on images with texts have in common: preparation, and pairs that belong together."""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.architectures import PIXELS, Towers, pair_rows
from finetune_tf.errors import DataError
from finetune_tf.families import FAMILIES
from finetune_tf.images.prepared import identity
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.image_classification import image_feature
from finetune_tf.tasks.interfaces import Columns, HeadParts, Kind
from finetune_tf.tasks.task import Task
from finetune_tf.tasks.text_classification import encode_texts
from finetune_tf.tasks.text_vectors import text_inputs


@dataclass(frozen=True)
class Processor:
    """What prepares the two inputs of a model of images and texts.

    Attributes:
        tokenizer: The tokenizer of the model.
        image_processor: Its `ImageProcessor`.
    """

    tokenizer: Any
    image_processor: Any


class ImageTextTask(Task):
    """A task on images with texts; the base class of those below.

    Examples have a column of images, of texts, or both.
    """

    columns = ("image", "text", "label")
    needs = ("image", "text")
    preprocessor = "processor"
    has_old_classes = False

    def head_of(self) -> HeadParts:
        """The head of the model's family, for what the family decides about the task."""
        return FAMILIES[self.config["model_type"]].head(self.name, self.config)

    def inputs_of(
        self, examples: Columns, processor: Processor, max_length: int | None
    ) -> tuple[dict[str, Feature], int]:
        """Prepares the images and encodes the texts of examples, each if there are any.

        Returns:
            The inputs by name, and how many texts lost their end.
        """
        inputs, truncated = {}, 0
        if "image" in examples.columns:
            inputs[PIXELS] = image_feature(examples, processor.image_processor)
        if "text" in examples.columns:
            texts, truncated = self.encode_texts(
                examples.columns["text"], processor.tokenizer, max_length
            )
            inputs |= texts
        return inputs, truncated

    def encode_texts(
        self, texts: Sequence[str], tokenizer: Any, max_length: int | None
    ) -> tuple[dict[str, Feature], int]:
        """Encodes texts, padded to the maximum length if the model was trained so.

        Returns:
            The inputs by name, and how many texts lost their end.
        """
        encoding, truncated = encode_texts(tokenizer, list(texts), None, max_length)
        return text_inputs(encoding, tokenizer, self.config, max_length), truncated

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Converts the arguments of `predict` to columns: images, texts, or both.

        Raises:
            DataError: If an argument is something else, or there is none.
        """
        images = columns.pop("image", None)
        if text_pair is not None or columns or (images is None and texts is None):
            raise DataError(
                f"predict for {self.name} takes image= and texts: ft.predict(model, texts, "
                "image=paths)."
            )
        first = texts[0] if isinstance(texts, list | tuple) and texts else texts
        if images is None and isinstance(first, str) and os.path.isfile(first):
            raise DataError(
                f"{first!r} is given as a text, but is the path of a file. Write image={first!r} "
                "if its image is meant."
            )
        given = {"image": images, "text": texts}
        return {name: value for name, value in given.items() if value is not None}


class PairTask(ImageTextTask):
    """A task of a model with two towers whose vectors are close for images and texts that match."""

    class_suffix = "Model"
    output_layers = ("image_projection", "text_projection", "image_rows")

    def outputs(
        self,
        backbone: Towers,
        head: HeadParts,
        config: Mapping[str, Any],
        pooling: str | None,
        dtype: Any,
        modules: Any,
    ) -> Any:
        """Rows (batch, 2, features), whose products are the logits; see `PairRows`."""
        return pair_rows(backbone, config["logit_scale_init_value"], head.has_logits_bias)

    @property
    def output_kind(self) -> Kind:
        """Pairs; with a bias each pair of an image and a text is a problem of its own."""
        return "independent_pairs" if self.head_of().has_logits_bias else "pairs"

    @property
    def monitor(self) -> tuple[str, str]:
        """The loss, because it is the only value that a fit measures."""
        return "val_loss", "min"

    def config_keys(self) -> dict[str, Any]:
        """The name of the task, because the class of the model is that of several tasks."""
        return {**super().config_keys(), "finetuning_task": self.name}

    def named(self, outputs: Any) -> dict[str, Any]:
        """Vectors of length 1 and logits, by the names of transformers."""
        return self._compared(outputs[:, 0], outputs[:, 1])

    def serving(
        self, model: Any, forward: Callable[..., list[np.ndarray]]
    ) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
        """Each tower reads its own inputs, so the numbers of images and texts may differ."""
        inputs = {tensor.name: tensor for tensor in model.inputs}
        images, texts = model.tower_rows("image"), model.tower_rows("text")

        def serve(given: dict[str, Any]) -> dict[str, Any]:
            of_texts = {name: value for name, value in given.items() if name != PIXELS}
            return self._compared(
                images({PIXELS: given[PIXELS]}, training=False), texts(of_texts, training=False)
            )

        return inputs, serve

    def _compared(self, images: Any, texts: Any) -> dict[str, Any]:
        """The named outputs of rows of images and of texts; see `PairRows`."""
        logits = ops.matmul(images, ops.transpose(texts))
        size = texts.shape[-1] - self.head_of().has_logits_bias
        return {
            "logits_per_image": logits,
            "logits_per_text": ops.transpose(logits),
            "image_embeds": ops.normalize(images[:, :size], axis=-1),
            "text_embeds": texts[:, :size],
        }


def logits_of(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The logits (images, texts) of rows (images, features) and (texts, features)."""
    return np.float32(images) @ np.float32(texts).T


def matching_groups(*columns: Sequence[Any]) -> np.ndarray:
    """Numbers groups of rows that have a value in common, directly or through other rows.

    In a batch, rows of one group match each other: five captions of an image, or two images with
    the same caption.

    Args:
        *columns: Values of the rows, compared as by `images.prepared.identity`.

    Returns:
        The number of the group of each row, (rows,) int32.

    Example:
        >>> from finetune_tf.tasks.image_pairs import matching_groups
        >>> matching_groups(["1.jpg", "1.jpg", "2.jpg"], ["a dog", "a hound", "a cat"]).tolist()
        [0, 0, 1]
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(columns[0])
    first: dict[Hashable, int] = {}
    edges = [
        (row, first.setdefault((column, identity(value)), row))
        for column, values in enumerate(columns)
        for row, value in enumerate(values)
    ]
    rows, others = np.array(edges).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(edges)), (rows, others)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype("int32")


def pairs_encoded(inputs: dict[str, Feature], truncated: int, groups: np.ndarray | None) -> Encoded:
    """Returns encoded pairs whose targets are the numbers of their groups."""
    targets = None if groups is None else Feature.of_array(groups)
    return Encoded(inputs, targets, truncated=truncated)
