"""Explanations of pictures: patches, maps, and pictures with a text."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers_images import TINY_VIT, levels

import finetune_tf as ft
from finetune_tf.explanations import pictures
from finetune_tf.explanations.subject import resized
from finetune_tf.messages import quiet

RESNET = TINY_VIT.parents[1] / "resnet" / "image-classification"


@pytest.fixture(scope="module")
def vit():
    return ft.load(TINY_VIT)


@pytest.fixture(scope="module")
def resnet():
    return ft.load(RESNET)


@pytest.mark.slow
def test_patches_of_a_vision_transformer(vit):
    picture = levels("red", (21, 21))
    found = ft.explain(vit, image=picture)
    size = vit.config.patch_size
    assert found.patches.shape == (-(-21 // size),) * 2 and found.words == ()
    assert found.completeness_error < 0.01
    assert found.patches.sum() == pytest.approx(found.score - found.baseline_score, rel=0.01)
    np.testing.assert_array_equal(found.pixels, picture)


@pytest.mark.slow
def test_occlusion_by_patches_replaces_them_by_the_mean_color(vit):
    picture = levels("blue", (21, 21))
    found = ft.explain(vit, image=picture, method="occlusion", patch=7, target="LABEL_0")
    assert found.patches.shape == (3, 3) and found.special_share is None
    without = picture.copy()
    mean = np.array(vit.image_processor.values["image_mean"]) * 255
    without[:7, 7:14] = mean.round()
    score = ft.explain(vit, image=without, method="occlusion", patch=21, target="LABEL_0").score
    assert found.patches[0, 1] == pytest.approx(found.score - score, abs=1e-3)


def test_rollout_on_patches(vit):
    found = ft.explain(vit, image=levels("green", (21, 21)), method="attention-rollout")
    rows = 21 // vit.config.patch_size
    assert found.patches.shape == (rows, rows) and (found.patches >= 0).all()
    assert found.patches.sum() + found.special == pytest.approx(1.0, abs=1e-5)
    assert 0 < found.special_share < 1


@pytest.mark.slow
def test_grad_cam_by_stage(resnet):
    picture = levels("red", (37, 37))
    last = ft.explain(resnet, image=picture, method="grad-cam")
    same = ft.explain(resnet, image=picture, method="grad-cam", stage="block_1")
    first = ft.explain(resnet, image=picture, method="grad-cam", stage="block_0")
    np.testing.assert_array_equal(last.patches, same.patches)
    assert (last.patches >= 0).all() and last.patches.size < first.patches.size
    assert not last.is_signed


def test_grad_cam_is_for_convolutional_networks(vit):
    with pytest.raises(ft.errors.ModelError) as caught:
        ft.explain(vit, image=levels("red", (21, 21)), method="grad-cam")
    assert "Grad-CAM needs a convolutional network" in str(caught.value)
    assert "reads pictures as patches. Use method='integrated-gradients'." in str(caught.value)


def test_a_stage_that_has_no_map(resnet):
    with pytest.raises(ft.errors.ArgumentError) as caught:
        ft.explain(resnet, image=levels("red", (37, 37)), method="grad-cam", stage="head")
    assert str(caught.value) == (
        "stage= is a stage whose output is a map: embeddings, block_0, block_1; found 'head'."
    )


def test_rollout_needs_attention(resnet):
    with pytest.raises(ft.errors.ModelError) as caught:
        ft.explain(resnet, image=levels("red", (37, 37)), method="attention-rollout")
    assert "has no blocks with attention among all tokens" in str(caught.value)


def test_a_patch_larger_than_the_picture(vit):
    with pytest.raises(ft.errors.ModelError, match="patch=50 is larger than the pictures"):
        ft.explain(vit, image=levels("red", (21, 21)), patch=50)


def test_the_nearest_pictures(resnet):
    train = ft.data.from_arrays(
        image=[levels(color, (37, 37), seed) for color in ("red", "blue") for seed in (1, 2)],
        label=["LABEL_0", "LABEL_0", "LABEL_1", "LABEL_1"],
        labels=resnet.labels,
    )
    found = ft.explain(
        resnet, image=levels("red", (37, 37), 1), method="nearest", examples=train, neighbors=2
    )
    assert found.neighbors[0].row == 0 and found.neighbors[0].similarity > 0.9999
    assert found.neighbors[0].pixels.shape == (37, 37, 3)
    assert found.to_html().count("<img") == 2


@pytest.mark.slow
def test_scores_are_drawn_where_their_patches_are(vit, tmp_path):
    found = ft.explain(vit, image=levels("red", (21, 21)), patch=7)
    drawn = pictures.overlay(found)
    assert drawn.shape == (231, 231, 3)  # eleven times as large
    strongest = np.unravel_index(np.abs(found.patches).argmax(), (3, 3))
    corner = drawn[strongest[0] * 77 + 38, strongest[1] * 77 + 38].astype(int)
    wanted = pictures._FOR if found.patches[strongest] > 0 else pictures._AGAINST
    other = pictures._AGAINST if found.patches[strongest] > 0 else pictures._FOR
    assert np.abs(corner - wanted).sum() < np.abs(corner - other).sum()
    path = found.save(tmp_path / "scores.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert found.to_html().count("<img") == 2 and "speaks for LABEL" in found.to_html()
    assert "A picture of 3 x 3 patches" in str(found)


@pytest.mark.parametrize("size", [8, 16])
def test_patches_that_do_not_divide_the_picture_are_drawn_with_their_size(vit, size):
    with quiet():
        found = ft.explain(vit, image=levels("red", (21, 21)), patch=size, steps=2)
    assert found.patch_size == (size, size)
    scores = np.zeros_like(found.patches)
    scores[0, 0] = 1.0
    drawn = pictures.overlay(dataclasses.replace(found, patches=scores))
    is_colored = drawn[..., 0] != drawn[..., 2]
    factor = drawn.shape[0] // 21
    assert is_colored[: size * factor, : size * factor].all()
    assert is_colored.sum() == (size * factor) ** 2


def test_maps_are_scaled_without_steps():
    found = resized(np.array([[0.0, 1.0]]), (2, 4))
    np.testing.assert_allclose(found, [[0, 0.25, 0.75, 1]] * 2)


@pytest.mark.slow
def test_a_picture_with_a_question_has_both(tiny_bert):
    keras.utils.set_random_seed(0)  # relative errors are large where nothing is to be explained
    images = ft.load(TINY_VIT, "image-feature-extraction")
    texts = ft.load(tiny_bert, "feature-extraction")
    model = ft.fuse(images, texts, labels=["yes", "no"])
    found = ft.explain(model, "a good film", image=levels("red", (21, 21)))
    assert [word.text for word in found.words] == ["a", "good", "film"]
    assert found.patches.ndim == 2 and found.completeness_error < 0.01
    total = found.patches.sum() + sum(word.score for word in found.words) + found.special
    assert total == pytest.approx(found.score - found.baseline_score, rel=0.01)
    occluded = ft.explain(
        model, "a good film", image=levels("red", (21, 21)), method="occlusion", patch=7
    )
    assert occluded.patches.shape == (3, 3) and len(occluded.words) == 3
    assert "speaks against" in found.to_html() and found.to_html().count("<img") == 2
    with pytest.raises(ft.errors.ModelError, match="has two encoders"):
        ft.explain(model, "a film", image=levels("red", (21, 21)), method="attention-rollout")
