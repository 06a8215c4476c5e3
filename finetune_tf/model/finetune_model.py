"""The one model class: a Functional Keras model that knows its stages, task and checkpoint."""

import contextlib
import inspect
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf import kernels, messages
from finetune_tf.base.arguments import by_name, check, check_call
from finetune_tf.base.keras_internals import inner_optimizer
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.checkpoints.return_tensors import own
from finetune_tf.checkpoints.tokenizers import load_tokenizer
from finetune_tf.graph import stages as stages_module
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import Stage
from finetune_tf.model import exporting, saving, vocabulary
from finetune_tf.model.explained import ExplainedModel
from finetune_tf.model.model_info import Config, ModelInfo
from finetune_tf.tasks import Task, get_task
from finetune_tf.training import compiling, fit_errors
from finetune_tf.training.callbacks import (
    ApplyLeftover,
    BindSchedule,
    FollowTrainable,
    StopAtNonFiniteLoss,
)
from finetune_tf.training.devices import compute_float32_in_full
from finetune_tf.training.freezing import (
    apply_frozen,
    build_optimizer,
    count_parameters,
    renew_training,
    set_trainable,
)
from finetune_tf.training.gradients import check_devices, give_whole_gradients
from finetune_tf.training.schedules import schedule_of

# Keras's parameters, the first ones being self and x.
_FIT = tuple(inspect.signature(keras.Model.fit).parameters)


