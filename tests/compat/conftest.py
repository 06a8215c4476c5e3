"""Model classes of transformers 4 with a tiny BERT."""

import pytest

from finetune_tf import compat
from finetune_tf.messages import quiet


@pytest.fixture(scope="module")
def classifier(tiny_bert):
    with quiet():
        return compat.TFBertForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)


@pytest.fixture
def fresh(tiny_bert):
    """A model that a test may modify."""
    with quiet():
        return compat.TFBertForSequenceClassification.from_pretrained(tiny_bert)
