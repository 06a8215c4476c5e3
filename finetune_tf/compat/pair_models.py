"""The old classes of CLIP and of dual encoders, which compare images with texts."""

from typing import Any

import keras
from keras import ops

from finetune_tf.architectures import PIXELS
from finetune_tf.base.values import is_float
from finetune_tf.compat.arguments import ORDER, inputs_of
from finetune_tf.compat.image_models import TFImageModel
from finetune_tf.compat.outputs import ModelOutput, output_of
from finetune_tf.compat.towers import TowersMixin, states_output
from finetune_tf.errors import ModelError
from finetune_tf.families.towers import TOWER_TASKS
from finetune_tf.model.fusing import fuse
from finetune_tf.model.inputs import check_values
from finetune_tf.model.loading import load
from finetune_tf.model.pixel_inputs import split_inputs
from finetune_tf.training.contrastive_loss import ContrastiveLoss


class TFPairModel(TowersMixin, TFImageModel):
    """A base class of the old classes that compare images with texts.

    Images are read as by `TFImageModel`. The numbers of images and of texts may differ.
    """

    inputs_in_order = ("input_ids", PIXELS, "attention_mask", "token_type_ids")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls `model(input_ids=…, pixel_values=…, attention_mask=…)`, or `model(**inputs)`.

        Args:
            *args: As for every old class.
            **kwargs: As for every old class, and `return_loss`: whether to return the contrastive
                loss (1,) of images and texts that belong together in their order.

        Returns:
            A `ModelOutput` with `logits_per_image` (images, texts), `logits_per_text`,
            `text_embeds` and `image_embeds`, of length 1, and the outputs of both towers,
            `text_model_output` and `vision_model_output`; a tuple with `return_dict=False`.

        Raises:
            ModelError: If an input is missing, unknown or not supported.
        """
        inputs, kwargs = inputs_of(args, kwargs, self.inputs_in_order)
        asked = inputs.pop("return_loss", None), kwargs.pop("return_loss", None)
        if not hasattr(self, "info"):
            return super().__call__(inputs, **kwargs)
        output, as_dict = self._compare(inputs, kwargs)
        if any(each is not None and each is not False for each in asked):
            output = output_of(loss=self._loss_of(output), **output)
        return output if as_dict else output.to_tuple()

    def _compare(self, inputs: dict, kwargs: dict) -> tuple[ModelOutput, bool]:
        images, texts = split_inputs(inputs)
        of_image, as_dict = self._run_tower("image", images, dict(kwargs))
        kwargs.pop("interpolate_pos_encoding", None)
        of_text, _ = self._run_tower("text", texts, kwargs)
        image_embeds = self.get_layer("image_l2_normalize")(of_image["features"])
        text_embeds = self.get_layer("text_rows")(of_text["features"])
        rows = self.get_layer("image_rows")(image_embeds)
        logits = ops.matmul(rows, ops.transpose(text_embeds))
        output = output_of(
            logits_per_image=logits,
            logits_per_text=ops.transpose(logits),
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=states_output(of_text),
            vision_model_output=states_output(of_image),
        )
        return output, as_dict

    def _rows_of(self, output: ModelOutput) -> Any:
        """The rows (batch, 2, features) of pairs, which the loss of the task reads."""
        image_rows = self.get_layer("image_rows")(output["image_embeds"])
        text_rows = output["text_embeds"]
        if None not in (sizes := (image_rows.shape[0], text_rows.shape[0])) and len(set(sizes)) > 1:
            raise ModelError(
                f"A loss needs a text for each image, found {sizes[0]} images and {sizes[1]} texts."
            )
        return ops.stack([image_rows, text_rows], axis=1)

    def _loss_of(self, output: ModelOutput) -> Any:
        rows = self._rows_of(output)
        return ops.reshape(ContrastiveLoss()(ops.arange(ops.shape(rows)[0]), rows), (1,))

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Overrides the Keras hook, which returns plain rows, for normalised images too."""
        if not is_float(split_inputs(inputs)[0][PIXELS]):
            return super(TFImageModel, self).call(inputs, training=training, mask=mask)
        options = {"output_hidden_states": False, "output_attentions": False}
        return self._rows_of(self._compare(inputs, {"training": training, **options})[0])

    def get_text_features(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the projected vectors (texts, features), which are not normalised."""
        return self._run_tower("text", *inputs_of(args, kwargs, ORDER))[0]["features"]

    def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the projected vectors (images, features), which are not normalised."""
        return self._run_tower("image", *inputs_of(args, kwargs, (PIXELS,)))[0]["features"]

    def check_inputs(self, inputs: Any) -> None:
        """Overrides the check of levels: normalised images are floats.

        Args:
            inputs: A dict with `pixel_values` and `input_ids`.

        Raises:
            ModelError: If one is missing, or has the wrong shape, dtype or values.
        """
        images, texts = split_inputs(inputs)
        if not is_float(images[PIXELS]):
            super(TFImageModel, self).check_inputs(inputs)
            return
        self._check_normalized(images[PIXELS])
        check_values(texts, self._sizes)

    def _complete_inputs(self, inputs: Any) -> dict:
        self._check_levels(split_inputs(inputs)[0][PIXELS])
        return super(TFImageModel, self)._complete_inputs(inputs)

    # Training: pairs have no labels.

    def train_step(self, *args: Any) -> Any:
        """Overrides the Keras hook."""
        *state, data = args
        return super().train_step(*state, _with_groups(data))

    def test_step(self, *args: Any) -> Any:
        """Overrides the Keras hook."""
        *state, data = args
        return super().test_step(*state, _with_groups(data))

    def predict_step(self, data: Any) -> dict:
        """Overrides the Keras hook."""
        x = keras.utils.unpack_x_y_sample_weight(_with_groups(data))[0]
        output = super().predict_step((x,))
        return {n: dict(v) if isinstance(v, ModelOutput) else v for n, v in output.items()}

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> ModelOutput:
        """Predicts as Keras's predict; the arrays are available by the names of the outputs."""
        output = super().predict(x, *args, **kwargs)
        return output_of(
            **{n: output_of(**v) if isinstance(v, dict) else v for n, v in output.items()}
        )

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Overrides the Keras hook that builds the model from the shapes of a batch."""
        if data_batch is not None:
            data_batch = _with_groups(data_batch)
        super()._symbolic_build(iterator, data_batch)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the loss of pairs for Keras."""
        y_pred = self._rows_of(y_pred) if isinstance(y_pred, ModelOutput) else y_pred
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Updates the metrics; overrides the Keras method."""
        y_pred = self._rows_of(y_pred) if isinstance(y_pred, ModelOutput) else y_pred
        return super().compute_metrics(x, y, y_pred, sample_weight)

    # The parts of a model under the names of transformers 4.

    def parts(self) -> list:
        """Both towers, and their projections."""
        return [self.vision_model, self.text_model, self.visual_projection, self.text_projection]

    @property
    def visual_projection(self) -> keras.layers.Layer:
        """The projection of the vectors of images."""
        return self.get_layer("image_projection")

    @property
    def text_projection(self) -> keras.layers.Layer:
        """The projection of the vectors of texts."""
        return self.get_layer("text_projection")

    @property
    def logit_scale(self) -> Any:
        """The logarithm of the scale of the logits, a variable."""
        return self.get_layer("image_rows").logit_scale


class TFDualEncoderModel(TFPairModel):
    """A base class of the old class that joins an encoder of images and one of texts."""

    @classmethod
    def from_vision_text_pretrained(
        cls, vision_model: Any, text_model: Any, *, projection_dim: int = 512, **options: Any
    ) -> "TFDualEncoderModel":
        """Joins two checkpoints, with new projections.

        Args:
            vision_model: The folder or Hub id of an encoder of images.
            text_model: The folder or Hub id of an encoder of texts with a pooler.
            projection_dim: Number of features of the projections.
            **options: `vision_from_pt` and `text_from_pt`, which have no effect.

        Raises:
            CheckpointError: As in `load`.
            TypeError: If an option is unknown.
        """
        unknown = [n for n in options if not n.endswith(("_from_pt", "_model_name_or_path"))]
        if unknown:
            raise TypeError(f"from_vision_text_pretrained takes no {', '.join(sorted(unknown))}.")
        images = load(vision_model, TOWER_TASKS["image"])
        texts = load(text_model, TOWER_TASKS["text"], pooling="pooler")
        model = fuse(images, texts, size=projection_dim, model_class=cls)
        model.trainable = True
        return model


def _with_groups(data: Any) -> Any:
    """Returns a batch whose pairs have their numbers as targets, if it has no targets."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    if not hasattr(x, "keys"):
        return data
    x = {name: value for name, value in x.items() if name != "return_loss"}
    if y is None and "input_ids" in x:
        y = ops.arange(ops.shape(x["input_ids"])[0])
    return keras.utils.pack_x_y_sample_weight(x, y, weights)
