"""Files of another shape than they seem: read, or one of the library's errors."""

import gzip
import json
import os
import sys
import threading

import pytest

from finetune_tf.data import from_arrays, from_csv, from_jsonl
from finetune_tf.errors import DataError, DataTypeError


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def message(read, *args, **options) -> str:
    with pytest.raises((DataError, DataTypeError)) as error:
        read(*args, **options)
    return str(error.value)


PLAIN = {"text": ["good", "bad"], "label": ["pos", "neg"]}


# CSV


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(write, end):
    path = write("a.csv", f"text,label{end}good,pos{end}bad,neg{end}")
    assert from_csv(path).columns == PLAIN


def test_headers_and_fields_of_any_length(write):
    names = ",".join(f"column_{i}" for i in range(20_000))
    values = "," * 19_999
    path = write("a.csv", f"text,label,{names}\ngood,pos,{values}\nbad,neg,{values}\n")
    assert from_csv(path).columns == PLAIN
    path = write("a.csv", f'text,label,"{"x" * 200_000}"\ngood,pos,{"y" * 200_000}\nbad,neg,\n')
    assert from_csv(path).columns == PLAIN
    told = message(from_csv, path, text="review")
    assert "has no column 'review'. Its columns are 'text', 'label', 'xxx" in told


def test_many_columns_are_not_all_listed(write):
    path = write("a.csv", ",".join(f"c{i}" for i in range(500)) + "\n" + ",".join("1" * 500))
    assert "'c18', 'c19', … (500 in all). Say which one" in message(from_csv, path)


@pytest.mark.parametrize("delimiter", ["", "||", ", ", "\n", "\r", "\0", 5, b","])
def test_delimiters_of_another_length(write, delimiter):
    assert message(from_csv, write("a.csv", "text,label\n"), delimiter=delimiter) == (
        f"delimiter= is one character, such as ',', found {delimiter!r}. Files with more of them "
        "between columns are read by pandas.read_csv(path, sep=…, engine='python') and "
        "ft.data.from_pandas."
    )


def test_quote_characters(write):
    path = write("a.csv", "text,label\n'good',pos\n\"bad,neg\n")
    assert from_csv(path, quotechar="").columns["text"] == ["'good'", '"bad']
    assert "quotechar= is one character" in message(from_csv, path, quotechar="''")
    assert "delimiter and quotechar are both ','" in message(from_csv, path, quotechar=",")


def test_columns_without_a_name_or_of_one_name(write):
    path = write("spam.csv", "label,text,,,\nham,hello,,,\nspam,win,,,\n")
    assert from_csv(path).columns == {"text": ["hello", "win"], "label": ["ham", "spam"]}
    path = write("a.csv", "text,text,label\na,b,c\n")
    assert message(from_csv, path) == ("a.csv has columns of the same name: ['text']. Rename them.")


def test_quotes_that_do_not_end(write):
    path = write("a.csv", 'text,label\ngood,pos\n"bad,neg\nfine,pos\n')
    assert message(from_csv, path) == (
        "a.csv, line 4: unexpected end of data. Check the quotes from line 3 on, or pass "
        "delimiter= and quotechar= as the file has them."
    )
    assert "',' expected after" in message(from_csv, write("a.csv", 'text,label\n"a" b,c\n'))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
def test_encodings(write, encoding):
    path = write("a.csv", "text,label\nthé,pos\nbad,neg\n".encode(encoding))
    assert from_csv(path, encoding=encoding).columns["text"] == ["thé", "bad"]
    assert from_csv(path, encoding=encoding).columns["label"] == ["pos", "neg"]


def test_another_encoding_is_told(write):
    content = "text,label\ngood,pos\nbad,neg\n"
    assert "Its byte order mark says encoding='utf-16'." in message(
        from_csv, write("a.csv", content.encode("utf-16"))
    )
    assert message(from_csv, write("a.csv", content.encode("utf-16-le"))) == (
        "a.csv has NUL characters, the first one in line 1: it is damaged or in another encoding "
        "than 'utf-8'. Say which one it has, for example encoding='cp1252', 'latin-1' or 'utf-16'."
    )
    assert "NUL characters, the first one in line 3" in message(
        from_csv, write("a.csv", "text,label\ngood,pos\nb\0d,neg\n")
    )


