"""Training of language models without the logits of all tokens at once.

The last operation of a language model multiplies the hidden state of each token with a table that
has a vector for each token of the vocabulary. A step of a fit or of an evaluation that needs no
more of the logits than the cross-entropy and the accuracy of a preset stops before this operation:
`kernels.weighted_cross_entropy` then computes both from the hidden states, the table and the
targets. Everything else, such as `model(inputs)`, `predict`, or a fit with another loss or metric,
computes logits.
"""

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures import Embeddings, LanguageModelHead
from finetune_tf.architectures.layers import Dense
from finetune_tf.base.keras_internals import compiled_with, inputs_struct, standardized_inputs
from finetune_tf.data.encodings import targets_of
from finetune_tf.graph.pieces import ordered_nodes
from finetune_tf.graph.taps import Taps, taps_of
from finetune_tf.graph.traces import traces_of
from finetune_tf.model.encoding_model import EncodingModel
from finetune_tf.model.packed import packed_calls, plain_call, run_packed
from finetune_tf.tasks import IGNORED
from finetune_tf.tasks.feature import POSITIONS
from finetune_tf.tasks.token_scores import token_scores
from finetune_tf.training.classification import Accuracy
from finetune_tf.training.objectives.objective import running_step
from finetune_tf.training.presets import LOSSES

# The methods that a subclass may override; such a subclass expects logits in all of them.
_HOOKS = ("__call__", "call", "compute_loss", "compute_metrics")


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """A model in two parts: the trunk, and the product with the table of the vocabulary.

    Attributes:
        trunk: Maps the inputs of the model to the hidden states (batch, length, D).
        layer: `Embeddings` that decode, or a `LanguageModelHead`.
    """

    trunk: keras.Model
    layer: keras.layers.Layer

    @property
    def is_tied(self) -> bool:
        """Whether the table is that of the token embeddings, (V, D), instead of (D, V)."""
        return isinstance(self.layer, Embeddings)

    @property
    def table(self) -> Any:
        """The variable of the table."""
        return self.layer.word.embeddings if self.is_tied else self.layer.dense.kernel

    @property
    def learns_hidden(self) -> bool:
        """Whether any variable of the trunk is trainable."""
        return any(variable.trainable for variable in self.trunk.trainable_variables)

    @property
    def learns_table(self) -> bool:
        """Whether the table is trainable."""
        holder = self.layer.word if self.is_tied else self.layer.dense
        return any(variable.trainable for variable in holder.trainable_variables)

    def flattened(self, hidden: Any) -> Any:
        """Returns hidden states (tokens, D) in the dtype in which the layer computes."""
        return ops.cast(ops.reshape(hidden, (-1, hidden.shape[-1])), self.layer.compute_dtype)


@dataclass(eq=False)
class _Step:
    """A running step that computes no logits.

    Attributes:
        model: The model of the step.
        output: The model in two parts.
        hits: (batch, length), whether each target has the highest logit; set by `compute_loss`.
    """

    model: keras.Model
    output: OutputLayer
    hits: Any = None


# Each replica of a distributed step runs in a thread of its own, so this is no attribute.
_STEP: ContextVar[_Step | None] = ContextVar("finetune_tf_step", default=None)


