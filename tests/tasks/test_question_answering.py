"""Question answering from contexts to answers, on a random BERT of a few words."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf import cli
from finetune_tf.data import from_arrays
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.tasks import Answer, get_task

# The toy model is random, so there is nothing that a high rate could ruin.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")

TASK = get_task("question-answering")
PART = "a film was very good and the actor was not bad but long and dull"
LONG = " ".join([PART] * 3)  # 45 words


@pytest.fixture(scope="module")
def model(tiny_bert):
    return ft.load(tiny_bert, "question-answering")


def questions(question, context, answers, name="toy"):
    return from_arrays(question=question, context=context, answers=answers, name=name)


def test_outputs_and_config(model):
    assert model(np.ones((3, 7), "int32")).shape == (3, 2, 7)
    assert model.labels is None
    assert model.config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}
    assert [stage.name for stage in model.stages][-1] == "classifier"


def test_a_short_context_is_one_row(model):
    examples = questions(["good film"], ["the film was very good"], ["very good"])

    encoded = TASK.encode(examples, model.tokenizer, 32)

    (offsets,) = encoded.offsets  # [CLS] good film [SEP] the film was very good [SEP]
    assert encoded.targets.rows.tolist() == [[7, 8]]
    assert offsets[:4].tolist() == [[-1, -1]] * 4
    assert offsets[4:9].tolist() == [[0, 3], [4, 8], [9, 12], [13, 17], [18, 22]]
    assert encoded.inputs["token_type_ids"][0].tolist() == [0] * 4 + [1] * 6


def test_windows_are_those_of_the_tokenizer(model):
    contexts = [LONG, "a good film", LONG[:90]]
    examples = questions(["good film", "bad", "dull actor"], contexts, ["very good", "film", ""])

    encoded = TASK.encode(examples, model.tokenizer, 28, stride=9)

    whole = model.tokenizer(
        examples.columns["question"],
        contexts,
        truncation="only_second",
        max_length=28,
        stride=9,
        return_overflowing_tokens=True,
    )
    assert [row.tolist() for row in encoded.inputs["input_ids"]] == whole["input_ids"]
    assert [row.tolist() for row in encoded.inputs["token_type_ids"]] == whole["token_type_ids"]
    assert encoded.example.tolist() == whole["overflow_to_sample_mapping"]


def test_targets_of_windows(model, capsys):
    start = LONG.rindex("very good")  # words 33 and 34
    examples = questions(
        ["good"], [LONG], [{"text": ["very good"], "answer_start": [start]}], name="films"
    )

    encoded = examples.encoded(model, max_length=32)  # room for 28 words, of which 14 are shared

    assert encoded.example.tolist() == [0, 0, 0]
    assert encoded.targets.rows.tolist() == [[0, 0], [22, 23], [8, 9]]
    for (first, last), offsets in zip(encoded.targets.rows[1:], encoded.offsets[1:], strict=True):
        assert LONG[offsets[first][0] : offsets[last][1]] == "very good"
    assert "films: 1 questions make 3 rows" in capsys.readouterr().out


def test_an_answer_longer_than_what_windows_share_is_told(model, capsys):
    answer = LONG[7:150]  # 30 words
    examples = questions(["good"], [LONG], [answer])

    encoded = examples.encoded(model, max_length=32)

    assert not encoded.targets.rows.any()
    assert "toy: 1 answers are too long" in capsys.readouterr().out


def test_the_stride_can_be_chosen(model):
    examples = questions(["good"], [LONG], ["very good"])

    assert len(examples.encoded(model, max_length=32, stride=2).example) == 2
    with pytest.raises(ArgumentError, match="stride must be an integer >= 0, found -1"):
        examples.batches(model, stride=-1)


def test_a_question_longer_than_the_window(model):
    examples = questions(["bad", "good " * 20], [LONG, LONG], ["film", "film"])

    with pytest.raises(
        DataError,
        match=r"row 1 of toy has 20 tokens, which leaves 9 of max_length=32 for its context of 45;"
        r" at least 16 are needed\. Shorten the question, or raise max_length",
    ):
        examples.batches(model, max_length=32)


def test_rows_have_up_to_384_tokens_unless_asked_otherwise():
    assert TASK.row_length(512) == 384
    assert TASK.row_length(256) == 256
    assert get_task("text-classification").row_length(512) == 512


def test_offsets_leave_out_white_space():
    """Some tokenizers count the space before a word to it."""
    from finetune_tf.tasks.windows import _without_spaces

    offsets = np.array([[0, 2], [2, 6], [6, 7], [7, 9]])
    assert _without_spaces(offsets, "ab  cd\u3000é\n").tolist() == [[0, 2], [4, 6], [7, 7], [7, 9]]


@pytest.mark.parametrize("trim_offsets", [True, False])
@pytest.mark.parametrize("answer", ["café", "€5", "😀", "costs €5 😀", "Zürich"])
def test_answers_in_tokens_of_bytes(trim_offsets, answer):
    """Characters of several tokens, and spaces that belong to the next word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"<s>": 0, "</s>": 1, "<pad>": 2}
    alphabet = {letter: i + 3 for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    fast = Tokenizer(models.BPE(special | alphabet, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.post_processor = processors.RobertaProcessing(
        ("</s>", 1), ("<s>", 0), trim_offsets=trim_offsets, add_prefix_space=False
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>")
    context = "The café  costs €5 😀 today, they said in Zürich."

    encoded = TASK.encode(questions(["Où?"], [context], [answer]), tokenizer, 384)

    ((first, last),), (offsets,) = encoded.targets, encoded.offsets
    assert context[offsets[first][0] : offsets[last][1]] == answer


def described(logits, contexts, offsets, example, **options):
    """Answers from logits written by hand."""
    return TASK.describe(
        [np.array(row, "float32") for row in logits],
        SimpleNamespace(offsets=[np.array(row) for row in offsets], example=np.array(example)),
        from_arrays(question=["?"] * len(contexts), context=contexts),
        **options,
    )


# [CLS] ? [SEP] ab cd ef [SEP]
OFFSETS = [[-1, -1]] * 3 + [[0, 2], [3, 5], [6, 8]] + [[-1, -1]]


def test_the_best_valid_span_wins():
    start, end = [0, 9, 0, 1, 2, 4, 9], [0, 9, 0, 3, 1, 2, 9]

    (answer,) = described([[start, end]], ["ab cd ef"], [OFFSETS], [0])

    # ef..ef 6; tokens outside of the context, and ends before starts (ef..ab 7), do not count.
    scores = [4, 2, 3, 3, 4, 6, 0]  # ab, ab cd, ab..ef, cd, cd ef, ef, no answer
    assert (answer.text, answer.start, answer.end) == ("ef", 6, 8)
    assert answer.score == pytest.approx(np.exp(6) / np.exp(scores).sum(), rel=1e-5)
    assert repr(answer) == f"Answer('ef', {answer.score:.3f})"


def test_long_spans_do_not_count():
    start, end = [0, 0, 0, 5, 0, 1, 0], [0, 0, 0, 0, 1, 5, 0]

    (whole,) = described([[start, end]], ["ab cd ef"], [OFFSETS], [0])
    (short,) = described([[start, end]], ["ab cd ef"], [OFFSETS], [0], max_answer_length=2)

    assert (whole.text, short.text) == ("ab cd ef", "ab cd")
    with pytest.raises(ArgumentError, match="max_answer_length must be an integer >= 1, found 0"):
        described([[start, end]], ["ab cd ef"], [OFFSETS], [0], max_answer_length=0)


def test_the_best_window_wins_and_no_answer_has_to_win_in_all():
    low, high = [[0, 0, 0, 1, 1, 1, 0]] * 2, [[1, 0, 0, 0, 0, 1.5, 0]] * 2
    windows, contexts = [high, low, low], ["ab cd ef", "gh ij kl"]

    answers = described(windows, contexts, [OFFSETS] * 3, [0, 0, 1])
    assert [answer.text for answer in answers] == ["ef", "gh"]

    silent = [[[4, 0, 0, 1, 1, 1, 0]] * 2] * 2
    (none,) = described(silent, contexts[:1], [OFFSETS] * 2, [0, 0])
    assert none == Answer("", None, None, pytest.approx(1 / (1 + 6 * np.exp(2 - 8))))
    (forced,) = described(silent, contexts[:1], [OFFSETS] * 2, [0, 0], null_threshold=None)
    assert forced.text == "ab"
    (doubted,) = described(silent, contexts[:1], [OFFSETS] * 2, [0, 0], null_threshold=6.5)
    assert doubted.text == "ab"


def test_evaluation_leaves_questions_open_only_where_some_have_no_answer():
    logits, encoded = (
        [np.array([[9.0, 0, 0, 1, 0, 0, 0]] * 2)],
        SimpleNamespace(offsets=[np.array(OFFSETS)], example=np.array([0])),
    )
    open_ended = questions(["?"], ["ab cd ef"], [""])

    assert TASK.decide(logits, encoded, questions(["?"], ["ab cd ef"], ["cd"])) == ["ab"]
    assert TASK.decide(logits, encoded, open_ended) == [""]
    assert TASK.targets(open_ended) == [[]]


def test_predict(model):
    one = ft.predict(model, question="good film", context=LONG, null_threshold=None)
    assert LONG[one.start : one.end] == one.text
    assert 0 < one.score < 1

    several = ft.predict(
        model, question=["good film"] * 2, context=[LONG, "dull"], null_threshold=None
    )
    assert several[0] == one
    assert several[1].text == "dull"

    examples = questions(["good film"] * 2, [LONG, "dull"], ["film", ""])
    assert ft.predict(model, examples, null_threshold=None) == several


def test_predict_says_what_it_takes(model):
    with pytest.raises(DataError, match=r"takes question= and context= by name, found texts"):
        ft.predict(model, "good film", "the film was good")
    with pytest.raises(DataError, match=r"by name, found question: ft\.predict\(model, question="):
        ft.predict(model, question="good film")
    with pytest.raises(DataError, match="found tokens, question, context.* Options are null_thres"):
        ft.predict(model, question="good", context="film", tokens=["film"])
    with pytest.raises(ModelError, match="predict.. has no argument 'top_k'. It has .*null_thres"):
        ft.predict(model, question="good", context="film", top_k=3)
    with pytest.raises(DataError, match="question and context belong together"):
        ft.predict(model, question="good", context=["film"])


def test_data_of_another_task(model):
    reviews = from_arrays(["a good film", "dull"], ["good", "bad"], name="reviews")

    with pytest.raises(ModelError) as raised:
        reviews.batches(model)
    assert str(raised.value) == (
        "The task question-answering reads the columns question, context, answers, but reviews has "
        'text, label. Name them when reading it, for example from_jsonl(path, question="…", '
        'context="…"). With these columns the task can be text-classification, feature-extraction.'
    )
    with pytest.raises(DataError, match="reviews has no answers, so nothing can be measured"):
        ft.evaluate(model, reviews)
    with pytest.raises(ModelError, match="but arrays has question"):
        from_arrays(question=["good film"]).batches(model)


def films(rows, seed):
    """What follows "very" answers the question."""
    random = np.random.default_rng(seed)
    contexts, answers = [], []
    for _ in range(rows):
        before, after = random.choice(["a", "film", "was", "actor", "and"], (2, 4))
        answer = random.choice(["good", "bad", "fine", "dull", "long"])
        contexts.append(" ".join([*before[: random.integers(1, 4)], "very", answer, *after]))
        answers.append(answer)
    return questions(["the film"] * rows, contexts, answers, name="films")


@pytest.mark.slow
def test_the_recipe_learns_measures_and_saves(tiny_bert, tmp_path):
    train, test = films(96, 0), films(24, 1)
    result = ft.finetune(
        tiny_bert, train, films(16, 2), test, task="question-answering", epochs=8, batch_size=16,
        learning_rate=1e-2,
    )  # fmt: skip

    report = result.report
    assert report.metrics["f1"] > 0.9
    assert report.baseline.name == "overlap"
    assert str(report).startswith("films: 24 questions")
    assert result.settings["max_length"] == 32
    folder = result.save(tmp_path / "run")
    stored = json.loads((folder / "report.json").read_text())
    assert stored["main_metric"] == "f1" and stored["texts"] == 24
    assert (folder / "report.png").is_file()
    card = (folder / "checkpoint" / "README.md").read_text()
    assert 'ft.load("path/to/this/folder", "question-answering")' in card
    assert "AutoModelForQuestionAnswering" in card

    again = ft.load(folder / "checkpoint", "question-answering")
    asked = {"question": "the film", "context": "a film very dull and was"}
    assert ft.predict(again, **asked) == ft.predict(result.model, **asked)
    assert ft.predict(again, **asked).text == "dull"

    comparison = ft.compare({"one": result.model, "two": again}, test, "first", train)
    assert comparison.rows[1].difference.value == 0
    comparison.plot()
    given = ft.evaluate(again, test, baseline=["good"] * 23 + [ft.predict(again, **asked)])
    assert given.baseline.metrics["f1"] < 0.5
    with pytest.raises(DataTypeError, match="are one text each, '' for no answer; found 3"):
        ft.evaluate(again, test, baseline=[3] * 24)


@pytest.mark.slow
def test_command_line(tiny_bert, tmp_path, monkeypatch, capsys):
    columns = films(16, 0).columns
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    data = tmp_path / "films.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    named = ["--task", TASK.name]
    asked = ["--question", "film", "--context", "a good film"]
    columns = ["--question", "question", "--context", "context", "--answers", "answers"]

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["finetune-tf", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
        return capsys.readouterr().out

    output = tmp_path / "run"
    run("train", tiny_bert, data, "--output", output, "--epochs", 1, *named, *columns)
    assert "exact_match" in run("evaluate", output / "checkpoint", data, *named, *columns)
    told = run("predict", output / "checkpoint", *named, *asked)
    assert set(json.loads(told)) == {"question", "context", "text", "start", "end", "score"}
