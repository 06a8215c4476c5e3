"""Image-text classification: one label, several labels or a number for an image with a text."""

from collections.abc import Mapping
from typing import Any

from finetune_tf.architectures import ClassificationHead, Fusion, Towers
from finetune_tf.tasks.classification import Classification
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.explained import Word, words_of_texts
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.image_pairs import ImageTextTask, Processor
from finetune_tf.tasks.interfaces import Columns, HeadParts
from finetune_tf.tasks.usage import make_usage


class ImageTextClassification(ImageTextTask, Classification):
    """One value per label for an image with a question or a caption.

    The outputs of both encoders are joined by a `Fusion`, whose mode is the key `fusion` of the
    config.
    """

    name = "image-text-classification"
    class_suffix = "ForImageTextClassification"
    target_column = "label"
    output_layers = ("fusion", "classifier")
    is_in_transformers = False
    usage = make_usage(predict='ft.predict(model, ["What is it?"], image=["photo.jpg"])')

    def outputs(
        self,
        backbone: Towers,
        head: HeadParts,
        config: Mapping[str, Any],
        pooling: str | None,
        dtype: Any,
        modules: Any,
    ) -> Any:
        """Logits (batch, labels) on the joined outputs of both towers."""
        mode, size = config["fusion"] or "concatenation", config["fusion_size"]
        fusion = Fusion(mode, size, dropout=head.dropout, dtype=dtype, name="fusion")
        mask = {}
        if mode == "cross_attention":
            mask["attention_mask"] = backbone.inputs["attention_mask"]
        features = fusion(backbone.image, backbone.text, **mask)
        return ClassificationHead(len(self.labels), head.dropout, name="classifier")(features)

    @property
    def evaluator(self) -> str:
        """The evaluator of images with texts, for the problem type."""
        return self.shared_evaluator

    def encode(self, examples: Columns, processor: Processor, max_length: int) -> Encoded:
        """Prepares images and texts; targets are in the order of the labels."""
        inputs, truncated = self.inputs_of(examples, processor, max_length)
        has_labels = "label" in examples.columns
        targets = Feature.of_array(self.targets(examples)) if has_labels else None
        return Encoded(inputs, targets, truncated=truncated)

    def explained_words(
        self, encoded: Encoded, row: int, examples: Columns, tokenizer: Any
    ) -> list[Word]:
        """The words of the text."""
        texts = {"text": examples.columns["text"][row]}
        return words_of_texts(tokenizer, texts, encoded.inputs["input_ids"][row])
