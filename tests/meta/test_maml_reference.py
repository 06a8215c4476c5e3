"""Meta-gradients equal those of PyTorch in float64, of both orders, eagerly and in a graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_meta import network, points

import finetune_tf as ft

RATE, STEPS = 0.2, 2
pytestmark = pytest.mark.slow


def torch_gradients(forward, values, episode, first_order):
    """The gradients of the loss of the queries after gradient steps, by PyTorch."""
    import torch
    from torch.nn.functional import cross_entropy

    support, support_classes, query, query_classes = episode
    values = {name: value.clone().requires_grad_() for name, value in values.items()}
    adapted = dict(values)
    for _ in range(STEPS):
        loss = cross_entropy(forward(adapted, support), support_classes)
        gradients = torch.autograd.grad(loss, list(adapted.values()), create_graph=not first_order)
        adapted = {
            name: value - RATE * gradient
            for (name, value), gradient in zip(adapted.items(), gradients, strict=True)
        }
    loss = cross_entropy(forward(adapted, query), query_classes)
    loss.backward()
    return float(loss.detach()), {name: value.grad.numpy() for name, value in values.items()}


def meta_gradients(learner, episode, in_graph):
    support, support_classes, query, query_classes = episode
    function = tf.function(learner.meta_gradients) if in_graph else learner.meta_gradients
    loss, _, gradients = function(
        support, tf.constant(support_classes), query, tf.constant(query_classes), 3
    )
    return float(loss), [np.asarray(gradient) for gradient in gradients]


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-11)


def learner_on(model, first_order, keep_head=False, head_seed=1, **options):
    learner = ft.meta.MAML(
        model, inner_rate=RATE, steps=STEPS, first_order=first_order, keep_head=keep_head, **options
    )
    learner._prepare(3, head_seed)
    learner._head = [
        keras.Variable(np.asarray(variable.value), dtype="float64") for variable in learner._head
    ]
    return learner


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("first_order", [False, True])
def test_a_small_network_with_batch_and_layer_normalization(first_order, in_graph):
    torch = pytest.importorskip("torch")
    model = network(
        keras.layers.BatchNormalization(epsilon=1e-3, dtype="float64"),
        keras.layers.LayerNormalization(epsilon=1e-3, dtype="float64"),
        dtype="float64",
    )
    learner = learner_on(model, first_order, keep_head=True, statistics="batch")
    x, _ = points(3, 6, dtype="float64")
    classes = np.repeat(np.arange(3), 6).astype("int32")
    is_support = np.arange(18) % 6 < 2
    episode = x[is_support], classes[is_support], x[~is_support], classes[~is_support]

    names = ["k1", "b1", "bn_g", "bn_b", "ln_g", "ln_b", "k2", "b2", "hk", "hb"]
    values = {
        name: torch.tensor(np.asarray(variable.value))
        for name, variable in zip(names, learner._variables, strict=True)
    }

    def forward(v, x):
        hidden = torch.tanh(x @ v["k1"] + v["b1"])
        hidden = torch.nn.functional.batch_norm(
            hidden, None, None, v["bn_g"], v["bn_b"], training=True, eps=1e-3
        )
        hidden = torch.nn.functional.layer_norm(hidden, (6,), v["ln_g"], v["ln_b"], eps=1e-3)
        return torch.tanh(hidden @ v["k2"] + v["b2"]) @ v["hk"] + v["hb"]

    tensors = [torch.tensor(array) for array in episode]
    tensors[1], tensors[3] = tensors[1].long(), tensors[3].long()
    loss, expected = torch_gradients(forward, values, tensors, first_order)
    support, support_classes, query, query_classes = episode
    named = ({"points": support}, support_classes, {"points": query}, query_classes)
    found_loss, found = meta_gradients(learner, named, in_graph)

    assert found_loss == pytest.approx(loss, rel=1e-9)
    assert_close(found, [expected[name] for name in names])


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("first_order", [False, True])
def test_a_tiny_bert(tiny_bert, first_order, in_graph):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = ft.load(tiny_bert, labels=["a", "b", "c"], pooling="mean", dtype="float64")
    learner = learner_on(model, first_order)
    generator = np.random.default_rng(0)
    ids = generator.integers(5, 20, (12, 6)).astype("int32")
    mask = (np.arange(6) < generator.integers(3, 7, 12)[:, None]).astype("int32")
    classes = np.tile(np.arange(3), 4).astype("int32")
    rows = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": mask}

    def part(where):
        return {name: tf.constant(array[where]) for name, array in rows.items()}

    episode = part(slice(0, 6)), classes[:6], part(slice(6, 12)), classes[6:]

    bert = transformers.AutoModel.from_pretrained(
        tiny_bert, dtype=torch.float64, attn_implementation="eager"
    )
    bert = bert.eval()
    values = {n: p.detach() for n, p in bert.named_parameters() if not n.startswith("pooler")}
    pooler = {n: p.detach() for n, p in bert.named_parameters() if n.startswith("pooler")}
    values["head_kernel"] = torch.tensor(np.asarray(learner._head[0].value))
    values["head_bias"] = torch.tensor(np.asarray(learner._head[1].value))

    def forward(v, where):
        own = {n: value for n, value in v.items() if not n.startswith("head")}
        inputs = {name: torch.tensor(array[where]) for name, array in rows.items()}
        hidden = torch.func.functional_call(bert, own | pooler, kwargs=inputs).last_hidden_state
        weights = inputs["attention_mask"][..., None].double()
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        return pooled @ v["head_kernel"] + v["head_bias"]

    targets = torch.tensor(classes).long()
    loss, expected = torch_gradients(
        forward,
        values,
        (slice(0, 6), targets[:6], slice(6, 12), targets[6:]),
        first_order,
    )
    found_loss, found = meta_gradients(learner, episode, in_graph)

    assert found_loss == pytest.approx(loss, rel=1e-6)
    # Kernels are transposed here, so the values of each gradient are compared in sorted order.
    # The tolerance is that of the pooling, which computes in float32.
    found = sorted(found, key=np.linalg.norm)
    expected = sorted(expected.values(), key=np.linalg.norm)
    assert len(found) == len(expected) == 39
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            np.sort(one, axis=None), np.sort(other, axis=None), rtol=1e-4, atol=1e-8
        )


def test_gradient_checkpointing_changes_no_gradient(tiny_bert):
    generator = np.random.default_rng(0)
    ids = tf.constant(generator.integers(5, 20, (6, 4)), tf.int32)
    rows = {
        "input_ids": ids,
        "token_type_ids": tf.zeros_like(ids),
        "attention_mask": tf.ones_like(ids),
    }
    classes = np.tile(np.arange(3), 2).astype("int32")
    found = []
    for checkpointing in (False, True):
        model = ft.load(
            tiny_bert,
            labels=["a", "b", "c"],
            pooling="mean",
            dtype="float64",
            gradient_checkpointing=checkpointing,
        )
        ft.train_only(model, ft.select.blocks(-1))
        learner = learner_on(model, first_order=False)
        part = {"cached_features": learner.network.upper._origin.trunk(rows)["cached_features"]}
        part["attention_mask"] = rows["attention_mask"]
        found.append(meta_gradients(learner, (part, classes, part, classes), in_graph=True)[1])
    assert_close(found[1], found[0])
