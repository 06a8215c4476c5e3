"""The old classes of language models: `labels`, `generate`, and the parts of encoder-decoders."""

from typing import Any

import keras
from keras import ops

from finetune_tf.architectures import EndOfChain
from finetune_tf.base.keras_internals import inputs_struct
from finetune_tf.compat.arguments import inputs_of
from finetune_tf.compat.decoder_inputs import (
    shifted_right,
    with_decoder_inputs,
    without_padding,
)
from finetune_tf.compat.encoder import Side
from finetune_tf.compat.generation import generated
from finetune_tf.compat.models import TFPreTrainedModel
from finetune_tf.data.encodings import (
    LABELS,
    next_labels,
    next_labels_once,
    targets_in,
    targets_of,
)
from finetune_tf.errors import ModelError
from finetune_tf.graph.hidden_states import states_of_chains
from finetune_tf.graph.traces import traces_of
from finetune_tf.training.presets import LOSSES

_LOSS = "hf_compute_loss"  # the name of the model's own loss, which reads shifted labels


class TFLanguageModel(TFPreTrainedModel):
    """A base class of the old classes that generate text.

    Labels are the tokens of a text themselves. A decoder predicts each of them from those before
    it; the decoder of an encoder-decoder reads them shifted by one token to the right. A loss that
    the user gives to `compile` gets the labels as they are.
    """

    _labels_are_tokens = False  # `_prepared` shifts them, unless the user has given a loss

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the model has an encoder and a decoder."""
        return "decoder_input_ids" in inputs_struct(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model as `TFPreTrainedModel.__call__`.

        Args:
            *args: As for every old class.
            **kwargs: As for every old class, and `labels`, `decoder_input_ids` and
                `decoder_attention_mask`. Keys and values are never returned, whatever `use_cache`
                is.
        """
        inputs, kwargs = inputs_of(args, kwargs)
        kwargs.pop("use_cache", None)
        if not hasattr(self, "info"):
            return super().__call__(inputs, **kwargs)
        labels = targets_in(inputs)
        inputs = {name: value for name, value in inputs.items() if name not in LABELS}
        if self.is_encoder_decoder:
            inputs = with_decoder_inputs(inputs, labels, self.config)
        if labels is not None:
            labels = ops.convert_to_tensor(labels)
            inputs["labels"] = (
                without_padding(labels, self.config)
                if self.is_encoder_decoder
                else next_labels(labels)
            )
        return super().__call__(inputs, **kwargs)

    def _run(self, inputs: dict, kwargs: dict, pooler: Any) -> tuple[dict, bool]:
        if not self.is_encoder_decoder:
            return super()._run(inputs, kwargs, pooler)
        states, attentions, as_dict = self._flags(kwargs)
        if attentions:
            raise ModelError(
                "output_attentions is not supported for encoder-decoders. Leave it out."
            )
        out = _with_sides(self, states)(self._complete_inputs(inputs), **kwargs)
        return out, as_dict

    def _states_of(self, out: dict) -> dict:
        if not self.is_encoder_decoder:
            return super()._states_of(out)
        names = ("decoder_hidden_states", "encoder_last_hidden_state", "encoder_hidden_states")
        return {n: tuple(out[n]) if n.endswith("states") else out[n] for n in names if n in out}

    def _default_loss(self, metrics: Any) -> Any:
        return LOSSES[self.task.output_kind](name=_LOSS)

    def train_step(self, *args: Any) -> Any:
        """Overrides the Keras hook."""
        *state, data = args
        return super().train_step(*state, self._prepared(data))

    def test_step(self, *args: Any) -> Any:
        """Overrides the Keras hook."""
        *state, data = args
        return super().test_step(*state, self._prepared(data))

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Overrides the Keras hook that builds the model from the shapes of a batch."""
        if data_batch is not None:
            data_batch = self._prepared(data_batch)
        super()._symbolic_build(iterator, data_batch)

    def _prepared(self, data: Any) -> Any:
        """Returns a batch for training whose labels are targets, beside complete inputs."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        labels = targets_of(x, y)
        if labels is None:
            return data
        x = dict(x) if hasattr(x, "keys") else {"input_ids": x}
        x = {name: value for name, value in x.items() if name not in LABELS}
        is_own = getattr(self.loss, "name", getattr(self.loss, "__name__", None)) == _LOSS
        if self.is_encoder_decoder:
            x = with_decoder_inputs(x, labels, self.config)
            labels = without_padding(labels, self.config) if is_own else labels
        elif is_own:
            labels = next_labels_once(labels, x["input_ids"])
        return keras.utils.pack_x_y_sample_weight(x, labels, weights)

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> Any:
        """Returns the decoder inputs for labels, (batch, length) int32 each.

        Raises:
            ModelError: If the model is no encoder-decoder.
        """
        if not self.is_encoder_decoder:
            raise ModelError(f"{type(self).__name__} has no decoder inputs: it is a decoder.")
        return shifted_right(labels, self.config)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generates token ids as `generate` of transformers 4 did; see `compat.generation`."""
        return generated(self, *args, **kwargs)

    def get_encoder(self) -> Side:
        """Returns the encoder of an encoder-decoder, which can be frozen and called."""
        return Side(self, "encoder")

    def get_decoder(self) -> Side:
        """Returns the decoder of an encoder-decoder, which can be frozen."""
        return Side(self, "decoder")

    @property
    def encoder(self) -> Side:
        """The encoder of an encoder-decoder, as `get_encoder()`."""
        return self.get_encoder()

    @property
    def decoder(self) -> Side:
        """The decoder of an encoder-decoder, as `get_decoder()`."""
        return self.get_decoder()

    @property
    def shared(self) -> keras.layers.Layer:
        """The token embeddings of T5 and of other encoder-decoders."""
        return self.get_input_embeddings()


def _with_sides(model: keras.Model, hidden_states: bool) -> keras.Model:
    """Returns a model on the layers of an encoder-decoder with the outputs of the old classes."""
    models = traces_of(model)
    key = ("sides of outputs", hidden_states)
    if key not in models:
        ends = {layer.name: layer for layer in model.layers if isinstance(layer, EndOfChain)}
        outputs = {
            "output": model.outputs[0],
            "last_hidden_state": ends["decoder"].output,
            "encoder_last_hidden_state": ends["encoder"].output,
        }
        if hidden_states:
            of_chain = states_of_chains(model).output
            scale = [layer for layer in model.layers if layer.name == "decoder_scale"]
            last = {"encoder": ends["encoder"].output, "decoder": ends["decoder"].output}
            if scale:  # T5 scales the last state above its decoder
                last["decoder"] = scale[0].input
            for side, state in last.items():
                outputs[f"{side}_hidden_states"] = [*of_chain[side][:-1], state]
        models[key] = keras.Model(inputs_struct(model), outputs, name=model.name)
    return models[key]
