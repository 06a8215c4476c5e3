"""Keras layers and the functions that chain them into models.

Plain numbers in, Keras layers out: nothing here knows Hugging Face names or files.
"""

from finetune_tf.architectures.encoder import Backbone, Embeddings, EncoderBlock, encoder
from finetune_tf.architectures.heads import ClassificationHead, Pooler, Pooling

__all__ = [
    "Backbone",
    "ClassificationHead",
    "Embeddings",
    "EncoderBlock",
    "Pooler",
    "Pooling",
    "encoder",
]
