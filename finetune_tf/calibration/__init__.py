"""Probabilities that can be trusted: temperatures, thresholds, and abstaining.

ft.calibrate(model, validation)
ft.calibration.measure(model, test)
ft.calibration.choose_thresholds(model, validation)
curve = ft.calibration.coverage_curve(model, validation)
ft.calibration.abstain(ft.predict(model, texts), curve.threshold_for(0.95).threshold)
"""

from finetune_tf.calibration.abstaining import (
    CoverageCurve,
    CoveragePoint,
    abstain,
    coverage_curve,
)
from finetune_tf.calibration.results import Calibration, Measured, ReliabilityBin
from finetune_tf.calibration.temperature import calibrate, measure
from finetune_tf.calibration.thresholds import ChosenThresholds, LabelThreshold, choose_thresholds

__all__ = [
    "Calibration",
    "ChosenThresholds",
    "CoverageCurve",
    "CoveragePoint",
    "LabelThreshold",
    "Measured",
    "ReliabilityBin",
    "abstain",
    "calibrate",
    "choose_thresholds",
    "coverage_curve",
    "measure",
]
