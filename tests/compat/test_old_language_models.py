"""Language models of transformers 4: labels, `generate`, collators and weights.

The files in tests/fixtures/tf4 were written by transformers 4.57, with its logits, its losses and
the tokens that its `generate` returned.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_text_to_text import WORDS

import finetune_tf as ft
from finetune_tf import compat
from finetune_tf.errors import ArgumentError, DataError, ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.messages import quiet

TF4 = Path(__file__).resolve().parents[1] / "fixtures" / "tf4"
FOLDERS = {
    "gpt2": ("TFGPT2LMHeadModel", "text-generation"),
    "mistral": ("TFMistralForCausalLM", "text-generation"),
    "t5": ("TFT5ForConditionalGeneration", "text2text-generation"),
    "mt5": ("TFMT5ForConditionalGeneration", "text2text-generation"),
    "bart": ("TFBartForConditionalGeneration", "text2text-generation"),
    "mbart": ("TFMBartForConditionalGeneration", "text2text-generation"),
    "pegasus": ("TFPegasusForConditionalGeneration", "text2text-generation"),
    "marian": ("TFMarianMTModel", "text2text-generation"),
}
# As in tests/fixtures/tf4/make.py.
GENERATED = {
    "greedy": {"max_length": 16},
    "new_tokens": {"max_new_tokens": 4},
    "beams": {"max_new_tokens": 5, "num_beams": 3},
    "several": {"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2},
    "no_repeats": {"max_new_tokens": 6, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
    "no_end": {"max_length": 18, "min_length": 16, "bad_words_ids": [[5], [6, 7]]},
}
# The beam search of transformers 4 in TensorFlow preferred any text that had ended when the most
# tokens were reached, also if another one had a better score. That of PyTorch does not.
OTHER_BEAMS = ("mistral", "t5")


# The other families have the same classes and blocks, so that their tests are slow ones.
EVERY_DAY = ("gpt2",)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in EVERY_DAY else pytest.mark.slow) for name in FOLDERS
    ],
)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def stored(family):
    with np.load(TF4 / family / FOLDERS[family][1] / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model(family):
    (class_name, task), keys = FOLDERS[family], FAMILIES[family].dropout_keys
    with quiet():
        cls = getattr(compat, class_name)
        return cls.from_pretrained(TF4 / family / task, **dict.fromkeys(keys, 0.0))


def inputs_in(stored):
    return {name: stored[name] for name in ("input_ids", "attention_mask")}


def test_outputs_of_transformers_4(model, stored):
    output = model(inputs_in(stored), labels=stored["labels"])
    np.testing.assert_allclose(output.logits, stored["logits"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(output.loss, stored["loss"], rtol=1e-5)
    assert output.past_key_values is None and model(inputs_in(stored), labels=stored["labels"])[0]


@pytest.mark.slow
def test_training_starts_at_the_loss_of_transformers_4(model, stored):
    with quiet():
        model.compile(keras.optimizers.SGD(0.0))
    inside = {**inputs_in(stored), "labels": stored["labels"]}
    for x, y in ((inside, None), (inputs_in(stored), stored["labels"])):
        loss = model.evaluate(x, y, verbose=0, batch_size=4)
        np.testing.assert_allclose(loss, stored["loss"][0], rtol=1e-5)
        with quiet():
            history = model.fit(x, y, verbose=0, batch_size=4).history
        np.testing.assert_allclose(history["loss"], stored["loss"], rtol=1e-5)


@pytest.mark.slow
def test_tokens_of_transformers_4(family, model, stored):
    inputs = inputs_in(stored)
    if not model.is_encoder_decoder:
        for array in inputs.values():  # the padding of prompts comes first
            array[1] = np.roll(array[1], 5)
    for name, options in GENERATED.items():
        if "num_beams" in options and family in OTHER_BEAMS:
            continue
        found = model.generate(**inputs, do_sample=False, **options)
        assert isinstance(found, tf.Tensor) and found.dtype == tf.int32
        expected, rows = stored[f"generated/{name}"], np.arange(len(found))
        if name == "no_repeats":
            # Padding counted as a repeated token there; here each row is continued as if alone.
            rows = rows[rows != 1]
        np.testing.assert_array_equal(found.numpy()[rows], expected[rows], err_msg=name)


def test_decoder_inputs_are_the_labels_shifted_to_the_right(family, model, stored):
    if not model.is_encoder_decoder:
        with pytest.raises(ModelError, match="has no decoder inputs: it is a decoder"):
            model.prepare_decoder_input_ids_from_labels(stored["labels"])
        return
    labels = np.array([[7, 8, 9, 1], [6, 5, 1, -100]])
    first = [1, 1] if family == "mbart" else [2, 2]  # mBART begins with the last token
    shifted = model.prepare_decoder_input_ids_from_labels(labels=labels)
    expected = [[first[0], 7, 8, 9], [first[1], 6, 5, 1]]
    np.testing.assert_array_equal(shifted, expected)


def test_auto_classes_select_the_class_of_the_family(family, model):
    kind = "Seq2SeqLM" if model.is_encoder_decoder else "CausalLM"
    auto = getattr(compat, f"TFAutoModelFor{kind}")
    with quiet():
        assert type(auto.from_pretrained(TF4 / family / FOLDERS[family][1])) is type(model)
    with pytest.raises(ModelError, match="bert models have no class for text"):
        auto.from_config(compat.BertConfig())


def test_every_family_has_the_classes_of_its_heads():
    for family in FAMILIES.values():
        heads = family.heads(family.complete({"model_type": family.model_type}))
        head = heads.get("text2text-generation")
        if head is None or head.backbone is not None:
            assert f"TF{family.class_prefix}ForConditionalGeneration" not in compat.CLASSES
        else:
            name = f"TF{family.class_name('ForConditionalGeneration')}"
            assert compat.CLASSES[name].task_name == "text2text-generation"


@pytest.fixture(scope="module")
def gpt2(tiny_decoder):
    with quiet():
        return compat.TFGPT2LMHeadModel.from_pretrained(tiny_decoder)


@pytest.fixture(scope="module")
def t5(tiny_t5):
    with quiet():
        return compat.TFT5ForConditionalGeneration.from_pretrained(tiny_t5)


@pytest.mark.slow
def test_batches_of_this_library_train_the_same_as_labels(gpt2, tiny_decoder):
    texts = ["the film was very good", "a bad story"]
    with quiet():
        plain = ft.load(tiny_decoder)
        plain.compile(keras.optimizers.SGD(0.0))
        gpt2.compile(keras.optimizers.SGD(0.0))
        examples = ft.data.from_arrays(texts)
        expected = plain.evaluate(examples.batches(plain, batch_size=2), verbose=0)
        found = gpt2.evaluate(examples.batches(gpt2, batch_size=2), verbose=0)
    encoding = gpt2.tokenizer(texts, padding=True, return_tensors="np")
    labels = np.where(encoding["attention_mask"], encoding["input_ids"], -100)
    loss = gpt2(encoding, labels=labels).loss[0]
    np.testing.assert_allclose([found, loss], np.ravel(expected)[0], rtol=1e-5)


def test_a_loss_of_the_user_gets_labels_as_they_are(gpt2):
    ids = np.array([[5, 6, 7, 8]])
    with quiet():
        gpt2.compile(
            keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    found = gpt2.evaluate(ids[:, :-1], ids[:, 1:], verbose=0)
    np.testing.assert_allclose(found, gpt2(ids, labels=ids).loss[0], rtol=1e-5)


@pytest.mark.slow
def test_samples_follow_the_seed_of_tensorflow(gpt2):
    ids = np.array([[5, 6]])
    options = {"do_sample": True, "max_new_tokens": 12, "top_k": 0}
    tf.random.set_seed(1)
    first, second = (gpt2.generate(ids, **options).numpy() for _ in range(2))
    tf.random.set_seed(1)
    np.testing.assert_array_equal(gpt2.generate(ids, **options), first)
    assert first.shape != second.shape or (first != second).any()
    seeded = [gpt2.generate(ids, seed=(3, 4), **options).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*seeded)


@pytest.mark.slow
def test_generate_without_a_mask_takes_padding_for_padding(t5):
    ids = np.array([[7, 8, 9, 1], [7, 8, 1, 0]])
    found = t5.generate(ids, max_new_tokens=4).numpy()
    alone = t5.generate(ids[1:, :3], max_new_tokens=4).numpy()
    np.testing.assert_array_equal(found[1, : alone.shape[1]], alone[0])
    output = t5.generate(ids, max_new_tokens=4, return_dict_in_generate=True)
    np.testing.assert_array_equal(output.sequences, found)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_length": 2}, ArgumentError, "prompts have 2 tokens, but max_length is 2, the prom"),
        ({"max_length": 0}, ArgumentError, "max_length has to be an integer"),
        ({"eos_token_id": 999}, ArgumentError, "eos_token_id has the id 999, but the model has"),
        ({"num_beam": 2}, ArgumentError, "num_beam"),
        ({"output_scores": True}, ModelError, "output_scores is not supported in generate. ft.ge"),
        ({"attention_mask": [[1]]}, ArgumentError, r"attention_mask has the shape \(1, 1\), but"),
        ({"max_new_tokens": 99}, DataError, "need 101 positions, but the model has 24"),
    ],
)
def test_options_of_generate_that_raise_errors(gpt2, options, error, message):
    with quiet(), pytest.raises(error, match=message):
        gpt2.generate(np.array([[5, 6]]), **options)


@pytest.mark.slow
def test_invalid_inputs_of_generate(gpt2, t5):
    with pytest.raises(
        ArgumentError, match=r"have to be integers \(batch, length\), found int64 o"
    ):
        gpt2.generate(np.array([5, 6]))
    with pytest.raises(ArgumentError, match=r"needs input_ids: token ids \(batch, length\)"):
        t5.generate()
    assert gpt2.generate(max_new_tokens=2)[0, 0] == gpt2.config.bos_token_id


def test_options_without_effect_are_named(gpt2, capsys):
    gpt2.generate(np.array([[5, 6]]), max_new_tokens=2, temperature=0.5, early_stopping=True)
    printed = capsys.readouterr().out
    assert "generate: temperature has no effect without do_sample=True." in printed
    assert "generate: early_stopping has no effect without num_beams above 1." in printed


def test_an_encoder_decoder_needs_labels_or_decoder_inputs(t5):
    with pytest.raises(ModelError, match="expects labels, of which the inputs of its decoder are"):
        t5(np.array([[7, 8, 1]]))
    with pytest.raises(ModelError, match="output_attentions is not supported for encoder-decod"):
        t5(np.array([[7, 8, 1]]), labels=np.array([[7, 1]]), output_attentions=True)
    with pytest.raises(ModelError, match="A decoder cannot be called alone"):
        t5.get_decoder()(np.array([[7, 8, 1]]))


def test_states_and_parts_of_an_encoder_decoder(t5):
    ids, labels = np.array([[7, 8, 1]]), np.array([[9, 1]])
    output = t5(ids, labels=labels, output_hidden_states=True)
    assert [s.shape for s in output.encoder_hidden_states] == [(1, 3, 16)] * 2
    assert [s.shape for s in output.decoder_hidden_states] == [(1, 2, 16)] * 2
    np.testing.assert_array_equal(
        t5.get_encoder()(ids).last_hidden_state, output.encoder_hidden_states[-1]
    )
    assert len(t5.encoder.weights) + len(t5.decoder.weights) == len(t5.weights) + 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_states_of_encoder_decoders_are_those_of_pytorch(family):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSeq2SeqLM

    folder = TF4.parents[1] / "references" / family / "text2text-generation"
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids, labels = np.array([[7, 8, 9, 2]]), np.array([[9, 8, 2]])
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), labels=torch.tensor(labels), output_hidden_states=True)
    with quiet():
        model = compat.TFAutoModelForSeq2SeqLM.from_pretrained(folder)
    output = model(ids, labels=labels, output_hidden_states=True)
    np.testing.assert_allclose(output.loss[0], expected.loss.item(), rtol=1e-5)
    for name in ("encoder_hidden_states", "decoder_hidden_states"):
        for mine, other in zip(output[name], expected[name], strict=True):
            np.testing.assert_allclose(mine, other.numpy(), rtol=0, atol=1e-5)


def test_a_collator_of_the_user_makes_batches(t5):
    rows = {"input_ids": [[7, 8, 1], [9, 1]], "labels": [[9, 1], [8, 1]], "text": ["a", "b"]}

    def collate(features):
        assert features[0].keys() == {"input_ids", "labels"}
        ids = tf.keras.utils.pad_sequences([f["input_ids"] for f in features], padding="post")
        return {"input_ids": ids, "labels": np.array([f["labels"] for f in features])}

    batches = t5.prepare_tf_dataset(rows, 2, shuffle=False, collate_fn=collate)
    ((inputs, labels),) = batches
    assert inputs["input_ids"].numpy().tolist() == [[7, 8, 1], [9, 1, 0]]
    assert labels.numpy().tolist() == rows["labels"]
    assert len(t5.prepare_tf_dataset(rows, 2, collate_fn=collate, drop_remainder=True)) == 1
    with pytest.raises(DataError, match="a dict of arrays by name, found list"):
        t5.prepare_tf_dataset(rows, 2, collate_fn=lambda features: features)
    with pytest.raises(DataError, match="The dataset has no rows with an input of the model"):
        t5.prepare_tf_dataset({"input_ids": []}, 2, collate_fn=collate)


def test_tokenizers_in_target_mode(tiny_t5):
    tokenizer = compat.AutoTokenizer.from_pretrained(tiny_t5)
    with tokenizer.as_target_tokenizer():
        target = tokenizer("ein Film")["input_ids"]
    assert target == [WORDS.index("ein"), WORDS.index("Film"), 1]
    batch = tokenizer.prepare_seq2seq_batch(["a film"], ["ein Film"], max_target_length=2)
    assert batch["labels"] == [[WORDS.index("ein"), 1]]
    assert batch["input_ids"] == tokenizer(["a film"])["input_ids"]
