"""Few-shot classification: a sentence encoder, a few labelled texts, and a linear head.

    model = ft.fewshot.fit(checkpoint, train)

is three steps that can be taken one by one:

    model = ft.load(checkpoint, labels=train.labels, pooling="mean", new_head=True)
    ft.fewshot.tune_body(model, train)
    ft.fewshot.fit_head(model, train)

The first rungs of the ladder need no training of the encoder: `fit_head` alone is the classifier
of nearest class means (`kind="prototypes"`) or a logistic probe (`kind="logistic"`).
"""

from finetune_tf.fewshot.body import tune_body
from finetune_tf.fewshot.curve import learning_curve
from finetune_tf.fewshot.curve_result import CurveCell, LearningCurve
from finetune_tf.fewshot.fitting import fit
from finetune_tf.fewshot.heads import fit_head
from finetune_tf.fewshot.pairs import PairContrast, PairCosines
from finetune_tf.fewshot.zero_shot import zero_shot

__all__ = [
    "CurveCell",
    "LearningCurve",
    "PairContrast",
    "PairCosines",
    "fit",
    "fit_head",
    "learning_curve",
    "tune_body",
    "zero_shot",
]
