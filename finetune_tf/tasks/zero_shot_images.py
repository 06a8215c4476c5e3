"""Zero-shot image classification: the labels are texts, and the image is compared with each."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.architectures import PIXELS
from finetune_tf.base.labels import Labels
from finetune_tf.errors import ModelError
from finetune_tf.tasks.classification import Classification
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.image_classification import asked_images, image_feature
from finetune_tf.tasks.image_pairs import PairTask, Processor, logits_of, pairs_encoded
from finetune_tf.tasks.interfaces import Columns, Kind
from finetune_tf.tasks.usage import make_usage

#: The text of a label in the pipelines of transformers.
PROMPTS = ("This is a photo of {}.",)


class ZeroShotImageClassification(PairTask, Classification):
    """One score for each label: the logit of the image and of the text that describes the label.

    The texts are made of the labels by `prompts`, a key of the config. With several prompts, the
    vectors of the texts of a label are averaged (Radford et al. 2021). In training, the text of an
    image is the first prompt with its label, so that the model remains one for any labels
    (Goyal et al. 2023).
    """

    name = "zero-shot-image-classification"
    has_labels = True
    has_trained_labels = False
    takes_prompts = True
    columns = ("image", "label")
    needs = ("image",)
    target_column = "label"
    usage = make_usage(predict='ft.predict(model, image=["photo.jpg"])')

    def stores_labels(self, config: Mapping[str, Any]) -> bool:
        """Whether a checkpoint was saved for this task, since others have no texts as labels."""
        return config.get("finetuning_task") == self.name

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts of a label, with "{}" in its place."""
        return tuple(self.config.get("prompts") or PROMPTS)

    @property
    def output_kind(self) -> Kind:
        """As of other tasks on pairs."""
        return PairTask.output_kind.fget(self)

    @property
    def evaluator(self) -> str:
        """That of images with one label."""
        return "images/single_label_classification"

    @property
    def monitor(self) -> tuple[str, str]:
        """The loss, because it is the only value that a fit measures."""
        return "val_loss", "min"

    def config_keys(self) -> dict[str, Any]:
        """The labels and the prompts."""
        return {**super().config_keys(), "prompts": list(self.prompts)}

    def encode(self, examples: Columns, processor: Processor, max_length: int) -> Encoded:
        """Prepares images; with labels, the texts of the labels as well."""
        inputs = {PIXELS: image_feature(examples, processor.image_processor)}
        if "label" not in examples.columns:
            return Encoded(inputs, None)
        numbers = self.targets(examples)
        by_label, truncated = self.encode_texts(
            [self.prompts[0].format(label) for label in self.labels],
            processor.tokenizer,
            max_length,
        )
        for name, feature in by_label.items():
            rows = [feature.rows[number] for number in numbers]
            inputs[name] = Feature(rows, feature.axis, feature.padding, feature.dtype)
        return pairs_encoded(inputs, truncated, np.int32(numbers))

    def predict_rows(
        self,
        model: Any,
        encoded: Encoded,
        batch_size: int,
        forward: Callable[..., list[np.ndarray]],
    ) -> list[np.ndarray]:
        """The logit of each label for each image (labels,)."""
        images = {PIXELS: encoded.inputs[PIXELS]}
        rows = np.stack(forward(Encoded(images, None), part=model.tower_rows("image")))
        return list(logits_of(rows, self.label_rows(model, forward)))

    def label_rows(self, model: Any, forward: Callable[..., list[np.ndarray]]) -> np.ndarray:
        """The row of each label, (labels, features): the average over the prompts, of length 1.

        Args:
            model: The model.
            forward: As for `predict_rows`.
        """
        texts = [prompt.format(label) for label in self.labels for prompt in self.prompts]
        inputs, _ = self.encode_texts(texts, model.tokenizer, model.max_length)
        rows = np.stack(forward(Encoded(inputs, None), part=model.tower_rows("text")))
        if len(self.prompts) == 1:
            return rows
        has_one = self.head_of().has_logits_bias  # the last feature is a 1
        vectors = rows[:, :-1] if has_one else rows
        means = vectors.reshape(len(self.labels), len(self.prompts), -1).mean(axis=1)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        ones = np.ones((len(means), int(has_one)), "float32")
        return np.concatenate([means, ones], axis=1)

    def serving(
        self, model: Any, forward: Callable[..., list[np.ndarray]]
    ) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
        """A classifier of images: the rows of the labels are constants of the graph."""
        images, by_label = model.tower_rows("image"), self.label_rows(model, forward)
        is_independent = self.output_kind == "independent_pairs"

        def serve(given: dict[str, Any]) -> dict[str, Any]:
            logits = ops.matmul(images(given, training=False), np.float32(by_label).T)
            probabilities = ops.sigmoid(logits) if is_independent else ops.softmax(logits)
            return {"logits": logits, "probabilities": probabilities}

        return {tensor.name: tensor for tensor in images.inputs}, serve

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Converts logits (rows, labels) to probabilities, which sum to 1 except in SigLIP."""
        if self.output_kind == "independent_pairs":
            return np.exp(-np.logaddexp(0.0, -np.float64(logits)))
        return super().probabilities(logits)

    def require_labels(self, labels: Labels | None) -> None:
        """Checks that labels can be described by texts.

        Raises:
            ModelError: Unless there are at least two, one of which is right for an image.
        """
        kind = "single_label_classification"
        if labels is None or len(labels) < 2 or labels.problem_type != kind:
            raise ModelError(
                f"{self.name} needs the names of at least two labels, one of which is right for an "
                f'image: ft.load(checkpoint, "{self.name}", labels=["cat", "dog"]).'
            )

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Returns the images: the first argument of `predict`, or `image=`."""
        return asked_images(texts, text_pair, columns, self.name)
