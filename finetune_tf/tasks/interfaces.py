"""What a task reads of other parts of the library, and the kinds of outputs that models have."""

from typing import Any, Literal, Protocol

#: What the outputs of a model are, by which losses, metrics and presets are chosen:
#: "classes": logits over classes, one of which is right for a text, a token or an end of an answer;
#: "several": a logit for each label, any number of which may be right;
#: "yes_no": one logit for each text, for a single label that is right or not;
#: "number": a number for each text;
#: "vectors": a vector for each text;
#: "pairs": two rows of numbers for each pair of an image and a text, whose products are the logits
#: of a choice among the texts of a batch for an image, and among its images for a text;
#: "independent_pairs": as "pairs", where each product is the logit of a decision of its own.
Kind = Literal["classes", "several", "yes_no", "number", "vectors", "pairs", "independent_pairs"]


class Columns(Protocol):
    """The part of examples that a task reads; see `data.Examples`."""

    columns: dict[str, list]
    name: str
    places: Any  # where the rows are in their source; see `data.places.Places`

    def __len__(self) -> int: ...


class HeadParts(Protocol):
    """The part of a family's head that a task reads; see `families.Head`."""

    weights: Any
    dropout: float
    transform: Any
    pooling: str
    output_bias: bool
    tied: bool
    has_logits_bias: bool
