"""The public Keras callbacks of finetune_tf, for the `callbacks` argument of `model.fit`."""

from finetune_tf.training.callbacks import (
    ApplyLeftover,
    BindSchedule,
    FollowTrainable,
    Measure,
    SavePretrained,
    StopAtNonFiniteLoss,
)
from finetune_tf.training.resuming.callback import Resume

__all__ = [
    "ApplyLeftover",
    "BindSchedule",
    "FollowTrainable",
    "Measure",
    "Resume",
    "SavePretrained",
    "StopAtNonFiniteLoss",
]
