"""Data sets of the datasets library, which need not be installed to be read."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.data import from_huggingface
from finetune_tf.errors import DataError, DataTypeError, MissingExtraError


class Dataset:
    """As much of a `datasets.Dataset` as is asked for."""

    def __init__(self, features=None, **columns):
        self.columns = columns
        self.column_names = list(columns)
        self.features = features or {}

    def __getitem__(self, column):
        return self.columns[column]


CLASS_LABEL = SimpleNamespace(names=["neg", "pos"])


def test_class_numbers_become_their_names():
    dataset = Dataset({"label": CLASS_LABEL}, text=["a", "b"], label=[1, 1])
    examples = from_huggingface(dataset)
    assert examples.columns == {"text": ["a", "b"], "label": ["pos", "pos"]}
    assert examples.labels == Labels(["neg", "pos"])


def test_lists_of_class_numbers_become_lists_of_names():
    dataset = Dataset(
        {"labels": SimpleNamespace(feature=CLASS_LABEL)}, text=["a", "b"], labels=[[1, 0], []]
    )
    examples = from_huggingface(dataset, label="labels")
    assert examples.columns["label"] == [["pos", "neg"], []]
    assert examples.labels == Labels(["neg", "pos"], "multi_label_classification")


def test_names_of_class_numbers_inside_of_objects():
    features = {
        "answer": {"class": CLASS_LABEL},
        "rows": SimpleNamespace(feature={"y": CLASS_LABEL}),
    }
    columns = {"text": ["a", "b"], "answer": [{"class": 1}, {"class": 0}]}
    dataset = Dataset(features, **columns, rows=[[{"y": 0}], [{"y": 1}]])
    examples = from_huggingface(dataset, label="answer.class")
    assert examples.columns["label"] == ["pos", "neg"]
    assert from_huggingface(dataset, label="rows.0.y").columns["label"] == ["neg", "pos"]


def test_class_numbers_as_scores():
    dataset = Dataset({"label": CLASS_LABEL}, text=["a", "b"], label=[1, 0])
    examples = from_huggingface(dataset, problem_type="regression")
    assert examples.columns["label"] == [1.0, 0.0]


def test_hidden_labels():
    dataset = Dataset({"label": CLASS_LABEL}, text=["a"], label=[-1])
    with pytest.raises(DataError, match=r"found row 0 \(-1\); .* read such data with label=None"):
        from_huggingface(dataset)
    assert from_huggingface(dataset, label=None).columns == {"text": ["a"]}


def test_splits():
    splits = {"train": Dataset(text=["a"]), "test": Dataset(text=["b"])}
    assert from_huggingface(splits, split="test", label=None).columns["text"] == ["b"]
    with pytest.raises(DataError) as error:
        from_huggingface(splits)
    assert str(error.value) == (
        'Say which split to read of the data set: split="…", one of train, test.'
    )
    with pytest.raises(DataError, match="There is no split 'dev' of the data set"):
        from_huggingface(splits, split="dev")


def test_missing_column():
    with pytest.raises(DataError, match="the data set has no column 'text'. Its columns are 's'"):
        from_huggingface(Dataset(s=["a"]))


def test_a_streamed_data_set():
    with pytest.raises(DataTypeError) as error:
        from_huggingface(SimpleNamespace(column_names=None))
    assert str(error.value) == (
        "from_huggingface takes a datasets.Dataset, found SimpleNamespace. Load it without "
        "streaming=True; for other tables there is from_pandas."
    )


def test_a_streamed_data_set_whose_columns_are_known():
    # It is read once for each column, and may have its rows in another order each time.
    class IterableDataset:
        column_names = ("text", "label")

        def __iter__(self):
            return iter(())

        def __getitem__(self, column):
            return list("ab") if column == "text" else list("yx")

    with pytest.raises(DataTypeError, match="found IterableDataset. Load it without streaming"):
        from_huggingface(IterableDataset())


class Formatted(Dataset):
    """A data set after `with_format`: with tensors in place of its values, or fewer columns."""

    def __init__(self, kind, shown, plain):
        super().__init__({}, **plain.columns)
        self.format = {"type": kind, "columns": shown}
        self.plain = plain

    def __getitem__(self, column):
        return {
            name: [f"{self.format['type']} {v}" for v in self.columns[name]]
            for name in self.format["columns"]
        }[column]

    def with_format(self, kind):
        assert kind is None
        return self.plain


def test_a_format_does_not_matter():
    plain = Dataset(text=["a", "b"], label=["x", "y"])
    for kind, shown in (("tensorflow", ["text", "label"]), ("torch", ["label"]), (None, ["label"])):
        assert from_huggingface(Formatted(kind, shown, plain)).columns == plain.columns


def test_a_transform_decides_what_is_read():
    plain = Dataset(text=["a", "b"], label=["x", "y"])
    changed = Formatted("custom", ["text", "label"], plain)
    assert from_huggingface(changed).columns["text"] == ["custom a", "custom b"]
    with pytest.raises(DataError) as error:
        from_huggingface(Formatted("custom", ["text"], plain))
    assert str(error.value) == (
        "the data set has a column 'label', but the transform that was set for it leaves it out. "
        "Pass the data set without it: dataset.with_format(None)."
    )


@pytest.fixture
def package(monkeypatch):
    """Stands in for the package datasets."""
    package = ModuleType("datasets")
    monkeypatch.setitem(sys.modules, "datasets", package)
    return package


def test_a_name_is_loaded(package):
    def load_dataset(name, config):
        assert (name, config) == ("glue", "sst2")
        return {"train": Dataset({"label": CLASS_LABEL}, sentence=["a"], label=[0])}

    package.load_dataset = load_dataset
    examples = from_huggingface("glue", "train", text="sentence", config="sst2")
    assert examples.columns == {"text": ["a"], "label": ["neg"]}
    assert examples.name == "glue train"


def test_a_name_that_cannot_be_loaded(package):
    def load_dataset(name, config):
        raise ConnectionError("Couldn't reach 'imdb' on the Hub\nand more")

    package.load_dataset = load_dataset
    with pytest.raises(DataError) as error:
        from_huggingface("imdb", "train")
    assert str(error.value) == (
        "The data set 'imdb' (config=None) cannot be loaded: Couldn't reach 'imdb' on the Hub. "
        "Without a network, pass datasets.load_from_disk(FOLDER) instead, or read files with "
        "from_csv or from_jsonl."
    )


def test_a_name_needs_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError) as error:
        from_huggingface("imdb", "train")
    assert str(error.value) == (
        "from_huggingface('imdb') loads by name with the package datasets, which is not "
        "installed. Install the extra 'datasets': pip install 'finetune_tf[datasets]'."
    )
