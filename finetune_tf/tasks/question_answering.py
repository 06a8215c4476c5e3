"""Extractive question answering: the part of a context that answers a question.

As in SQuAD (Rajpurkar et al. 2016) and SQuAD 2 (Rajpurkar et al. 2018), where a context need not
hold an answer.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.architectures import Backbone, ClassificationHead
from finetune_tf.base.arguments import check
from finetune_tf.base.labels import Labels
from finetune_tf.errors import ArgumentError, DataError, DataTypeError
from finetune_tf.messages import say
from finetune_tf.tasks.answers import Answer, best_answer, best_span, span_tokens
from finetune_tf.tasks.conventions import label_keys
from finetune_tf.tasks.encoded import token_inputs, tokenized
from finetune_tf.tasks.explained import Aim, Word, log_odds, log_odds_of_both, words_of
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.task import Columns, Encoded, HeadParts, Kind, Task
from finetune_tf.tasks.usage import make_usage
from finetune_tf.tasks.windows import windows

#: Tokens that neighbouring windows of a context share.
STRIDE = 128
#: Tokens that an answer may have.
MAX_ANSWER_LENGTH = 30
_CERTAIN = 1e9  # the log-odds of an end that is not asked for
# transformers 5 has no pipeline for this task.
_IN_TRANSFORMERS = """from transformers import AutoModelForQuestionAnswering, AutoTokenizer

model = AutoModelForQuestionAnswering.from_pretrained("{folder}")
inputs = AutoTokenizer.from_pretrained("{folder}")("question", "context", return_tensors="pt")
model(**inputs)  # start_logits and end_logits"""


