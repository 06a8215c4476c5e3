"""Conversations: which tokens are answers, what is generated, and what is refused."""

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import DataError, DataTypeError, ModelError
from finetune_tf.messages import quiet
from finetune_tf.tasks import IGNORED

# The words of the tests' tokenizer stand for the special tokens of real templates.
PLAIN = (
    "{% for m in messages %}{{ m['role'] == 'assistant' and 'the' or 'a' }} {{ m['content'] }} "
    "<end> {% endfor %}{% if add_generation_prompt %}the {% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}the {% generation %}{{ m['content'] }}"
    "{% endgeneration %} <end> {% else %}a {{ m['content'] }} <end> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}the {% endif %}"
)
# Leaves out what the assistant said before the last message, as templates of reasoning models do.
FORGETFUL = (
    "{% for m in messages %}{% if m['role'] != 'assistant' or loop.last %}a {{ m['content'] }} "
    "<end> {% endif %}{% endfor %}{% if add_generation_prompt %}the {% endif %}"
)


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


CHAT = [user("very good"), assistant("film"), user("bad"), assistant("dull story")]
OTHER = [user("great"), assistant("actor")]


@pytest.fixture
def model(tiny_decoder):
    with quiet():
        model = ft.load(tiny_decoder)
    model.tokenizer.chat_template = PLAIN
    return model


def words(model, ids) -> list[str]:
    kept = [int(i) for i in ids if i != IGNORED]
    return model.tokenizer.convert_ids_to_tokens(kept)


@pytest.mark.parametrize(
    ("template", "learned"),
    [(PLAIN, "film <end> dull story <end>"), (MARKED, "film dull story")],
)
def test_only_answers_have_targets(model, template, learned):
    """An answer includes the token that ends it, unless the template marks its answers itself."""
    model.tokenizer.chat_template = template
    encoded = ft.data.from_arrays(messages=[CHAT, OTHER]).encoded(model)
    ids, targets = encoded.inputs["input_ids"][0], encoded.targets[0]
    text = "a very good <end> the film <end> a bad <end> the dull story <end>"
    assert words(model, ids) == text.split()
    assert words(model, targets) == learned.split()
    is_target = targets != IGNORED
    np.testing.assert_array_equal(targets[is_target], ids[1:][is_target[:-1]])


@pytest.mark.slow
def test_a_model_learns_its_answers_and_continues_conversations(model):
    chats = [[user("very good"), assistant("film")], [user("bad"), assistant("dull story")]]
    train = ft.data.from_arrays(messages=chats)
    with quiet(), pytest.warns(UserWarning, match="learning rate"):
        model.compile(**ft.presets.cross_entropy(learning_rate=0.02, schedule="constant"))
        model.fit(train.batches(model, batch_size=2, packing=True), epochs=40, verbose=0)
    questions = [[user("very good")], [user("bad")]]
    answers = ["film", "dull story"]
    assert ft.generate(model, questions, max_new_tokens=4) == answers
    assert ft.generate(model, questions[1], max_new_tokens=4) == "dull story"
    assert "".join(ft.stream(model, questions[1], max_new_tokens=4)) == "dull story"
    assert ft.generate(model, ["a bad <end> the", questions[0]], max_new_tokens=4) == answers[::-1]
    with quiet():
        assert ft.predict(model, questions) == answers
        assert ft.predict(model, questions[0]) == "film"
        assert ft.predict(model, train) == answers  # the last answers are left out
        assert ft.evaluate(model, train).metrics["accuracy"] == 1.0


def test_a_begun_answer_is_continued(model):
    """As the pipeline of transformers does, and without the tokens that end a turn."""
    from finetune_tf.generation.prompts import encode

    begun = [*CHAT[:-1], assistant("dull")]
    (ids,) = encode(model, [begun])
    text = "a very good <end> the film <end> a bad <end> the dull"
    assert words(model, ids) == text.split()
    assert ft.generate(model, [begun], max_new_tokens=3) == ft.generate(
        model, [text], max_new_tokens=3
    )
    with quiet():
        assert ft.predict(model, begun) == ft.predict(model, CHAT[:-1])
    model.tokenizer.chat_template = "{% for m in messages %}a film <end> {% endfor %}"
    with pytest.raises(DataError, match="does not accept prompt 0"):
        ft.generate(model, begun)


