"""Token classification: a label for each word, such as named entities or parts of speech."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.architectures import Backbone, ClassificationHead
from finetune_tf.base.labels import Labels
from finetune_tf.errors import ArgumentError, DataError, ModelError
from finetune_tf.tasks.decisions import Decisions
from finetune_tf.tasks.encoded import token_inputs
from finetune_tf.tasks.entity_spans import OUTSIDE, chunks, has_chunks
from finetune_tf.tasks.explained import Aim, Word, label_index, log_odds
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.task import IGNORED, Columns, Encoded, HeadParts, Kind, Task
from finetune_tf.tasks.unseen import label_numbers
from finetune_tf.tasks.usage import make_usage
from finetune_tf.tasks.words import encode_text_words, encode_words


@dataclass(frozen=True, repr=False)
class Entity:
    """An entity that a model found in a text.

    Attributes:
        label: Its type, without the "B-" and "I-" of the tags.
        text: The part of the text.
        start: Its first character in the text; for lists of words, in `" ".join(words)`.
        end: The position after its last character.
        score: The mean probability of the tags of its words.
    """

    label: str
    text: str
    start: int
    end: int
    score: float

    def __repr__(self) -> str:
        return f"Entity({self.label!r}, {self.text!r}, {self.start}:{self.end}, {self.score:.3f})"


class TokenClassification(Task):
    """One of several labels for each word, predicted at the first token of the word."""

    name = "token-classification"
    class_suffix = "ForTokenClassification"
    runs_in_all_engines = True
    has_labels = True
    can_explain = True
    columns = ("tokens", "tags")
    input_forms = (("text",), ("tokens",))
    target_column = "tags"
    token_axis = 0
    # With this option the pipeline labels words by their first token, as `predict` does.
    usage = make_usage(pipeline_options=', aggregation_strategy="first"')

    def outputs(
        self,
        backbone: Backbone,
        head: HeadParts,
        config: Mapping[str, Any],
        pooling: str | None,
        dtype: Any,
        modules: Any,
    ) -> Any:
        """Logits (batch, length, labels) on every token.

        Raises:
            ModelError: If more than one label of a word may be right.
        """
        if self.labels.problem_type != "single_label_classification":
            raise ModelError(
                f"Token classification gives each word one of several labels, found "
                f"{self.labels!r}. Name all labels with labels=[…], and leave problem_type out or "
                "say 'single_label_classification'."
            )
        hidden = backbone.hidden
        if head.transform is not None:
            hidden = head.transform(dtype=dtype)(hidden)
        return ClassificationHead(
            len(self.labels),
            head.dropout,
            initializer_range=config["initializer_range"],
            name="classifier",
        )(hidden)

    @property
    def output_kind(self) -> Kind:
        """Logits over the labels of each token."""
        return "classes"

    @property
    def evaluator(self) -> str:
        """The task's name if tags form entities, otherwise "tagging"."""
        return self.name if has_chunks(self.labels) else "tagging"

    def config_keys(self) -> dict[str, Any]:
        """The names of the labels, and no problem type, which only text classification has."""
        return {**super().config_keys(), "problem_type": None}

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Accepts one text, several texts, or several lists of words.

        Raises:
            DataError: If something else is given.
        """
        if text_pair is not None:
            columns["text_pair"] = text_pair
        if columns:
            raise DataError(
                f"predict for {self.name} takes texts, or lists of words; found "
                f"{', '.join(sorted(columns))}."
            )
        if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
            return {"text": texts}
        rows = list(texts)
        of_words = any(isinstance(row, list | tuple) for row in rows)
        return {"tokens" if of_words else "text": rows}

    def require(self, examples: Columns) -> None:
        """Requires words, or only texts for predictions."""
        if set(examples.columns) != {"text"}:
            super().require(examples)

    def encode(self, examples: Columns, tokenizer: Any, max_length: int) -> Encoded:
        """Encodes words, truncated if necessary; the first token of a word has its target."""
        if "tokens" in examples.columns:
            encoding, words, truncated = encode_words(
                tokenizer, examples.columns["tokens"], max_length
            )
        else:
            encoding, words, truncated = encode_text_words(
                tokenizer, examples.columns["text"], max_length
            )
        targets = None
        if self.target_column in examples.columns:
            rows = []
            numbers = self._numbers(examples)
            for ids, first, wanted in zip(encoding["input_ids"], words, numbers, strict=True):
                seen = first[:, 0] >= 0
                target = np.full(len(ids), IGNORED, dtype="int32")
                target[first[seen, 0]] = wanted[seen]
                rows.append(target)
            targets = Feature(rows, padding=IGNORED)
        inputs = token_inputs(encoding, tokenizer)
        return Encoded(inputs, targets, truncated=truncated, words=words)

    def targets(self, examples: Columns) -> list[list[str]]:
        """The tags of each row, by their names in the model's labels.

        Raises:
            DataError: If a tag is not one of the model's labels.
        """
        return [[self.labels[number] for number in row] for row in self._numbers(examples)]

    def decide(
        self, rows: list[np.ndarray], encoded: Encoded, examples: Columns
    ) -> list[list[str]]:
        """A label for each word; "O" (or else the first label) for words that were truncated."""
        labels = self.labels
        blank = OUTSIDE if OUTSIDE in labels else labels[0]
        return [
            [blank if number is None else labels[number] for number, _ in _choices(row, words)]
            for row, words in zip(rows, encoded.words, strict=True)
        ]

    @property
    def has_decisions(self) -> bool:
        """Always: each word gets one of the labels."""
        return True

    def decisions(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> Decisions:
        """One decision for each word that was not truncated, at its first token."""
        logits, targets, numbers = [], [], []
        words = zip(rows, encoded.words, self._numbers(examples), strict=True)
        for number, (row, places, wanted) in enumerate(words):
            seen = places[:, 0] >= 0
            logits.append(row[places[seen, 0]])
            targets.append(wanted[seen])
            numbers.append(np.full(seen.sum(), number))
        logits, targets, numbers = map(np.concatenate, (logits, targets, numbers))
        return Decisions(logits.astype("float64"), targets, numbers, is_several=False)

    def describe(
        self, rows: list[np.ndarray], encoded: Encoded, examples: Columns
    ) -> list[list[Entity]]:
        """The entities and where they are; if tags form none, every word that is not "O"."""
        texts = examples.columns.get("text") or map(" ".join, examples.columns["tokens"])
        together = has_chunks(self.labels)
        return [
            _entities(text, _choices(row, words), words, self.labels, together)
            for text, row, words in zip(texts, rows, encoded.words, strict=True)
        ]

    def explained(
        self, rows: list[np.ndarray], encoded: Encoded, examples: Columns, targets: list
    ) -> list[Aim]:
        """A label of a word: a target is a word (or its number), a label, or (word, label).

        By default it is the predicted label of the word that is most certainly labeled, of those
        that are not "O". With a label alone, it is the word of which that label is most probable.

        Raises:
            ArgumentError: If a target is none of these, or a word has no tokens.
        """
        texts = examples.columns.get("text") or list(map(" ".join, examples.columns["tokens"]))
        return [
            self._aim(row, texts[row], _probabilities(logits), encoded.words[row], targets[row])
            for row, logits in enumerate(rows)
        ]

    def _aim(
        self, row: int, text: str, probabilities: np.ndarray, words: np.ndarray, target: Any
    ) -> Aim:
        seen = np.flatnonzero(words[:, 0] >= 0)
        of_words = probabilities[words[seen, 0]]  # (words, labels)
        names = [text[start:end] for start, end in words[seen, 1:]]
        word, label = self._wanted(target, names, seen)
        if word is None and label is None:
            inside = of_words.argmax(axis=1) != self.labels.index_of(OUTSIDE)
            certain = np.where(inside, of_words.max(axis=1), -1.0)
            word = int(certain.argmax() if inside.any() else of_words.max(axis=1).argmax())
        elif word is None:
            word = int(of_words[:, label].argmax())
        best = int(of_words[word].argmax())
        label = best if label is None else label
        return Aim(
            row,
            (int(words[seen[word], 0]), label),
            f"{self.labels[label]} of {names[word]!r}",
            f"{self.labels[best]} of {names[word]!r}",
            float(of_words[word, best]),
        )

    def _wanted(
        self, target: Any, names: list[str], seen: np.ndarray
    ) -> tuple[int | None, int | None]:
        """The word, counted among those with tokens, and the label of a target."""
        if target is None:
            return None, None
        if isinstance(target, tuple | list) and len(target) == 2:
            word, label = target
            index = None if label is None else label_index(label, self.labels)
            return _word_number(word, names, seen), index
        if isinstance(target, str) and target in self.labels:
            return None, self.labels.index(target)
        if isinstance(target, int) or target in names:
            return _word_number(target, names, seen), None
        raise ArgumentError(
            f"target= for {self.name} is a word of the text, a label, or (word, label); {target!r} "
            f"is none of the words {_listed(names)}, and none of the labels {self.labels.listed()}."
        )

    def explained_score(self, outputs: Any, index: Any) -> Any:
        """The log-odds of a label at the first token of a word."""
        return log_odds(ops.take(outputs, index[0], axis=1), index[1])

    def explained_words(
        self, encoded: Encoded, row: int, examples: Columns, tokenizer: Any
    ) -> list[Word]:
        """The words that have labels."""
        column = "text" if "text" in examples.columns else "tokens"
        text = examples.columns[column][row]
        text = text if column == "text" else " ".join(text)
        ids, words = encoded.inputs["input_ids"][row], encoded.words[row]
        around = {tokenizer.sep_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        stop = len(ids)
        while stop and int(ids[stop - 1]) in around:
            stop -= 1
        seen = words[words[:, 0] >= 0]
        ends = [*seen[1:, 0], stop]
        return [
            Word(text[start:end], column, int(start), int(end), tuple(range(first, int(last))))
            for (first, start, end), last in zip(seen.tolist(), ends, strict=True)
        ]

    def as_json(self, described: list[Entity]) -> dict[str, Any]:
        """The entities of a text."""
        return {"entities": [vars(entity) for entity in described]}

    def _numbers(self, examples: Columns) -> list[np.ndarray]:
        """The number of each tag among the labels: an array (words,) for each row."""
        numbers = label_numbers(examples.columns[self.target_column], self.labels, examples, "tag")
        return [np.asarray(row, dtype="int32") for row in numbers]


def _probabilities(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(np.float64(logits) - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def _word_number(word: Any, names: list[str], seen: np.ndarray) -> int:
    """The place of a word, given as it is written or by its number, among those with tokens."""
    if isinstance(word, int | np.integer) and not isinstance(word, bool):
        places = np.flatnonzero(seen == word).tolist()
    else:
        places = [i for i, name in enumerate(names) if name == word]
    if len(places) > 1:
        raise ArgumentError(
            f"The word {word!r} occurs {len(places)} times. Name it by its number, one of "
            f"{', '.join(str(seen[i]) for i in places)}: target=({seen[places[0]]}, label)."
        )
    if not places:
        raise ArgumentError(
            f"target= names the word {word!r}, which is none of those that the model read: "
            f"{_listed(names)}. Give a word as it is written, or its number, counted from 0."
        )
    return places[0]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _choices(logits: np.ndarray, words: np.ndarray) -> list[tuple[int | None, float]]:
    """The best label of each word and its probability; None and 0 for a word without tokens."""
    seen = words[:, 0] >= 0
    probabilities = _probabilities(logits)
    chosen: list[tuple[int | None, float]] = [(None, 0.0)] * len(words)
    for place, row in zip(np.flatnonzero(seen), probabilities[words[seen, 0]], strict=True):
        chosen[place] = int(row.argmax()), float(row.max())
    return chosen


def _entities(
    text: str,
    choices: list[tuple[int | None, float]],
    words: np.ndarray,
    labels: Labels,
    together: bool,
) -> list[Entity]:
    tags = [OUTSIDE if number is None else labels[number] for number, _ in choices]
    if together:
        found = chunks(tags)
    else:
        found = [(tag, i, i + 1) for i, tag in enumerate(tags) if tag != OUTSIDE]
    entities = []
    for label, first, last in found:
        start, end = int(words[first, 1]), int(words[last - 1, 2])
        score = float(np.mean([probability for _, probability in choices[first:last]]))
        entities.append(Entity(label, text[start:end], start, end, score))
    return entities
