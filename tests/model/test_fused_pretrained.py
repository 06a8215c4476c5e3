"""Which variables of a fused model count as pretrained, on which the learning rate depends."""

import pytest
from helpers_images import TINY_VIT

import finetune_tf as ft
from finetune_tf.messages import quiet

NEW_RESNET = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4], "depths": [1]}


@pytest.mark.slow
def test_only_variables_that_were_loaded(tiny_bert):
    with quiet():
        texts = ft.load(tiny_bert, "feature-extraction")
        loaded = ft.load(TINY_VIT, "image-feature-extraction")
        new = ft.load(NEW_RESNET, "image-feature-extraction", image_size=16)
        both = ft.fuse(loaded, texts, labels=["yes", "no"], size=8)
        half = ft.fuse(new, texts, labels=["yes", "no"], size=8)
    towers = {path.split("_")[0] for path in both.info.pretrained}
    assert towers == {"image", "text"}
    assert {path.split("_")[0] for path in half.info.pretrained} == {"text"}
    assert len(half.info.pretrained) == len(texts.info.pretrained)
