"""A model that looks at what it is given, and says what a clone of it lacks."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from finetune_tf.base.keras_internals import inputs_struct
from finetune_tf.base.values import after, asserting, dtype_of
from finetune_tf.data.encodings import targets_of
from finetune_tf.errors import UnknownModelError
from finetune_tf.families import FAMILIES
from finetune_tf.model.inputs import check_sizes, check_values, complete, sizes_of
from finetune_tf.model.model_info import ModelInfo
from finetune_tf.model.weighted import WeightedModel
from finetune_tf.training.similarity_loss import PairSimilarity

# Attributes that read a model's record; a clone of the graph has none.
_READ_INFO = ("task", "labels", "config", "tokenizer", "max_length", "kind")


class CheckedModel(WeightedModel):
    """Refuses inputs and targets whose numbers would be read as others."""

    info: ModelInfo

    def __getattr__(self, name: str) -> Any:
        """Python's hook for what is missing: `info`, and what reads it, of a clone.

        Raises:
            UnknownModelError: If the model was not made by this library.
        """
        if "info" not in self.__dict__ and (name == "info" or name in _READ_INFO):
            raise UnknownModelError(
                f"The model has no {name}: keras.models.clone_model copies the layers alone, so "
                "labels, config, task and what is frozen are lost. Copy it whole: copy = "
                "type(model).from_config(model.get_config()); "
                "copy.set_weights(model.get_weights())."
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")

    @property
    def _positions(self) -> int:
        return FAMILIES[self.config["model_type"]].max_length(self.config)

    def _complete_inputs(self, inputs: Any) -> dict:
        # A clone that Keras made of the graph alone knows nothing of itself.
        known = hasattr(self, "info")
        limit = self._positions if known else None
        sizes = sizes_of(self.config) if known else None
        return complete(inputs, inputs_struct(self), limit, sizes)

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Keras's hook; of several devices it is given the mean of their batches.

        The mean of whole numbers is float64, which only stands for their shape here.
        """
        if data_batch is not None:
            data_batch = keras.tree.map_structure(
                lambda v: ops.cast(v, "int32") if dtype_of(v) == "float64" else v, data_batch
            )
        super()._symbolic_build(iterator, data_batch)

    def train_step(self, *args: Any) -> Any:
        """Keras's hook; with JAX the state comes first."""
        *state, data = args
        return super().train_step(*state, self.checked_batch(data))

    def test_step(self, *args: Any) -> Any:
        """Keras's hook; with JAX the state comes first."""
        *state, data = args
        return super().test_step(*state, self.checked_batch(data))

    def predict_step(self, *args: Any) -> Any:
        """Keras's hook; with JAX the state comes first."""
        *state, data = args
        inputs = keras.utils.unpack_x_y_sample_weight(data)[0]
        return super().predict_step(*state, self.checked_batch((inputs,)))

    def checked_batch(self, data: Any) -> Any:
        """A batch of a step, whose numbers the model and the loss take; see `values.asserting`.

        Args:
            data: Inputs, and targets and weights beside them.

        Raises:
            FinetuneError: If a number is wrong, and the step runs eagerly.
        """
        # Sizes first: TensorFlow takes it for granted that they fit where it simplifies the rest.
        if hasattr(self, "info"):
            x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
            pairs = isinstance(self.loss, PairSimilarity)  # a pair is two rows
            with asserting() as assertions:
                targets = None if pairs else targets_of(x, y)
                check_sizes(x, targets, None if pairs else weights, self._positions)
            data = after(assertions, data)
        with asserting() as assertions:
            self._checked(*keras.utils.unpack_x_y_sample_weight(data))
        return after(assertions, data)

    def check_inputs(self, inputs: Any) -> None:
        """Checks the numbers of inputs: whole, and such that the model has them.

        Args:
            inputs: Ids, or a dict with them, `attention_mask` and `token_type_ids`.

        Raises:
            ModelError: If one is not.
        """
        if hasattr(self, "info"):  # a clone that Keras made of the graph alone knows no sizes
            check_values(inputs, sizes_of(self.config))

    def _checked(self, x: Any, y: Any, weights: Any) -> tuple[Any, Any]:
        """Arrays are looked at before Keras traces a step, and in the step all batches are."""
        if isinstance(x, Mapping) or hasattr(x, "shape"):
            self.check_inputs(x)
        return super()._checked(x, y, weights)
