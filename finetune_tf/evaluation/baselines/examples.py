"""Baselines for images with texts, without a pretrained model.

- "both": a linear model on the features of the text and of the image;
- "tfidf": the same on the TF-IDF features of the text alone; see `TfidfFeatures`;
- "colors": the same on the colours and edges of the image alone; see `baselines.images`;
- "majority": the relative frequency of each label in the training examples; for a regression
  "mean", the mean of the training targets.

The linear model is one-vs-rest logistic regression, or ridge regression. It cannot answer a
question for which text and image have to be combined, such as which of two colours an image has, so
"both" shows how far their separate hints lead.
"""

from typing import TYPE_CHECKING

from finetune_tf.base.labels import ProblemType
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.images import image_features, with_scores
from finetune_tf.evaluation.baselines.text import scorers, text_features
from finetune_tf.evaluation.evaluators.evaluator import BaselineFunction

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def both_features(train: Examples, test: Examples) -> tuple["csr_matrix", "csr_matrix"]:
    """Returns the features of texts and images of training and of test examples."""
    from scipy.sparse import csr_matrix, hstack

    texts, images = text_features(train, test), image_features(train, test)
    joined = [
        hstack([text, csr_matrix(image)], format="csr")
        for text, image in zip(texts, images, strict=True)
    ]
    return joined[0], joined[1]


_FEATURES = {"both": both_features, "tfidf": text_features, "colors": image_features}


def baselines_for_examples(problem_type: ProblemType) -> dict[str, BaselineFunction]:
    """Returns the baselines of a problem type, as functions that return a `Predicted`."""
    found = {}
    for name, features in _FEATURES.items():
        (_, linear), (simple, without_inputs) = scorers(features, name)[problem_type].items()
        found[name] = linear
    return {name: with_scores(score) for name, score in (found | {simple: without_inputs}).items()}
