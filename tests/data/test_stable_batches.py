"""The batches of each task stay the same, bit by bit, from one version to the next.

Whoever repeats an experiment needs the same rows in the same order. The hashes are those of the
version before rows could have inputs other than token ids.
"""

import hashlib

import numpy as np
import pytest
from helpers_models import ENGLISH
from helpers_tasks import small_task_model

import finetune_tf as ft


def texts(count, seed):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(ENGLISH, random.integers(1, 28))) for _ in range(count)]


LEFT, RIGHT = texts(40, 0), texts(40, 1)
WORDS = [text.split() for text in LEFT]
TAGS = [["B-X" if word == "film" else "O" for word in row] for row in WORDS]
ANSWERS = [{"text": [text.split()[0]], "answer_start": [0]} for text in LEFT]
COLUMNS = {
    "one label": {"text": LEFT, "label": ["neg", "mid", "pos", "neg"] * 10},
    "several labels": {"text": LEFT, "label": [["a"], ["b", "c"], [], ["c"]] * 10},
    "number": {"text": LEFT, "label": [i / 7 for i in range(40)]},
    "tokens": {"tokens": WORDS, "tags": TAGS},
    "words": {"text": LEFT},
    "answers": {"question": ["film"] * 40, "context": LEFT, "answers": ANSWERS},
    "vectors": {"text": LEFT, "text_pair": RIGHT, "label": [i / 40 for i in range(40)]},
}
ENCODING = {"answers": {"max_length": 22, "stride": 2}, "words": {"mask_rate": 0.3}}
OPTIONS = {
    "in order": {},
    "shuffled": {"shuffle": True, "seed": 3},
    "whole batches": {"shuffle": True, "drop_remainder": True, "buckets": 3},
    "by tokens": {"shuffle": True, "seed": 4, "tokens_per_batch": 120},
}
HASHES = {
    ("one label", "in order"): "6174677e40ed2601",
    ("one label", "shuffled"): "d2b21d453d22b04b",
    ("one label", "whole batches"): "c871da69a1ab2eb1",
    ("one label", "by tokens"): "30bc23488ec2163d",
    ("several labels", "in order"): "3ea33d0e57d10b23",
    ("several labels", "shuffled"): "673c6b80c53c0738",
    ("several labels", "whole batches"): "cc0204677530d030",
    ("several labels", "by tokens"): "3607cb24ca767872",
    ("number", "in order"): "795d2fa919655db3",
    ("number", "shuffled"): "1a4dc597086186b3",
    ("number", "whole batches"): "5f3d6993b266a920",
    ("number", "by tokens"): "5f31281066093ccf",
    ("tokens", "in order"): "ce860a842d974a48",
    ("tokens", "shuffled"): "1e53c607f4bd3a0b",
    ("tokens", "whole batches"): "42db03b0539c1050",
    ("tokens", "by tokens"): "b1e3b6f02e9ffa1d",
    ("words", "in order"): "76cacabb520ae699",
    ("words", "shuffled"): "5b7acf6c8d85d97f",
    ("words", "whole batches"): "af5740c7a93bd5bf",
    ("words", "by tokens"): "5531a0559d9028a4",
    ("answers", "in order"): "1aa15ea025624f42",
    ("answers", "shuffled"): "fd13e3bb38c3e3ff",
    ("answers", "whole batches"): "88908609e99e82d2",
    ("answers", "by tokens"): "122ce0bded8d2bb0",
    ("vectors", "in order"): "946d802327e66ede",
    ("vectors", "shuffled"): "44ab641fff4be368",
    ("vectors", "whole batches"): "a34fcd8f18d18d1b",
    ("vectors", "by tokens"): "6cf021a9ceb4eb25",
    ("tokenized", "labels"): "fdab943877e45fd4",
    ("tokenized", "hidden"): "ab689048214a8e88",
}


def examples_of(case, model):
    labels = ft.Labels(("score",), "regression") if case == "vectors" else model.labels
    return ft.data.Examples(COLUMNS[case], labels, "toy")


def hash_of(batches, epochs=2):
    """Of all arrays of some epochs, with their names, types and shapes."""
    digest = hashlib.sha256()
    for _ in range(epochs):
        for batch in batches.as_numpy_iterator():
            inputs, targets = batch if isinstance(batch, tuple) else (batch, np.zeros(0))
            for name, array in sorted({**inputs, "": targets}.items()):
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]


@pytest.fixture(scope="module")
def made(tiny_bert):
    """A model and examples of a case, made once."""
    found = {}

    def make(case):
        if case not in found:
            model = small_task_model(case, tiny_bert)
            found[case] = model, examples_of(case, model)
        return found[case]

    return make


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("case", COLUMNS)
def test_of_examples(case, options, made):
    model, examples = made(case)
    batches = examples.batches(model, 4, **OPTIONS[options], **ENCODING.get(case, {}))
    assert hash_of(batches) == HASHES[case, options]


def test_of_tokenized_rows(made):
    model, examples = made("one label")
    rows = examples.encoded(model).inputs
    rows = {"input_ids": list(rows["input_ids"]), "label": [0, 1, 2, 1] * 10}
    batches = ft.data.tokenized_batches(rows, model, 4, shuffle=True, pad_token_id=3)
    assert hash_of(batches) == HASHES["tokenized", "labels"]
    del rows["label"]
    batches = ft.data.tokenized_batches(rows, model, 4, shuffle=True, mask_rate=0.3)
    assert hash_of(batches) == HASHES["tokenized", "hidden"]
