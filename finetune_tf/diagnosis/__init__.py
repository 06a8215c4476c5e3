"""Where a model or its data go wrong: label errors, losses, slices, duplicates and drift.

Each function returns a frozen dataclass with a list `rows` of plain dataclasses; `print` shows it
as a short text, and `to_dict()` returns it as plain values.

    ft.diagnosis.label_errors(checkpoint, train)
    ft.diagnosis.top_losses(model, validation)
    ft.diagnosis.slices(model, test, by=("length", "label"))
    ft.diagnosis.near_duplicates(checkpoint, train, test)
    ft.diagnosis.drift(checkpoint, train, test)
"""

from finetune_tf.diagnosis.drift import drift
from finetune_tf.diagnosis.duplicates import near_duplicates
from finetune_tf.diagnosis.label_errors import label_errors
from finetune_tf.diagnosis.losses import top_losses
from finetune_tf.diagnosis.results import (
    Drift,
    DriftRow,
    DuplicatePair,
    LabelErrors,
    LossRow,
    NearDuplicates,
    SliceRow,
    Slices,
    SuspectLabel,
    TopLosses,
)
from finetune_tf.diagnosis.slicing import slices

__all__ = [
    "Drift",
    "DriftRow",
    "DuplicatePair",
    "LabelErrors",
    "LossRow",
    "NearDuplicates",
    "SliceRow",
    "Slices",
    "SuspectLabel",
    "TopLosses",
    "drift",
    "label_errors",
    "near_duplicates",
    "slices",
    "top_losses",
]