class QuestionAnswering(Task):
    """The first and the last token of the answer to a question in a context.

    The first token of a row ("[CLS]") means "no answer here". A context that is too long for the
    model becomes several rows (windows), which share `STRIDE` tokens with their neighbours.
    """

    name = "question-answering"
    class_suffix = "ForQuestionAnswering"
    runs_in_all_engines = True
    columns = ("question", "context", "answers")
    needs = ("question", "context")
    target_column = "answers"
    token_axis = 1
    can_explain = True
    usual_length = 384
    encode_options = ("stride",)
    options = ("null_threshold", "max_answer_length")
    usage = make_usage(
        'ft.predict(model, question="…", context="…")', transformers=_IN_TRANSFORMERS
    )
    targets_are_positions = True
    target_title = "A start or end"
    target_advice = "The outputs are the tokens of a row: count tokens, from 0, and not characters."

    def outputs(
        self,
        backbone: Backbone,
        head: HeadParts,
        config: Mapping[str, Any],
        pooling: str | None,
        dtype: Any,
        modules: Any,
    ) -> Any:
        """Logits (batch, 2, length) of each token as the first and as the last of the answer."""
        features = backbone.hidden
        if head.transform is not None:
            features = head.transform(dtype=dtype)(features)
        return ClassificationHead(
            2,
            head.dropout,
            initializer_range=config["initializer_range"],
            per_label=True,
            name="classifier",
        )(features)

    def named(self, outputs: Any) -> dict[str, Any]:
        """The logits of starts and of ends, (batch, length) each."""
        return {"start_logits": outputs[:, 0], "end_logits": outputs[:, 1]}

    def unnamed(self, named: Mapping[str, Any]) -> Any:
        """The logits (batch, 2, length) from those of starts and of ends."""
        return np.stack([named["start_logits"], named["end_logits"]], axis=1)

    @property
    def output_kind(self) -> Kind:
        """Logits over the tokens of a row, for start and end."""
        return "classes"

    def config_keys(self) -> dict[str, Any]:
        """Two labels without meaning; PyTorch makes as many outputs as there are labels."""
        return label_keys(Labels.of(2))

    def encode(
        self,
        examples: Columns,
        tokenizer: Any,
        max_length: int,
        stride: int = STRIDE,
    ) -> Encoded:
        """Encodes windows as rows.

        Targets (rows, 2) are the tokens at which the first accepted answer starts and ends. If a
        window does not contain the complete answer, both are 0, the first token.

        Args:
            examples: Examples with questions, contexts and, for training, answers.
            tokenizer: A fast tokenizer of transformers.
            max_length: Tokens that a window may have.
            stride: Tokens that neighbouring windows share.

        Raises:
            DataError: If a question leaves no room for its context, or `stride` is not a number
                of tokens.
        """
        check(max_length=max_length, stride=stride)
        if isinstance(stride, bool) or not isinstance(stride, int) or stride < 0:
            raise DataError(f"stride is a number of tokens, from 0 on; found {stride!r}.")
        answers = examples.columns.get("answers")
        made = windows(
            tokenizer,
            examples.columns["question"],
            examples.columns["context"],
            [None] * len(examples) if answers is None else list(map(_first_span, answers)),
            max_length,
            stride,
            examples.name,
            examples.places,
        )
        if len(made.example) > len(examples):
            say(
                f"{examples.name}: {len(examples):,} questions make {len(made.example):,} rows, "
                f"since contexts go on in a further row after {max_length} tokens."
            )
        if made.lost:
            say(
                f"{examples.name}: {made.lost:,} answers are too long for the part that two rows "
                "of a context share and stand whole in none: they are learnt as 'no answer'. A "
                "larger max_length helps."
            )
        targets = np.asarray(made.answers, dtype="int32") if answers is not None else None
        return Encoded(
            token_inputs(vars(made), tokenizer),
            targets=None if targets is None else Feature.of_array(targets),
            example=np.asarray(made.example),
            offsets=made.offsets,
        )

    def targets(self, examples: Columns) -> list[list[str]]:
        """The accepted answers of each example; an empty list if there is no answer."""
        return [list(answers["text"]) for answers in examples.columns["answers"]]

    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> list[str]:
        """The texts of the answers, "" for no answer.

        As in the official scripts, the model may give no answer only if some of the examples have
        none; SQuAD 1.1 requires an answer to each question.
        """
        answers = examples.columns.get("answers", ())
        threshold = 0.0 if any(not answer["text"] for answer in answers) else None
        described = self.describe(rows, encoded, examples, threshold)
        return [answer.text for answer in described]

    def describe(
        self,
        rows: list[np.ndarray],
        encoded: Encoded,
        examples: Columns,
        null_threshold: float | None = 0.0,
        max_answer_length: int = MAX_ANSWER_LENGTH,
    ) -> list[Answer]:
        """The best answer of each example, over all windows of its context.

        Args:
            rows: Logits (2, tokens) of each row.
            encoded: The examples after `encode`.
            examples: The examples.
            null_threshold: By how much the logits of "no answer" must exceed those of the best
                answer; None to always return an answer.
            max_answer_length: Tokens that an answer may have.
        """
        check(null_threshold=null_threshold, max_answer_length=max_answer_length)
        whole = isinstance(max_answer_length, int) and not isinstance(max_answer_length, bool)
        if not whole or max_answer_length < 1:
            raise DataError(f"max_answer_length is 1 or more tokens, found {max_answer_length!r}.")
        spans = [
            best_span(logits, offsets, max_answer_length)
            for logits, offsets in zip(rows, encoded.offsets, strict=True)
        ]
        # The windows of an example are neighbouring rows.
        borders = np.searchsorted(encoded.example, np.arange(len(examples) + 1))
        return [
            best_answer(spans[borders[i] : borders[i + 1]], context, null_threshold)
            for i, context in enumerate(examples.columns["context"])
        ]

    def explained(
        self, rows: list[np.ndarray], encoded: Encoded, examples: Columns, targets: list
    ) -> list[Aim]:
        """The first and the last token of an answer, in the window that it is most probable in.

        A target is "start" or "end" of the predicted answer alone, or the text of another answer.

        Raises:
            ArgumentError: If the text is not in the context, or there is no answer to a target.
        """
        answers = self.describe(rows, encoded, examples)
        borders = np.searchsorted(encoded.example, np.arange(len(examples) + 1))
        return [
            self._aim(answer, target, context, rows, encoded, range(borders[i], borders[i + 1]))
            for i, (answer, target, context) in enumerate(
                zip(answers, targets, examples.columns["context"], strict=True)
            )
        ]

    def _aim(
        self,
        answer: Answer,
        target: Any,
        context: str,
        rows: list[np.ndarray],
        encoded: Encoded,
        windows_of_example: range,
    ) -> Aim:
        predicted = repr(answer.text) if answer.text else "no answer"
        ends = {"start": (1, 0), "end": (0, 1)}.get(target, (1, 1))
        is_text = target not in (None, "start", "end")
        wanted = [(answer.start, answer.end)]
        if is_text:
            wanted = _occurrences(target, context)
        if (is_text and not wanted) or target == "":
            raise ArgumentError(
                'target= is "start" or "end" of the predicted answer, or an answer that stands in '
                f"the context as it is written; found {target!r}."
            )
        if wanted == [(None, None)]:
            row = min(windows_of_example, key=lambda each: -rows[each][:, 0].sum())
            places = {row: (0, 0)}  # the first token means "no answer here"
        else:
            found = {
                (each, *span): span_tokens(encoded.offsets[each], *span)
                for each in windows_of_example
                for span in wanted
            }
            found = {key: tokens for key, tokens in found.items() if tokens is not None}
            if not found:
                raise ArgumentError(
                    f"The answer {target!r} is longer than the part of the context that two rows "
                    "share, and no row holds all of it. Load the model with a larger max_length."
                )
            best = max(found, key=lambda key: _span_score(rows[key[0]], found[key]))
            row, places = best[0], {best[0]: found[best]}
        start, end = places[row]
        name = repr(target) if is_text else predicted
        title = {(1, 0): f"the start of {name}", (0, 1): f"the end of {name}"}.get(ends, name)
        index = (start if ends[0] else -1, end if ends[1] else -1)
        return Aim(row, index, title, predicted, answer.score)

    def explained_score(self, outputs: Any, index: Any) -> Any:
        """The log-odds that the start and the end are these tokens, or one of them."""
        one, other = (
            ops.where(index[i] < 0, _CERTAIN, log_odds(outputs[:, i], ops.maximum(index[i], 0)))
            for i in range(2)
        )
        return log_odds_of_both(one, other)

    def explained_words(
        self, encoded: Encoded, row: int, examples: Columns, tokenizer: Any
    ) -> list[Word]:
        """The words of the question, and those of the context in this window."""
        example = int(encoded.example[row])
        texts = {name: examples.columns[name][example] for name in ("question", "context")}
        whole = tokenized(
            tokenizer, [texts["question"]], [texts["context"]], return_offsets_mapping=True
        )
        sides, offsets = whole.sequence_ids(0), whole["offset_mapping"][0]
        of_row = encoded.offsets[row]
        columns: list[str | None] = []
        places: list[Any] = []
        for i, (start, end) in enumerate(of_row.tolist()):
            is_question = start < 0 and i < len(sides) and sides[i] == 0
            columns.append("context" if start >= 0 else "question" if is_question else None)
            places.append(offsets[i] if is_question else (start, end))
        return words_of(texts, columns, places)

    def asked(
        self,
        texts: Any = None,
        text_pair: Any = None,
        question: Any = None,
        context: Any = None,
        **columns: Any,
    ) -> dict[str, Any]:
        """The columns `question` and `context`.

        Raises:
            DataError: If one is missing, or anything else is given.
        """
        given = {"texts": texts, "text_pair": text_pair, **columns}
        others = [name for name, value in given.items() if value is not None]
        if others or question is None or context is None:
            found = [*others, *(["question"] if question is not None else [])]
            found += ["context"] if context is not None else []
            raise DataError(
                "predict for question-answering takes question= and context= by name, found "
                f'{", ".join(found) or "neither"}: ft.predict(model, question="…", context="…"), '
                f"or two lists. Options are {' and '.join(self.options)}."
            )
        return {"question": question, "context": context}

    def read_predictions(self, values: list, examples: Any) -> list[str]:
        """Converts answers that are texts, or `Answer` objects from `describe`.

        Raises:
            DataTypeError: If a value is neither.
        """
        texts = [value.text if isinstance(value, Answer) else value for value in values]
        wrong = [text for text in texts if not isinstance(text, str)]
        if wrong:
            raise DataTypeError(
                "Predictions for question-answering are one text each, '' for no answer; found "
                f"{wrong[0]!r}."
            )
        return texts


def _occurrences(text: Any, context: str) -> list[tuple[int, int]]:
    """Start and end of each occurrence of a text."""
    if not isinstance(text, str) or not text:
        return []
    starts = [i for i in range(len(context)) if context.startswith(text, i)]
    return [(start, start + len(text)) for start in starts]


def _span_score(logits: np.ndarray, tokens: tuple[int, int]) -> float:
    return float(logits[0, tokens[0]] + logits[1, tokens[1]])


def _first_span(answers: Mapping[str, list]) -> tuple[int, int] | None:
    """The start of the first accepted answer and its end, in characters; None without answers."""
    if not answers["text"]:
        return None
    start = answers["answer_start"][0]
    return start, start + len(answers["text"][0])