class VocabularyLossModel(EncodingModel):
    """Computes no logits in steps that need only the loss and the accuracy of a preset."""

    def train_step(self, *args: Any) -> Any:
        """Overrides the Keras hook."""
        with _step_of(self):
            return super().train_step(*args)

    def test_step(self, *args: Any) -> Any:
        """Overrides the Keras hook."""
        with _step_of(self):
            return super().test_step(*args)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Computes the logits, or the hidden states in a step that needs no logits."""
        step, taps = self._step, taps_of(self)
        if step is not None:
            return _hidden(step.output, inputs, training, taps)
        if taps is not None:
            return _run_tapped(self, inputs, training, taps)
        if POSITIONS in inputs:
            return run_packed(self, inputs, training)
        return super().call(inputs, training=training, mask=mask)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Overrides the Keras hook; `y_pred` are hidden states in a step that needs no logits."""
        step, targets = self._step, targets_of(x, y)
        if step is None or targets is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        shape, output = ops.shape(y_pred)[:-1], step.output
        targets = ops.reshape(ops.cast(targets, "int32"), (-1,))
        counted = ops.cast(ops.not_equal(targets, IGNORED), "float32")
        weights = counted
        if sample_weight is not None:
            weights = weights * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        given = (output.flattened(y_pred), output.table, targets)
        if training:
            learns = {"learns_hidden": output.learns_hidden, "learns_table": output.learns_table}
            total, scores = kernels.weighted_cross_entropy(
                *given, weights, output.is_tied, **learns
            )
        else:
            scores = kernels.token_scores(*given, output.is_tied)
            total = ops.sum(scores[:, 0] * weights)
        step.hits = ops.reshape(scores[:, 1], shape)
        sums = [ops.reshape(total, (1,)), ops.reshape(ops.sum(counted), (1,))]
        total, count = map(ops.sum, kernels.gathered(sums))
        return kernels.divided_among_devices(ops.divide_no_nan(total, count))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Overrides the Keras hook.

        Without logits, the metrics of the preset are computed from the hits: in place of the
        tokens, there are two classes, and class 1 is a hit.
        """
        step, targets = self._step, targets_of(x, y)
        if step is None or step.hits is None or targets is None:
            return super().compute_metrics(x, y, y_pred, sample_weight)
        targets = ops.reshape(ops.cast(targets, "int32"), ops.shape(step.hits))
        hits = ops.stack([ops.full_like(step.hits, 0.5), step.hits], axis=-1)
        is_hit = ops.where(ops.equal(targets, IGNORED), IGNORED, 1)
        return super().compute_metrics(x, is_hit, hits, sample_weight)

    def token_scores(self, inputs: Any, targets: Any) -> Any:
        """Scores the next token at each token, as `tasks.token_scores` does from logits.

        Args:
            inputs: As for a call of the model.
            targets: (batch, length), token ids; -100 where nothing is scored.

        Returns:
            (batch, length, 2) in float32: the negative log-likelihood of the target, and 1 where it
            has the highest logit; both 0 where nothing is scored.
        """
        output = output_layer(self)
        if output is None:
            return token_scores(self.call(inputs, training=False), targets)
        hidden = _hidden(output, self._complete_inputs(inputs), training=False)
        ids = ops.reshape(ops.cast(targets, "int32"), (-1,))
        scores = kernels.token_scores(output.flattened(hidden), output.table, ids, output.is_tied)
        return ops.reshape(scores, (*ops.shape(targets), 2))

    @property
    def runs_without_logits(self) -> bool:
        """Whether a step is running that computes no logits."""
        return self._step is not None

    @property
    def _step(self) -> _Step | None:
        step = _STEP.get()
        return step if step is not None and step.model is self else None


def _hidden(
    output: OutputLayer, inputs: Any, training: bool | None, taps: Taps | None = None
) -> Any:
    if taps is not None:
        return _run_tapped(output.trunk, inputs, training, taps)
    if POSITIONS in inputs:
        return run_packed(output.trunk, inputs, training)
    return output.trunk.call(inputs, training=training)


def _run_tapped(graph: keras.Model, inputs: Any, training: bool | None, taps: Taps) -> Any:
    """Runs a graph whose tensors are read or changed by the objectives of a step."""
    if hasattr(inputs, "keys") and POSITIONS in inputs:
        values = [inputs[tensor.name] for tensor in graph.inputs]
        return taps.run(graph, values, packed_calls(inputs, training))
    values = standardized_inputs(graph, inputs)
    return taps.run(graph, values, functools.partial(plain_call, training=training))


@contextlib.contextmanager
def _step_of(model: keras.Model) -> Iterator[None]:
    """Runs a step without logits if the model and what it was compiled with allow it."""
    output = output_layer(model) if _needs_only_the_loss(model) else None
    token = _STEP.set(None if output is None else _Step(model, output))
    try:
        yield
    finally:
        _STEP.reset(token)


def _needs_only_the_loss(model: keras.Model) -> bool:
    """Whether loss and metrics are those of the preset, and nothing else reads the logits."""
    step = running_step(model)
    if step is not None and step.reads_outputs:
        return False
    if keras.backend.backend() != "tensorflow" or model.jit_compile:
        return False  # XLA compiles neither loops of unknown length nor the search for targets
    hooks = (getattr(type(model), name) for name in _HOOKS)
    if not all(hook.__module__.startswith("finetune_tf.model.") for hook in hooks):
        return False
    metrics = [compiled_with(model, name) for name in ("metrics", "weighted_metrics")]
    return (
        _is_preset_loss(model.loss)
        and compiled_with(model, "loss_weights") is None
        and all(type(m) is Accuracy for m in keras.tree.flatten(metrics) if m is not None)
        and not model.losses
    )


def _is_preset_loss(loss: Any) -> bool:
    preset = LOSSES["classes"]()
    if type(loss) is not type(preset):
        return False
    configs = [{**each.get_config(), "name": None} for each in (loss, preset)]
    return configs[0] == configs[1]


def output_layer(model: keras.Model) -> OutputLayer | None:
    """Splits a language model below the product with the table of the vocabulary.

    Args:
        model: A model from `load` or its upper part.

    Returns:
        The two parts, or None if the last operation is another one.

    Example:
        >>> from finetune_tf.model.vocabulary_loss import output_layer
        >>> gpt = ft.load(decoder)
        >>> output_layer(gpt).layer.name
        'embeddings'
    """
    cached = traces_of(model)
    if "output layer" not in cached:
        cached["output layer"] = _split(model)
    return cached["output layer"]


def _split(model: keras.Model) -> OutputLayer | None:
    (node,) = (n for n in ordered_nodes(model) if model.outputs[0] in n.output_tensors)
    layer, arguments = node.operation, node.arguments
    if type(layer) is Embeddings and arguments.kwargs.get("decode"):
        holder, is_plain = layer.word, True
    elif type(layer) is LanguageModelHead:
        holder, is_plain = layer.dense, isinstance(layer.dense, Dense) and layer.dense.is_plain
    else:
        return None
    if not is_plain or holder.quantization_mode is not None:
        return None
    return OutputLayer(keras.Model(inputs_struct(model), node.input_tensors[0]), layer)
