"""Keras layers and the functions that chain them into models.

Plain numbers in, Keras layers out: nothing here knows Hugging Face names or files.
"""

from finetune_tf.architectures.attention import RelativePositionBias, SelfAttention
from finetune_tf.architectures.chains import EndOfChain
from finetune_tf.architectures.convolution import ConvolutionBlock
from finetune_tf.architectures.disentangled import DisentangledAttention
from finetune_tf.architectures.embeddings import Embeddings
from finetune_tf.architectures.encoder import Backbone, EncoderBlock, bert_block, encoder
from finetune_tf.architectures.heads import (
    ClassificationHead,
    Pooling,
    Transform,
    UnitLength,
    VocabularyBias,
)
from finetune_tf.architectures.layers import FeedForward, LayerNorm
from finetune_tf.architectures.relative_positions import RelativePositions

__all__ = [
    "Backbone",
    "ClassificationHead",
    "ConvolutionBlock",
    "DisentangledAttention",
    "Embeddings",
    "EncoderBlock",
    "EndOfChain",
    "FeedForward",
    "LayerNorm",
    "Pooling",
    "RelativePositionBias",
    "RelativePositions",
    "SelfAttention",
    "Transform",
    "UnitLength",
    "VocabularyBias",
    "bert_block",
    "encoder",
]
