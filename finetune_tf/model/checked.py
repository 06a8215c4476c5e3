"""A model class that validates its inputs and targets before they are used."""

from collections.abc import Mapping
from typing import Any

import keras

from finetune_tf import kernels
from finetune_tf.architectures import PIXELS
from finetune_tf.base.keras_fits import dataset_of
from finetune_tf.base.keras_internals import inputs_struct
from finetune_tf.base.values import after, asserting
from finetune_tf.data.encodings import check_next_tokens, targets_of, with_next_tokens
from finetune_tf.distribution.current import gathered
from finetune_tf.errors import UnknownModelError
from finetune_tf.families import FAMILIES
from finetune_tf.generation.forward import is_prefix_model
from finetune_tf.model.inputs import check_joined, check_sizes, check_values, complete, sizes_of
from finetune_tf.model.model_info import ModelInfo
from finetune_tf.model.objective_model import ObjectiveModel
from finetune_tf.model.packed import why_not_packed
from finetune_tf.model.pixel_inputs import check_pixels, complete_pixels, split_inputs
from finetune_tf.tasks.feature import POSITIONS, STARTS
from finetune_tf.training.outputs import fit_of
from finetune_tf.training.similarity_loss import PairSimilarity

# Properties that read `info`, which a clone of the graph does not have.
_INFO_PROPERTIES = ("task", "labels", "config", "tokenizer", "max_length", "kind")
_INFO_PROPERTIES += ("encoding_tokenizer", "row_length")


