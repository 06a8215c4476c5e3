"""The feature cache: what frozen stages compute is computed once, and the rest trains on it.

With the lower stages frozen, every epoch repeats the same forward pass through them. Its result
can be kept instead. Both halves share the model's weights, so when the upper one has been trained,
the model has been.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf._version import __version__
from finetune_tf.arguments import shown
from finetune_tf.callbacks import FollowTrainable
from finetune_tf.data.stored import Precision, RowStore, StoredRows, ends_of
from finetune_tf.errors import CacheError, ModelError
from finetune_tf.evaluation.running import rows_of
from finetune_tf.model import FineTuneModel
from finetune_tf.paths import absolute
from finetune_tf.spelling import names_checked
from finetune_tf.stages import stages
from finetune_tf.tasks import Encoded
from finetune_tf.training.freezing import count_parameters
from finetune_tf.training.halves import Halves, halves

BATCH_SIZE = 64  # of the one pass through the frozen stages


@names_checked
def cache_features(
    model: FineTuneModel,
    folder: str | Path | None = None,
    precision: Precision | None = None,
) -> "FeatureModel":
    """Cuts a model above its frozen stages and keeps what these compute.

    What comes back is the rest of the model: a Keras model that is compiled, fitted and fed like
    the whole one, in a fraction of the time. The two share their weights.

        ft.train_only(model, ft.select.head())
        learner = ft.cache_features(model)
        learner.compile()
        learner.fit(train.batches(learner, 32, shuffle=True), epochs=10)
        ft.evaluate(model, test)

    The first `batches` of some examples runs the frozen stages over them, without dropout, and says
    how much room the result takes: one vector a text where texts are pooled below the cut, else one
    vector a token, without padding. It is kept under a hash of the token ids, of the frozen stages
    with their weights and config, and of the precision. So other data, another tokenizer,
    checkpoint or cut never meet features that are not theirs.

    Args:
        model: A model of `ft.load` whose lowest stages are frozen.
        folder: Where to keep features from one run to the next, and where there are more than fit
            into memory; by default in memory.
        precision: "float32", or "bfloat16", which takes half the room and keeps three digits of
            each number. By default what the model computes in, so that nothing is lost.

    Raises:
        CacheError: If the lowest stage learns, or nothing does.
        ModelError: If there is no such precision.
    """
    if precision not in (None, "float32", "bfloat16"):
        raise ModelError(f"Features are kept as 'float32' or 'bfloat16', found {precision!r}.")
    if not isinstance(model, FineTuneModel):
        raise ModelError(f"Features are cached of a model from ft.load, found {shown(model)}.")
    cut = halves(model)
    learner = FeatureModel(inputs=cut.inputs, outputs=cut.outputs, name=model.name)
    learner.info = model.info
    if precision is None:
        precision = "bfloat16" if cut.trunk.outputs[0].dtype == "bfloat16" else "float32"
    learner._origin = _Origin(
        model, cut, RowStore(folder and absolute(folder, CacheError), precision)
    )
    return learner


@dataclass(frozen=True, eq=False)
class _Origin:
    """Where a `FeatureModel` comes from; Keras would count a model's attributes as its layers."""

    whole: FineTuneModel
    halves: Halves
    store: RowStore


class FeatureModel(FineTuneModel):
    """The stages of a model that learn, on stored features of those below.

    `cache_features` makes it. What is said about the model as a whole (saving, counting) is said
    of the one that it was cut from.
    """

    @property
    def whole(self) -> FineTuneModel:
        """The model that this one is the upper part of."""
        return self._origin.whole

    @property
    def tokenizer(self) -> Any:
        """Of the whole model."""
        return self.whole.tokenizer

    def stored(self, encoded: Encoded, name: str) -> StoredRows:
        """What the frozen stages compute of encoded rows, from the store if it is there.

        Args:
            encoded: From the model's task.
            name: Of the examples, for messages.

        Raises:
            ModelError: If a stage below the cut learns by now.
            CacheError: If rows change with each epoch, or there is too little room.
        """
        trunk, store = self._origin.halves.trunk, self._origin.store
        if encoded.draw is not None:
            raise CacheError(
                f"{self.task.name} draws other rows in each epoch, so their features cannot be "
                "stored. Train the whole model."
            )
        self._refuse_learning_trunk()
        features = trunk.outputs[0]
        ids = encoded.features["input_ids"]
        ends = ends_of(ids) if len(features.shape) == 3 else None
        shape = (len(ids) if ends is None else int(ends[-1]), features.shape[-1])

        def compute(array: np.ndarray) -> None:
            rows = dataclasses.replace(encoded, targets=None)
            longest = max(map(len, ids))
            for row, output in rows_of(trunk, rows, BATCH_SIZE, _outputs_alone, longest):
                if ends is None:
                    array[row] = store.narrow(output)
                else:
                    end, length = ends[row], len(ids[row])
                    array[end - length : end] = store.narrow(output[:length])

        key = _key(trunk, encoded, self.whole, store.precision)
        array = store.get(key, shape, f"Features of {name}", compute)
        return StoredRows(array, ends, features.dtype)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As of any model.

        Raises:
            ModelError: If a stage below the cut learns by now.
        """
        self._refuse_learning_trunk()
        return super().fit(*args, **kwargs)

    def _own_callbacks(self, given: list, initial_epoch: int) -> list:
        below = FollowTrainable(self._origin.halves.trunk, self._refuse_learning_trunk)
        return [below, *super()._own_callbacks(given, initial_epoch)]

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Saves the whole model."""
        return self.whole.save_pretrained(folder, **options)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the whole model."""
        self.whole.save(*args, **kwargs)

    def _complete_inputs(self, inputs: Any) -> Any:
        return inputs  # `batches` gives exactly what is needed

    def _parameters(self) -> tuple[int, int]:
        return count_parameters(self.whole)

    def _refuse_learning_trunk(self) -> None:
        trunk = self._origin.halves.trunk
        learning = [stage.name for stage in stages(trunk) if any(_flags(stage))]
        if learning:
            raise ModelError(
                f"{', '.join(learning)} learn by now, but are below the cut, where features are "
                "computed once. Freeze them, or cut again: ft.cache_features(model)."
            )


def _flags(stage: Any) -> Iterator[bool]:
    return (variable.trainable for variable in stage.variables)


def _outputs_alone(outputs: Any, targets: Any) -> Any:
    return outputs


def _key(trunk: keras.Model, encoded: Encoded, whole: FineTuneModel, precision: str) -> str:
    """A hash of all that stored features depend on."""
    digest = hashlib.sha256()
    said = [__version__, precision, whole.config, [layer.get_config() for layer in trunk.layers]]
    digest.update(json.dumps(said, sort_keys=True, default=str).encode())
    for variable in trunk.weights:
        digest.update(np.ascontiguousarray(variable.numpy()))
    for name, rows in sorted(encoded.features.items()):
        digest.update(name.encode())
        digest.update(ends_of(rows))
        digest.update(np.concatenate(rows))
    return digest.hexdigest()[:32]
