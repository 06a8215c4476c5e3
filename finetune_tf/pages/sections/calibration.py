"""Whether probabilities are as high as the share of correct predictions."""

from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html


def calibration(content: Content) -> Html | None:
    """Returns the reliability chart, ECE and NLL with their intervals."""
    return None
