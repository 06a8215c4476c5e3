"""Files, arrays and data frames as sources."""

from types import SimpleNamespace

import numpy as np
import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.data import from_arrays, from_csv, from_jsonl, from_pandas
from finetune_tf.errors import DataError, DataTypeError


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def message(read, *args, **options) -> str:
    with pytest.raises(DataError) as error:
        read(*args, **options)
    return str(error.value)


# CSV


def test_csv(write):
    examples = from_csv(write("reviews.csv", 'text,label\n"good, very",pos\nbad,neg\n'))
    assert examples.columns == {"text": ["good, very", "bad"], "label": ["pos", "neg"]}
    assert examples.labels == Labels(["neg", "pos"])
    assert examples.name == "reviews.csv"


def test_csv_columns_of_other_names_and_pairs(write):
    path = write("pairs.csv", "id,question,answer,score\n1,why?,because,3.8\n2,how?,so,2\n")
    examples = from_csv(str(path), text="question", text_pair="answer", label="score")
    assert examples.columns == {
        "text": ["why?", "how?"],
        "text_pair": ["because", "so"],
        "label": [3.8, 2.0],
    }
    assert examples.labels == Labels(["score"], "regression")


def test_csv_several_label_columns(write):
    path = write("comments.csv", "text,toxic,rude\na,1,1\nb,0,0\nc,0,1\n")
    examples = from_csv(path, label=["toxic", "rude"])
    assert examples.columns["label"] == [["toxic", "rude"], [], ["rude"]]
    assert examples.labels == Labels(["toxic", "rude"], "multi_label_classification")


def test_csv_without_labels(write):
    examples = from_csv(write("new.csv", "text\ngood\n"), label=None)
    assert examples.columns == {"text": ["good"]}
    assert examples.labels is None


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.txt", "|"), ("a.csv", "\t")]
)
def test_csv_delimiter_is_read_off_the_header(write, name, delimiter):
    content = "id,text,label\r\n1,good,pos\r\n2,bad,neg\r\n".replace(",", delimiter)
    assert from_csv(write(name, content)).columns["text"] == ["good", "bad"]


def test_a_delimiter_inside_a_column_name_does_not_mislead(write):
    path = write("a.csv", "text;label;a,b,c,d\ngood;pos;1\nbad;neg;2\n")
    assert from_csv(path).columns["label"] == ["pos", "neg"]


def test_tsv_takes_quotes_as_they_are(write):
    path = write("sst2.tsv", 'text\tlabel\n"a fine film\t1\nno "good" , really\t0\n')
    assert from_csv(path).columns["text"] == ['"a fine film', 'no "good" , really']


def test_tsv_that_a_program_has_quoted(write):
    path = write("pandas.tsv", 'text\tlabel\n"He said ""no""."\t1\n"a" b\t0\n')
    with pytest.warns(UserWarning) as caught:
        assert from_csv(path).columns["text"] == ['"He said ""no""."', '"a" b']
    assert str(caught[0].message) == (
        "pandas.tsv: 1 value stands in quotes with doubled quotes inside, such as "
        '\'"He said ""no""."\' in line 2. Quotes are read as they are, because files with tabs '
        "usually quote nothing. Pass quotechar='\"' if a program has added these quotes, and "
        "quotechar='' if they belong to the texts."
    )
    assert from_csv(path, quotechar="").columns["text"][0] == '"He said ""no""."'


def test_tsv_with_quoted_texts(write):
    path = write("quoted.tsv", 'text\tlabel\n"a\tb\nc"\t1\nd\t0\n')
    assert from_csv(path, quotechar='"').columns["text"] == ["a\tb\nc", "d"]
    assert "line 2: found 1 values where the header has 2 columns" in message(
        from_csv, write("plain.tsv", 'text\tlabel\n"a\nb"\t1\n')
    )


def test_csv_byte_order_mark_blank_lines_and_long_texts(write):
    long_text = "word " * 40_000
    path = write("a.csv", f"\ufefftext,label\n\ngood,1\n{long_text},0\n\n")
    assert from_csv(path).columns == {"text": ["good", long_text], "label": ["1", "0"]}


def test_csv_other_encoding(write):
    path = write("a.csv", "text,label\ncafé,1\nthé,0\n".encode("cp1252"))
    assert from_csv(path, encoding="cp1252").columns["text"] == ["café", "thé"]
    assert message(from_csv, path) == (
        "a.csv is not utf-8: byte 0xe9 at offset 14 (line 2) does not fit. Say which encoding it "
        "has, for example encoding='cp1252', 'latin-1' or 'utf-16'."
    )
    assert "Unknown encoding 'klingon'" in message(from_csv, path, encoding="klingon")


def test_csv_missing_columns(write):
    path = write("reviews.csv", "review,stars\ngood,5\n")
    assert message(from_csv, path) == (
        "reviews.csv has no column 'text'. Its columns are 'review', 'stars'. Say which one it is "
        'with text="…".'
    )
    assert message(from_csv, path, text="review") == (
        "reviews.csv has no column 'label'. Its columns are 'review', 'stars'. Say which one it "
        'is with label="…", or label=None for texts without labels.'
    )
    assert 'with text_pair="…"' in message(from_csv, path, text="review", text_pair="answer")