@pytest.mark.parametrize("read", [from_csv, from_jsonl])
@pytest.mark.parametrize("encoding", ["klingon", "hex", "zlib", "undefined", "", "a\0b"])
def test_encodings_that_are_none(write, read, encoding):
    told = message(read, write("a.csv", "text,label\na,b\n"), encoding=encoding)
    assert told.startswith(f"Unknown encoding {encoding!r}")


@pytest.mark.parametrize("encoding", [None, 8])
def test_an_encoding_is_a_name(write, encoding):
    assert "encoding= is a name such as 'utf-8', found" in message(
        from_csv, write("a.csv", "text,label\na,b\n"), encoding=encoding
    )


def test_two_threads_read_long_fields(write):
    path = write("a.csv", f"text,label\n{'long ' * 40_000},pos\nbad,neg\n")
    errors = []

    def read():
        try:
            for _ in range(10):
                from_csv(path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# Files of any kind


@pytest.mark.parametrize("read", [from_csv, from_jsonl])
def test_what_is_no_file(tmp_path, read):
    assert message(read, tmp_path) == f"{tmp_path} is a folder. Give the path of one file in it."
    os.mkfifo(tmp_path / "pipe")
    assert message(read, tmp_path / "pipe") == (
        f"{tmp_path / 'pipe'} is a pipe or a device. Write its content to a file first."
    )
    assert "is a pipe or a device" in message(read, "/dev/null")
    assert "cannot be read (File name too long)" in message(read, "x" * 5000)
    assert "There is no file a\\0b." in message(read, "a\0b")
    for wrong in (None, 5, sys.stdin, ["a.csv"]):
        assert "path= is the path of a file, found a " in message(read, wrong)


def test_packed_files(write):
    assert from_csv(
        write("a.csv.gz", gzip.compress(b"text,label\ngood,pos\nbad,neg\n"))
    ).columns == (PLAIN)
    tsv = write("a.tsv.gz", gzip.compress(b"text\tlabel\ngood\tpos\nbad\tneg\n"))
    assert from_csv(tsv).columns == PLAIN
    lines = b'{"text": "good", "label": "pos"}\n{"text": "bad", "label": "neg"}\n'
    assert from_jsonl(write("a.jsonl.gz", gzip.compress(lines))).columns == PLAIN
    damaged = gzip.compress(lines)[:-10]
    assert "is a damaged gzip file" in message(from_jsonl, write("b.jsonl.gz", damaged))


@pytest.mark.parametrize(
    ("begin", "told"),
    [
        (b"PK\x03\x04", "an Excel sheet or a ZIP archive: read sheets with ft.data.from_excel"),
        (b"\xd0\xcf\x11\xe0", "an old Excel file (.xls): save it as .xlsx"),
        (b"PAR1", "a Parquet file: read it with pandas"),
        (b"%PDF-1.7", "a PDF file"),
    ],
)
def test_files_of_other_formats(write, begin, told):
    assert told in message(from_csv, write("a.csv", begin + b"\0\1"))


# JSON


def objects(*rows) -> str:
    return "\n".join(rows)


GOOD, BAD = '{"text": "good", "label": "pos"}', '{"text": "bad", "label": "neg"}'


@pytest.mark.parametrize(
    "content",
    [
        f"{GOOD}\n{BAD}",
        f"\ufeff{GOOD}\r\n\r\n{BAD}\r\n",
        f"{GOOD}\r{BAD}\r",
        f"[{GOOD}, {BAD}]",
        f"\n [\n{GOOD},\n{BAD}\n]\n",
        json.dumps([json.loads(GOOD), json.loads(BAD)], indent=2),
    ],
)
def test_json_lines_and_arrays(write, content):
    assert from_jsonl(write("a.json", content)).columns == PLAIN


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('["good", "pos"]\n["bad", "neg"]', "line 1 is a JSON list, ['good', 'pos']. Each line"),
        (f"[{GOOD}, 5]", "item 2 is a JSON int, 5. Each item must be one complete JSON object"),
        ("[]", "a.jsonl has no JSON objects: at least one example is needed."),
        (f"[{GOOD},", "a.jsonl begins as a JSON array but is none"),
        ("5\n", "line 1 is a JSON int, 5"),
        ('{"text": "good", "text": "bad", "label": 1}', "the key 'text' stands twice"),
        ('{"text": ' + "[" * 100_000, "its values are nested too deeply"),
        ("[" * 100_000, "its values are nested too deeply"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('{"text": "a", "label": ' + "9" * 400 + "}", "A label of a.jsonl is a text or a number"),
        ('{"text": "a", "label": 1e999}', "A number has to be finite"),
        ('{"text": "a", "label": NaN}', "Labels of a.jsonl are missing: line 1 (nan)"),
        ('{"text": NaN, "label": 1}\n{"text": "b", "label": 2}', "has empty texts: line 1 (nan)"),
        ('{"text": "\\ud83d", "label": 1}\n{"text": "b", "label": 2}', "half a surrogate pair"),
        ('{"text": "a", "label": "\\ud83d"}\n{"text": "b", "label": 2}', "half a surrogate pair"),
        ('{"\\ud83d": "a"}', "Its columns are '\\ud83d'."),
        ('{"text": {"body": "a"}, "label": 1}\n{"text": "b", "label": 0}', 'text="review.body"'),
        (
            json.dumps({"data": [{"text": "a"}]}, indent=1),
            "one object over many lines. Its rows seem to stand at 'data'",
        ),
    ],
)
def test_json_of_another_shape(write, content, told):
    assert told in message(from_jsonl, write("a.jsonl", content))


