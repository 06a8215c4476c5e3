"""Optimizers, datasets and callbacks of transformers 4 for training with Keras."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.compat.collated import collated_batches
from finetune_tf.data.encodings import targets_in
from finetune_tf.data.tokenized import tokenized_batches
from finetune_tf.errors import ModelError
from finetune_tf.messages import say
from finetune_tf.tasks import IGNORED
from finetune_tf.training.callbacks import Measure, SavePretrained
from finetune_tf.training.optimizers import NO_DECAY, AdamW
from finetune_tf.training.schedules import Warmup

# Collators that only pad.
_PADDING_COLLATORS = (
    "DataCollatorWithPadding",
    "DataCollatorForTokenClassification",
    "DefaultDataCollator",
)


def WarmUp(
    initial_learning_rate: float,
    decay_schedule_fn: Callable,
    warmup_steps: int,
    power: float = 1.0,
    name: str | None = None,
) -> Warmup:
    """Creates a `finetune_tf.training.Warmup` schedule."""
    check(initial_learning_rate=initial_learning_rate, warmup_steps=warmup_steps, power=power)
    return Warmup(initial_learning_rate, decay_schedule_fn, warmup_steps, power)


def AdamWeightDecay(
    learning_rate: Any = 1e-3,
    *args: Any,
    weight_decay_rate: float = 0.0,
    exclude_from_weight_decay: Any = None,
    epsilon: float = 1e-7,
    **kwargs: Any,
) -> AdamW:
    """Creates finetune_tf's AdamW; `exclude_from_weight_decay` has patterns of variable names."""
    check(weight_decay_rate=weight_decay_rate, epsilon=epsilon)
    patterns = {"bias": NO_DECAY[0], "LayerNorm": NO_DECAY[1], "layer_norm": NO_DECAY[1]}
    no_decay = [patterns.get(pattern, pattern) for pattern in exclude_from_weight_decay or ()]
    return AdamW(
        learning_rate, weight_decay_rate, *args, epsilon=epsilon, no_decay=no_decay, **kwargs
    )


def create_optimizer(
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int = 0,
    min_lr_ratio: float = 0.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    adam_clipnorm: float | None = None,
    adam_global_clipnorm: float | None = None,
    weight_decay_rate: float = 0.0,
    power: float = 1.0,
) -> tuple:
    """Creates AdamW with linear warm-up and polynomial decay.

    Returns:
        The optimizer and its learning rate schedule.

    Example:
        >>> from finetune_tf.compat import create_optimizer
        >>> optimizer, schedule = create_optimizer(2e-5, num_train_steps=100)
        >>> float(schedule(50))
        9.999999747378752e-06
    """
    check(
        init_lr=init_lr,
        num_train_steps=num_train_steps,
        num_warmup_steps=num_warmup_steps,
        min_lr_ratio=min_lr_ratio,
        adam_beta1=adam_beta1,
        adam_beta2=adam_beta2,
        adam_epsilon=adam_epsilon,
        adam_clipnorm=adam_clipnorm,
        adam_global_clipnorm=adam_global_clipnorm,
        weight_decay_rate=weight_decay_rate,
        power=power,
    )
    schedule = keras.optimizers.schedules.PolynomialDecay(
        init_lr, max(num_train_steps - num_warmup_steps, 1), init_lr * min_lr_ratio, power
    )
    if num_warmup_steps:
        schedule = Warmup(init_lr, schedule, num_warmup_steps)
    settings = (weight_decay_rate, adam_beta1, adam_beta2, adam_epsilon)
    clipping = {"clipnorm": adam_clipnorm, "global_clipnorm": adam_global_clipnorm}
    return AdamW(schedule, *settings, **clipping), schedule


