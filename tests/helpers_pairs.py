"""Small random models of images and texts, with tokenizers that know a few words."""

import string
from pathlib import Path

import keras
import numpy as np
from helpers_images import levels
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.messages import quiet

_ENCODER = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
_ENCODER |= {"intermediate_size": 16, "initializer_range": 0.3}  # so that it learns at once
_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
_TEXT = {**_ENCODER, **_IDS, "vocab_size": 60, "max_position_embeddings": 24}
_IMAGE = {**_ENCODER, "image_size": 21, "patch_size": 7}
_CLIP = {"model_type": "clip", "text_config": _TEXT, "vision_config": _IMAGE, "projection_dim": 8}

COLORS = ("red", "blue", "green")
CAPTIONS = [f"a {color} picture" for color in COLORS]


def write_clip(folder: Path, seed: int = 0) -> Path:
    """Writes a random CLIP for images of 21 x 21 pixels, whose tokens are letters."""
    from transformers import CLIPTokenizer

    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=24
    )
    with quiet():
        keras.utils.set_random_seed(seed)
        model = ft.load(_CLIP, "image-text-retrieval", tokenizer=tokenizer)
        return model.save_pretrained(folder)


def fused(folder: Path, labels: object = None, images: object = None, **options: object):
    """A model that `ft.fuse` makes of a random ViT, or of another model, and a random BERT."""
    from helpers_images import TINY_VIT

    with quiet():
        images = images or ft.load(TINY_VIT, "image-feature-extraction")
        texts = ft.load(write_checkpoint(folder), "feature-extraction")
        return ft.fuse(images, texts, labels, size=8, **options)


def pictures(count: int = 1) -> list[np.ndarray]:
    """Levels (24, 30, 3) of `count` pictures of each of `COLORS`, one color after the other."""
    return [levels(color, seed=seed) for seed in range(count) for color in COLORS]
