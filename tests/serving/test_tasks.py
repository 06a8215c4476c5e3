"""Servers of models of all tasks answer what `ft.predict` and the command `predict` say."""

import base64
import io

import numpy as np
import pytest
from helpers_images import TINY_VIT
from helpers_serving import ask, assert_close, serving, trained
from helpers_towers import write_towers

import finetune_tf as ft
from finetune_tf.serving.forms import forms_of
from finetune_tf.serving.limits import Limits
from finetune_tf.tasks import TASKS

WORDS = ["a good film", "the actor was very bad", "a dull story"]


def answers_of(model, body):
    """The answers of a server to one request, which are the same for one row at a time."""
    with serving(model) as (url, _):
        status, _, answer = ask(url, body=body)
        assert status == 200, answer
        assert ask(url, body={**body, "truncate": True})[2] == answer
        options = {name: value for name, value in body.items() if not isinstance(value, list)}
        rows = {name: value for name, value in body.items() if isinstance(value, list)}
        for i, expected in enumerate(answer["predictions"]):
            one = {name: values[i] for name, values in rows.items()} | options
            assert_close(ask(url, body=one)[2], {"prediction": expected})
    return answer["predictions"]


def as_json(model, predictions):
    return [model.task.as_json(prediction) for prediction in predictions]


def load(checkpoint, task, **options):
    with ft.messages.quiet():
        return trained(ft.load(checkpoint, task, **options))


def test_every_task_has_forms_of_known_columns():
    for name, task in TASKS.items():
        forms = forms_of(task)
        assert forms and all(forms), name
        assert task.target_column not in forms[0], name


@pytest.mark.slow
def test_token_classification(tiny_bert):
    model = load(tiny_bert, "token-classification", labels=["O", "B-who", "I-who"])
    expected = as_json(model, ft.predict(model, WORDS))
    assert any(each["entities"] for each in expected)
    assert_close(answers_of(model, {"text": WORDS}), expected)
    split = [text.split() for text in WORDS]
    assert_close(answers_of(model, {"tokens": split}), as_json(model, ft.predict(model, split)))


@pytest.mark.slow
def test_question_answering(tiny_bert):
    model = load(tiny_bert, "question-answering")
    contexts = [f"{text} and " * 15 + text for text in WORDS]  # several rows each
    columns = {"question": ["a film"] * 3, "context": contexts}
    options = {"null_threshold": 3.5, "max_answer_length": 2}
    with ft.messages.quiet():
        expected = as_json(model, ft.predict(model, **columns, **options))
    assert_close(answers_of(model, columns | options), expected)
    with serving(model) as (url, _):
        status, _, answer = ask(url, body={**columns, "max_answer_length": 0})
        assert (status, answer["error"]) == (
            400,
            "max_answer_length must be an integer >= 1, found 0.",
        )
        status, _, answer = ask(url, body={"question": "a film", "text": "a"})
        assert status == 400 and "has no key 'text'" in answer["error"]
        status, _, answer = ask(url, body={"question": "a film", "context": "good " * 4_000})
        assert status == 413 and "may make 256 rows of tokens, found" in answer["error"]
        status, _, answer = ask(url, body={"question": "a film " * 40, "context": "a"})
        assert status == 400 and "question" in answer["error"]


@pytest.mark.slow
def test_fill_mask(tiny_bert):
    model = load(tiny_bert, "fill-mask")
    texts = ["a [MASK] film", "the [MASK] was [MASK]"]
    expected = as_json(model, ft.predict(model, texts))
    assert_close(answers_of(model, {"text": texts}), expected)
    with serving(model) as (url, _):
        status, _, answer = ask(url, body={"text": "a film"})
        assert (status, answer["error"][:19]) == (400, "Text 0 has no [MASK")


