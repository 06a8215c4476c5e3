"""Compares every family and every task with results of PyTorch; see `harness.py`.

A family is included by a folder in `references/` and an entry in FAMILIES, a task by an entry in
TASKS.
"""

import pytest
from helpers_checkpoints import TEXT_FAMILIES, copy_checkpoint

import finetune_tf as ft
from conformance import harness
from conformance.harness import Case
from finetune_tf.errors import CheckpointError
from finetune_tf.families import FAMILIES

TEXTS, GENERATION = "text-classification", "text-generation"
TEXT_TO_TEXT = "text2text-generation"
SAME_MODELS = ("translation", "summarization")  # those of text2text-generation
TASKS_OF = {
    family: [task for task in row.heads(row.complete({})) if task not in SAME_MODELS]
    for family, row in FAMILIES.items()
    if family in TEXT_FAMILIES
}
# The everyday tests have one family for each kind of block; the tests of the others are slow ones.
EVERY_DAY = (
    "bert/",
    "deberta-v2/",
    "modernbert/",
    "gpt2/text-gen",
    "llama/text-gen",
    "t5/",
    "bart/",
)
SLOW_CASES = ("bert/relu", "bert/gelu_new", "bert/token-class", "bert/question")

# Every family with one task, every task with one family, and BERT with other activations.
STORED = {
    **{
        f"{family}/{task}": task
        for family, tasks in TASKS_OF.items()
        for task in (TEXTS, GENERATION, TEXT_TO_TEXT)
        if task in tasks
    },
    **{f"bert/{task}": task for task in TASKS_OF["bert"]},
    **{f"bert/{name}": TEXTS for name in ("relu", "gelu_new", "gelu")},
}
SEEDS = range(4)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            name,
            marks=()
            if name.startswith(EVERY_DAY) and not name.startswith(SLOW_CASES)
            else pytest.mark.slow,
        )
        for name in STORED
    ],
)
def case(request):
    return Case.stored(request.param, STORED[request.param])


@pytest.fixture(scope="module")
def model(case):
    """A model shared by the tests of a case, which must not train it."""
    return case.load()


def test_logits(model, case):
    harness.check_logits(model, case)


def test_gradients(model, case):
    harness.check_gradients(model, case)


def test_load_report(case, capsys):
    harness.check_report(case, capsys)


def test_stages(model):
    harness.check_stages(model)


def test_splits_between_all_stages(model, case):
    harness.check_splits(model, case)


def test_padding_has_no_effect(model, case):
    harness.check_padding(model, case)


def test_a_sequence_does_not_depend_on_its_batch(model, case):
    harness.check_batch(model, case)


def test_bfloat16(case):
    harness.check_bfloat16(case)


def test_saved_folder_loads(model, case, tmp_path):
    harness.check_saved(model, case, tmp_path)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_file(model, case, tmp_path):
    harness.check_keras_file(model, case, tmp_path)


@pytest.mark.slow
def test_five_training_steps(case):
    # Tracing takes most of the time, so only one of the models is trained in a graph.
    harness.check_training(case.load(), case, run_eagerly=case.folder.name != "gelu_new")


@pytest.mark.slow
def test_one_compiled_graph_with_fixed_shapes(case):
    harness.check_compiled(case)


@pytest.mark.slow
def test_one_compiled_graph_of_bert():
    harness.check_compiled(Case.stored("bert/gelu_new", TEXTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_unsupported_config_values_are_an_error(family, tmp_path):
    for i, (key, value) in enumerate(harness.unsupported(family)):
        source = next(iter(sorted((harness.REFERENCES / family).glob("*/config.json")))).parent
        folder = copy_checkpoint(source, tmp_path / str(i), **{key: value})
        with pytest.raises(CheckpointError, match=f"config key '{key}' has the value"):
            ft.load(folder)


def test_mpnet_with_fewer_buckets_than_pytorch_uses_is_an_error(tmp_path):
    source = harness.REFERENCES / "mpnet" / TEXTS
    folder = copy_checkpoint(source, tmp_path / "few", relative_attention_num_buckets=8)
    with pytest.raises(CheckpointError, match="'relative_attention_num_buckets' is 8, but MPNet"):
        ft.load(folder)


def test_a_task_without_a_head_in_the_family():
    with pytest.raises(CheckpointError, match="bert models have no head for the task 'nothing'"):
        FAMILIES["bert"].head("nothing", FAMILIES["bert"].complete({}))


ON_JAX = """
import json, sys
import keras
from conformance import harness

errors = {}
for name, task in json.loads(sys.argv[1]).items():
    case = harness.Case.stored(name, task)
    harness.check_logits(case.load(), case)
# One of them is also trained.
case = harness.Case.stored("bert/gelu", "text-classification")
harness.check_training(case.load(), case)
print(keras.backend.backend(), len(json.loads(sys.argv[1])))
"""


@pytest.mark.slow
def test_jax_computes_the_same():
    pytest.importorskip("jax")
    harness.check_on_jax(ON_JAX, STORED)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("family", "task"),
    [(family, task) for family, tasks in TASKS_OF.items() for task in tasks],
)
def test_any_configuration_against_pytorch(family, task, seed, tmp_path):
    """Random configurations: loading, saving, and twenty training steps for every pair."""
    pytest.importorskip("torch")
    from references import pytorch

    config = pytorch.random_config(family, task, seed)
    torch_model = pytorch.make_model(family, task, config, seed)
    pytorch.save(torch_model, config, tmp_path)
    inputs = pytorch.make_inputs(torch_model.config, task, seed)
    case = Case(tmp_path, task, pytorch.record(torch_model, task, inputs, steps=20))

    row = FAMILIES[family]
    tied = row.head(task, row.complete(config)).tied
    if task == "fill-mask" and tied and not config.get("tie_word_embeddings", True):
        with pytest.raises(CheckpointError, match="'tie_word_embeddings' is False"):
            case.load()
        return
    model = case.load()
    harness.check_logits(model, case)
    harness.check_gradients(model, case)
    harness.check_stages(model)
    saved = harness.check_saved(model, case, tmp_path)
    harness.check_opens_in_pytorch(saved, case, family)
    harness.check_training(model, case, run_eagerly=True)
