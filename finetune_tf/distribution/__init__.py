"""Training on several devices and in several processes, through the engines of Keras."""

from finetune_tf.distribution.current import Distribution, current
from finetune_tf.distribution.distribute import distribute

__all__ = ["Distribution", "current", "distribute"]
