"""The model class: a Functional Keras model with stages, a task, labels and a tokenizer."""

import contextlib
import inspect
from pathlib import Path
from typing import Any

import keras

from finetune_tf import kernels, messages
from finetune_tf.adapters.records import describe_adapters, restore_adapters
from finetune_tf.base.adapter_records import adapters_recorded
from finetune_tf.base.arguments import by_name, check, check_call
from finetune_tf.base.keras_internals import inner_optimizer
from finetune_tf.base.spelling import names_checked
from finetune_tf.distribution.current import (
    check_place,
    divided,
    written_once,
)
from finetune_tf.errors import ModelError
from finetune_tf.generation.generate import generate_rows
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.model import exporting, saving, vocabulary
from finetune_tf.model.carried_tokenizers import describe_tokenizers, restore_tokenizers
from finetune_tf.model.described import DescribedModel
from finetune_tf.model.model_info import ModelInfo
from finetune_tf.training import compiling, fit_errors
from finetune_tf.training.averaging import in_order
from finetune_tf.training.callbacks import (
    ApplyLeftover,
    BindSchedule,
    FinishSaving,
    FollowTrainable,
    SavePretrained,
    StopAtNonFiniteLoss,
)
from finetune_tf.training.devices import check_strategy, compute_float32_in_full
from finetune_tf.training.fit_record import record_of_fit
from finetune_tf.training.freezing import (
    apply_frozen,
    build_optimizer,
    count_parameters,
    renew_training,
    set_trainable,
)
from finetune_tf.training.gradients import check_devices, give_whole_gradients
from finetune_tf.training.pretrained import learning_pretrained, remember_changed
from finetune_tf.training.progress import Progress
from finetune_tf.training.rates import resolve_groups
from finetune_tf.training.resuming.callback import listening
from finetune_tf.training.schedules import schedule_of
from finetune_tf.training.whole_step import compiled_where_it_pays

# The parameters of Keras's `fit`; the first ones are self and x.
_FIT = tuple(inspect.signature(keras.Model.fit).parameters)


