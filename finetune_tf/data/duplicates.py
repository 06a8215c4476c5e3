"""Texts that stand in two sets: a score on texts seen in training says little."""

from finetune_tf.base.spelling import names_checked
from finetune_tf.data.copies import text_keys
from finetune_tf.data.examples import Examples
from finetune_tf.errors import DataTypeError


@names_checked
def overlap(train: Examples, test: Examples) -> list[int]:
    """Finds the rows of `test` whose text also stands in `train`.

    Texts (and pairs) count as equal when they differ in upper and lower case, white space or
    Unicode compatibility forms (NFKC) only.

    Returns:
        The row numbers in `test`, ascending.

    Raises:
        DataTypeError: If one of the two is something else.
    """
    for given in (train, test):
        if not isinstance(given, Examples):
            raise DataTypeError(f"overlap takes two Examples, found a {type(given).__name__}.")
    seen = set(text_keys(train.columns))
    return [row for row, key in enumerate(text_keys(test.columns)) if key in seen]
