"""Damaged files of the library's own: an error that says what to do, or they are made again."""

import json
import pickle

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import CacheError, DataError


@pytest.fixture(scope="module")
def films():
    texts = ["the film was good", "a dull story and bad actor"] * 8
    return ft.data.from_arrays(texts, ["good", "bad"] * 8)


@pytest.fixture(scope="module")
def model(tiny_bert):
    model = ft.load(tiny_bert, labels=["good", "bad"], pooling="mean")
    ft.train_only(model, ft.select.head())
    return model


@pytest.fixture
def tokens(films, model, tmp_path):
    ft.data.write_tokens([films], model, tmp_path / "tokens")
    return tmp_path / "tokens"


def pickled(path):
    """A NumPy file with Python objects, which only a pickle can hold."""
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def huge(path):
    """A header of more numbers than the file has."""
    np.save(path, np.zeros(3, dtype="int64"))
    path.write_bytes(path.read_bytes().replace(b"(3,), }", b"(9999999999999,), }"))


DAMAGES = {
    "removed": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0" * 8),
    "text": lambda path: path.write_text("not what it should be"),
    "pickle": lambda path: path.write_bytes(pickle.dumps([1, 2])),
}
OF_ARRAYS = {
    "objects": pickled,
    "huge": huge,
    "type": lambda path: np.save(path, np.array(["a", "b"])),
    "shape": lambda path: np.save(path, np.zeros((2, 3, 4, 5))),
    "backwards": lambda path: np.save(path, np.load(path)[::-1] - 3),
}


@pytest.mark.parametrize("name", ["tokens.json", "ends.npy", "targets.npy", "input_ids.bin"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tokens(name, damage, tokens):
    if (name, damage) in {("ends.npy", "longer"), ("targets.npy", "longer")}:
        return  # the header says how much counts
    DAMAGES[damage](tokens / name)
    with pytest.raises(DataError, match=r"(damaged|no tokens|not valid JSON|cannot be read)"):
        ft.data.read_tokens(tokens)


@pytest.mark.parametrize("damage", OF_ARRAYS)
@pytest.mark.parametrize("name", ["ends.npy", "targets.npy"])
def test_damaged_arrays_of_tokens(name, damage, tokens):
    if (name, damage) == ("targets.npy", "backwards"):
        return  # any numbers can be targets
    OF_ARRAYS[damage](tokens / name)
    with pytest.raises(DataError, match="damaged or missing|damaged"):
        ft.data.read_tokens(tokens)


TOKEN_IDS = {"axis": "tokens", "padding": 0, "dtype": "int32", "shape": []}
RECORDS = (
    {"axis": "words"}, {"axis": 1}, {"axis": []}, {"padding": "a"}, {"padding": None},
    {"dtype": "object"}, {"dtype": "int64"}, {"dtype": 4}, {"dtype": []}, {"shape": [-1]},
    {"shape": [3]}, {"shape": None}, {"shape": ["a"]}, {"more": 1}, {"axis": None},
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"../../etc/passwd": TOKEN_IDS}}, {"inputs": {}}, {"inputs": [3]},
        {"inputs": {"input_ids": None}}, {"inputs": {"pixels": TOKEN_IDS}},
        *({"inputs": {"input_ids": TOKEN_IDS | record}} for record in RECORDS),
        {"group": 0}, {"group": "2"}, {"max_length": -1}, {"tokens": 5}, {"tokens": 1.5},
        {"rows": 15}, {"rows": None}, {"rows": 0},
        {"targets": "rows"}, {"targets": TOKEN_IDS}, {"targets": {"axis": "tokens"}},
        {"made_by": []},
    ],
)  # fmt: skip
def test_what_tokens_json_may_say(change, tokens):
    about = json.loads((tokens / "tokens.json").read_text())
    (tokens / "tokens.json").write_text(json.dumps(about | change))
    with pytest.raises(DataError):
        ft.data.read_tokens(tokens)


@pytest.mark.parametrize(
    "change",
    [
        {"features": ["../../etc/passwd"]}, {"features": []}, {"features": [3]}, {"features": None},
        {"pad_values": {}}, {"pad_values": {"input_ids": "a", "token_type_ids": 0}},
        {"group": 0}, {"tokens": 5}, {"targets": "columns"}, {"targets": "tokens"},
    ],
)  # fmt: skip
def test_what_tokens_json_of_the_first_format_may_say(change, tokens):
    about = json.loads((tokens / "tokens.json").read_text()) | {
        "features": ["input_ids", "token_type_ids"],
        "pad_values": {"input_ids": 0, "token_type_ids": 0},
        "targets": "rows",
    }
    (tokens / "tokens.json").write_text(json.dumps(about))
    assert len(ft.data.read_tokens(tokens)) == 16
    (tokens / "tokens.json").write_text(json.dumps(about | change))
    with pytest.raises(DataError):
        ft.data.read_tokens(tokens)


def test_tokens_of_a_larger_vocabulary(films, tokens, model):
    about = json.loads((tokens / "tokens.json").read_text())
    assert about["largest_id"] < model.config["vocab_size"]
    (tokens / "tokens.json").write_text(json.dumps(about | {"largest_id": 400}))
    with pytest.raises(DataError, match="go up to the id 400, but .* table has 22 rows"):
        ft.data.read_tokens(tokens).batches(model)


def test_tokens_written_after_other_calls_are_of_the_same_tokenizer(
    films, model, tiny_bert, tokens
):
    fresh = ft.load(tiny_bert, labels=["good", "bad"], pooling="mean")
    model.tokenizer("the film " * 30, truncation=True, max_length=5, padding="max_length")
    read = ft.data.read_tokens(tokens)
    assert list(read.batches(fresh)) and list(read.batches(model))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [*sorted(set(DAMAGES) - {"removed", "longer"}), *OF_ARRAYS])
def test_damaged_features_are_computed_again(damage, films, model, tmp_path, capsys):
    good = list(films.batches(ft.cache_features(model, tmp_path), 4).as_numpy_iterator())
    (file,) = tmp_path.iterdir()
    {**DAMAGES, **OF_ARRAYS}[damage](file)
    if damage == "backwards":
        np.save(file, np.load(file).astype("float64"))
    capsys.readouterr()
    again = list(films.batches(ft.cache_features(model, tmp_path), 4).as_numpy_iterator())
    for one, other in zip(good, again, strict=True):
        np.testing.assert_array_equal(one[0]["cached_features"], other[0]["cached_features"])
    assert f"computed again, because {file} is damaged" in capsys.readouterr().out
    films.batches(ft.cache_features(model, tmp_path), 4)
    assert f"read from {file}" in capsys.readouterr().out


def test_features_where_no_folder_can_be(films, model, tmp_path):
    (tmp_path / "file").write_text("text")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CacheError, match="cannot be written"):
            films.batches(ft.cache_features(model, folder))
    with pytest.raises(CacheError, match="is not a valid path"):
        ft.cache_features(model, f"{tmp_path}/a\0b")
