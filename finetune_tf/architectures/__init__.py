"""Keras layers of Transformer models and functions that chain them into models.

The layers are configured by plain numbers. Nothing here depends on Hugging Face names or files.
"""

from finetune_tf.architectures.attention import MultiHeadAttention
from finetune_tf.architectures.batch_norm import BatchNorm, ConvNorm
from finetune_tf.architectures.blocks import EncoderBlock
from finetune_tf.architectures.chains import EndOfChain
from finetune_tf.architectures.convolution import ConvolutionBlock
from finetune_tf.architectures.convolutions import Group, PaddedShortcut, Residual, Stem
from finetune_tf.architectures.decoder import CrossAttentionBlock, rotary_block
from finetune_tf.architectures.disentangled import DisentangledAttention
from finetune_tf.architectures.embeddings import Embeddings, PositionEmbeddings
from finetune_tf.architectures.encoder import Backbone, bert_block, encoder
from finetune_tf.architectures.encoder_decoder import Side, encoder_decoder
from finetune_tf.architectures.heads import (
    ClassificationHead,
    L2Normalize,
    LanguageModelHead,
    LastToken,
    Pooling,
    Transform,
    VocabularyBias,
)
from finetune_tf.architectures.image_encoder import PIXELS, convolutional_encoder, image_encoder
from finetune_tf.architectures.layers import FeedForward, FirstToken, LayerNorm, RMSNorm
from finetune_tf.architectures.masks import AttentionMask
from finetune_tf.architectures.patches import PatchEmbeddings, PixelNormalization
from finetune_tf.architectures.pooling import AttentionPooling, EndToken, FinalPosition
from finetune_tf.architectures.positions import (
    RelativePositionBias,
    RelativePositions,
    RotaryPositions,
)
from finetune_tf.architectures.prefix_model import JoinTexts, TargetStates, prefix_model
from finetune_tf.architectures.towers import Fusion, Towers, pair_rows, tower
from finetune_tf.architectures.tubelets import TubeletEmbeddings
from finetune_tf.architectures.windows import PatchMerging, WindowAttention

__all__ = [
    "PIXELS",
    "AttentionMask",
    "AttentionPooling",
    "Backbone",
    "BatchNorm",
    "ClassificationHead",
    "ConvNorm",
    "ConvolutionBlock",
    "CrossAttentionBlock",
    "DisentangledAttention",
    "Embeddings",
    "EncoderBlock",
    "EndOfChain",
    "EndToken",
    "FeedForward",
    "FinalPosition",
    "FirstToken",
    "Fusion",
    "Group",
    "JoinTexts",
    "L2Normalize",
    "LanguageModelHead",
    "LastToken",
    "LayerNorm",
    "MultiHeadAttention",
    "PatchEmbeddings",
    "PatchMerging",
    "PixelNormalization",
    "Pooling",
    "PositionEmbeddings",
    "RMSNorm",
    "RelativePositionBias",
    "RelativePositions",
    "PaddedShortcut",
    "Residual",
    "RotaryPositions",
    "Side",
    "Stem",
    "TargetStates",
    "Towers",
    "Transform",
    "TubeletEmbeddings",
    "VocabularyBias",
    "WindowAttention",
    "bert_block",
    "convolutional_encoder",
    "encoder",
    "encoder_decoder",
    "image_encoder",
    "pair_rows",
    "prefix_model",
    "rotary_block",
    "tower",
]
