"""Texts that occur in two data sets, because a score on texts of the training set says little."""

from finetune_tf.base.spelling import names_checked
from finetune_tf.data.copies import text_keys
from finetune_tf.data.examples import Examples
from finetune_tf.errors import DataTypeError


@names_checked
def overlap(train: Examples, test: Examples) -> list[int]:
    """Finds the rows of `test` whose text also occurs in `train`.

    Texts (and pairs) count as equal when they differ in upper and lower case, white space or
    Unicode compatibility forms (NFKC) only.

    Args:
        train: The training examples.
        test: The examples that are searched.

    Returns:
        The row numbers in `test`, ascending.

    Raises:
        DataTypeError: If an argument is not `Examples`.

    Example:
        >>> seen = ft.data.from_arrays(["A good film", "dull"])
        >>> ft.data.overlap(seen, ft.data.from_arrays(["new", "a  good film"]))
        [1]
    """
    for given in (train, test):
        if not isinstance(given, Examples):
            raise DataTypeError(f"overlap takes two Examples, found a {type(given).__name__}.")
    seen = set(text_keys(train.columns))
    return [row for row, key in enumerate(text_keys(test.columns)) if key in seen]
