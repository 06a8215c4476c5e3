"""What transformers 4 had for training in Keras: optimizers, datasets, callbacks."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.callbacks import SavePretrained
from finetune_tf.compat.arguments import labels_in, logits_in
from finetune_tf.data.tokenized import tokenized_batches
from finetune_tf.errors import ModelError
from finetune_tf.messages import say
from finetune_tf.tasks import IGNORED
from finetune_tf.training.optimizers import NO_DECAY, AdamW

# Collators that only pad.
_PADDING = (
    "DataCollatorWithPadding",
    "DataCollatorForTokenClassification",
    "DefaultDataCollator",
)


@keras.saving.register_keras_serializable("finetune_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to `initial_learning_rate` in `warmup_steps`, then follows another schedule."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_schedule_fn: Callable,
        warmup_steps: int,
        power: float = 1.0,
        name: str | None = None,
    ) -> None:
        self._config = {
            "initial_learning_rate": initial_learning_rate,
            "decay_schedule_fn": decay_schedule_fn,
            "warmup_steps": warmup_steps,
            "power": power,
        }

    def __call__(self, step: Any) -> Any:
        """The rate of a step."""
        peak, after, steps, power = self._config.values()
        step = ops.cast(step, "float32")
        rising = peak * ops.power(step / max(steps, 1), power)
        return ops.where(step < steps, rising, after(step - steps))

    def get_config(self) -> dict:
        """Keras config."""
        return dict(self._config)


def AdamWeightDecay(
    learning_rate: Any = 1e-3,
    *args: Any,
    weight_decay_rate: float = 0.0,
    exclude_from_weight_decay: Any = None,
    epsilon: float = 1e-7,
    **kwargs: Any,
) -> AdamW:
    """finetune_tf's AdamW; `exclude_from_weight_decay` are patterns of names, as they were."""
    ours = {"bias": NO_DECAY[0], "LayerNorm": NO_DECAY[1], "layer_norm": NO_DECAY[1]}
    spared = [ours.get(pattern, pattern) for pattern in exclude_from_weight_decay or ()]
    return AdamW(
        learning_rate, weight_decay_rate, *args, epsilon=epsilon, no_decay=spared, **kwargs
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
    """AdamW with warm-up and polynomial decay, and its schedule."""
    schedule = keras.optimizers.schedules.PolynomialDecay(
        init_lr, max(num_train_steps - num_warmup_steps, 1), init_lr * min_lr_ratio, power
    )
    if num_warmup_steps:
        schedule = WarmUp(init_lr, schedule, num_warmup_steps)
    numbers = (weight_decay_rate, adam_beta1, adam_beta2, adam_epsilon)
    clipping = {"clipnorm": adam_clipnorm, "global_clipnorm": adam_global_clipnorm}
    return AdamW(schedule, *numbers, **clipping), schedule


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
    """Batches of a tokenized dataset; see `finetune_tf.data.tokenized_batches`.

    Raises:
        ModelError: If `collate_fn` does more than to pad, which happens by itself.
    """
    if collate_fn is not None and type(collate_fn).__name__ not in _PADDING:
        raise ModelError(
            f"prepare_tf_dataset pads by itself and would leave out what {collate_fn!r:.80} does. "
            "Collate batches and fit on them, or for masked words: ft.data and ft.load(…, "
            "'fill-mask'), which hide others in each epoch."
        )
    padding = getattr(tokenizer, "pad_token_id", None)
    return tokenized_batches(
        dataset, model, batch_size, shuffle, padding, drop_remainder=bool(drop_remainder)
    )


class KerasMetricCallback(keras.callbacks.Callback):
    """Adds what `metric_fn((predictions, labels))` says of a dataset to the log of each epoch."""

    def __init__(self, metric_fn: Callable, eval_dataset: Any, **unused: Any) -> None:
        super().__init__()
        if unused.get("predict_with_generate"):
            raise ModelError("predict_with_generate: no family here generates text yet.")
        self.metric_fn, self.eval_dataset = metric_fn, eval_dataset

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Predicts and measures."""
        predictions, labels = [], []
        for batch in self.eval_dataset:
            inputs, targets = batch if isinstance(batch, tuple) else (batch, batch)
            predictions.append(np.asarray(logits_in(self.model(inputs, training=False))))
            labels.append(np.asarray(labels_in(targets)))
        found = self.metric_fn((_on_end(predictions), _on_end(labels)))
        (logs if logs is not None else {}).update(found)
        say(", ".join(f"{name}: {value:.4f}" for name, value in found.items()))


def _on_end(batches: list[np.ndarray]) -> np.ndarray:
    """Batches on end, those of tokens padded to one length with -100."""
    if batches[0].ndim < 2:
        return np.concatenate(batches)
    longest = max(batch.shape[1] for batch in batches)
    rest = [(0, 0)] * (batches[0].ndim - 2)
    widths = [[(0, 0), (0, longest - batch.shape[1]), *rest] for batch in batches]
    padded = map(lambda b, w: np.pad(b, w, constant_values=IGNORED), batches, widths)
    return np.concatenate(list(padded))


def PushToHubCallback(
    output_dir: Any,
    save_strategy: str = "epoch",
    tokenizer: Any = None,
    hub_model_id: str | None = None,
    hub_token: str | None = None,
    **unused: Any,
) -> SavePretrained:
    """`finetune_tf.callbacks.SavePretrained`; uploads only where `hub_model_id` says where to.

    Raises:
        ModelError: If it is to save every so many steps.
    """
    if save_strategy not in ("epoch", "no"):
        raise ModelError(f"save_strategy is 'epoch' or 'no', found {save_strategy!r}.")
    return SavePretrained(output_dir, save_strategy == "epoch", tokenizer, hub_model_id, hub_token)
