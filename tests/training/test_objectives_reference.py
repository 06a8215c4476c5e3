"""Objectives have the losses and the gradients of a reference in PyTorch, on the same weights."""

import keras
import numpy as np
import pytest
from helpers_models import write_checkpoint
from helpers_objectives import BATCH, IDS, LABELS, MASK, FixedNoise, assert_same_step, one_step

import finetune_tf as ft
from finetune_tf import objectives
from finetune_tf.training.classification import SmoothedCrossEntropy
from finetune_tf.training.label_losses import FocalCrossEntropy

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0], "float32")


@pytest.fixture
def model(tiny_bert):
    keras.utils.set_random_seed(3)
    found = ft.load(tiny_bert, labels=["no", "yes"])
    for variable in found.get_layer("classifier").weights:  # a head as of an earlier training
        variable.assign(variable + 0.3 * keras.random.normal(variable.shape, seed=1))
    return found


def pytorch(folder):
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def tensors(noise=None, model=None):
    given = {name: torch.tensor(value).long() for name, value in BATCH.items()}
    if noise is None:
        return given
    copies = len(noise) // len(IDS)
    words = model.get_input_embeddings()(given["input_ids"]).repeat(copies, 1, 1)
    mask = given["attention_mask"].repeat(copies, 1)
    return {"inputs_embeds": words + torch.tensor(noise), "attention_mask": mask}


def losses(logits, labels=LABELS):
    return torch.nn.functional.cross_entropy(logits, torch.tensor(labels).long(), reduction="none")


def kl(of, to, temperature=1.0):
    of, to = (torch.log_softmax(z / temperature, -1) for z in (of, to))
    return (of.exp() * (of - to)).sum(-1)


def noise(rows, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (rows, IDS.shape[1], 24)).astype("float32")


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_r_drop(model, tmp_path, weights):
    different = noise(8)
    given = [FixedNoise(different), objectives.RDrop(alpha=0.7)]
    found = one_step(model, given, tmp_path, sample_weight=weights)
    reference = pytorch(found[1])
    first, second = reference(**tensors(different, reference)).logits.split(4)
    each = (losses(first) + losses(second)) / 2
    each = each + 0.7 * (kl(first, second) + kl(second, first)) / 2
    share = torch.ones(4) if weights is None else torch.tensor(weights)
    assert_same_step(found, (share * each).mean(), reference)


def test_label_smoothing(model, tmp_path):
    found = one_step(model, [], tmp_path, SmoothedCrossEntropy(0.2))
    reference = pytorch(found[1])
    expected = torch.nn.functional.cross_entropy(
        reference(**tensors()).logits, torch.tensor(LABELS).long(), label_smoothing=0.2
    )
    assert_same_step(found, expected, reference)


def test_focal_loss(model, tmp_path):
    found = one_step(model, [], tmp_path, FocalCrossEntropy(2.0))
    reference = pytorch(found[1])
    each = losses(reference(**tensors()).logits)
    assert_same_step(found, ((1 - torch.exp(-each)) ** 2 * each).mean(), reference)


def test_l2_sp(model, tmp_path, tiny_bert):
    anchor = ft.load(tiny_bert, labels=["no", "yes"])
    for variable in model.get_layer("block_0").weights:
        variable.assign(variable + 0.05)
    found = one_step(model, [objectives.L2SP(0.3, 0.2, anchor=anchor)], tmp_path)
    reference = pytorch(found[1])
    from safetensors.torch import load_file

    pretrained = load_file(tiny_bert / "model.safetensors")
    penalty = 0.0
    for name, parameter in reference.named_parameters():
        start = pretrained.get(name.removeprefix("bert."))
        share, origin = (0.2, 0.0) if start is None else (0.3, start)
        penalty = penalty + share / 2 * ((parameter - origin) ** 2).sum()
    assert penalty.item() > 0.1
    expected = losses(reference(**tensors()).logits).mean() + penalty
    assert_same_step(found, expected, reference)


