"""How tokens are generated, on which a traced loop depends."""

from dataclasses import dataclass

import numpy as np

from finetune_tf.generation.beams import Beams
from finetune_tf.generation.ends import Ends
from finetune_tf.generation.rules import Rule
from finetune_tf.generation.sampling import Sampling


@dataclass(frozen=True)
class Way:
    """How tokens are generated, and what the graph of the loop depends on.

    Attributes:
        choice: How each token is chosen: by sampling (or as the best one), or by beam search.
        rules: What is changed of the scores before, in this order.
        ends: What ends a text.
        padding: The token that follows the end of a text.
        returned: Number of texts that beam search returns for each prompt.
        first: The token with which the targets of an encoder-decoder begin; None for other models.
        has_scores: Whether the log-probabilities of the chosen tokens are summed. Beam search
            always does that.
    """

    choice: Sampling | Beams = Sampling()
    rules: tuple[Rule, ...] = ()
    ends: Ends = Ends()
    padding: int = 0
    returned: int = 1
    first: int | None = None
    has_scores: bool = False

    def continues(self, prompt: np.ndarray) -> np.ndarray:
        """Returns the tokens (tokens,) before the generated ones: a prompt, or that of a target."""
        return prompt if self.first is None else np.array([self.first], "int32")
