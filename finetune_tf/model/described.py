"""A Keras model that knows its checkpoint: task, labels, config, and what prepares its inputs."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import keras

from finetune_tf.architectures import PIXELS
from finetune_tf.base.keras_internals import inputs_struct
from finetune_tf.base.labels import Labels
from finetune_tf.checkpoints.return_tensors import add_tensorflow_support
from finetune_tf.checkpoints.rust_tokenizer import RustTokenizer
from finetune_tf.checkpoints.tokenizers import TARGET_TOKENIZER, TokenizerFiles, load_tokenizer
from finetune_tf.checkpoints.unchanged import rust_tokenizer, warn_of_difference
from finetune_tf.errors import ModelError
from finetune_tf.graph import stages as stages_module
from finetune_tf.graph.stages import Stage
from finetune_tf.graph.traces import traces_of
from finetune_tf.images import ImageProcessor
from finetune_tf.model.explained import ExplainedModel
from finetune_tf.model.labels_of_load import checked_prompts
from finetune_tf.model.model_info import Config, ModelInfo
from finetune_tf.tasks import Task, get_task
from finetune_tf.tasks.image_pairs import Processor


class DescribedModel(ExplainedModel):
    """Adds what is known of a model besides its weights, all from its `ModelInfo`.

    The tokenizers and the image processor are read when they are first needed.
    """

    info: ModelInfo
    # A folder and the tokenizer that was made of it, or None if only transformers can do that.
    _without_transformers: tuple[str | None, RustTokenizer | None] = (None, None)

    @property
    def stages(self) -> list[Stage]:
        """The stages of the model, from the embeddings to the head."""
        return stages_module.stages(self)

    @property
    def task(self) -> Task:
        """The task of the model, with its labels."""
        return get_task(self.info.task, self.info.labels, self.info.config)

    @property
    def labels(self) -> Labels | None:
        """The names of the outputs, in the order of the logits, or None if they have no names."""
        return self.info.labels

    @property
    def config(self) -> Config:
        """The Hugging Face config, a dict whose keys are also attributes."""
        return self.info.config

    @property
    def _text_config(self) -> Config:
        """The config of the encoder of texts, where the model has another one for images."""
        return Config(self.config.get("text_config", self.config))

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's fast tokenizer.

        Raises:
            CheckpointError: If the checkpoint has none.
        """
        if getattr(self, "_tokenizer", None) is None:
            files, self._tokenizer_files = getattr(self, "_tokenizer_files", None), None
            self._tokenizer = load_tokenizer(self.info.tokenizer, files, self._text_config)
            of, earlier = self._without_transformers
            if earlier is not None and of == self.info.tokenizer:
                warn_of_difference(earlier, self._tokenizer, self.info.tokenizer)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._tokenizer = add_tensorflow_support(tokenizer)

    @property
    def encoding_tokenizer(self) -> Any:
        """What encodes examples: `tokenizer`, or one that gives the same tokens.

        Until `tokenizer` is used for the first time, texts are encoded without importing
        transformers, which takes seconds, if its class and its files are known to add nothing; see
        `checkpoints.unchanged`. From then on it is `tokenizer`, to which tokens can be added.

        Raises:
            CheckpointError: If the checkpoint has no tokenizer.

        Example:
            >>> model = ft.load(checkpoint, labels=["bad", "good"])
            >>> type(model.encoding_tokenizer).__name__
            'RustTokenizer'
            >>> tokenizer = model.tokenizer
            >>> model.encoding_tokenizer is tokenizer
            True
        """
        if getattr(self, "_tokenizer", None) is not None:
            return self._tokenizer
        folder, (of, found) = self.info.tokenizer, self._without_transformers
        if of != folder:
            files = getattr(self, "_tokenizer_files", None)
            if files is None or files.folder != Path(folder):
                # The tokenizer of transformers will be that of the same files.
                self._tokenizer_files = files = TokenizerFiles.read(Path(folder))
            found = rust_tokenizer(files.contents, self._text_config, lambda: self.tokenizer)
            self._without_transformers = folder, found
        return self.tokenizer if found is None else found

    @property
    def target_tokenizer(self) -> Any:
        """The tokenizer of the target texts of an encoder-decoder.

        By default, it is `tokenizer`. A model whose sources and targets have different
        vocabularies has another one in the folder "target_tokenizer" of its checkpoint, which
        `save_pretrained` writes; it can also be set.

        Raises:
            CheckpointError: If it cannot be read.

        Example:
            >>> model.target_tokenizer is model.tokenizer
            True
            >>> model.target_tokenizer = ft.load(decoder).tokenizer
            >>> model.target_tokenizer is model.tokenizer
            False
        """
        if getattr(self, "_target_tokenizer", None) is None:
            folder = Path(self.info.tokenizer) / TARGET_TOKENIZER
            files = getattr(self, "_target_tokenizer_files", None)
            if files is None and not folder.is_dir():
                return self.tokenizer
            self._target_tokenizer = load_tokenizer(folder, files, self.config)
        return self._target_tokenizer

    @target_tokenizer.setter
    def target_tokenizer(self, tokenizer: Any) -> None:
        self._target_tokenizer = add_tensorflow_support(tokenizer)

    @property
    def image_processor(self) -> ImageProcessor:
        """What prepares images for the model; it is saved with the model.

        Raises:
            ModelError: If the model reads texts.
        """
        if not self.info.image_processor:
            raise ModelError(
                f"The model reads texts, since {self.config.get('model_type')} is no family of "
                "image models; it has no image processor."
            )
        kind = self.info.image_processor["image_processor_type"]
        return ImageProcessor.from_config(self.info.image_processor, kind)

    @property
    def processor(self) -> Processor:
        """The tokenizer and the image processor of a model of images and texts."""
        return Processor(self.tokenizer, self.image_processor)

    def tower_rows(self, tower: Literal["image", "text"]) -> keras.Model:
        """Returns a Keras model of one of two towers, on the same layers.

        Args:
            tower: "image" or "text".

        Returns:
            A model from the inputs of that tower to its rows (batch, features); the product of a
            row of an image and one of a text is their logit.

        Raises:
            ModelError: If the model does not compare images with texts.

        Example:
            >>> clip = ft.load(clip_checkpoint, "image-text-retrieval")
            >>> clip.tower_rows("text").output.shape[-1] == clip.config.projection_dim
            True
        """
        name, parts = f"{tower}_rows", traces_of(self)
        if name not in parts:
            layers = {layer.name: layer for layer in self.layers}
            if name not in layers:
                raise ModelError(
                    f"The model for {self.info.task} has no rows of {tower}s. Models for "
                    "zero-shot-image-classification and image-text-retrieval have them."
                )
            is_image = tower == "image"
            inputs = {n: t for n, t in inputs_struct(self).items() if (n == PIXELS) == is_image}
            parts[name] = keras.Model(inputs, layers[name].output, name=name)
        return parts[name]

    def with_labels(self, labels: Any, prompts: str | Iterable[str] | None = None) -> Self:
        """Returns a model for other labels, where labels are texts that the model reads.

        Args:
            labels: The names of the labels, as for `load`.
            prompts: As for `load`; by default those of this model.

        Returns:
            A model on the same layers: training one of both trains the other.

        Raises:
            ArgumentError: If a prompt has no place for the label.
            ModelError: If a trained head fixes the labels, or a label has no name.

        Example:
            >>> clip = ft.load(
            ...     clip_checkpoint, "zero-shot-image-classification", labels=["cat", "dog"]
            ... )
            >>> list(clip.with_labels(["red", "blue", "green"]).labels)
            ['red', 'blue', 'green']
        """
        if not self.task.has_labels or self.task.has_trained_labels:
            raise ModelError(
                f"The labels of a model for {self.task.name} are those of its head. Load the "
                "checkpoint with other labels: ft.load(checkpoint, labels=…, new_head=True)."
            )
        labels = labels if isinstance(labels, Labels) else Labels(Labels.of(labels))
        self.task.require_labels(labels)
        config = Config(self.config)
        if prompts is not None:
            config["prompts"] = checked_prompts(prompts, self.task.name)
        config |= get_task(self.info.task, labels, config).config_keys()
        model = type(self)(inputs=inputs_struct(self), outputs=self.outputs[0], name=self.name)
        model.info = dataclasses.replace(self.info, labels=labels, config=config)
        model.tokenizer = self.tokenizer
        return model

    @property
    def max_length(self) -> int | None:
        """The maximum number of tokens of a text, including special tokens; None for images."""
        if self.task.preprocessor == "image_processor":
            return None
        limits = (
            self._max_positions,
            self.encoding_tokenizer.model_max_length,
            self.info.max_length,
        )
        return min(limit for limit in limits if limit is not None)

    @property
    def row_length(self) -> int | None:
        """The maximum number of tokens of a row by default; None for images.

        It is `max_length`, or less for tasks whose rows are usually shorter. A length that was
        chosen in `load` is always used.
        """
        limit = self.max_length
        return limit if self.info.max_length is not None else self.task.row_length(limit)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute; the tokenizers are set without reading the old ones.

        Keras would read the old value, which may not exist.
        """
        if name in ("tokenizer", "target_tokenizer"):
            getattr(DescribedModel, name).fset(self, value)
            return
        super().__setattr__(name, value)
