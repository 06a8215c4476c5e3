"""Metrics of entities and tags, compared with manual calculation and seqeval."""

import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.data import from_arrays
from finetune_tf.evaluation.bootstrap import paired_bootstrap
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.tasks.entity_spans import chunks

ENTITIES, TAGS = EVALUATORS["token-classification"], EVALUATORS["tagging"]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-a I-a O B-b", [("a", 0, 2), ("b", 3, 4)]),
        ("B-a B-a I-a", [("a", 0, 1), ("a", 1, 3)]),
        ("I-a I-a O I-b I-a", [("a", 0, 2), ("b", 3, 4), ("a", 4, 5)]),  # no beginning
        ("B-a I-b I-b", [("a", 0, 1), ("b", 1, 3)]),  # goes on as something else
        ("B-a-b I-a-b B-a", [("a-b", 0, 2), ("a", 2, 3)]),
        ("B I I B O", [("_", 0, 3), ("_", 3, 4)]),
        ("S-a S-a B-a E-a I-a", [("a", 0, 1), ("a", 1, 2), ("a", 2, 4), ("a", 4, 5)]),
        ("U-a U-a B-a L-a I-a", [("a", 0, 1), ("a", 1, 2), ("a", 2, 4), ("a", 4, 5)]),
        ("O O", []),
        ("", []),
    ],
)
def test_chunks(tags, found):
    assert chunks(tags.split()) == found


def test_only_complete_entities_are_correct():
    truth = [["B-per", "I-per", "O", "B-loc"], ["O", "B-loc"]]
    said = [["B-per", "I-per", "O", "B-per"], ["B-loc", "I-loc"]]

    metrics = ENTITIES.measure(truth, said, None)

    # One of three predicted and one of three gold entities is correct; three of six words are.
    assert metrics == pytest.approx(
        {"f1": 1 / 3, "precision": 1 / 3, "recall": 1 / 3, "accuracy": 3 / 6}
    )
    assert list(metrics)[0] == ENTITIES.main_metric == "f1"
    assert ENTITIES.per_class(truth, said, None) == {
        "loc": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2},
        "per": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
    }
    assert ENTITIES.statistics(truth, said).tolist() == [[1, 2, 2], [0, 1, 1]]


def test_no_entities():
    metrics = ENTITIES.measure([["O", "O"]], [["O", "O"]], None)

    assert metrics == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}
    assert ENTITIES.per_class([["O"]], [["O"]], None) == {}


@pytest.mark.parametrize("letters", ["BIES", "BILU", "BMES", "BMEW"])
def test_schemes_with_other_letters(letters):
    begin, inside, end, single = letters
    tags = f"{begin}-a {inside}-a {inside}-a {end}-a {single}-b O {begin}-b {end}-b {single}-b"
    assert chunks(tags.split()) == [("a", 0, 4), ("b", 4, 5), ("b", 6, 8), ("b", 8, 9)]


