"""What happens during a fit: the callbacks of this library, by their public names."""

from finetune_tf.training.callbacks import (
    ApplyLeftover,
    BindSchedule,
    FollowTrainable,
    Measure,
    SavePretrained,
    StopAtNonFiniteLoss,
)

__all__ = [
    "ApplyLeftover",
    "BindSchedule",
    "FollowTrainable",
    "Measure",
    "SavePretrained",
    "StopAtNonFiniteLoss",
]
