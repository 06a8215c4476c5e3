"""Scores equal those that Captum computes with the same steps and the same baseline."""

import dataclasses

import numpy as np
import pytest
from references import make_explanations
from references.make_explanations import RESNET, TARGET, TEXTS, VIT

import finetune_tf as ft
from finetune_tf.explanations.cut import Cut
from finetune_tf.explanations.methods import integrated_gradients
from finetune_tf.explanations.rollout import attention_rollout
from finetune_tf.explanations.subject import Subject
from finetune_tf.tasks.explained import Aim, Word

TOLERANCE = {"rtol": 0, "atol": 1e-5}
LABEL = f"LABEL_{TARGET}"


@pytest.fixture(scope="module")
def text_model():
    return ft.load(TEXTS)


@pytest.fixture(scope="module")
def vit():
    return ft.load(VIT)


@pytest.fixture(scope="module")
def resnet():
    return ft.load(RESNET)


def stored(folder):
    with np.load(folder / "explanations.npz") as arrays:
        return dict(arrays)


def subject(model, reference):
    """A row of token ids whose tokens are words, except for the first and the last one."""
    ids, types = reference["input_ids"], reference["token_type_ids"]
    inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": np.ones_like(ids)}
    length, cut = ids.shape[1], Cut(model)
    padded = ids.copy()
    padded[:, 1:-1] = model.config.pad_token_id
    words = [Word(str(i), "text", i, i + 1, (i,)) for i in range(length)]
    return Subject(
        cut,
        inputs,
        Aim(0, (TARGET,), LABEL, LABEL),
        words,
        None,
        [value[0] for value in cut.values(inputs)],
        [value[0] for value in cut.values({**inputs, "input_ids": padded})],
        [np.arange(length)],
    )


def check_text(model, reference):
    row = subject(model, reference)
    scores = integrated_gradients(row, steps=make_explanations.STEPS)
    np.testing.assert_allclose(scores.words, reference["integrated_gradients"], **TOLERANCE)
    assert np.abs(scores.words).max() > 1e-3
    rollout, grid = attention_rollout(row)
    np.testing.assert_allclose(rollout, reference["rollout"], **TOLERANCE)
    assert grid is None


def check_patches(model, reference):
    picture = reference["pixel_values"][0]
    found = ft.explain(model, image=picture, target=LABEL, patch=1)
    np.testing.assert_allclose(found.patches, reference["integrated_gradients"], **TOLERANCE)
    of_patches = ft.explain(model, image=picture, target=LABEL)
    size = model.config.patch_size  # pixels at the border are a patch that the model does not read
    starts = [np.arange(0, length, size) for length in picture.shape[:2]]
    blocks = np.add.reduceat(reference["integrated_gradients"], starts[0], axis=0)
    blocks = np.add.reduceat(blocks, starts[1], axis=1)
    np.testing.assert_allclose(of_patches.patches, blocks, **TOLERANCE)


def check_maps(model, reference):
    picture = reference["pixel_values"][0]
    found = ft.explain(model, image=picture, target=LABEL, method="grad-cam")
    np.testing.assert_allclose(found.patches, reference["grad_cam"], **TOLERANCE)
    assert found.patches.max() > 1e-4


def test_integrated_gradients_and_rollout_of_a_text(text_model):
    check_text(text_model, stored(TEXTS))


@pytest.mark.slow
def test_integrated_gradients_of_a_picture(vit):
    check_patches(vit, stored(VIT))


def test_grad_cam_of_a_convolutional_network(resnet):
    check_maps(resnet, stored(RESNET))


def test_each_word_replaced_by_padding_is_its_occlusion(text_model):
    from finetune_tf.explanations.methods import occlusion

    reference = stored(TEXTS)
    row = subject(text_model, reference)
    ids = np.repeat(reference["input_ids"], 8, axis=0)
    for i in range(1, 8):
        ids[i, i] = text_model.config.pad_token_id
    types = np.repeat(reference["token_type_ids"], 8, axis=0)
    mask = np.ones_like(ids)
    inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    logits = np.asarray(text_model(inputs), "float64")
    others = np.delete(logits, TARGET, axis=1)
    odds = logits[:, TARGET] - np.log(np.exp(others).sum(axis=1))
    np.testing.assert_allclose(occlusion(row).words[1:8], odds[0] - odds[1:], **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "compare"), [(TEXTS, check_text), (VIT, check_patches), (RESNET, check_maps)]
)
def test_captum_itself(folder, compare):
    pytest.importorskip("torch")
    pytest.importorskip("captum")
    reference = make_explanations.ALL[folder](folder)
    for name, array in stored(folder).items():
        if name != "target":
            np.testing.assert_allclose(reference[name], array, rtol=0, atol=1e-6)
    compare(ft.load(folder), reference)


@pytest.mark.slow
def test_more_steps_make_the_completeness_error_smaller(text_model):
    row = subject(text_model, stored(TEXTS))
    row = dataclasses.replace(row, batch_size=7)  # the steps are divided into batches
    errors = [integrated_gradients(row, steps=n).completeness_error for n in (2, 50)]
    assert errors[1] < errors[0] / 10


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "mpnet", "bert"])
def test_tokens_of_padding_do_not_move_other_tokens(family):
    """RoBERTa does not count padding, so that the last token would be at the first position."""
    model = ft.load(TEXTS.parents[1] / family / "text-classification")
    cut, padding = Cut(model), model.config.pad_token_id
    ids = np.array([[7, 8, 9, 10, 11, 12]], "int32")
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if "token_type_ids" in {tensor.name for tensor in model.inputs}:
        given["token_type_ids"] = np.zeros_like(ids)
    (own,) = cut.values(given)
    padded = ids.copy()
    padded[:, 1:-1] = padding
    for _ in range(8):  # it is traced after a few calls
        found = cut.embedded(given, padded)
        np.testing.assert_allclose(found[:, [0, -1]], own[:, [0, -1]], **TOLERANCE)
        # Equal tokens differ by their positions.
        assert np.abs(found[:, 1] - found[:, 2]).max() > 1e-3
        np.testing.assert_allclose(cut.embedded(given, ids), own, **TOLERANCE)
