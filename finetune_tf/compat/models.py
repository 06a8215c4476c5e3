"""The base class of the old model classes: a `FineTuneModel` with the API of transformers 4.

`classes` creates one subclass per family and task. A class adds the call signatures and outputs of
transformers 4; stages, weights, freezing, training and saving are those of `FineTuneModel`.
"""

import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import keras
from keras import ops

from finetune_tf.architectures import Embeddings
from finetune_tf.compat.arguments import (
    FLAGS,
    ORDER,
    TARGETS,
    family_of_checkpoint,
    inputs_of,
    logits_in,
    options_of,
)
from finetune_tf.compat.encoder import Encoder, parts_of
from finetune_tf.compat.outputs import ModelOutput, output_of
from finetune_tf.compat.training import prepare_tf_dataset
from finetune_tf.data.encodings import targets_in
from finetune_tf.errors import ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.graph.hidden_states import with_states
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.loading import load
from finetune_tf.model.targets import checked_targets
from finetune_tf.tasks import IGNORED, TASKS
from finetune_tf.training.outputs import kind_of
from finetune_tf.training.presets import LOSSES

_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WRAP_ADVICE = (
    "write a keras.Model that contains TF…Model.from_pretrained(…) and adds layers to its outputs"
)
_FORBIDDEN_OVERRIDES = {
    "__init__": _WRAP_ADVICE,
    "call": _WRAP_ADVICE,
    "compute_loss": "name it hf_compute_loss(self, labels, logits)",
}


