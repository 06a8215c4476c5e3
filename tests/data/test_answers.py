"""Questions with contexts and answers, from every source and in every form."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from finetune_tf.data import (
    from_arrays,
    from_csv,
    from_huggingface,
    from_jsonl,
    from_pandas,
    from_tfds,
)
from finetune_tf.errors import DataError, DataTypeError

CONTEXT = "the film was good and the actor was good"
COLUMNS = {"question": "question", "context": "context", "answers": "answers"}
SQUAD = {"text": ["good", "was good"], "answer_start": [13, 9]}


def asked(answers, context=CONTEXT):
    return from_arrays(question=["how?"], context=[context], answers=[answers], name="toy")


@pytest.mark.parametrize(
    "given",
    [
        SQUAD,
        {"text": np.array(["good", "was good"]), "answer_start": np.array([13, 9])},
        [{"text": "good", "answer_start": 13}, {"text": "was good", "answer_start": 9}],
        ["good", "was good"],
    ],
    ids=["squad", "arrays", "list", "texts"],
)
def test_forms_of_answers(given):
    examples = asked(given)

    assert examples.columns["answers"] == [SQUAD]
    assert examples[:1].columns == examples.columns
    json.dumps(examples.columns)


def test_one_answer():
    assert asked("film").columns["answers"] == [{"text": ["film"], "answer_start": [4]}]
    assert asked({"text": "film", "answer_start": 4}).columns["answers"][0]["answer_start"] == [4]


@pytest.mark.parametrize("given", ["", [], {"text": [], "answer_start": []}, {"text": [""]}])
def test_no_answer(given):
    assert asked(given).columns["answers"] == [{"text": [], "answer_start": []}]


def test_a_start_decides_between_places_and_is_said_to_be_missing(capsys):
    given = asked({"text": ["good"], "answer_start": [36]})
    assert given.columns["answers"][0]["answer_start"] == [36]
    assert capsys.readouterr().out == ""

    assert asked(["good"]).columns["answers"][0]["answer_start"] == [13]
    assert capsys.readouterr().out == (
        "toy: 1 answers have no start and occur in several places of their context; "
        "the first one counts.\n"
    )


def test_an_answer_that_is_not_in_its_context():
    with pytest.raises(DataError, match="'Good' of row 0 of toy does not occur in its context"):
        asked("Good")
    with pytest.raises(DataError, match=r"start at character 12, where ' goo' stands; it .* at 13"):
        asked({"text": ["good"], "answer_start": [12]})
    with pytest.raises(DataError, match=r"character -1.* row 1 \('film'\); 1 of 2 rows"):
        from_arrays(
            question=["what?"] * 2,
            context=[CONTEXT] * 2,
            answers=["film", {"text": ["film"], "answer_start": [-1]}],
        )


@pytest.mark.parametrize("given", [None, 7, [7], float("nan"), {"answer": "film"}])
def test_what_is_no_answer(given):
    with pytest.raises(DataTypeError, match=r"answers of row 0 of toy are .* Give them as in SQ"):
        asked(given)


def test_answers_need_as_many_starts_and_a_context():
    with pytest.raises(DataError, match=r"with the starts \[13, 9\]: each needs one"):
        asked({"text": ["good"], "answer_start": [13, 9]})
    with pytest.raises(DataError, match="none may be empty"):
        asked(["good", " "])
    with pytest.raises(DataError, match="a whole number"):
        asked({"text": ["good"], "answer_start": ["13"]})
    with pytest.raises(DataError, match="arrays has answers but no contexts"):
        from_arrays(question=["how?"], answers=["good"])


ROWS = {"question": ["how?", "who?"], "context": [CONTEXT] * 2, "answers": [SQUAD, {"text": []}]}
EXPECTED = ROWS | {"answers": [SQUAD, {"text": [], "answer_start": []}]}


def test_json_lines_and_csv(tmp_path):
    rows = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert from_jsonl(tmp_path / "q.jsonl", **COLUMNS).columns == EXPECTED

    (tmp_path / "q.csv").write_text(f"q,c,a\nwhat?,{CONTEXT},film\nwho?,{CONTEXT},\n")
    examples = from_csv(tmp_path / "q.csv", question="q", context="c", answers="a")
    assert [row["text"] for row in examples.columns["answers"]] == [["film"], []]


class Table:
    """As much of a `datasets.Dataset` and of a data frame as is asked for."""

    columns = column_names = list(ROWS)

    def __getitem__(self, column):
        return np.array(ROWS[column])


@pytest.mark.parametrize("read", [from_huggingface, from_pandas])
def test_tables(read):
    assert read(Table(), **COLUMNS).columns == EXPECTED


class LocalSquad(tfds.core.GeneratorBasedBuilder):
    """As much of TFDS's "squad" as is asked for."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        answer = {"text": tfds.features.Text(), "answer_start": np.int32}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "question": tfds.features.Text(),
                    "context": tfds.features.Text(),
                    "answers": tfds.features.Sequence(answer),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(2):
            yield i, {name: values[i] for name, values in EXPECTED.items()}


def test_tensorflow_datasets(tmp_path):
    builder = LocalSquad(data_dir=tmp_path)
    builder.download_and_prepare()

    columns = from_tfds(builder, **COLUMNS).columns

    order = np.argsort(columns["question"])  # TFDS shuffles
    assert {k: [values[i] for i in order] for k, values in columns.items()} == EXPECTED
