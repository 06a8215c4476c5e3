"""TensorFlow Datasets: a real builder over a local file, and no network."""

import csv
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from finetune_tf.base.labels import Labels
from finetune_tf.data import from_tfds
from finetune_tf.data.sources.tfds import network_reachable
from finetune_tf.errors import DataError

CONTENT = "question,answer,kind,score,tags\nwhy?,so,b,3.8,0 1\nhów?,thus,a,2,\nwho?,me,b,1.5,1\n"


class LocalQuestions(tfds.core.GeneratorBasedBuilder):
    """Questions read from the file `path`."""

    VERSION = tfds.core.Version("1.0.0")
    path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "question": tfds.features.Text(),
                    "answer": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["b", "a", "c"]),
                    "score": tfds.features.Scalar(np.float32),
                    "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["x", "y"])),
                    "about": {"kind": tfds.features.ClassLabel(names=["b", "a", "c"])},
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        with open(self.path, encoding="utf-8") as file:
            for key, row in enumerate(csv.DictReader(file)):
                yield (
                    key,
                    {
                        "question": row["question"],
                        "answer": row["answer"],
                        "label": row["kind"],
                        "score": float(row["score"]),
                        "tags": [int(tag) for tag in row["tags"].split()],
                        "about": {"kind": row["kind"]},
                    },
                )


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    LocalQuestions.path = folder / "questions.csv"
    LocalQuestions.path.write_text(CONTENT, encoding="utf-8")
    return LocalQuestions(data_dir=folder)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "create_connection", refuse)


def rows(examples):
    """By text: TFDS shuffles when it prepares."""
    columns = {column: values for column, values in examples.columns.items() if column != "text"}
    return {
        text: {column: values[i] for column, values in columns.items()}
        for i, text in enumerate(examples.columns["text"])
    }


def test_a_builder_of_local_files_is_prepared_without_a_network(builder, no_network):
    examples = from_tfds(builder, text="question", text_pair="answer")
    assert rows(examples) == {
        "why?": {"text_pair": "so", "label": "b"},
        "hów?": {"text_pair": "thus", "label": "a"},
        "who?": {"text_pair": "me", "label": "b"},
    }
    assert examples.labels == Labels(["b", "a", "c"])
    assert examples.name == "local_questions/1.0.0 train"


def test_a_prepared_data_set_is_found_by_name(builder, no_network):
    from_tfds(builder, text="question", label=None)
    found = from_tfds("local_questions", text="question", data_dir=LocalQuestions.path.parent)
    assert len(found) == 3
    part = from_tfds(
        "local_questions", "train[:2]", text="question", data_dir=LocalQuestions.path.parent
    )
    assert part.columns["text"] == found.columns["text"][:2]


def test_scores_and_several_labels(builder):
    scores = from_tfds(builder, text="question", label="score")
    assert rows(scores)["why?"]["label"] == pytest.approx(3.8)
    assert scores.labels == Labels(["score"], "regression")

    tags = from_tfds(builder, text="question", label="tags")
    assert rows(tags) == {
        "why?": {"label": ["x", "y"]},
        "hów?": {"label": []},
        "who?": {"label": ["y"]},
    }
    assert tags.labels == Labels(["x", "y"], "multi_label_classification")


def test_names_of_class_numbers_inside_of_objects(builder):
    examples = from_tfds(builder, text="question", label="about.kind")
    assert {text: row["label"] for text, row in rows(examples).items()} == {
        "why?": "b",
        "hów?": "a",
        "who?": "b",
    }
    assert examples.labels == Labels(["b", "a", "c"])


def test_the_only_text_is_found(builder):
    with pytest.raises(DataError) as error:
        from_tfds(builder)
    assert str(error.value) == (
        'Say which feature of local_questions/1.0.0 train holds the texts: text="…". Text '
        "features are: 'question', 'answer'."
    )
    examples = from_tfds(builder, text_pair="answer", label=None)
    assert set(examples.columns["text"]) == {"why?", "hów?", "who?"}


def test_missing_feature(builder):
    with pytest.raises(DataError) as error:
        from_tfds(builder, text="question", label="stars")
    assert str(error.value) == (
        "local_questions/1.0.0 train has no column 'stars'. Its columns are 'question', 'answer', "
        "'label', 'score', 'tags', 'about'. Say which one it is with label=\"…\", or label=None "
        "for texts without labels."
    )


def test_missing_split(builder):
    with pytest.raises(DataError, match="has no split 'dev'; there are: train"):
        from_tfds(builder, "dev", text="question")


def test_unknown_data_set(tmp_path):
    with pytest.raises(DataError) as error:
        from_tfds("no_such_data", data_dir=tmp_path)
    assert str(error.value) == (
        "TensorFlow Datasets cannot find 'no_such_data': Dataset no_such_data not found. Check "
        "the name, or pass the data_dir= in which the data set lies."
    )


def test_without_a_network_a_download_fails_at_once(tmp_path, no_network):
    start = time.perf_counter()
    with pytest.raises(DataError) as error:
        from_tfds("glue/sst2", text="sentence", data_dir=tmp_path)
    assert time.perf_counter() - start < 5
    assert str(error.value) == (
        f"glue/sst2 is not prepared ({tmp_path}/glue/sst2/2.0.0 holds nothing) and there is no "
        "network to download it. Where there is one, prepare it with tfds.builder('glue/sst2', "
        "data_dir=FOLDER).download_and_prepare(), copy FOLDER here and pass data_dir=FOLDER; or "
        "read your own files with from_csv or from_jsonl."
    )
    with pytest.raises(DataError, match="'huggingface:imdb' cannot be looked up without a net"):
        from_tfds("huggingface:imdb", data_dir=tmp_path)


def test_a_network_that_swallows_everything_is_given_up(monkeypatch):
    give_up = threading.Event()

    def hang(*args, **kwargs):
        give_up.wait(5)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    start = time.perf_counter()
    assert not network_reachable(timeout=0.1)
    assert time.perf_counter() - start < 1
    give_up.set()


def test_a_network_is_found_behind_its_proxy(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert network_reachable()