@keras.saving.register_keras_serializable("finetune_tf")
class FineTuneModel(DescribedModel):
    """A Keras model of a checkpoint and a task, created by `ft.load`.

    It is a Functional model with the inputs `input_ids`, `token_type_ids` and `attention_mask`
    (batch, length) and with logits (batch, labels) in float32 as output, so all features of Keras
    models are available. In addition:

    - all inputs except `input_ids` are optional, and unknown inputs raise an error;
    - encodings of tokenizers are accepted, and labels may be among the inputs;
    - `compile()` without arguments uses the preset of the task;
    - freezing takes effect at any time, even during a fit;
    - `.keras` files restore labels, config, tokenizer, adapters and frozen variables.

    The class has no constructor of its own, because Keras deserializes it as a Functional model.

    Example:
        >>> model = ft.load(checkpoint, labels=train.labels)
        >>> model.compile()
        >>> history = model.fit(train.batches(model, batch_size=4), verbose=0)
        >>> tuple(model({"input_ids": np.array([[2, 5, 3]])}).shape)
        (1, 2)
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute, with special cases for `trainable` and `optimizer`.

        `model.trainable = True` also unfreezes layers and variables that were frozen individually.
        Any optimizer is made to sum gradients over devices and repeated tokens.
        """
        if name == "trainable":
            set_trainable(self, value)
            return
        if name == "optimizer" and isinstance(value, keras.optimizers.Optimizer):
            give_whole_gradients(value)
        super().__setattr__(name, value)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Computes the logits.

        Args:
            inputs: `input_ids` (batch, length), or a dict with it and optionally
                `attention_mask` (by default all ones) and `token_type_ids` (by default zeros).
            *args: As in Keras.
            **kwargs: As in Keras, for example `training`.

        Returns:
            Logits (batch, labels) in float32.

        Raises:
            ModelError: If an input is unknown, `input_ids` is missing, or a sequence is too long.
        """
        return super().__call__(self._complete_inputs(inputs), *args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Overrides the Keras hook; stateless calls of the model do not pass through `__call__`.

        `training` must be in the signature: Keras's `fit` inspects the signature, and trains
        without dropout if the parameter is missing.
        """
        inputs = divided(self._complete_inputs(inputs))
        return super().call(inputs, training=training, mask=mask)

    @names_checked(also=tuple(inspect.signature(keras.Model.compile).parameters))
    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        objectives: Any = None,
        **kwargs: Any,
    ) -> None:
        """Compiles the model as in Keras; missing arguments are taken from the task's preset.

        A loss given by name is computed from logits, and an optimizer given by name gets the
        learning rate "auto". Each such decision is printed.

        Args:
            optimizer: An optimizer or its name; by default AdamW with the learning rate "auto".
            loss: A loss or its name; by default that of the task.
            metrics: As in Keras; if no loss is given either, by default those of the task.
            objectives: Objectives of `ft.objectives`, which add to what training minimizes or
                perturb the model while it trains. Evaluations and predictions ignore them.
            **kwargs: As in Keras, except that with TensorFlow `jit_compile` is False by default,
                even on GPUs: XLA compilation of the model takes a minute for each shape of batches.
                On GPUs and TPUs, a fit of 8,000 steps or more whose batches have one shape
                (`packing=128`) is compiled nevertheless, with a message.

        Raises:
            ModelError: If the loss, a metric or an objective does not fit the model.

        Example:
            >>> model.compile(keras.optimizers.Adam(2e-5), metrics=["accuracy"])
            >>> type(model.loss).__name__
            'SparseCategoricalCrossentropy'
        """
        check_place(self)
        if "steps_per_execution" in kwargs:
            check(**{"keras.steps_per_execution": kwargs["steps_per_execution"]})
        for number in keras.tree.flatten(kwargs.get("loss_weights")):
            check(**{"keras.loss_weights": number})
        weighted = kwargs.pop("weighted_metrics", None)
        resolved = compiling.resolve(self, self.task, optimizer, loss, metrics, weighted)
        if kwargs.get("auto_scale_loss", True):
            resolved["optimizer"] = compiling.with_loss_scale(self, resolved["optimizer"])
        if keras.backend.backend() == "tensorflow":
            self.is_jit_chosen = "jit_compile" in kwargs
            kwargs.setdefault("jit_compile", False)
            check_strategy(self.distribute_strategy)
            devices = self.distribute_strategy.num_replicas_in_sync
            check_devices(resolved["optimizer"], devices, **kwargs)
        # With None, Keras would keep the metrics of an earlier call of `compile`.
        resolved["metrics"] = resolved["metrics"] or []
        super().compile(**resolved, **kwargs)
        if (schedule := schedule_of(self.optimizer)) is not None:
            schedule.join(self.optimizer)
        self.set_objectives(objectives)
        compiling.say_what_is_accumulated(self)

    @names_checked(also=tuple(inspect.signature(keras.Model.fit).parameters))
    def fit(self, x: Any = None, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """Trains the model as in Keras, binds the schedule of the preset, and records the fit.

        A model that is not compiled is compiled with its preset first.

        Args:
            x: As in Keras, or an encoding of a tokenizer; usually the result of
                `Examples.batches`.
            *args: As in Keras.
            callbacks: As in Keras.
            **kwargs: As in Keras, except that by default the progress is shown as by
                `ft.callbacks.Progress`: one line that is redrawn in a terminal, and one line for
                each epoch in a file or a pipe. `verbose` is as in Keras. The keys of `class_weight`
                may be label names; "balanced" weights each class by the inverse of its number of
                rows.

        Returns:
            Keras's History object.

        Raises:
            DataTypeError: If `x` contains `Examples` or texts instead of batches.
            DataError: If there are no labels, a label is outside of the range of the outputs,
                batches were made for a model with other labels, or the length of a dataset is not
                known on several devices of TensorFlow.
            ModelError: If memory runs out, or the loss is NaN or infinite.

        Example:
            >>> batches = train.batches(model, batch_size=4, shuffle=True)
            >>> history = model.fit(batches, epochs=2, class_weight={"bad": 2.0}, verbose=0)
            >>> len(history.history["loss"])
            2
        """
        kwargs = by_name("fit", _FIT[2:], args, kwargs)
        y, callbacks = kwargs.pop("y", None), kwargs.pop("callbacks", callbacks)
        check_call(keras.Model.fit, x, y, **kwargs)
        fit_errors.check_data("fit", x, kwargs.get("validation_data"))
        fit_errors.check_length(x, self.number_of_devices, kwargs.get("steps_per_epoch"))
        check_place(self)
        fit_errors.say_order(x)
        if getattr(self, "optimizer", None) is None:
            self.compile()
        fit_errors.check_rate_setters(self.optimizer, callbacks)
        # The trainable variables may have changed since `compile`.
        compiling.check_rate(self, self.optimizer)
        fit_errors.check_labels(self, x, kwargs.get("validation_data"))
        fit_errors.check_precision(self)
        renew_training(self)
        build_optimizer(self)
        kernels.keep_buffers()
        if hasattr(x, "element_spec") or hasattr(x, "__next__"):
            # Keras cannot shuffle datasets and generators, and warns if asked to.
            kwargs.setdefault("shuffle", False)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            given = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
            given = [callback for callback in given if callback is not None]
            if kwargs.get("verbose", "auto") == "auto":
                kwargs["verbose"] = 0
                shows = Progress | keras.callbacks.ProgbarLogger
                given += [] if any(isinstance(c, shows) for c in given) else [Progress()]
            own = self._own_callbacks(given, kwargs.get("initial_epoch", 0))
            given = [c for c in given if not isinstance(c, BindSchedule)]  # `own` has one
            callbacks = in_order([*given, *own], first=ApplyLeftover)
        compiled = compiled_where_it_pays(self, x, kwargs)
        with self._forgetting(), listening(callbacks), self._running(), compiled:
            history = super().fit(x, y, callbacks=callbacks, **kwargs)
        record = record_of_fit(history, callbacks, self.optimizer, self._parameters())
        self.info.record.setdefault("fits", []).append(record)
        remember_changed(self, learning_pretrained(self))
        return history

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: str | None = None,
        max_shard_size: int | str = "5GB",
        **card: str,
    ) -> Path:
        """Writes the model as a Hugging Face checkpoint, which PyTorch can load as well.

        Active adapters are contained in the written weights, as after `ft.adapters.merge`; the
        model itself does not change. `ft.adapters.save_peft` writes the adapter alone.

        Args:
            folder: The folder, created or replaced atomically: if saving is interrupted, its old
                content remains.
            dtype: The dtype of the written weights: "float32", "float16" or "bfloat16"; by default
                that of the original checkpoint file.
            max_shard_size: Maximum size of a weight file in bytes, as a number or a text such as
                "500MB"; larger weights are split into several files with an index.
            **card: Additional lines of the model card, such as `data="SST-2"`.

        Returns:
            The folder.

        Raises:
            ArgumentError: If the dtype or the size is invalid.
            CheckpointError: If the folder cannot be written.
            ModelError: If a weight is NaN or infinite, or too large for `dtype`, or an active
                adapter is a bottleneck; then nothing is written.

        Example:
            >>> folder = model.save_pretrained("my-model", dtype="bfloat16", data="reviews")
            >>> ft.load(folder).labels == model.labels
            True
        """
        return saving.save_pretrained(
            self, folder, dtype=dtype, max_shard_size=max_shard_size, **card
        )

    def save(self, filepath: str | Path, *args: Any, **kwargs: Any) -> None:
        """Writes the model as a `.keras` file, as in Keras; of several processes, only one does."""
        with written_once(filepath) as place:
            super().save(place, *args, **kwargs)

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
        """Saves the model and uploads it to the Hugging Face Hub.

        Args:
            repo_id: The repository, "owner/name", which is created if it does not exist.
            private: Whether a new repository is private; by default as in the owner's settings.
            token: The access token, as for huggingface_hub; by default that of the login.
            dtype: As in `save_pretrained`.
            max_shard_size: As in `save_pretrained`.

        Returns:
            The commit information of huggingface_hub.
        """
        options = {"dtype": dtype, "max_shard_size": max_shard_size}
        return saving.push_to_hub(self, repo_id, private, token, **options)

    @names_checked
    def resize_token_embeddings(self, size: int) -> None:
        """Changes the size of the vocabulary, for tokens that were added to the tokenizer.

        Args:
            size: The new size of the vocabulary, usually `len(model.tokenizer)`. New rows of the
                embedding table are initialized randomly; surplus rows are removed at the end.

        Raises:
            ArgumentError: If the size is not a positive integer.
            ModelError: If the model is already compiled.

        Example:
            >>> model = ft.load(checkpoint, labels=train.labels)
            >>> model.tokenizer.add_tokens(["covid", "podcast"])
            2
            >>> model.resize_token_embeddings(len(model.tokenizer))
            >>> model.config.vocab_size == len(model.tokenizer)
            True
        """
        vocabulary.resize(self, size)

    def generate(self, prompts: Any, max_new_tokens: int | None = None, **options: Any) -> list:
        """Continues prompts of token ids; see `ft.generate`, which continues texts.

        Args:
            prompts: Token ids: one array or list for each prompt, of any lengths.
            max_new_tokens: As for `ft.generate`.
            **options: As for `ft.generate`.

        Returns:
            The ids of the new tokens, an array for each prompt.

        Example:
            >>> gpt = ft.load(decoder)
            >>> [len(row) <= 3 for row in gpt.generate([[9, 10], [9]], max_new_tokens=3)]
            [True, True]
        """
        return generate_rows(self, prompts, max_new_tokens, **options)

    @names_checked
    def export(
        self,
        filepath: str | Path,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        *,
        quantize: str | None = None,
        calibration: Any = None,
        strings: bool = False,
        image_bytes: bool = False,
    ) -> Path:
        """Writes the forward pass for serving, without finetune_tf and Keras.

        Args:
            filepath: The folder, created or replaced atomically; other files in it are kept.
            format: "tf_saved_model" for TensorFlow and TensorFlow Serving, "openvino", or for
                encoders of texts "onnx" or "litert". `ft.load_exported` runs all of them.
            verbose: As in Keras; with False, nothing is printed.
            quantize: "int8" for int8 weights, for models of texts in all formats but
                "tf_saved_model"; by default float32.
            calibration: For int8 with OpenVINO: a few hundred `Examples` that are like those the
                model will see, so that activations are int8 as well.
            strings: For "tf_saved_model", whether the graph reads texts and contains the tokenizer,
                which must be one of BERT.
            image_bytes: For models of images, whether the graph reads the bytes of JPEG and PNG
                files and prepares the images itself, instead of levels of the size of the model.

        Returns:
            The folder.

        Raises:
            ModelError: If the format or the quantization is unknown or does not fit the model, or
                an engine or a graph cannot reproduce the model or its tokenizer.
            MissingExtraError: If a package of the format is not installed.
            CheckpointError: If the folder cannot be written.

        Example:
            >>> folder = model.export("serving")
            >>> (folder / "saved_model.pb").exists()
            True
        """
        with contextlib.nullcontext() if verbose in (None, True, 1) else messages.quiet():
            return exporting.export(
                self, filepath, format, image_bytes, quantize, calibration, strings
            )

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Raises an error: Keras would skip the layers of this library, or ruin the model.

        Raises:
            ModelError: Always; int8 is an option of `export`.
        """
        raise ModelError(
            "Keras's quantize does not fit the layers of this model: for int8, write "
            'model.export(folder, format="openvino", quantize="int8"), or "onnx" or "litert".'
        )

    def get_config(self) -> dict:
        """Returns the Keras config, with `info`, the adapters and the paths of frozen variables.

        It contains the tokenizer too, if this is not the one in the folder of the checkpoint.
        """
        frozen = [v.path for v in learnable_variables(self) if not v.trainable]
        own = {"info": self.info.to_dict(), "frozen": frozen}
        if adapters := describe_adapters(self):
            own["adapters"] = adapters
        if tokenizers := describe_tokenizers(self):
            own["tokenizers"] = tokenizers
        with adapters_recorded():
            return super().get_config() | own

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "FineTuneModel":
        """Creates the model from a config; Keras calls it before it builds the optimizer."""
        config = dict(config)
        info, frozen = config.pop("info"), set(config.pop("frozen"))
        adapters, tokenizers = config.pop("adapters", []), config.pop("tokenizers", {})
        model = super().from_config(config, custom_objects=custom_objects)
        model.info = ModelInfo.from_dict(info)
        restore_adapters(model, adapters)
        restore_tokenizers(model, tokenizers)
        apply_frozen(model, {id(v) for v in learnable_variables(model) if v.path in frozen})
        if model.stages[0].layers[0].compute_dtype == "float32":
            compute_float32_in_full()
        return model

    def compile_from_config(self, config: dict) -> None:
        """Overrides the Keras hook, as every model with a custom `compile` must."""
        if not hasattr(self, "info"):
            _ = self.task  # raises the error that explains what a clone lacks
        config = keras.saving.deserialize_keras_object(config)
        objectives = config.pop("objectives", ())
        super().compile(**config)  # not that of this class: everything is resolved already
        self.set_objectives(objectives)
        if getattr(self, "optimizer", None) is not None:
            resolve_groups(self.optimizer, self)
            self.optimizer.build(self.trainable_variables)
            if (schedule := schedule_of(self.optimizer)) is not None:
                schedule.follow(self.optimizer)

    def _parameters(self) -> tuple[int, int]:
        return count_parameters(self)

    def _own_callbacks(self, given: list, initial_epoch: int) -> list:
        """Returns the callbacks of this library that a fit needs, besides the given ones."""
        epochs = next((c.epochs for c in given if isinstance(c, BindSchedule)), None)
        own_callbacks = [FollowTrainable(), BindSchedule(initial_epoch, given, epochs)]
        if getattr(inner_optimizer(self.optimizer), "gradient_accumulation_steps", None):
            own_callbacks.append(ApplyLeftover())
        if not any(isinstance(callback, keras.callbacks.TerminateOnNaN) for callback in given):
            own_callbacks.append(StopAtNonFiniteLoss())
        if saving := [callback for callback in given if isinstance(callback, SavePretrained)]:
            own_callbacks.append(FinishSaving(saving))
        return own_callbacks
