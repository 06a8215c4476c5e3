"""What a server does with a model: encode requests, compute joined rows, describe predictions."""

import dataclasses
import io
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError, FinetuneError, MissingExtraError
from finetune_tf.messages import quiet
from finetune_tf.model.inference import run
from finetune_tf.serving.forms import forms_of
from finetune_tf.serving.inputs import TRUNCATE, Asked
from finetune_tf.serving.refusal import Refusal
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.feature import TOKENS
from finetune_tf.tasks.text_vectors import require_complete_rows

_NAME = "the request"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A request whose rows are encoded.

    Attributes:
        asked: The request.
        examples: Its rows.
        encoded: The encoded rows, which may be more: a long context has several.
    """

    asked: Asked
    examples: Examples
    encoded: Encoded

    @property
    def length(self) -> int:
        """The length of the longest row; 0 for images."""
        return max((int(of_axis.max()) for of_axis in self.encoded.lengths.values()), default=0)

    @property
    def kind(self) -> Hashable:
        """Equal for requests whose rows can be joined."""
        return frozenset(self.encoded.inputs)


class Predictor:
    """A model with the steps of `ft.predict`, of which the middle one is shared by requests.

    Args:
        model: A model from `load`.
        max_batch: Rows of a batch.
        max_length: Tokens of a text; None for as many as the model accepts.

    Raises:
        ArgumentError: If the model does not accept `max_length`.

    Example:
        >>> from finetune_tf.serving.inputs import Asked
        >>> from finetune_tf.serving.predictor import Predictor
        >>> predictor = Predictor(model)
        >>> request = predictor.prepare(Asked({"text": ["a good film"]}, {}, is_single=True))
        >>> (rows,) = predictor.compute([request.encoded])
        >>> sorted(predictor.describe(request, rows)["prediction"])
        ['label', 'probabilities', 'score']
    """

    def __init__(self, model: Any, max_batch: int = 32, max_length: int | None = None) -> None:
        limit = model.max_length
        if max_length is not None and max_length > (limit or 0):
            raise ArgumentError(
                f"max_length must be at most {limit:,}, the tokens that the model accepts, found "
                f"{max_length:,}."
                if limit
                else "max_length= is for texts, but the model reads images."
            )
        if max_length is not None:
            require_complete_rows(model, max_length)
        self.model, self.task = model, model.task
        self._max_batch, self._max_length = max_batch, max_length

    def prepare(self, asked: Asked) -> Prepared:
        """Encodes the rows of a request.

        Raises:
            Refusal: If a row does not fit the task, or a text is too long.
        """
        try:
            with quiet():
                examples = Examples(dict(asked.columns), name=_NAME)
                encoded = examples.encoded(
                    self.model, self._max_length, targets=self.task.reduces_with_targets
                )
                # Images are decoded here and not in a batch, where others would wait for them.
                inputs = {
                    name: dataclasses.replace(feature, rows=list(feature))
                    for name, feature in encoded.inputs.items()
                }
        except MissingExtraError:
            raise
        except FinetuneError as error:
            raise Refusal(400, str(error)) from None
        if encoded.truncated and not asked.may_truncate:
            limit = encoded.limit or self._max_length or self.model.max_length
            raise Refusal(
                413,
                f"A text may have {limit:,} tokens, special ones included; {encoded.truncated:,} "
                f"of {len(asked):,} in the request have more. Shorten them, or send "
                f'"{TRUNCATE}": true to have their ends cut off.',
            )
        self._check_prompts(encoded)
        return Prepared(asked, examples, dataclasses.replace(encoded, inputs=inputs))

    def _check_prompts(self, encoded: Encoded) -> None:
        """Checks the lengths of prompts, of which nothing can be cut off."""
        limit = self._max_length
        lengths = encoded.lengths.get(TOKENS)
        if limit is None or lengths is None:
            return
        if longer := int((lengths > limit).sum()):
            raise Refusal(
                413,
                f"A prompt may have {limit:,} tokens, special ones included; {longer:,} of "
                f"{len(encoded):,} in the request have more. Shorten them.",
            )

    def compute(self, requests: Sequence[Encoded]) -> list[list[np.ndarray]]:
        """Computes the predictions of several requests of one kind together.

        Returns:
            For each request what `describe` needs, one array for each encoded row.
        """
        inputs = {
            name: dataclasses.replace(
                feature, rows=[row for encoded in requests for row in encoded.inputs[name]]
            )
            for name, feature in requests[0].inputs.items()
        }
        joined = Encoded(inputs, targets=None, tokenizer=requests[0].tokenizer)

        def forward(rows: Encoded, part: Any = None) -> list[np.ndarray]:
            return run(self.model, rows, self._max_batch, _NAME, part)

        with quiet():
            found = self.task.predict_rows(self.model, joined, self._max_batch, forward)
        ends = np.cumsum([len(encoded) for encoded in requests]).tolist()
        return [
            found[end - len(encoded) : end] for encoded, end in zip(requests, ends, strict=True)
        ]

    def describe(self, request: Prepared, rows: list[np.ndarray]) -> dict[str, Any]:
        """Returns the answer to a request: "prediction" for a single value, else "predictions".

        Raises:
            Refusal: If an option is out of range, or a text has nothing to predict.
        """
        try:
            described = self.task.describe(
                rows, request.encoded, request.examples, **request.asked.options
            )
        except FinetuneError as error:
            raise Refusal(400, str(error)) from None
        found = [self.task.as_json(each) for each in described]
        return {"prediction": found[0]} if request.asked.is_single else {"predictions": found}

    def warm_up(self) -> None:
        """Predicts something, so that the first request does not wait for the model's trace.

        Does nothing for videos, since there is none at hand.
        """
        form = forms_of(self.task)[0]
        if "video" in form:
            return
        columns = {name: [self._sample(name)] for name in form}
        request = self.prepare(Asked(columns, {}, is_single=True, may_truncate=True))
        self.compute([request.encoded])

    def _sample(self, column: str) -> Any:
        if column == "image":
            from PIL import Image

            file = io.BytesIO()
            Image.new("RGB", (8, 8)).save(file, "PNG")
            return file.getvalue()
        tokenizer = self.model.tokenizer
        return f"a {tokenizer.mask_token or ''}".strip() if column == "text" else "a"
