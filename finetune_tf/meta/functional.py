"""A network as a function of the values of its variables, which adaptation changes.

Shape legend: B rows, D features, W ways (classes of an episode).
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.meta.network import Network
from finetune_tf.meta.norms import Statistics, batch_norms, exact_norms
from finetune_tf.model.finetune_model import FineTuneModel

if TYPE_CHECKING:
    import tensorflow as tf

Values = list["tf.Tensor"]  # in the order of the variables of the network
Moments = list[tuple["tf.Tensor", "tf.Tensor"]]  # of each call of a batch normalization


class Functional:
    """Computes the features of a network with given values in the place of its variables.

    Dropout is off. The network itself never changes.

    Args:
        network: The network.
        statistics: Which statistics batch normalization uses.
    """

    def __init__(self, network: Network, statistics: Statistics) -> None:
        self.model, self.variables = network.upper, network.variables
        self.statistics = statistics
        learnable = {id(variable) for variable in learnable_variables(self.model)}
        #: The stored statistics of batch normalizations, which are neither trained nor frozen.
        self.stored = [
            variable
            for part in batch_norms(self.model)
            for variable in part.variables
            if id(variable) not in learnable and "float" in variable.dtype
        ]
        # Fused kernels are used in training. Layers of other libraries may do anything there.
        self._training = isinstance(network.whole, FineTuneModel)

    @property
    def reads_batch(self) -> bool:
        """Whether the features of a row depend on the other rows of its batch."""
        return self.statistics != "stored" and bool(batch_norms(self.model))

    def __call__(
        self,
        values: Values,
        inputs: dict[str, Any],
        moments: Moments | None = None,
        stored: Values | None = None,
    ) -> tuple["tf.Tensor", Moments]:
        """Computes features (B, D) in float32, or in float64 where the network is.

        Args:
            values: The values of the variables.
            inputs: A batch.
            moments: The statistics of batch normalizations that an earlier call returned. With
                `statistics="support"` they are used instead of those of this batch.
            stored: The values of the stored statistics; by default the present ones.

        Returns:
            The features and the statistics that were used, for a later call.
        """
        mapping = list(zip(self.variables, values, strict=True))
        if stored is not None:
            mapping += zip(self.stored, stored, strict=True)
        given = moments if self.statistics == "support" else None
        with (
            exact_norms(self.model, self.statistics, given) as used,
            keras.StatelessScope(state_mapping=mapping),
        ):
            features = self.model.call(inputs, training=self._training)
        return ops.cast(features, keras.backend.result_type(features.dtype, "float32")), used.found


def values_of(variables: list[keras.Variable]) -> Values:
    """Returns copies of the values of variables, as tensors."""
    return [ops.convert_to_tensor(variable.value) + 0 for variable in variables]


def squared_distances(features: Any, prototypes: Any) -> Any:
    """Returns the squared Euclidean distances (B, W) of features (B, D) to prototypes (W, D)."""
    products = ops.matmul(features, ops.transpose(prototypes))
    squares = ops.sum(ops.square(features), axis=1)[:, None]
    return squares - 2 * products + ops.sum(ops.square(prototypes), axis=1)


def class_means(features: Any, classes: Any, ways: Any) -> Any:
    """Returns the mean (W, D) of the features of each class."""
    import tensorflow as tf

    return tf.math.unsorted_segment_mean(features, classes, ways)


def cross_entropy(logits: Any, classes: Any) -> Any:
    """Returns the mean cross-entropy of logits (B, W) and classes (B,)."""
    import tensorflow as tf

    # Written out, so that it has derivatives of any order.
    right = tf.gather(logits, classes, axis=1, batch_dims=1)
    return tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - right)


def accuracy(logits: Any, classes: Any) -> Any:
    """Returns the share of rows (B,) whose highest logit (B, W) is that of their class."""
    predicted = ops.argmax(logits, axis=1)
    return ops.mean(ops.cast(ops.equal(predicted, ops.cast(classes, predicted.dtype)), "float32"))
