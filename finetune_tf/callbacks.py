"""The public Keras callbacks of finetune_tf, for the `callbacks` argument of `model.fit`."""

from finetune_tf.evaluation.live_curves import LiveCurves
from finetune_tf.evaluation.tensorboard import LogToTensorBoard
from finetune_tf.training.averages import EMA, AverageLast
from finetune_tf.training.callbacks import (
    ApplyLeftover,
    BindSchedule,
    FollowTrainable,
    Measure,
    SavePretrained,
    StopAtNonFiniteLoss,
)
from finetune_tf.training.progress import Progress
from finetune_tf.training.resuming.callback import Resume
from finetune_tf.training.unfreezing import Unfreeze

__all__ = [
    "EMA",
    "ApplyLeftover",
    "AverageLast",
    "BindSchedule",
    "FollowTrainable",
    "LiveCurves",
    "LogToTensorBoard",
    "Measure",
    "Progress",
    "Resume",
    "SavePretrained",
    "StopAtNonFiniteLoss",
    "Unfreeze",
]
