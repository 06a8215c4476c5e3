"""The sections of a page in reading order: functions of `Content` that return HTML.

A section returns None if it makes no sense for the report, and raises `NeedsError` if an input that
was not given would provide it.
"""

from collections.abc import Callable

from finetune_tf import diagnosis
from finetune_tf.calibration import Measured
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html
from finetune_tf.pages.sections.calibration import calibration
from finetune_tf.pages.sections.classes import classes, confusion, predictions
from finetune_tf.pages.sections.curves import curves
from finetune_tf.pages.sections.data import drift, label_errors, near_duplicates
from finetune_tf.pages.sections.examples import pictures, side_by_side, worst
from finetune_tf.pages.sections.settings import reproduce, settings
from finetune_tf.pages.sections.slices import slices
from finetune_tf.pages.sections.summary import summary

#: The sections by the key of their title in the catalogues.
SECTIONS: dict[str, Callable[[Content], Html | None]] = {
    "summary": summary,
    "curves": curves,
    "confusion": confusion,
    "classes": classes,
    "predictions": predictions,
    "calibration": calibration,
    "slices": slices,
    "worst": worst,
    "pictures": pictures,
    "side_by_side": side_by_side,
    "label_errors": label_errors,
    "near_duplicates": near_duplicates,
    "drift": drift,
    "settings": settings,
    "reproduce": reproduce,
}

#: The types of results that a caller may give.
RESULTS = (
    Measured,
    diagnosis.Slices,
    diagnosis.TopLosses,
    diagnosis.LabelErrors,
    diagnosis.NearDuplicates,
    diagnosis.Drift,
)