def test_supervised_contrastive_learning(model, tmp_path):
    given = [objectives.SupervisedContrastive(alpha=0.6, temperature=0.4)]
    found = one_step(model, given, tmp_path, sample_weight=WEIGHTS)
    reference = pytorch(found[1])
    pooled = reference.bert(**tensors()).pooler_output
    each = 0.4 * losses(reference.classifier(pooled))
    unit = pooled / pooled.norm(dim=1, keepdim=True)
    for i in range(4):
        others = [j for j in range(4) if j != i]
        total = torch.logsumexp(torch.stack([unit[i] @ unit[j] / 0.4 for j in others]), 0)
        pairs = [j for j in others if LABELS[j] == LABELS[i]]
        if pairs:
            terms = torch.stack([total - unit[i] @ unit[j] / 0.4 for j in pairs])
            each = each + 0.6 * terms.mean() * torch.eye(4)[i]
    assert_same_step(found, (torch.tensor(WEIGHTS) * each).mean(), reference)


@pytest.mark.parametrize("hidden", [None, "last", {"block_0": "block_1"}])
def test_distillation(model, tmp_path, hidden):
    folder = write_checkpoint(tmp_path / "teacher", blocks=3, seed=9)
    teacher = ft.load(folder, labels=["no", "yes"])
    for variable in teacher.get_layer("classifier").weights:
        variable.assign(variable + keras.random.normal(variable.shape, seed=2))
    given = [objectives.Distillation(teacher, 3.0, 0.4, hidden=hidden, hidden_weight=0.5)]
    found = one_step(model, given, tmp_path)
    reference, other = pytorch(found[1]), pytorch(teacher.save_pretrained(tmp_path / "saved"))
    own = reference(**tensors(), output_hidden_states=True)
    with torch.no_grad():
        others = other(**tensors(), output_hidden_states=True)
    expected = 0.6 * losses(own.logits).mean()
    expected = expected + 0.4 * 9.0 * kl(others.logits, own.logits, 3.0).mean()
    if hidden == "last":  # of the tokens that the heads read
        squares = (own.hidden_states[-1][:, 0] - others.hidden_states[-1][:, 0]) ** 2
        expected = expected + 0.5 * squares.mean()
    elif hidden:
        squares = ((own.hidden_states[1] - others.hidden_states[2]) ** 2).mean(-1)
        mask = torch.tensor(MASK)
        expected = expected + 0.5 * ((squares * mask).sum(1) / mask.sum(1)).mean()
    assert_same_step(found, expected, reference)


def test_mixup(model, tmp_path, monkeypatch):
    partners, share = np.array([2, 0, 3, 1]), np.array([0.9, 0.6, 0.5, 0.7], "float32")
    fixed = keras.ops.convert_to_tensor(partners, "int32"), keras.ops.convert_to_tensor(share)

    def draw(self, step, rows):
        step.notes[self] = fixed
        return fixed

    monkeypatch.setattr(objectives.Mixup, "_partners", draw)
    found = one_step(model, [objectives.Mixup()], tmp_path, sample_weight=WEIGHTS)
    reference = pytorch(found[1])
    given = tensors()
    embedded = reference.bert.embeddings(given["input_ids"]) * given["attention_mask"][..., None]
    keep = torch.tensor(share)
    mixed = keep[:, None, None] * embedded + (1 - keep)[:, None, None] * embedded[partners]
    mask = torch.maximum(given["attention_mask"], given["attention_mask"][partners]).float()
    hidden = mixed
    for layer in reference.bert.encoder.layer:
        outputs = layer(hidden, (1 - mask)[:, None, None, :] * -1e9)
        hidden = outputs[0] if isinstance(outputs, tuple) else outputs
    logits = reference.classifier(reference.bert.pooler(hidden))
    weights = torch.tensor(WEIGHTS)
    each = keep * weights * losses(logits)
    each = each + (1 - keep) * weights[partners] * losses(logits, LABELS[partners])
    assert_same_step(found, each.mean(), reference)
