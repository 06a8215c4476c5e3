"""Evaluation of fine-tuned models: predictions, metrics, baselines and reports."""

from finetune_tf.evaluation.comparison import Comparison
from finetune_tf.evaluation.curves import plot_history
from finetune_tf.evaluation.evaluate import compare, evaluate
from finetune_tf.evaluation.interpolation import (
    CurvePoint,
    InterpolationCurve,
    interpolation_curve,
)
from finetune_tf.evaluation.predict import predict
from finetune_tf.evaluation.report import Report
from finetune_tf.evaluation.show import show
from finetune_tf.tasks.classification import Prediction
from finetune_tf.tasks.fill_mask import Candidate
from finetune_tf.tasks.token_classification import Entity

__all__ = [
    "Candidate",
    "Comparison",
    "CurvePoint",
    "Entity",
    "InterpolationCurve",
    "Prediction",
    "Report",
    "compare",
    "evaluate",
    "interpolation_curve",
    "plot_history",
    "predict",
    "show",
]