def test_files_and_names_of_other_libraries(model, tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(
        '{"conversations": [{"role": "user", "content": "bad"}, '
        '{"role": "assistant", "content": "film", "name": null}]}\n',
        encoding="utf-8",
    )
    examples = ft.data.from_jsonl(path, messages="conversations")
    assert examples.columns["messages"] == [[user("bad"), assistant("film")]]
    assert words(model, examples.encoded(model).targets[0]) == ["film", "<end>"]


def test_the_template_is_saved_with_the_model(model, tmp_path):
    with quiet():
        again = ft.load(model.save_pretrained(tmp_path / "saved"))
    assert again.tokenizer.chat_template == PLAIN


def test_equal_conversations_stay_on_one_side_of_a_split():
    spaced = [user("Great"), assistant("actor ")]
    chats = ft.data.from_arrays(messages=[CHAT, OTHER, spaced])
    assert ft.data.overlap(chats[:2], chats[2:]) == [0]


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ([{"role": "human", "content": "a"}], DataError, "message 0 one with the role 'human'"),
        ([{"content": "a"}], DataError, "one with no role, found"),
        ([user("a"), assistant(" ")], DataError, "message 1 one of assistant with an empty"),
        ([{"role": "user"}], DataError, "one of user with an empty content"),
        ([user(["a"])], DataTypeError, "one whose content is no text but"),
        ("a film", DataTypeError, "row 1 is 'a film'"),
        ([], DataTypeError, r"row 1 is \[\]"),
        (["a", "film"], DataTypeError, "must hold conversations"),
        ([user("a \ud83d")], DataError, "half a surrogate pair"),
    ],
)
def test_messages_in_no_known_form(messages, error, message):
    with pytest.raises(error, match=message):
        ft.data.from_arrays(messages=[OTHER, messages])


def test_conversations_that_cannot_be_encoded(model):
    def encode(*conversations: list) -> object:
        return ft.data.from_arrays(messages=list(conversations)).encoded(model)

    with pytest.raises(DataError, match="ends with a message of user, which the assistant does"):
        encode(OTHER, [user("bad")])
    with pytest.raises(DataError, match="begins with a message of the assistant"):
        encode([assistant("film")])
    with pytest.raises(DataError, match="has a prompt of 33 tokens, which leaves no room"):
        encode([user("bad " * 30), assistant("film")])
    model.tokenizer.chat_template = FORGETFUL
    with pytest.raises(DataError, match="differently up to message 1 than as a whole"):
        encode(CHAT)
    model.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="does not accept row 0 of arrays: roles must alternate"):
        encode(OTHER)
    model.tokenizer.chat_template = "{% generation %}{% endgeneration %}a film"
    with pytest.raises(DataError, match="marks no token of row 0 of arrays as an answer"):
        encode(OTHER)
    model.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="The tokenizer has no chat template"):
        encode(OTHER)
    with pytest.raises(ModelError, match="The tokenizer has no chat template"):
        ft.generate(model, [user("bad")])


def test_without_an_answer_there_is_nothing_to_learn(model):
    questions = ft.data.from_arrays(messages=[[user("bad")]])
    model.compile()
    with pytest.raises(DataError, match="There are no labels"):
        model.fit(questions.batches(model, batch_size=1), verbose=0)
    with pytest.raises(DataError, match="has nothing to score: give completions"):
        ft.evaluate(model, questions)


def test_templates_need_a_package(model, monkeypatch):
    def missing(*args: object, **kwargs: object) -> None:
        raise ImportError("apply_chat_template requires jinja2")

    monkeypatch.setattr(type(model.tokenizer), "apply_chat_template", missing)
    with pytest.raises(ModelError, match=r"pip install 'finetune-tf\[chat\]'"):
        ft.generate(model, [user("bad")])


@pytest.mark.slow
def test_prompts_in_no_known_form(model):
    for messages, error, message in [
        ([{"role": "human", "content": "a"}], DataError, "Prompt 0 has as its message 0 one with"),
        ([user("a"), {"role": "bot", "content": "a"}], DataError, "the role 'bot'; roles are sys"),
        ([{"role": "user"}], DataError, "one of user with an empty content. Write conversations"),
        ([user(["a"])], DataTypeError, "one whose content is no text but"),
    ]:
        with pytest.raises(error, match=message):
            ft.generate(model, messages, max_new_tokens=2)
    calls = {"role": "assistant", "tool_calls": [{"name": "a"}]}
    asked = [user("a"), calls, {"role": "tool", "content": "film"}, user("the")]
    assert isinstance(ft.generate(model, asked, max_new_tokens=2), str)