class TFPreTrainedModel(FineTuneModel):
    """The base class of all model classes of transformers 4, such as TFBertModel.

    Attributes:
        family: The `model_type` of the family.
        task_name: The name of the task.
        inputs_in_order: The names of the inputs, in the order of positional arguments.
    """

    family: ClassVar[str]
    task_name: ClassVar[str]
    inputs_in_order: ClassVar[tuple[str, ...]] = ORDER

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Rejects overrides that would never be called.

        Raises:
            ModelError: If a subclass overrides the constructor, the forward pass or compute_loss.
        """
        super().__init_subclass__(**kwargs)
        for name, instead in _FORBIDDEN_OVERRIDES.items():
            if name in cls.__dict__ and cls.__module__.partition(".")[0] != "finetune_tf":
                raise ModelError(f"{cls.__name__} cannot override {name}: {instead}.")

    def __new__(cls, config: Any = None, *args: Any, **kwargs: Any) -> "TFPreTrainedModel":
        """Creates a model with random weights: `TFBertModel(config)`."""
        if hasattr(config, "to_dict"):
            return cls.from_config(config, **kwargs)
        return super().__new__(cls, *(() if config is None else (config,)), *args, **kwargs)

    def __init__(self, config: Any = None, *args: Any, **kwargs: Any) -> None:
        if not hasattr(config, "to_dict"):
            super().__init__(*(() if config is None else (config,)), *args, **kwargs)

    @classmethod
    def from_pretrained(cls, checkpoint: str | Path, *args: Any, **options: Any) -> Any:
        """Loads a checkpoint with `finetune_tf.load`, with the options of transformers 4.

        Args:
            checkpoint: A folder or a Hub id.
            *args: Ignored.
            **options: `num_labels`, `id2label`, `config` and keys of the config, `problem_type`,
                `cache_dir`, `revision`, `ignore_mismatched_sizes`, `output_hidden_states` and
                `output_attentions`.

        Raises:
            CheckpointError: As in `load`.
            ModelError: If the checkpoint belongs to another family.
        """
        family = family_of_checkpoint(checkpoint, options)
        if family != cls.family:
            raise ModelError(
                f"{checkpoint} is a {family} model, but {cls.__name__} is for {cls.family} models. "
                "Use the class of its family, or a TFAutoModel… class, which selects it."
            )
        return cls._load_checkpoint(checkpoint, **options)

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None, **options: Any) -> Any:
        """Creates a model with random weights from a transformers config or a Keras config."""
        if not hasattr(config, "to_dict"):
            return super().from_config(config, custom_objects=custom_objects)
        return cls._load_checkpoint(config.to_dict(), config=config, **options)

    @classmethod
    def _load_checkpoint(
        cls, checkpoint: Any, config: Any = None, **options: Any
    ) -> "TFPreTrainedModel":
        family, task = FAMILIES[cls.family], TASKS[cls.task_name]
        try:
            options = options_of(options, config, family, task)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.from_pretrained {error}") from None
        return load(checkpoint, task.name, model_class=cls, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls `model(ids, attention_mask=mask)`, `model(**encoding)` or `model(encoding)`.

        Returns:
            A `ModelOutput`; a tuple with `return_dict=False`. If there are labels, it includes
            `loss`, which has the shape (batch,), or (1,) for token-level tasks, as in
            transformers 4.

        Raises:
            ModelError: If an input is unknown or not supported.
        """
        inputs, kwargs = inputs_of(args, kwargs, self.inputs_in_order)
        if not hasattr(self, "info"):
            return super().__call__(inputs, **kwargs)
        targets = {name: inputs.pop(name) for name in TARGETS if name in inputs}
        out, as_dict = self._run(inputs, kwargs, None)
        fields = self._output_fields(out["output"], out.get("last_hidden_state"))
        fields |= self._states_of(out)
        labels = targets_in(targets)
        if labels is not None:
            fields["loss"] = self.hf_compute_loss(labels, out["output"])
        output = output_of(**fields)
        return output if as_dict else output.to_tuple()

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what `model.bert(…)` returned: last hidden state and pooler output, if any."""
        inputs, kwargs = inputs_of(args, kwargs, self.inputs_in_order)
        out, as_dict = self._run(inputs, kwargs, Encoder(self).pooler)
        names = ("last_hidden_state", "pooler_output")
        output = output_of(**{name: out.get(name) for name in names}, **self._states_of(out))
        return output if as_dict else output.to_tuple()

    def _run(self, inputs: dict, kwargs: dict, pooler: Any) -> tuple[dict, bool]:
        """Returns the outputs, and whether the caller wants them as a `ModelOutput`."""
        states, attentions, as_dict = self._flags(kwargs)
        model = with_states(self, states, attentions, pooler, None if pooler else self._layer_name)
        return model(self._complete_inputs(inputs), **kwargs), as_dict

    @property
    def _layer_name(self) -> str:
        """The name of the layer in a functional model of the user: tf_bert_model, as before."""
        return _WORD_BOUNDARY.sub("_", type(self).__name__).lower()

    def _flags(self, kwargs: dict) -> tuple[bool, ...]:
        """Removes what the caller wants to get from other arguments, in the order of `FLAGS`."""
        flags = {name: kwargs.pop(name, None) for name in FLAGS}
        unknown = kwargs.keys() - {"training", "mask"}
        if unknown:
            raise TypeError(f"{type(self).__name__} does not accept {sorted(unknown)} in a call.")
        return tuple(
            bool(self.config.get(name, FLAGS[name]) if value is None else value)
            for name, value in flags.items()
        )

    def _states_of(self, out: dict) -> dict:
        return {n: tuple(out[n]) for n in ("hidden_states", "attentions") if n in out}

    def _output_fields(self, output: Any, last_hidden_state: Any) -> dict:
        return self.task.class_outputs(output, last_hidden_state, self.info.pooling)

    # Training uses Keras's train step. Only labels and outputs are converted.

    def compile(
        self, optimizer: Any = None, loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Compiles as `FineTuneModel.compile`; `loss=model.compute_loss` means the task's loss."""
        if isinstance(loss, list | tuple):
            loss = loss[0]  # the same loss for start and end positions
        if loss in (self.compute_loss, self.hf_compute_loss, "passthrough", "auto_with_warning"):
            loss = None
        if loss is None and type(self).hf_compute_loss is not TFPreTrainedModel.hf_compute_loss:
            loss = self.hf_compute_loss  # overridden by a subclass
        if loss is None:
            loss = self._default_loss(metrics)
        super().compile(optimizer, loss, metrics, **kwargs)

    def _default_loss(self, metrics: Any) -> Any:
        """Returns the task's loss; None with metrics, so that `FineTuneModel` chooses it."""
        return LOSSES[self.task.output_kind]() if metrics is None else None

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> ModelOutput:
        """Predicts as Keras's predict; the arrays are available as `.logits` or `["logits"]`."""
        return output_of(**super().predict(x, *args, **kwargs))

    def predict_on_batch(self, x: Any) -> ModelOutput:
        """Predicts as Keras's predict_on_batch, with the output type of `predict`."""
        return output_of(**super().predict_on_batch(x))

    def predict_step(self, data: Any) -> dict:
        """Computes the outputs of a batch; overrides the Keras method."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        (x,) = self.checked_batch((x,))
        output = self(x, training=False, return_dict=True)
        return {name: value for name, value in output.items() if name != "loss"}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the loss for Keras; called with (labels, logits), that of `hf_compute_loss`."""
        if y_pred is None:
            return self.hf_compute_loss(x, y)
        return super().compute_loss(x, y, logits_in(y_pred), sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Updates the metrics; overrides the Keras method."""
        return super().compute_metrics(x, y, logits_in(y_pred), sample_weight)

    def hf_compute_loss(self, labels: Any, logits: Any) -> Any:
        """Computes the loss (batch,), or (1,) for token-level tasks, of labels and logits."""
        labels, logits = targets_in(labels), logits_in(logits)
        kind = kind_of(self.task)
        if hasattr(labels, "shape"):
            shape = logits.shape
            labels = checked_targets(labels, kind, self.task, None, shape, shape[-1])
        labels = ops.convert_to_tensor(labels)
        labels = ops.reshape(labels, (-1,)) if len(labels.shape) == 0 else labels
        losses = LOSSES[self.task.output_kind]().call(labels, logits)
        if len(losses.shape) == 1:
            return losses
        if self.task.targets_are_positions:
            return ops.mean(losses, axis=-1)
        counted = ops.sum(ops.cast(ops.not_equal(labels, IGNORED), losses.dtype))
        return ops.reshape(ops.sum(losses) / ops.maximum(counted, 1.0), (1,))

    def prepare_tf_dataset(self, dataset: Any, *args: Any, **options: Any) -> Any:
        """See `finetune_tf.compat.prepare_tf_dataset`."""
        return prepare_tf_dataset(self, dataset, *args, **options)

    # The parts of a model under the names of transformers 4.

    @property
    def layers(self) -> list:
        """The encoder as one layer, and the layers of the head; Keras itself gets all layers."""
        layers = super().layers
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith(("keras.", "finetune_tf.")):
            return layers
        return self.parts()

    def parts(self) -> list:
        """Returns what `layers` was in transformers 4: the encoder and the layers of the head."""
        return parts_of(self, super().layers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> keras.layers.Layer:
        """Returns a layer as Keras's method does, or the encoder by its name."""
        if name == FAMILIES[self.family].tensor_prefix:
            return Encoder(self)
        return super().get_layer(name, index)

    @property
    def base_model(self) -> Encoder:
        """The encoder, which can be frozen and called; of a BERT model, `model.bert`."""
        return Encoder(self)

    @property
    def classifier(self) -> keras.layers.Layer:
        """PyTorch's `classifier`: the output layer, in RoBERTa with the layer below it."""
        head = parts_of(self, super().layers)[-1]
        return head if head.name == "classifier" else self.get_layer("classifier")

    @classifier.setter
    def classifier(self, layer: Any) -> None:
        raise ModelError(
            "A head cannot be replaced by assignment. Use from_pretrained(…, num_labels=n) for "
            "another number of labels, or a keras.Model that adds layers to the outputs of a model "
            "without a head, such as TFBertModel."
        )

    @property
    def num_labels(self) -> int:
        """The number of labels."""
        return len(self.labels or ())

    def get_input_embeddings(self) -> keras.layers.Layer:
        """Returns the token embedding layer; of images, the embeddings of patches or the stem."""
        layers = next(stage.layers for stage in self.stages if stage.role == "embeddings")
        return next((layer.word for layer in layers if isinstance(layer, Embeddings)), layers[0])

    def resize_token_embeddings(self, size: int | None = None) -> keras.layers.Layer:
        """Resizes as `FineTuneModel.resize_token_embeddings`; returns the token embeddings."""
        super().resize_token_embeddings(self.config["vocab_size"] if size is None else size)
        return self.get_input_embeddings()

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Returns the number of parameters, or of trainable parameters."""
        return int(self._parameters()[0 if only_trainable else 1])

    def save_pretrained(self, folder: str | Path, *args: Any, **options: Any) -> Path:
        """Saves as `FineTuneModel.save_pretrained`, and uploads with `push_to_hub=True`."""
        supported = {key: options[key] for key in ("max_shard_size",) if key in options}
        path = super().save_pretrained(folder, **supported)
        if options.get("saved_model"):
            self.export(path / "saved_model" / "1")
        if options.get("push_to_hub"):
            self.push_to_hub(options.get("repo_id") or Path(folder).name)
        return path

    def save(self, filepath: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Saves the model as a .keras or .h5 file.

        Raises:
            ModelError: If the path has another suffix.
        """
        if Path(filepath).suffix not in (".keras", ".h5"):
            raise ModelError(
                f"save({str(filepath)!r}) no longer writes a SavedModel. Use model.export(folder) "
                "to serve the model, model.save_pretrained(folder) to load it again, or "
                "model.save('model.keras')."
            )
        return super().save(filepath, *args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Fits as `FineTuneModel.fit`; ignores arguments that Keras 3 has removed."""
        for name in ("workers", "use_multiprocessing", "max_queue_size"):
            kwargs.pop(name, None)
        return super().fit(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Raises an error, since the model is no language model."""
        raise ModelError(
            f"{type(self).__name__} does not generate text. Classes of language models do, such as "
            "TFGPT2LMHeadModel, TFT5ForConditionalGeneration and TFAutoModelForCausalLM."
        )