@keras.saving.register_keras_serializable("finetune_tf")
class FineTuneModel(ExplainedModel):
    """A Keras model made of a checkpoint and a task; `ft.load` makes it.

    It is a Functional model with inputs `input_ids`, `token_type_ids` and `attention_mask`
    (batch, length) and logits (batch, labels) in float32 as output, so everything Keras does
    with models works. On top of that:

    - all inputs but `input_ids` may be left out, and unknown ones raise;
    - encodings of tokenizers are taken as they are, and labels may stand among the inputs;
    - `compile()` without arguments takes the preset of the task;
    - freezing takes effect whenever it happens;
    - `.keras` files bring labels, config, tokenizer and frozen variables back.

    It has no constructor of its own because Keras revives it as a Functional model.
    """

    info: ModelInfo

    @property
    def stages(self) -> list[Stage]:
        """The stages, from embeddings to head."""
        return stages_module.stages(self)

    @property
    def task(self) -> Task:
        """What the model is for, with its labels."""
        return get_task(self.info.task, self.info.labels)

    @property
    def labels(self) -> Labels | None:
        """Names of the outputs, in the order of the logits; None where they have none."""
        return self.info.labels

    @property
    def config(self) -> Config:
        """The Hugging Face config; its keys are attributes, too."""
        return self.info.config

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's fast tokenizer.

        Raises:
            CheckpointError: If the checkpoint has none.
        """
        if getattr(self, "_tokenizer", None) is None:
            files, self._tokenizer_files = getattr(self, "_tokenizer_files", None), None
            self._tokenizer = load_tokenizer(self.info.tokenizer, files, self.config)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._tokenizer = own(tokenizer)

    def __setattr__(self, name: str, value: Any) -> None:
        """Keras's, but `model.trainable = True` thaws what was frozen by itself, too.

        An optimizer is given whole gradients, wherever it comes from.
        """
        if name == "trainable":
            set_trainable(self, value)
            return
        if name == "optimizer" and isinstance(value, keras.optimizers.Optimizer):
            give_whole_gradients(value)
        if name == "tokenizer":  # Keras would ask for the old one, and there may be none
            FineTuneModel.tokenizer.fset(self, value)
            return
        super().__setattr__(name, value)

    @property
    def max_length(self) -> int:
        """How many tokens a text may have, special ones included."""
        limits = (self._positions, self.tokenizer.model_max_length, self.info.max_length)
        return min(limit for limit in limits if limit is not None)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Logits (batch, labels) in float32.

        Args:
            inputs: `input_ids` (batch, length), or a dict with it and optionally
                `attention_mask` (default: all ones) and `token_type_ids` (default: zeros).
            *args: As in Keras.
            **kwargs: As in Keras: `training` for example.

        Raises:
            ModelError: If an input is unknown, `input_ids` is missing, or too long.
        """
        return super().__call__(self._complete_inputs(inputs), *args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Keras's hook; stateless calls arrive here without passing `__call__`.

        `training` has to stand in the signature: Keras's `fit` looks for it there, and trains
        without dropout where it finds none.
        """
        return super().call(self._complete_inputs(inputs), training=training, mask=mask)

    @names_checked(also=tuple(inspect.signature(keras.Model.compile).parameters))
    def compile(
        self, optimizer: Any = None, loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Keras's compile, with the task's preset for what is left out.

        Losses given by name are taken on logits; an optimizer given by name gets the rate
        "auto". What is decided here is said in one line each.

        Args:
            optimizer: Optimizer or name; by default AdamW with the rate "auto".
            loss: Loss or name; by default the task's.
            metrics: As in Keras; with no loss given, the task's.
            **kwargs: As in Keras; but with TensorFlow `jit_compile` is False by default, on GPUs
                too, because compiling the whole model takes most of a minute for each length of
                batches. It pays in long trainings at one length.

        Raises:
            ModelError: If the loss or a metric does not fit the labels.
        """
        if "steps_per_execution" in kwargs:
            check(**{"keras.steps_per_execution": kwargs["steps_per_execution"]})
        for number in keras.tree.flatten(kwargs.get("loss_weights")):
            check(**{"keras.loss_weights": number})
        weighted = kwargs.pop("weighted_metrics", None)
        resolved = compiling.resolve(self, self.task, optimizer, loss, metrics, weighted)
        if keras.backend.backend() == "tensorflow":
            kwargs.setdefault("jit_compile", False)
            devices = self.distribute_strategy.num_replicas_in_sync
            check_devices(resolved["optimizer"], devices, **kwargs)
        # Keras keeps those of an earlier compile where it is given None.
        resolved["metrics"] = resolved["metrics"] or []
        super().compile(**resolved, **kwargs)

    @names_checked(also=tuple(inspect.signature(keras.Model.fit).parameters))
    def fit(self, x: Any = None, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """Keras's fit; binds the preset's schedule and notes what was done.

        Args:
            x: As in Keras, or a tokenizer's encoding; usually what `Examples.batches` gives.
            *args: As in Keras.
            callbacks: As in Keras.
            **kwargs: As in Keras.

        Returns:
            Keras's History.

        Raises:
            DataTypeError: If `x` are `Examples` or texts instead of batches.
            DataError: If there are no labels, or one is beyond the model's outputs.
            ModelError: If memory runs out; the message says what to reduce.
        """
        kwargs = by_name("fit", _FIT[2:], args, kwargs)
        y, callbacks = kwargs.pop("y", None), kwargs.pop("callbacks", callbacks)
        check_call(keras.Model.fit, x, y, **kwargs)
        fit_errors.check_data("fit", x, kwargs.get("validation_data"))
        if getattr(self, "optimizer", None) is None:
            self.compile()
        fit_errors.check_rate_setters(self.optimizer, callbacks)
        compiling.check_rate(self, self.optimizer)  # what learns may have changed since compile
        renew_training(self)
        build_optimizer(self)
        kernels.keep_buffers()
        if hasattr(x, "element_spec") or hasattr(x, "__next__"):
            kwargs.setdefault(
                "shuffle", False
            )  # datasets and generators have their order; Keras warns
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            mine = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
            mine = [callback for callback in mine if callback is not None]
            callbacks = [*mine, *self._own_callbacks(mine, kwargs.get("initial_epoch", 0))]
        with fit_errors.explaining():
            history = super().fit(x, y, callbacks=callbacks, **kwargs)
        self._note_fit(history)
        return history

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: str | None = None,
        max_shard_size: int | str = "5GB",
        **card: str,
    ) -> Path:
        """Writes the model as a Hugging Face checkpoint that PyTorch opens too.

        Args:
            folder: Made or replaced as a whole; an interrupted save leaves what was there.
            dtype: "float32", "float16" or "bfloat16": the type of numbers of the written weights.
                By default the one that the checkpoint's own file had.
            max_shard_size: Bytes above which the weights are written in several files with an
                index, as transformers does; a number, or a text such as "500MB".
            **card: More lines for the model card, such as `data="SST-2"`.

        Returns:
            The folder.

        Raises:
            ArgumentError: If there is no such type of numbers, or no such size.
            CheckpointError: If the folder cannot be written.
            ModelError: If a weight is NaN or infinite, or too large for `dtype`; nothing is
                written then.
        """
        return saving.save_pretrained(
            self, folder, dtype=dtype, max_shard_size=max_shard_size, **card
        )

    @names_checked
    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        token: Any = None,
        *,
        dtype: str | None = None,
        max_shard_size: int | str = "5GB",
    ) -> Any:
        """Saves the model and uploads it to the Hub; see `finetune_tf.model.saving.push_to_hub`.

        Args:
            repo_id: "owner/name", made if it is not there.
            private: Whether a new one is; by default as the owner's settings say.
            token: As for huggingface_hub; by default that of the login.
            dtype: As in `save_pretrained`.
            max_shard_size: As in `save_pretrained`.
        """
        options = {"dtype": dtype, "max_shard_size": max_shard_size}
        return saving.push_to_hub(self, repo_id, private, token, **options)

    @names_checked
    def resize_token_embeddings(self, size: int) -> None:
        """Makes room for tokens added to the tokenizer; see `finetune_tf.model.vocabulary.resize`.

        Args:
            size: Of the vocabulary: `len(tokenizer)`.

        Raises:
            ModelError: If the model is compiled already.
        """
        vocabulary.resize(self, size)

    @names_checked
    def export(
        self, filepath: str | Path, format: str = "tf_saved_model", verbose: bool | None = None
    ) -> Path:
        """Writes the forward pass for serving; see `finetune_tf.model.exporting.export`.

        Args:
            filepath: A folder, made or replaced as a whole; other files in it are kept.
            format: "tf_saved_model" or "openvino".
            verbose: As in Keras; with False nothing is said.

        Returns:
            The folder.

        Raises:
            ModelError: If the format is unknown or its package is missing.
            CheckpointError: If the folder cannot be written.
        """
        with contextlib.nullcontext() if verbose in (None, True, 1) else messages.quiet():
            return exporting.export(self, filepath, format)

    def get_config(self) -> dict:
        """Keras config, with `info` and the frozen variables."""
        frozen = [v.path for v in learnable_variables(self) if not v.trainable]
        return super().get_config() | {"info": self.info.to_dict(), "frozen": frozen}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "FineTuneModel":
        """Revives the model; Keras calls it before it builds the optimizer."""
        config = dict(config)
        info, frozen = config.pop("info"), set(config.pop("frozen"))
        model = super().from_config(config, custom_objects=custom_objects)
        model.info = ModelInfo.from_dict(info)
        apply_frozen(model, {id(v) for v in learnable_variables(model) if v.path in frozen})
        if model.stages[0].layers[0].compute_dtype == "float32":
            compute_float32_in_full()
        return model

    def compile_from_config(self, config: dict) -> None:
        """Keras's hook; a model with its own `compile` has to do it itself."""
        if not hasattr(self, "info"):
            _ = self.task  # says what a clone lacks
        config = keras.saving.deserialize_keras_object(config)
        keras.Model.compile(self, **config)
        if getattr(self, "optimizer", None) is not None:
            self.optimizer.build(self.trainable_variables)

    def _parameters(self) -> tuple[int, int]:
        return count_parameters(self)

    def _own_callbacks(self, given: list, initial_epoch: int) -> list:
        """What a fit needs besides the callbacks that it was given."""
        ours = [FollowTrainable(), BindSchedule(initial_epoch, given)]
        if getattr(self.optimizer, "gradient_accumulation_steps", None):
            ours.append(ApplyLeftover())
        if not any(isinstance(callback, keras.callbacks.TerminateOnNaN) for callback in given):
            ours.append(StopAtNonFiniteLoss())
        return ours

    def _note_fit(self, history: Any) -> None:
        optimizer = inner_optimizer(self.optimizer)
        learning, total = self._parameters()
        self.info.record.setdefault("fits", []).append(
            {
                "epochs": len(history.epoch),
                "steps": int(history.params.get("steps") or 0),
                "optimizer": type(optimizer).__name__,
                "learning_rate": str(
                    schedule_of(optimizer) or optimizer.get_config().get("learning_rate")
                ),
                "trained": f"{learning:,} of {total:,} parameters",
                "last": {k: np.asarray(v[-1]).tolist() for k, v in history.history.items()},
            }
        )