def random_tags(scheme: str, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Sentences of up to twelve random tags, valid or not, and a copy with errors."""
    names = {
        "BIO": ["O", "B-a", "I-a", "B-b", "I-b"],
        "IOB1": ["O", "I-a", "I-b", "B-a"],
        "IOBES": ["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in "ab")],
        "bare": ["O", "B", "I"],
    }[scheme]
    state, truth, said = seed, [], []
    for _ in range(40):
        rows = [], []
        state = (state * 1103515245 + 12345) % 2**31
        for _ in range(1 + state // 65536 % 12):
            drawn = []
            for _ in range(3):
                state = (state * 1103515245 + 12345) % 2**31
                drawn.append(state // 65536)
            tag = names[drawn[0] % len(names)]
            rows[0].append(tag)
            rows[1].append(tag if drawn[1] % 10 < 7 else names[drawn[2] % len(names)])
        truth.append(rows[0])
        said.append(rows[1])
    return truth, said


# f1_score, precision_score, recall_score and accuracy_score of seqeval 1.2.2 on `random_tags`,
# and the f1-score of "a" in its classification_report. seqeval is not a dependency, because it is
# old and distributed as source only.
SEQEVAL = {
    ("BIO", 1): (0.7279411765, 0.7443609023, 0.7122302158, 0.7877358491, 0.7205882353),
    ("BIO", 2): (0.7418397626, 0.7440476190, 0.7396449704, 0.7722007722, 0.7582417582),
    ("IOB1", 1): (0.6692307692, 0.6796875000, 0.6590909091, 0.7830188679, 0.6543209877),
    ("IOB1", 2): (0.7000000000, 0.7046979866, 0.6953642384, 0.7722007722, 0.7342995169),
    ("IOBES", 1): (0.7977207977, 0.8092485549, 0.7865168539, 0.7547169811, 0.7978723404),
    ("IOBES", 2): (0.7923627685, 0.7830188679, 0.8019323671, 0.7683397683, 0.7902439024),
    ("bare", 1): (0.7058823529, 0.7428571429, 0.6724137931, 0.7971698113, 0.7058823529),
    ("bare", 2): (0.7833333333, 0.7833333333, 0.7833333333, 0.8494208494, 0.7833333333),
}


@pytest.mark.parametrize(("scheme", "seed"), SEQEVAL)
def test_the_metrics_equal_those_of_seqeval(scheme, seed):
    truth, said = random_tags(scheme, seed)
    f1, precision, recall, accuracy, of_first = SEQEVAL[scheme, seed]

    metrics = ENTITIES.measure(truth, said, None)

    expected = {"f1": f1, "precision": precision, "recall": recall, "accuracy": accuracy}
    assert metrics == pytest.approx(expected, abs=1e-9)
    first = next(iter(ENTITIES.per_class(truth, said, None).values()))
    assert first["f1"] == pytest.approx(of_first, abs=1e-9)
    # The statistics for the bootstrap yield the same main metric.
    means = ENTITIES.statistics(truth, said).mean(axis=0, keepdims=True)
    assert ENTITIES.metric(means) == pytest.approx(f1, abs=1e-9)


def test_tags_of_individual_words():
    truth = [["D", "N"], ["D", "A", "N", "N"]]
    said = [["D", "N"], ["D", "N", "N", "V"]]

    assert TAGS.measure(truth, said, None) == pytest.approx(
        {"accuracy": 4 / 6, "macro_f1": (1 + 2 / 3 + 0 + 0) / 4}
    )
    assert list(TAGS.per_class(truth, said, None)) == ["A", "D", "N", "V"]
    assert TAGS.per_class(truth, said, None)["N"]["support"] == 3
    assert TAGS.metric(TAGS.statistics(truth, said).mean(axis=0, keepdims=True)) == 4 / 6


def test_the_bootstrap_resamples_sentences():
    """Twenty sentences with one correct entity each; the other model misses every second one."""
    truth = [["B-a", "O"]] * 20
    half = [["B-a", "O"], ["O", "O"]] * 10

    difference = paired_bootstrap(ENTITIES, truth, truth, half)

    assert difference.metric == "f1"
    assert difference.value == pytest.approx(1 - 2 / 3)
    assert difference.is_clear
    assert 0.1 < difference.low < difference.value < difference.high < 0.6


LABELS = Labels(["O", "B-loc", "I-loc", "B-per"])
TRAIN = from_arrays(
    tokens=[["New", "York", "is", "new"], ["paris", "is", "Paris"], ["Paris", "York", "."]],
    tags=[["B-loc", "I-loc", "O", "O"], ["B-per", "O", "B-loc"], ["B-loc", "I-loc", "O"]],
    labels=LABELS,
)


def run(name, tokens, labels=LABELS):
    test = from_arrays(tokens=tokens)
    return ENTITIES.baselines[name](TRAIN, TRAIN.columns["tags"], test, labels, 0)


def test_the_dictionary_baseline_falls_back_to_lower_case():
    assert next(iter(ENTITIES.baselines)) == "dictionary"
    assert run("dictionary", [["New", "york"], ["new"], ["paris", "PARIS", "Rome"]]) == [
        ["B-loc", "I-loc"],
        ["O"],
        ["B-per", "B-loc", "O"],
    ]


def test_majority_predicts_the_most_frequent_tag():
    assert run("majority", [["New", "York"], ["is"]]) == [["O", "O"], ["O"]]


def test_unknown_words_get_the_most_frequent_tag_without_an_outside_tag():
    train = from_arrays(tokens=[["a", "b", "c"]], tags=[["D", "N", "N"]])

    given = TAGS.baselines["dictionary"](
        train, train.columns["tags"], from_arrays(tokens=[["a", "z"]]), train.labels, 0
    )

    assert given == [["D", "N"]]
