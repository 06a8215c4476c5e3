"""Feature extraction: vectors of texts, which are close to each other if the texts are similar."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from finetune_tf.architectures import Backbone, L2Normalize
from finetune_tf.checkpoints.layouts import SENTENCE_TRANSFORMERS, TRANSFORMERS, Layout
from finetune_tf.errors import CheckpointError, DataError
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.task import Columns, Encoded, HeadParts, Kind, Task
from finetune_tf.tasks.text_classification import encode_texts
from finetune_tf.tasks.text_vectors import text_inputs

_MODULES = ("Transformer", "Pooling", "Normalize")


class FeatureExtraction(Task):
    """One vector for each text, as sentence-transformers computes it; the cosine for a pair."""

    name = "feature-extraction"
    class_suffix = "Model"
    runs_in_all_engines = True
    serves_texts = compares_texts = True
    columns = ("text", "text_pair", "label")
    target_column = "label"
    output_layers = ()
    poolings = ("mean", "cls", "pooler")

    def outputs(
        self,
        backbone: Backbone,
        head: HeadParts,
        config: Mapping[str, Any],
        pooling: str,
        dtype: Any,
        modules: Any,
    ) -> Any:
        """Vectors (batch, features), of length 1 if the checkpoint's modules normalize them.

        Raises:
            CheckpointError: If the family's own pooler is asked for but does not exist, or a
                module of the checkpoint is not supported.
        """
        own = pooling == "pooler"
        if own and head.transform is None:
            raise CheckpointError(
                f"{config['model_type']} models have no pooler of their own; choose "
                "pooling='mean' or 'cls'."
            )
        features = backbone.vector(head, pooling, dtype)
        vectors = keras.layers.Identity(dtype="float32", name="features")(features)
        if own:
            return vectors  # no module of sentence-transformers comes after the pooler
        _check_modules(modules)
        return L2Normalize(name="l2_normalize")(vectors) if modules.normalize else vectors

    def named(self, outputs: Any) -> dict[str, Any]:
        """The name that sentence-transformers uses."""
        return {"sentence_embedding": outputs}

    def compared(self, first: Any, second: Any) -> dict[str, Any]:
        """The cosine of each pair (batch,), under the name that `as_json` gives it."""
        vectors = [keras.ops.normalize(each, axis=-1) for each in (first, second)]
        return {"similarity": keras.ops.sum(vectors[0] * vectors[1], axis=-1)}

    def class_outputs(self, outputs: Any, hidden: Any, pooling: str | None) -> dict[str, Any]:
        """The hidden states, and the output of the family's own pooler if the model has it."""
        pooled = outputs if pooling == "pooler" else None
        return {"last_hidden_state": hidden, "pooler_output": pooled}

    @classmethod
    def class_pooling(cls, head: HeadParts) -> str:
        """The family's own pooler if its bare model has one, else the first token."""
        return "cls" if head.transform is None else "pooler"

    @property
    def output_kind(self) -> Kind:
        """A vector for each text."""
        return "vectors"

    @property
    def monitor(self) -> tuple[str, str]:
        """The loss, because it is the only value that a fit measures."""
        return "val_loss", "min"

    @property
    def evaluator(self) -> str:
        """The evaluator of pairs."""
        return "similarity"

    def layout(self, pooling: str) -> Layout:
        """The family's own pooler is part of the bare model in transformers."""
        return TRANSFORMERS if pooling == "pooler" else SENTENCE_TRANSFORMERS

    def max_length(self, modules: Any) -> int | None:
        """The length to which sentence-transformers truncates texts."""
        return modules.max_length

    def encode(self, examples: Columns, tokenizer: Any, max_length: int) -> Encoded:
        """Encodes each text as a row; the two texts of a pair are neighbouring rows.

        The target of a pair is its score, an array (pairs,), or (pairs, 0) if there are no scores.
        """
        texts, pairs = examples.columns["text"], examples.columns.get("text_pair")
        if pairs is not None:
            texts = [text for pair in zip(texts, pairs, strict=True) for text in pair]
        # sentence-transformers strips texts too; byte-level tokenizers do not ignore spaces.
        encoding, truncated = encode_texts(
            tokenizer, [text.strip() for text in texts], None, max_length
        )
        inputs = text_inputs(encoding, tokenizer, self.config, max_length)
        if pairs is None:
            return Encoded(inputs, targets=None, truncated=truncated)
        targets = np.zeros((len(pairs), 0), dtype="float32")
        if "label" in examples.columns:
            targets = self.targets(examples).astype("float32")
        return Encoded(inputs, Feature.of_array(targets), truncated=truncated, group=2)

    def targets(self, examples: Columns) -> np.ndarray:
        """The scores (pairs,), on any scale.

        Raises:
            DataError: If there are no pairs, or a label is not a number.
        """
        if "text_pair" not in examples.columns:
            raise DataError(
                f"feature-extraction learns from pairs and is measured on them, but "
                f"{examples.name} has no text_pair. Name the column when reading it."
            )
        scores = []
        for row, value in enumerate(examples.columns["label"]):
            try:
                scores.append(float(value))
            except (TypeError, ValueError, OverflowError):
                raise DataError(
                    f"{examples.places.title(row)} of {examples.name} has the label {value!r}; "
                    "feature-extraction expects a number that says how alike the two texts are. "
                    "Read pairs that are alike without labels: label=None."
                ) from None
        return np.asarray(scores)

    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> np.ndarray:
        """The cosine of each pair (pairs,)."""
        vectors = np.float64(rows)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(lengths, 1e-12)
        return (vectors[0::2] * vectors[1::2]).sum(axis=1)

    def describe(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> np.ndarray:
        """The vectors (texts, features), or the cosines of pairs (pairs,)."""
        if encoded.group == 2:
            return self.decide(rows, encoded, examples)
        return np.stack(rows)

    def as_json(self, described: Any) -> dict[str, Any]:
        """The vector of a text, or the cosine of a pair."""
        return {"vector" if np.ndim(described) else "similarity": described.tolist()}

    def read_predictions(self, values: list, examples: Any) -> np.ndarray:
        """Converts numbers, one for each pair."""
        return super().read_predictions(np.ravel(values).tolist(), examples)


def _check_modules(modules: Any) -> None:
    """Raises an error if a module of the checkpoint is not supported."""
    unknown = [name for name in modules.types if name not in _MODULES]
    if modules.dense and "Dense" not in unknown:
        unknown.append("Dense")
    if unknown:
        raise CheckpointError(
            f"The checkpoint has the module {unknown[0]} behind its transformer, which "
            f"feature-extraction does not support; supported: {', '.join(_MODULES)}. A "
            "classifier's folder holds logits, not vectors: load it for text-classification."
        )
    steps = list(modules.types)
    if steps != sorted(steps, key=_MODULES.index) or steps.count("Pooling") > 1:
        raise CheckpointError(
            f"The checkpoint's modules.json lists the modules {', '.join(steps)}, which "
            f"feature-extraction supports in this order alone: {', '.join(_MODULES)}. Choose "
            "another checkpoint: its vectors would not be those of sentence-transformers."
        )
    if modules.prompt:
        raise CheckpointError(
            f"The checkpoint puts the prompt {modules.prompt!r} before every text, which is "
            "not supported. Take default_prompt_name out of config_sentence_transformers.json "
            "and write the prompt into your texts."
        )
    if modules.lower_case:
        raise CheckpointError(
            "The checkpoint's sentence_bert_config.json has do_lower_case true, which is not "
            "supported. Set it to false and give texts in lower case."
        )
