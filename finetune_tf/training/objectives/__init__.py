"""Objectives: what training minimizes or perturbs besides the loss of a preset.

    model.compile(objectives=[ft.objectives.RDrop(alpha=1.0)])
    model.compile(**ft.presets.cross_entropy(objectives=[ft.objectives.L2SP()]))

They can be combined with one another, with each preset, and with frozen stages. Evaluations and
predictions ignore them.
"""

from finetune_tf.training.objectives.contrastive import SupervisedContrastive
from finetune_tf.training.objectives.distillation import Distillation
from finetune_tf.training.objectives.l2sp import L2SP
from finetune_tf.training.objectives.mixup import Mixup
from finetune_tf.training.objectives.neftune import NEFTune
from finetune_tf.training.objectives.objective import Objective
from finetune_tf.training.objectives.r_drop import RDrop

__all__ = [
    "Distillation",
    "L2SP",
    "Mixup",
    "NEFTune",
    "Objective",
    "RDrop",
    "SupervisedContrastive",
]