def test_csv_ragged_row(write):
    path = write("a.csv", 'text,label\n"two\nlines",1\ngood, very,1\n')
    assert message(from_csv, path) == (
        "a.csv, line 4: found 3 values where the header has 2 columns. Texts that contain a ',' "
        'or a line end must be in quotes (quotechar=\'"\'). With on_invalid="drop" such '
        "rows are left out."
    )


def test_csv_open_quote(write):
    path = write("a.csv", 'text,label\n"good,1\nbad,0\n')
    assert "a.csv, line 3: unexpected end of data. Check the quotes" in message(from_csv, path)


def test_csv_repeated_column(write):
    path = write("a.csv", "text,label,label\na,1,2\n")
    assert "columns of the same name: ['label']" in message(from_csv, path)


@pytest.mark.parametrize("read", [from_csv, from_jsonl])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_empty_file(write, read, content):
    assert message(read, write("a.csv", content)) == (
        "a.csv is empty: at least one example is needed."
    )


def test_csv_header_only(write):
    assert message(from_csv, write("a.csv", "text,label\n")) == (
        "a.csv has a header but no rows: at least one example is needed."
    )


@pytest.mark.parametrize("read", [from_csv, from_jsonl])
def test_missing_file(tmp_path, read):
    assert message(read, tmp_path / "no.csv") == (
        f"There is no file {tmp_path / 'no.csv'}. Check the path and the working directory."
    )


def test_csv_missing_label_and_text(write):
    path = write("a.csv", "text,label\ngood,pos\nbad,\n")
    assert "Labels of a.csv are missing: line 3 ('')" in message(from_csv, path)
    path = write("b.csv", "text,label\n,pos\nbad,neg\n")
    assert "'text' of b.csv has empty texts: line 2 ('')" in message(from_csv, path)


# JSON Lines


def test_jsonl(write):
    path = write(
        "a.jsonl", '{"text": "line\u2028end", "label": ["x"]}\r\n\n{"text": "b", "label": []}\n'
    )
    examples = from_jsonl(path, labels=["x", "y"])
    assert examples.columns == {"text": ["line\u2028end", "b"], "label": [["x"], []]}
    assert examples.labels == Labels(["x", "y"], "multi_label_classification")


def test_jsonl_broken_line(write):
    path = write("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", \n')
    assert message(from_jsonl, path) == (
        "a.jsonl, line 2 is not JSON: Expecting property name enclosed in double quotes at "
        "character 15. Each line must be one complete JSON object such as "
        '{"text": "…", "label": "…"}. With on_invalid="drop" such rows are left out.'
    )


def test_jsonl_of_something_else_than_objects(write):
    assert "line 1 is a JSON list, ['a']. Each line must be one complete JSON object" in message(
        from_jsonl, write("a.json", '["a"]\n["b"]\n')
    )


def test_jsonl_missing_keys(write):
    path = write("a.jsonl", '{"text": "a", "stars": 1}\n{"text": "b"}\n')
    assert "Its columns are 'text', 'stars'. Say which one it is with label=" in message(
        from_jsonl, path
    )
    assert "Labels of a.jsonl are missing: line 2 (None)" in message(
        from_jsonl, path, label="stars"
    )


# Arrays and data frames


def test_arrays():
    examples = from_arrays(np.array(["a", "b"]), label=np.array([1, 0]), labels=["no", "yes"])
    assert examples.columns == {"text": ["a", "b"], "label": [1, 0]}
    assert examples.labels == Labels(["no", "yes"])


def test_arrays_of_scores_and_flags():
    scores = from_arrays(["a", "b"], label=np.array([[0.5], [1.5]], "float32"))
    assert scores.columns["label"] == [0.5, 1.5]
    flags = from_arrays(["a", "b"], label=np.array([[0, 1], [1, 1]]), labels=["x", "y"])
    assert flags.columns["label"] == [["y"], ["x", "y"]]


def test_unlabeled_arrays_may_know_their_labels():
    examples = from_arrays(["a"], labels=["no", "yes"])
    assert examples.columns == {"text": ["a"]}
    assert examples.labels == Labels(["no", "yes"])


def test_a_single_text_is_no_list():
    with pytest.raises(DataTypeError, match="text= takes a list of texts, found the single text"):
        from_arrays("a fine film")


class Frame(dict):
    """As much of a pandas data frame as is asked for."""

    @property
    def columns(self):
        return list(self)

    def __getitem__(self, column):
        values = super().__getitem__(column)
        return SimpleNamespace(tolist=lambda: values)


def test_data_frame():
    frame = Frame(review=["a", "b"], label=[0.0, 1.0])
    examples = from_pandas(frame, text="review", labels=["no", "yes"])
    assert examples.columns == {"text": ["a", "b"], "label": [0, 1]}
    assert "the data frame has no column 'text'. Its columns are 'review', 'label'" in message(
        from_pandas, frame
    )


def test_no_data_frame():
    with pytest.raises(DataTypeError, match="takes a data frame, found list. For lists and arrays"):
        from_pandas(["a"])
