"""The tasks from text to text with an encoder-decoder: T5 is loaded, trained, measured, saved."""

import json

import numpy as np
import pytest
from helpers_text_to_text import T5_PARAMS, write_t5
from tokenizers import processors

import finetune_tf as ft
from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet

PARAMS = {**T5_PARAMS, "translation_en_to_fr": {"prefix": "summarize: "}}
SOURCES = ["a good film", "the actor was very bad", "the film was bad", "a very good actor"]
TARGETS = [
    "ein guter Film",
    "der Schauspieler war sehr schlechter",
    "der Film war schlechter",
    "ein sehr guter Schauspieler",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_t5(tmp_path_factory.mktemp("t5") / "tiny", task_specific_params=PARAMS)


@pytest.fixture(scope="module")
def pairs():
    return ft.data.from_arrays(source=SOURCES, target=TARGETS)


@pytest.fixture(scope="module")
def trained(folder, pairs):
    """A translation model that knows the pairs by heart."""
    with quiet():
        model = ft.load(folder, "translation")
        with pytest.warns(UserWarning, match="learning rate"):
            model.compile(**ft.presets.cross_entropy(learning_rate=0.03, schedule="constant"))
        batches = pairs.batches(model, batch_size=2, shuffle=True, languages=("en", "de"))
        model.fit(batches, epochs=25, verbose=0)
    return model


class TestLoading:
    @pytest.mark.parametrize("task", ["text2text-generation", "translation", "summarization"])
    def test_a_task_is_chosen(self, folder, task):
        with quiet():
            assert ft.load(folder, task).task.name == task

    def test_the_general_task_is_the_default(self, tmp_path):
        plain = write_t5(tmp_path / "t5")
        config = json.loads((plain / "config.json").read_text())
        del config["finetuning_task"]
        (plain / "config.json").write_text(json.dumps(config))
        with quiet():
            assert ft.load(plain).task.name == "text2text-generation"


@pytest.mark.slow
def test_the_loss_is_the_mean_over_the_tokens_of_the_targets(trained, pairs):
    encoded = pairs.encoded(trained)
    losses = []
    for row in range(len(pairs)):
        inputs = {name: np.array([feature[row]]) for name, feature in encoded.inputs.items()}
        logits = np.asarray(trained(inputs))[0].astype("float64")
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += (-logits[np.arange(len(logits)), encoded.targets[row]]).tolist()
    batch = pairs.batches(trained, batch_size=4)
    found = trained.evaluate(batch, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["accuracy"] == 1.0


@pytest.mark.slow
def test_it_translates(trained, pairs):
    assert ft.predict(trained, SOURCES) == TARGETS
    with quiet():
        report = ft.evaluate(trained, pairs, baseline="copy", train=pairs)
    assert report.metrics == pytest.approx({"bleu": 100, "chrf": 100})
    assert report.baseline.metrics["bleu"] == 0 and report.difference.is_clear


@pytest.mark.slow
def test_it_remembers_task_and_prefix_when_it_is_saved(trained, tmp_path):
    with quiet():
        again = ft.load(trained.save_pretrained(tmp_path / "saved"))
    assert again.task.name == "translation"
    assert again.config["task_specific_params"]["translation"]["prefix"] == "translate: "
    assert ft.predict(again, SOURCES[0]) == TARGETS[0]


@pytest.mark.slow
def test_finetune(folder, pairs):
    with quiet():
        with pytest.raises(
            ModelError, match="a prefix for each of translation_en_to_de, translati"
        ):
            ft.finetune(folder, pairs, pairs, task="translation", verbose=0)
        result = ft.finetune(
            folder,
            pairs,
            pairs,
            pairs,
            task="translation",
            epochs=1,
            batch_size=4,
            languages=("en", "de"),
            verbose=0,
        )
    assert result.history.keys() >= {"val_loss", "val_accuracy"}
    assert result.settings["languages"] == ("en", "de")
    assert result.report.baseline.name == "dictionary"


def test_sources_without_targets_cannot_be_learned(folder):
    with quiet():
        model = ft.load(folder, "summarization")
    model.compile()
    sources = ft.data.from_arrays(source=SOURCES)
    with pytest.raises(ModelError, match="The decoder reads the targets: name their column where"):
        model.fit(sources.batches(model, 2), verbose=0)


def test_targets_without_an_end(folder, pairs, capsys):
    with quiet():
        model = ft.load(folder, "summarization")
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    model.tokenizer.eos_token = None
    pairs.encoded(model)
    assert "the tokenizer has no token that ends a text" in capsys.readouterr().out


def test_a_tokenizer_that_ends_targets_need_not_name_their_end(folder, pairs, capsys):
    with quiet():
        model = ft.load(folder, "summarization")
    tokenizer = model.tokenizer
    end = tokenizer.eos_token, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A " + end[0], special_tokens=[end]
    )
    tokenizer.eos_token = None
    encoded = pairs.encoded(model)
    assert all(row[-1] == end[1] for row in encoded.targets.rows)
    assert "no token that ends a text" not in capsys.readouterr().out
