"""Rates by group and unfreezing inside a fit against parameter groups of PyTorch."""

import keras
import numpy as np
import pytest
from helpers_models import ENGLISH, write_checkpoint

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.training import AdamW

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:A learning rate of"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
STEPS, RATE, DECAY, CLIP = 20, 2e-4, 0.1, 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT with a head, whose table of words is so large that its gradient is sparse."""
    folder = tmp_path_factory.mktemp("bert")
    words = [*ENGLISH, *(f"word{i}" for i in range(4200))]
    model = ft.load(write_checkpoint(folder / "start", words), labels=["no", "yes"])
    return model.save_pretrained(folder / "with head")


def batches():
    random = np.random.default_rng(0)
    ids = random.integers(5, 60, (STEPS, 8, 6)).astype("int32")
    return ids, (ids[:, :, 0] > 30).astype("int32")


class Torch:
    """The same model in PyTorch, with a parameter group for each factor and weight decay."""

    def __init__(self, folder):
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.optimizer = None

    def add(self, factors):
        """Adds groups for the parameters whose names contain a text, with their factors."""
        known = (
            {p for g in self.optimizer.param_groups for p in g["params"]} if self.optimizer else {}
        )
        for text, factor in factors.items():
            for is_undecayed in (False, True):
                parameters = [
                    p
                    for name, p in self.model.named_parameters()
                    if text in name
                    and p not in known
                    and is_undecayed == (name.endswith("bias") or "LayerNorm" in name)
                ]
                known = {*known, *parameters}
                decay = 0.0 if is_undecayed else DECAY
                group = {"params": parameters, "weight_decay": decay, "lr": RATE * factor}
                if self.optimizer is None:
                    self.optimizer = torch.optim.AdamW([group])
                else:
                    self.optimizer.add_param_group(group)

    def step(self, ids, answers):
        self.optimizer.zero_grad()
        logits = self.model(input_ids=torch.tensor(ids).long()).logits
        torch.nn.functional.cross_entropy(logits, torch.tensor(answers).long()).backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        self.optimizer.step()

    def weights(self, tmp_path):
        self.model.save_pretrained(tmp_path / "torch")
        return weights(ft.load(tmp_path / "torch"))


def weights(model):
    return {v.path: np.array(v.numpy()) for v in model.weights}


def difference(one, two):
    assert one.keys() == two.keys()
    return max(np.abs(one[path] - two[path]).max() for path in one)


def ours(folder, callbacks, **rates):
    ids, answers = batches()
    model = ft.load(folder)
    model.compile(AdamW(RATE, DECAY, global_clipnorm=CLIP, **rates))
    # An epoch is one step.
    data = iter(zip(ids, answers, strict=True))
    for epoch in range(STEPS):
        x, y = next(data)
        model.fit(
            x,
            y,
            batch_size=8,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
        if epoch == 9:
            yield weights(model)
    yield weights(model)


def test_groups(folder, tmp_path):
    """Two groups, biases without decay, one clipping norm, and a factor that changes at step 5."""

    class Change(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 5:
                self.model.optimizer.rate_factors["head()"].assign(2.0)

    rates = {select.head(): 10.0, select.embeddings(): 0.5}
    found = list(ours(folder, [Change()], rates=rates))
    theirs = Torch(folder)
    theirs.add({"classifier": 10.0, "embeddings": 0.5, "": 1.0})
    for step, (ids, answers) in enumerate(zip(*batches(), strict=True)):
        if step == 5:
            for group in theirs.optimizer.param_groups[:2]:
                group["lr"] = RATE * 2.0
        theirs.step(ids, answers)
        if step == 9:
            at_ten = difference(found[0], theirs.weights(tmp_path))
    at_end = difference(found[1], theirs.weights(tmp_path))
    print(f"after 10 steps {at_ten:.2g}, after {STEPS} {at_end:.2g}")
    assert at_ten < 1e-6
    assert at_end < 1e-5


def test_a_group_that_is_added_later(folder, tmp_path):
    """`Unfreeze` at step 4 against `add_param_group`."""
    plan = {0: select.head(), 4: select.head() | select.blocks(-1)}
    found = list(ours(folder, [ft.callbacks.Unfreeze(plan)], rates={select.head(): 10.0}))
    theirs = Torch(folder)
    theirs.add({"classifier": 10.0})
    for step, (ids, answers) in enumerate(zip(*batches(), strict=True)):
        if step == 4:
            theirs.add({"layer.1.": 1.0})
        theirs.step(ids, answers)
        if step == 9:
            at_ten = difference(found[0], theirs.weights(tmp_path))
    at_end = difference(found[1], theirs.weights(tmp_path))
    print(f"after 10 steps {at_ten:.2g}, after {STEPS} {at_end:.2g}")
    assert at_ten < 1e-6
    assert at_end < 1e-5