class CheckedModel(ObjectiveModel):
    """Rejects inputs and targets with invalid values, such as ids outside of the vocabulary."""

    info: ModelInfo

    def __getattr__(self, name: str) -> Any:
        """Explains why `info`, and properties that read it, are missing from a cloned model.

        Raises:
            UnknownModelError: If the model was created by `keras.models.clone_model`.
            AttributeError: If any other attribute is missing.
        """
        if "info" not in self.__dict__ and (name == "info" or name in _INFO_PROPERTIES):
            raise UnknownModelError(
                f"The model has no {name}: keras.models.clone_model copies only the layers, so "
                "labels, config, task and frozen variables are lost. Copy the complete model "
                "instead: copy = type(model).from_config(model.get_config()); "
                "copy.set_weights(model.get_weights())."
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")

    @property
    def _max_positions(self) -> int | None:
        return FAMILIES[self.config["model_type"]].max_length(self.config)

    @property
    def reads_images(self) -> bool:
        """Whether images are among the inputs of the model."""
        return PIXELS in inputs_struct(self)

    @property
    def why_not_packed(self) -> str | None:
        """Why rows cannot consist of several texts, see `packed`; None if they can."""
        return why_not_packed(self)

    @property
    def reads_texts(self) -> bool:
        """Whether texts are among the inputs of the model."""
        return "input_ids" in inputs_struct(self)

    def _complete_inputs(self, inputs: Any) -> dict:
        known = inputs_struct(self)
        if not self.reads_texts:
            return complete_pixels(inputs, known)
        if self.reads_images:
            images, texts = split_inputs(inputs)
            completed = complete_pixels(images, known)
            return completed | self._complete_texts(texts)
        return self._complete_texts(inputs)

    def _complete_texts(self, inputs: Any) -> dict:
        # A clone of the graph has no `info`, so limits and sizes are unknown.
        has_info = hasattr(self, "info")
        limit = self._max_positions if has_info else None
        sizes = self._sizes if has_info else None
        optional = () if self.why_not_packed else (POSITIONS, STARTS)
        known = {n: tensor for n, tensor in inputs_struct(self).items() if n != PIXELS}
        completed = complete(inputs, known, limit, sizes, optional)
        if has_info and is_prefix_model(self):
            check_joined(completed, limit)
        return completed

    @property
    def _sizes(self) -> dict[str, int | None]:
        return {**sizes_of(self.config), POSITIONS: self._max_positions}

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Overrides the Keras hook that builds the model from the shapes of a batch.

        On JAX, Keras reads a batch of the dataset before the first epoch, which is not meant to be
        an epoch of its cursor.
        """
        cursor = None if iterator is None else getattr(dataset_of(iterator), "cursor", None)
        place = (cursor.epoch, cursor.batch) if cursor is not None else None
        super()._symbolic_build(iterator, data_batch)
        if cursor is not None:
            cursor.epoch, cursor.batch = place

    def train_step(self, *args: Any) -> Any:
        """Overrides the Keras hook; with JAX, the state precedes the data."""
        *state, data = args
        data = self.checked_batch(self._with_next_tokens(data))
        with kernels.waiting_for(data):
            return super().train_step(*state, data)

    def test_step(self, *args: Any) -> Any:
        """Overrides the Keras hook; with JAX, the state precedes the data."""
        *state, data = args
        data = self.checked_batch(self._with_next_tokens(data))
        with kernels.waiting_for(data):
            return super().test_step(*state, data)

    @property
    def _labels_are_tokens(self) -> bool:
        """Overrides the property of `EncodingModel`."""
        return hasattr(self, "info") and self.task.targets_are_next_tokens

    def _with_next_tokens(self, data: Any) -> Any:
        """Returns a batch in which labels among the inputs have become the next tokens."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        if y is not None or not hasattr(x, "keys") or not self._labels_are_tokens:
            return data
        x, y = with_next_tokens(x)
        return data if y is None else keras.utils.pack_x_y_sample_weight(x, y, weights)

    def predict_step(self, *args: Any) -> Any:
        """Overrides the Keras hook; with JAX, the state precedes the data."""
        *state, data = args
        inputs = keras.utils.unpack_x_y_sample_weight(data)[0]
        found = super().predict_step(*state, self.checked_batch((inputs,)))
        # With JAX, the state follows the outputs.
        return (gathered(found[0]), *found[1:]) if state else found

    def checked_batch(self, data: Any) -> Any:
        """Returns the batch of a step with assertions on its values; see `values.asserting`.

        Args:
            data: The inputs, or a tuple of inputs, targets and weights.

        Raises:
            FinetuneError: If a value is invalid and the step runs eagerly.
        """
        data = kernels.with_common_shapes(data)
        # Sizes first: TensorFlow's graph optimizer assumes that they match.
        if hasattr(self, "info"):
            x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
            others = isinstance(self.loss, PairSimilarity)  # a pair is two rows
            if kernels.device_count() > 1 and hasattr(x, "keys") and STARTS in x:
                others = True  # the places of packed rows are divided at other ones than the rows
            with asserting() as assertions:
                targets = None if others else targets_of(x, y)
                check_sizes(x, targets, None if others else weights, self._max_positions)
                if is_prefix_model(self):
                    check_joined(x, self._max_positions)
            data = after(assertions, data)
        with asserting() as assertions:
            self._validated(*keras.utils.unpack_x_y_sample_weight(data))
        return after(assertions, data)

    def check_inputs(self, inputs: Any) -> None:
        """Checks that input values are integers within the range of their embedding tables.

        Args:
            inputs: Token ids, or a dict with `input_ids` and optionally `attention_mask` and
                `token_type_ids`.

        Raises:
            ModelError: If a value is not an integer or outside of its range.
        """
        texts = inputs
        if self.reads_images:
            images, texts = split_inputs(inputs) if self.reads_texts else (inputs, None)
            check_pixels(images)
        # For a clone of the graph, the sizes are unknown.
        if self.reads_texts and hasattr(self, "info"):
            check_values(texts, self._sizes)

    def _validated(self, x: Any, y: Any, weights: Any) -> tuple[Any, Any]:
        """Checks arrays before Keras traces a step; in the step, all batches are checked."""
        if isinstance(x, Mapping) or hasattr(x, "shape"):
            self.check_inputs(x)
            if self._labels_are_tokens and fit_of(self.loss, self.kind) is not None:
                check_next_tokens(x, targets_of(x, y))
        return super()._validated(x, y, weights)
