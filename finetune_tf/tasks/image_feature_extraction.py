"""Image feature extraction: one vector for each image."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from finetune_tf.architectures import PIXELS, Backbone
from finetune_tf.errors import DataError
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.image_classification import asked_images, image_feature
from finetune_tf.tasks.interfaces import Columns, HeadParts, Kind
from finetune_tf.tasks.task import Task
from finetune_tf.tasks.usage import make_usage


class ImageFeatureExtraction(Task):
    """The vector that the family's bare model pools from an image."""

    name = "image-feature-extraction"
    class_suffix = "Model"
    columns = ("image",)
    target_column = "label"
    output_layers = ()
    poolings = ("pooler",)
    preprocessor = "image_processor"
    usage = make_usage(predict='ft.predict(model, image=["photo.jpg"])')

    def outputs(
        self,
        backbone: Backbone,
        head: HeadParts,
        config: Mapping[str, Any],
        pooling: str,
        dtype: Any,
        modules: Any,
    ) -> Any:
        """Vectors (batch, features), float32."""
        features = backbone.vector(head, pooling, dtype)
        return keras.layers.Identity(dtype="float32", name="features")(features)

    @property
    def output_kind(self) -> Kind:
        """A vector for each image."""
        return "vectors"

    @property
    def monitor(self) -> tuple[str, str]:
        """The loss, because it is the only value that a fit measures."""
        return "val_loss", "min"

    def named(self, outputs: Any) -> dict[str, Any]:
        """The name that transformers uses."""
        return {"pooler_output": outputs}

    def class_outputs(self, outputs: Any, hidden: Any, pooling: str | None) -> dict[str, Any]:
        """The hidden states and the pooled vector."""
        return {"last_hidden_state": hidden, "pooler_output": outputs}

    def encode(self, examples: Columns, processor: Any, max_length: None = None) -> Encoded:
        """Prepares images; there are no targets."""
        return Encoded({PIXELS: image_feature(examples, processor)}, None)

    def targets(self, examples: Columns) -> Any:
        """Raises an error, because a vector has no ground truth.

        Raises:
            DataError: Always.
        """
        raise DataError(
            "image-feature-extraction has no labels to be measured by. Load the checkpoint for "
            'another task: ft.load(checkpoint, "image-classification", labels=train.labels).'
        )

    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> np.ndarray:
        """The vectors (images, features)."""
        return np.stack(rows)

    def describe(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> np.ndarray:
        """The vectors (images, features)."""
        return np.stack(rows)

    def as_json(self, described: Any) -> dict[str, Any]:
        """The vector of an image."""
        return {"vector": described.tolist()}

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Returns the images: the first argument of `predict`, or `image=`."""
        return asked_images(texts, text_pair, columns, self.name)
