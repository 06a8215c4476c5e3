"""Episodes: small classification problems that are drawn from a data set with many classes.

References:
    Vinyals et al., Matching Networks for One Shot Learning, NeurIPS 2016.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import DataError
from finetune_tf.messages import say
from finetune_tf.meta.classes import classes_of, listed, take


@dataclass(frozen=True, eq=False)
class Episode:
    """A classification problem of a few classes.

    Rows are ordered by class: those of the first class come first.

    Attributes:
        classes: The names of the classes.
        support_rows: The rows (ways * shots,) to learn from, as indices of the data.
        query_rows: The rows (ways * queries,) to predict; none of them is a support row.
        data: What the rows are taken from.
    """

    classes: tuple[str, ...]
    support_rows: np.ndarray
    query_rows: np.ndarray
    data: Any

    @property
    def ways(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def support(self) -> Any:
        """The rows to learn from, as `Examples` or a pair of arrays."""
        return take(self.data, self.support_rows)

    @property
    def query(self) -> Any:
        """The rows to predict, as `Examples` or a pair of arrays."""
        return take(self.data, self.query_rows)

    @property
    def support_classes(self) -> np.ndarray:
        """The class (ways * shots,) of each support row, an index of `classes`."""
        return np.repeat(np.arange(self.ways), len(self.support_rows) // self.ways)

    @property
    def query_classes(self) -> np.ndarray:
        """The class (ways * queries,) of each query row, an index of `classes`."""
        return np.repeat(np.arange(self.ways), len(self.query_rows) // self.ways)


class Episodes:
    """An endless sequence of episodes, of which number i is always the same; `episodes` makes it.

    Example:
        >>> drawn = ft.meta.episodes(train, ways=2, shots=1, queries=1)
        >>> drawn[3].support_rows.tolist() == drawn[3].support_rows.tolist()
        True
    """

    def __init__(
        self,
        data: Any,
        names: tuple[str, ...],
        rows: list[np.ndarray],
        ways: int,
        shots: int,
        queries: int,
        seed: int,
    ) -> None:
        self.ways, self.shots, self.queries, self.seed = ways, shots, queries, seed
        self._data, self._names, self._rows = data, names, rows

    def __getitem__(self, number: int) -> Episode:
        """Episode number `number`, counted from 0; it does not depend on the others."""
        check(number=number)
        generator = np.random.default_rng([self.seed, number])
        chosen = generator.choice(len(self._rows), self.ways, replace=False)
        size = self.shots + self.queries
        drawn = np.stack([generator.choice(self._rows[c], size, replace=False) for c in chosen])
        return Episode(
            classes=tuple(self._names[c] for c in chosen),
            support_rows=drawn[:, : self.shots].reshape(-1),
            query_rows=drawn[:, self.shots :].reshape(-1),
            data=self._data,
        )

    def __iter__(self) -> Iterator[Episode]:
        return map(self.__getitem__, itertools.count())


@names_checked
def episodes(
    examples: Any, ways: int = 5, shots: int = 1, queries: int = 15, seed: int = 0
) -> Episodes:
    """Draws episodes: classification problems with `ways` classes and `shots` rows of each.

    The classes are drawn without replacement, then rows of each, so that no row is in the support
    and in the query set of an episode. Rows of a class with the same inputs count once, since a
    query that stands in the support set tells nothing. To measure how well new classes are learned,
    draw from classes that no training has seen: `ft.meta.split_classes`.

    Args:
        examples: `Examples` of any kind with one label for each row, or a pair (inputs, classes)
            of arrays, such as features that were computed before.
        ways: The number of classes of an episode.
        shots: The rows of each class in the support set, to learn from.
        queries: The rows of each class in the query set, to predict.
        seed: Decides the episodes.

    Returns:
        An endless sequence, which `itertools.islice` limits. Number i is always the same.

    Raises:
        ArgumentError: If a number is out of range.
        DataError: If there are fewer than `ways` classes, or a class has fewer than `shots +
            queries` different rows.

    Example:
        >>> first = ft.meta.episodes(train, ways=2, shots=1, queries=1)[0]
        >>> len(first.support), len(first.query)
        (2, 2)
    """
    check(ways=ways, shots=shots, queries=queries, seed=seed)
    return drawn(examples, ways, shots, queries, seed)


def drawn(examples: Any, ways: int, shots: int, queries: int, seed: int) -> Episodes:
    """Draws episodes like `episodes`, also without queries."""
    check(ways=ways, shots=shots, seed=seed)
    classes = classes_of(examples)
    if len(classes.names) < ways:
        raise DataError(
            f"Episodes of {ways} classes (ways={ways}) cannot be drawn from {classes.data}, which "
            f"has {len(classes.names)}: {listed(list(classes.names))}. Choose a lower ways=."
        )
    rows = classes.without_copies(examples)
    counts = list(map(len, rows))
    copies = len(classes.numbers) - sum(counts)
    few = [name for name, n in zip(classes.names, counts, strict=True) if n < shots + queries]
    if few:
        different = " different" if copies else ""
        raise DataError(
            f"Each class needs {shots + queries}{different} rows for {shots} shots and {queries} "
            f"queries, but {len(few)} of {len(classes.names)} classes of {classes.data} have "
            f"fewer, the smallest one {min(counts)}: {listed(few)}. Choose lower numbers, or leave "
            "these classes out."
        )
    if copies:
        say(
            f"{copies:,} of {len(classes.numbers):,} rows of {classes.data} are copies of others "
            "of their class; episodes are drawn without them."
        )
    return Episodes(examples, classes.names, rows, ways, shots, queries, seed)


@names_checked
def split_classes(examples: Any, test: float = 0.25, seed: int = 0) -> tuple[Any, Any]:
    """Splits rows by their classes: those of the second part do not occur in the first part.

    Args:
        examples: As for `episodes`.
        test: The share of the classes that the second part gets, between 0 and 1.
        seed: Decides which classes these are.

    Returns:
        The rows of the remaining classes and those of the held-out classes, in their order. The
        labels of `Examples` are those of their part.

    Raises:
        ArgumentError: If a number is out of range.
        DataError: If a part would have fewer than two classes.

    Example:
        >>> images = np.zeros((8, 4)), np.array([0, 0, 1, 1, 2, 2, 3, 3])
        >>> train_part, test_part = ft.meta.split_classes(images, test=0.5)
        >>> set(train_part[1]) & set(test_part[1])
        set()
    """
    check(**{"split_classes.test": test}, seed=seed)
    classes = classes_of(examples)
    total = len(classes.names)
    held_out = round(test * total)
    if held_out < 2 or total - held_out < 2:
        raise DataError(
            f"split_classes(test={test!r}) of the {total} classes of {classes.data} leaves "
            f"{total - held_out} and {held_out} classes; each part needs at least two. Choose "
            "another share."
        )
    chosen = np.random.default_rng(seed).permutation(total)[:held_out]
    is_test = np.isin(classes.numbers, chosen)
    parts = []
    for mask in (~is_test, is_test):
        part = take(examples, np.flatnonzero(mask))
        if isinstance(part, Examples):
            used = set(classes.numbers[mask].tolist())
            names = [name for i, name in enumerate(classes.names) if i in used]
            part = _with_labels(part, names, examples.labels)
        parts.append(part)
    return parts[0], parts[1]


def _with_labels(part: Examples, names: list[str], labels: Labels) -> Examples:
    """Returns examples with fewer labels, whose values become names: class numbers would move."""
    values = [labels[labels.index_of(value)] for value in part.columns["label"]]
    columns = {**part.columns, "label": values}
    return Examples(columns, Labels(names), part.name, part.places)
