"""The old model classes: `FineTuneModel`s with the calls and outputs of transformers 4.

One class a family and task, made from the registries. A class adds ways of calling; stages,
weights, freezing, training and saving are those of `finetune_tf.load`.
"""

import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import keras
from keras import ops

from finetune_tf.compat.arguments import (
    FLAGS,
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

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_HOLD = "write a keras.Model that holds TF…Model.from_pretrained(…) and puts layers on its outputs"
_NOT_TO_OVERRIDE = {
    "__init__": _HOLD,
    "call": _HOLD,
    "compute_loss": "call it hf_compute_loss(self, labels, logits)",
}


class TFPreTrainedModel(FineTuneModel):
    """What all old classes have in common."""

    family: ClassVar[str]
    task_name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuses what would never be called.

        Raises:
            ModelError: If a subclass has a constructor, a forward pass or a loss of its own.
        """
        super().__init_subclass__(**kwargs)
        for name, instead in _NOT_TO_OVERRIDE.items():
            if name in cls.__dict__:
                raise ModelError(f"{cls.__name__} cannot have a {name} of its own: {instead}.")

    def __new__(cls, config: Any = None, *args: Any, **kwargs: Any) -> "TFPreTrainedModel":
        """`TFBertModel(config)`: a model with random weights."""
        if hasattr(config, "to_dict"):
            return cls.from_config(config, **kwargs)
        return super().__new__(cls, *(() if config is None else (config,)), *args, **kwargs)

    def __init__(self, config: Any = None, *args: Any, **kwargs: Any) -> None:
        if not hasattr(config, "to_dict"):
            super().__init__(*(() if config is None else (config,)), *args, **kwargs)

    @classmethod
    def from_pretrained(cls, checkpoint: str | Path, *args: Any, **options: Any) -> Any:
        """`finetune_tf.load` with the old options.

        These are `num_labels`, `id2label`, `config` and keys of it, `problem_type`, `cache_dir`,
        `revision`, `ignore_mismatched_sizes`, `output_hidden_states`, `output_attentions`.

        Raises:
            CheckpointError: As `load` does.
            ModelError: If the checkpoint is of another family.
        """
        found = family_of_checkpoint(checkpoint, options)
        if found != cls.family:
            raise ModelError(
                f"{checkpoint} is a {found} model and {cls.__name__} is for {cls.family} models: "
                "take the class of its family, or one that finds it, TFAutoModel…"
            )
        return cls._loaded(checkpoint, **options)

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None, **options: Any) -> Any:
        """A model with random weights of a transformers config; or Keras's method of that name."""
        if not hasattr(config, "to_dict"):
            return super().from_config(config, custom_objects=custom_objects)
        return cls._loaded(config.to_dict(), config=config, **options)

    @classmethod
    def _loaded(cls, checkpoint: Any, config: Any = None, **options: Any) -> "TFPreTrainedModel":
        family, task = FAMILIES[cls.family], TASKS[cls.task_name]
        try:
            options = options_of(options, config, family, task)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.from_pretrained {error}") from None
        return load(checkpoint, task.name, model_class=cls, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`model(ids, attention_mask=mask)`, `model(**encoding)` or `model(encoding)`.

        Returns:
            A `ModelOutput`; with `return_dict=False` a tuple. `loss`, where labels are given, is
            a number a text, or (1,) for tasks about tokens, as it was.

        Raises:
            ModelError: If an input is unknown or not supported.
        """
        inputs, kwargs = inputs_of(args, kwargs)
        if not hasattr(self, "info"):
            return super().__call__(inputs, **kwargs)
        targets = {name: inputs.pop(name) for name in TARGETS if name in inputs}
        out, as_dict = self._run(inputs, kwargs, None)
        fields = self._fields(out["output"], out["last_hidden_state"]) | _states(out)
        labels = targets_in(targets)
        if labels is not None:
            fields["loss"] = self.hf_compute_loss(labels, out["output"])
        output = output_of(**fields)
        return output if as_dict else output.to_tuple()

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """What `model.bert(…)` gave: last hidden state and, if it has a pooler, its output."""
        inputs, kwargs = inputs_of(args, kwargs)
        out, as_dict = self._run(inputs, kwargs, Encoder(self).pooler)
        names = ("last_hidden_state", "pooler_output")
        output = output_of(**{name: out.get(name) for name in names}, **_states(out))
        return output if as_dict else output.to_tuple()

    def _run(self, inputs: dict, kwargs: dict, pooler: Any) -> tuple[dict, bool]:
        """What a model on the same layers gives, and whether it is wanted as a record."""
        asked = {name: kwargs.pop(name, None) for name in FLAGS}
        states, attentions, as_dict = (
            bool(self.config.get(name, FLAGS[name]) if value is None else value)
            for name, value in asked.items()
        )
        unknown = kwargs.keys() - {"training", "mask"}
        if unknown:
            raise TypeError(f"A call of {type(self).__name__} does not take {sorted(unknown)}.")
        # In a functional model of the user's: tf_bert_model, as Keras called the old class.
        name = None if pooler else _WORDS.sub("_", type(self).__name__).lower()
        model = with_states(self, states, attentions, pooler, name)
        return model(self._complete_inputs(inputs), **kwargs), as_dict

    def _fields(self, output: Any, last_hidden_state: Any) -> dict:
        return self.task.class_outputs(output, last_hidden_state, self.info.pooling)

    # Training: the steps are Keras's; only labels and outputs are unwrapped.

    def compile(
        self, optimizer: Any = None, loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """As `FineTuneModel.compile`; `loss=model.compute_loss` means the task's."""
        if isinstance(loss, list | tuple):
            loss = loss[0]  # one for start and one for end; both are the same
        if loss in (self.compute_loss, self.hf_compute_loss, "passthrough", "auto_with_warning"):
            loss = None
        if loss is None and type(self).hf_compute_loss is not TFPreTrainedModel.hf_compute_loss:
            loss = self.hf_compute_loss  # a subclass's own
        if loss is None and metrics is None:
            loss = LOSSES[self.task.output_kind]()  # without the preset's metrics
        super().compile(optimizer, loss, metrics, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> ModelOutput:
        """Keras's predict: arrays of all rows, as `.logits` or `["logits"]`."""
        return output_of(**super().predict(x, *args, **kwargs))

    def predict_on_batch(self, x: Any) -> ModelOutput:
        """Keras's predict_on_batch, as a record like that of `predict`."""
        return output_of(**super().predict_on_batch(x))

    def predict_step(self, data: Any) -> dict:
        """Keras's hook."""
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
        """Keras's hook; called with (labels, logits), what `hf_compute_loss` gives."""
        if y_pred is None:
            return self.hf_compute_loss(x, y)
        return super().compute_loss(x, y, logits_in(y_pred), sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Keras's hook."""
        return super().compute_metrics(x, y, logits_in(y_pred), sample_weight)

    def hf_compute_loss(self, labels: Any, logits: Any) -> Any:
        """The loss a text, or (1,) for tasks about tokens, of labels and logits."""
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

    def prepare_tf_dataset(self, dataset: Any, **options: Any) -> Any:
        """See `finetune_tf.compat.prepare_tf_dataset`."""
        return prepare_tf_dataset(self, dataset, **options)

    # Names of the old classes for what a model is made of.

    @property
    def layers(self) -> list:
        """The encoder as one and what is above it, as scripts know it; Keras sees all layers."""
        layers = super().layers
        asking = sys._getframe(1).f_globals.get("__name__", "")
        if asking.startswith(("keras.", "finetune_tf.")):
            return layers
        return parts_of(self, layers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> keras.layers.Layer:
        """Keras's, and the encoder under its name."""
        if name == FAMILIES[self.family].tensor_prefix:
            return Encoder(self)
        return super().get_layer(name, index)

    @property
    def base_model(self) -> Encoder:
        """The encoder, to freeze or to call; `model.bert` of a BERT."""
        return Encoder(self)

    @property
    def classifier(self) -> keras.layers.Layer:
        """What PyTorch calls so: the output layer, of RoBERTa and its kin with what is below."""
        head = parts_of(self, super().layers)[-1]
        return head if head.name == "classifier" else self.get_layer("classifier")

    @classifier.setter
    def classifier(self, layer: Any) -> None:
        raise ModelError(
            "A head that is assigned would be in no model. Write from_pretrained(…, num_labels=n) "
            "for another number of labels, or put layers on the outputs of a bare model, such as "
            "TFBertModel, in a keras.Model."
        )

    @property
    def num_labels(self) -> int:
        """How many outputs have a name."""
        return len(self.labels or ())

    def get_input_embeddings(self) -> keras.layers.Layer:
        """The word table."""
        return self.get_layer("embeddings").word

    def resize_token_embeddings(self, size: int | None = None) -> keras.layers.Layer:
        """As `FineTuneModel.resize_token_embeddings`; returns the word table."""
        super().resize_token_embeddings(self.config["vocab_size"] if size is None else size)
        return self.get_input_embeddings()

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the model has, or learns."""
        return int(self._parameters()[0 if only_trainable else 1])

    def save_pretrained(self, folder: str | Path, *args: Any, **options: Any) -> Path:
        """As `FineTuneModel.save_pretrained`; with `push_to_hub=True` uploads it, too."""
        kept = {key: options[key] for key in ("max_shard_size",) if key in options}
        path = super().save_pretrained(folder, **kept)
        if options.get("saved_model"):
            self.export(path / "saved_model" / "1")
        if options.get("push_to_hub"):
            self.push_to_hub(options.get("repo_id") or Path(folder).name)
        return path

    def save(self, filepath: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Keras's save to a .keras file."""
        if Path(filepath).suffix not in (".keras", ".h5"):
            raise ModelError(
                f"save({str(filepath)!r}) wrote a SavedModel once. Write model.export(folder) to "
                "serve the model, model.save_pretrained(folder) to load it again, or "
                "model.save('model.keras')."
            )
        return super().save(filepath, *args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `FineTuneModel.fit`; what Keras 3 no longer needs is left out."""
        for name in ("workers", "use_multiprocessing", "max_queue_size"):
            kwargs.pop(name, None)
        return super().fit(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Not here yet."""
        raise ModelError(f"{type(self).__name__} does not generate text; no family here does yet.")


def _states(out: dict) -> dict:
    return {n: tuple(out[n]) for n in ("hidden_states", "attentions") if n in out}
