"""Rows of a test set that were seen in training."""

from finetune_tf.data import from_arrays, overlap


def test_texts_equal_up_to_case_space_and_compatibility_forms():
    train = from_arrays(["A fine film.", "Straße", "ﬁne"])
    test = from_arrays(["a  FINE\tfilm. ", "another", "STRASSE", "fine", "A fine film!"])
    assert overlap(train, test) == [0, 2, 3]


def test_pairs_count_as_a_whole():
    train = from_arrays(["a", "b"], text_pair=["x", "y"])
    test = from_arrays(["a", "b", "x"], text_pair=["y", "Y", "a"])
    assert overlap(train, test) == [1]


def test_nothing_in_common():
    assert overlap(from_arrays(["a"]), from_arrays(["b", "c"])) == []