def prepare_tf_dataset(
    model: Any,
    dataset: Any,
    batch_size: int = 8,
    shuffle: bool = True,
    tokenizer: Any = None,
    collate_fn: Any = None,
    drop_remainder: bool = False,
    **prefetching: Any,
) -> Any:
    """Makes batches of a tokenized dataset.

    Rows are padded as by `finetune_tf.data.tokenized_batches`. Where a collator does more than
    padding or masking, for encoder-decoders, and for images, it makes the batches; see
    `collated_batches`.

    Args:
        model: The model to train.
        dataset: A Hugging Face dataset with token ids, or with the `pixel_values` of an image
            processor.
        batch_size: The number of rows per batch.
        shuffle: Whether to shuffle the rows.
        tokenizer: The tokenizer, whose padding token is used.
        collate_fn: A collator of transformers, or a function from rows to a dict of arrays.
        drop_remainder: Whether to drop an incomplete last batch.
        **prefetching: Ignored.
    """
    check(batch_size=batch_size)
    options: dict[str, Any] = {"drop_remainder": bool(drop_remainder)}
    collator = type(collate_fn).__name__
    if collator == "DataCollatorForLanguageModeling" and collate_fn.mlm:
        tokenizer = model.tokenizer = collate_fn.tokenizer
        options["mask_rate"] = collate_fn.mlm_probability
    elif (
        getattr(model, "is_encoder_decoder", False)
        or _reads_images(model)
        or not (collate_fn is None or collator in _PADDING_COLLATORS)
    ):
        collate = collate_fn or _default_collator(tokenizer)
        return collated_batches(model, dataset, collate, batch_size, shuffle, **options)
    padding = getattr(tokenizer, "pad_token_id", None)
    return tokenized_batches(dataset, model, batch_size, shuffle, padding, **options)


def _reads_images(model: Any) -> bool:
    return model.task.preprocessor != "tokenizer"


def _default_collator(tokenizer: Any) -> Any:
    import transformers

    if not hasattr(tokenizer, "pad_token"):  # None, or an image processor
        return transformers.DefaultDataCollator(return_tensors="np")
    return transformers.DataCollatorWithPadding(tokenizer, return_tensors="np")


class _MeasureGenerated(keras.callbacks.Callback):
    """Computes metrics of generated tokens and labels after each epoch."""

    def __init__(self, metric_fn: Callable, batches: Any, options: dict[str, Any]) -> None:
        super().__init__()
        self._metric_fn, self._batches, self._options = metric_fn, batches, options

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Generates and measures; later callbacks find the metrics in the logs."""
        predictions, labels = [], []
        for batch in self._batches:
            inputs, given = batch if isinstance(batch, tuple) else (batch, batch)
            options = {**self._options, "attention_mask": inputs.get("attention_mask")}
            predictions.append(self.model.generate(inputs["input_ids"], **options).numpy())
            labels.append(np.asarray(targets_in(given)))
        padding = self._options.get("pad_token_id", self.model.config.get("pad_token_id")) or 0
        found = self._metric_fn((_stacked(predictions, padding), _stacked(labels, IGNORED)))
        (logs if logs is not None else {}).update(found)
        say(", ".join(f"{name}: {value:.4f}" for name, value in found.items()))


def _stacked(batches: list[np.ndarray], padding: int) -> np.ndarray:
    """Returns the rows of all batches, filled up to one length."""
    longest = max(batch.shape[1] for batch in batches)
    widths = [((0, 0), (0, longest - batch.shape[1])) for batch in batches]
    pairs = zip(batches, widths, strict=True)
    return np.concatenate([np.pad(b, width, constant_values=padding) for b, width in pairs])


def KerasMetricCallback(
    metric_fn: Callable,
    eval_dataset: Any,
    batch_size: int = 32,
    predict_with_generate: bool = False,
    generate_kwargs: dict[str, Any] | None = None,
    **unused: Any,
) -> keras.callbacks.Callback:
    """Creates a callback with metrics; `metric_fn` gets a pair (predictions, labels).

    Args:
        metric_fn: Returns a dict of metrics by name.
        eval_dataset: As for `finetune_tf.callbacks.Measure`; with `predict_with_generate`, batches.
        batch_size: As for `finetune_tf.callbacks.Measure`.
        predict_with_generate: Whether the predictions are the tokens of `model.generate`, filled
            up with the padding token, instead of the logits.
        generate_kwargs: Options of `model.generate`.
        **unused: Ignored.
    """
    check(batch_size=batch_size)
    if predict_with_generate:
        return _MeasureGenerated(metric_fn, eval_dataset, dict(generate_kwargs or {}))
    return Measure(lambda *pair: metric_fn(pair), eval_dataset, batch_size)


def PushToHubCallback(
    output_dir: Any,
    save_strategy: str = "epoch",
    tokenizer: Any = None,
    hub_model_id: str | None = None,
    hub_token: str | None = None,
    **unused: Any,
) -> SavePretrained:
    """Creates a `finetune_tf.callbacks.SavePretrained`, which uploads only with `hub_model_id`.

    Raises:
        ModelError: If `save_strategy` is "steps".
    """
    if save_strategy not in ("epoch", "no"):
        raise ModelError(f"save_strategy must be 'epoch' or 'no', found {save_strategy!r}.")
    return SavePretrained(output_dir, save_strategy == "epoch", tokenizer, hub_model_id, hub_token)