def test_a_whole_surrogate_pair_is_a_character(write):
    path = write("a.jsonl", '{"text": "\\ud83d\\ude00", "label": 1}\n{"text": "b", "label": 0}')
    assert from_jsonl(path).columns["text"] == ["😀", "b"]


# Objects within objects


NESTED = [
    {"review": {"body": "good", "by.whom": {"id": 1}}, "topics": [{"name": "a"}], "a.b": "x"},
    {"review": {"body": "bad", "by.whom": {"id": 2}}, "topics": [{"name": "b"}], "a.b": "y"},
]


@pytest.fixture
def nested(write):
    return write("nested.jsonl", objects(*map(json.dumps, NESTED)))


@pytest.mark.parametrize(
    ("label", "values"),
    [("a.b", ["x", "y"]), ("topics.0.name", ["a", "b"]), ("review.by.whom.id", [1, 2])],
)
def test_paths_lead_to_values(nested, label, values):
    examples = from_jsonl(nested, text="review.body", label=label)
    assert examples.columns == {"text": ["good", "bad"], "label": values}


def test_paths_that_lead_nowhere(nested):
    assert message(from_jsonl, nested, text="review.text", label=None) == (
        "nested.jsonl has the column 'review', but nothing at 'review.text' in it; its values "
        "have the keys 'body', 'by.whom'. Say which one it is with text=\"…\"."
    )
    assert "nothing at 'topics.1.name' in it" in message(
        from_jsonl, nested, text="review.body", label="topics.1.name"
    )
    assert "has no column 'reviews.body'" in message(from_jsonl, nested, text="reviews.body")


def test_a_path_that_leads_nowhere_in_one_row(write):
    rows = [*NESTED, {"review": {}, "a.b": "x"}]
    path = write("nested.jsonl", objects(*map(json.dumps, rows)))
    told = message(from_jsonl, path, text="review.body", label="a.b")
    assert "has empty texts: line 3 (None); 1 of 3 rows." in told
    kept = from_jsonl(path, text="review.body", label="a.b", on_invalid="drop")
    assert kept.columns["text"] == ["good", "bad"]


def test_what_names_no_column(nested):
    for wrong in (5, ["text"], {"text": 1}):
        assert "text= is the name of a column of nested.jsonl" in message(
            from_jsonl, nested, text=wrong
        )
    assert "label= is the name of a column" in message(
        from_jsonl, nested, text="review.body", label=5
    )


def test_a_message_says_that_texts_are_missing_values_written_as_texts(capsys):
    texts = ["good", str(float("nan")), "bad", "nan"]
    assert from_arrays(texts, [1, 0, 0, 0]).columns["text"] == texts
    assert capsys.readouterr().out == (
        "arrays: 2 texts are 'nan' in the column 'text', which str() makes of a missing value: row "
        "1, row 3. Remove such rows before they become texts: frame.dropna().\n"
    )