@pytest.mark.slow
def test_feature_extraction(tiny_bert):
    model = load(tiny_bert, "feature-extraction")
    vectors = answers_of(model, {"text": WORDS})
    np.testing.assert_allclose(
        [each["vector"] for each in vectors], ft.predict(model, WORDS), atol=2e-5
    )
    found = answers_of(model, {"text": WORDS, "text_pair": WORDS[::-1]})
    expected = ft.predict(model, WORDS, WORDS[::-1])
    np.testing.assert_allclose([each["similarity"] for each in found], expected, atol=2e-5)


@pytest.mark.slow
def test_generation(tiny_decoder, tiny_t5):
    model = load(tiny_decoder, "text-generation")
    model.info.generation["max_new_tokens"] = 4
    expected = as_json(model, ft.predict(model, WORDS))
    assert answers_of(model, {"prompt": WORDS}) == expected
    with serving(model) as (url, _):
        status, _, answer = ask(url, body={"prompt": "good " * 400})
        assert status == 400, answer
        chat = [{"role": "user", "content": "a good film"}]
        status, _, answer = ask(url, body={"messages": chat})
        assert status == 400 and "no chat template" in answer["error"]
    with serving(model, Limits(max_length=4)) as (url, _):
        assert ask(url, body={"prompt": "a good film"})[0] == 200
        status, _, answer = ask(url, body={"prompt": ["a", "a very good film " * 2]})
        assert (status, answer["error"][:53]) == (
            413,
            "A prompt may have 4 tokens, special ones included; 1 ",
        )
    model = load(tiny_t5, "translation")
    model.info.generation["max_new_tokens"] = 4
    expected = as_json(model, ft.predict(model, WORDS))
    assert answers_of(model, {"source": WORDS}) == expected


@pytest.mark.slow
def test_chat(tiny_decoder):
    model = load(tiny_decoder, "text-generation")
    model.info.generation["max_new_tokens"] = 4
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    chats = [[{"role": "user", "content": text}] for text in WORDS]
    expected = as_json(model, ft.predict(model, chats))
    assert answers_of(model, {"messages": chats}) == expected
    with serving(model) as (url, _):
        for wrong in ([{"role": "user"}], [{"role": "user", "content": 3}], [["a"]], []):
            assert ask(url, body={"messages": wrong})[0] == 400
        wrong = [{"role": "pirate", "content": "a"}]
        status, _, answer = ask(url, body={"messages": wrong})
        assert status == 400 and "pirate" in answer["error"]


def png(seed):
    from PIL import Image

    levels = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), "uint8")
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
def test_images(tmp_path):
    model = load(TINY_VIT, "image-classification")
    files = [png(seed) for seed in range(3)]
    encoded = [base64.b64encode(file).decode() for file in files]
    assert_close(answers_of(model, {"image": encoded}), as_json(model, ft.predict(model, files)))
    (tmp_path / "secret.png").write_bytes(files[0])
    with serving(model) as (url, _):
        for wrong in (
            str(tmp_path / "secret.png"),
            "abc",
            base64.b64encode(b"no image").decode(),
            base64.b64encode(files[0][:200]).decode(),
        ):
            status, _, answer = ask(url, body={"image": wrong})
            assert status == 400, answer


@pytest.mark.slow
def test_images_and_texts(tmp_path):
    folder = write_towers(tmp_path / "clip")
    with ft.messages.quiet():
        model = ft.load(folder, "image-text-retrieval")
    file = png(0)
    encoded = base64.b64encode(file).decode()
    (logit,) = ft.predict(model, ["a good film"], image=[file])
    with serving(model) as (url, _):
        both = ask(url, body={"image": encoded, "text": "a good film"})[2]["prediction"]
        assert both["logit"] == pytest.approx(float(logit), abs=1e-4)
        vector = ask(url, body={"text": "a good film"})[2]["prediction"]["vector"]
        np.testing.assert_allclose(vector, ft.predict(model, "a good film"), atol=2e-5)
        vector = ask(url, body={"image": encoded})[2]["prediction"]["vector"]
        np.testing.assert_allclose(vector, ft.predict(model, image=file), atol=2e-5)
