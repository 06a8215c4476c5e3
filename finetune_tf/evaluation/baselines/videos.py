"""Baselines for video classification and regression, without a pretrained model.

Linear models on the colours and edges of frames (see `baselines.images`), which are combined in
ways that show what the task needs:

- "mean-frame": logistic regression on the mean over the frames, which does not know their order;
- "middle-frame": on the frame in the middle, which is an image;
- "difference": on the mean of the second half of the frames less that of the first half;
- "majority": the relative frequency of each label in the training examples;
- "ridge": ridge regression on the mean over the frames;
- "mean": the mean of the training targets.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from finetune_tf.base.labels import ProblemType
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.images import features, features_of, standardized, with_scores
from finetune_tf.evaluation.baselines.text import scorers
from finetune_tf.evaluation.evaluators.evaluator import BaselineFunction
from finetune_tf.images import decode_clip

_FRAMES = 9  # of each clip at most

#: Combine the features of frames (frames, features).
_Combination = Callable[[np.ndarray], np.ndarray]


def _mean(frames: np.ndarray) -> np.ndarray:
    return frames.mean(axis=0)


def _middle(frames: np.ndarray) -> np.ndarray:
    return frames[len(frames) // 2]


def _difference(frames: np.ndarray) -> np.ndarray:
    half = max(len(frames) // 2, 1)
    return frames[-half:].mean(axis=0) - frames[:half].mean(axis=0)


_COMBINATIONS: dict[str, _Combination] = {
    "mean-frame": _mean,
    "middle-frame": _middle,
    "difference": _difference,
}


def baselines_for_videos(problem_type: ProblemType) -> dict[str, BaselineFunction]:
    """Returns the baselines of a problem type, as functions that return a `Predicted`."""
    found = {}
    for name, combination in _COMBINATIONS.items():
        found |= scorers(partial(_video_features, combination), name)[problem_type]
        if problem_type == "regression":  # "ridge" and "mean", of the mean over the frames
            break
    names = sorted(found, key=lambda name: name == "majority")  # the weakest one is the last
    return {name: with_scores(found[name]) for name in names}


def _video_features(
    combination: _Combination, train: Examples, test: Examples
) -> tuple[np.ndarray, np.ndarray]:
    def function(clip: Any) -> np.ndarray:
        frames = decode_clip(clip, _FRAMES, at_most=True)
        return combination(np.stack(list(map(features_of, frames))))

    return standardized(*(features(each.columns["video"], function, id) for each in (train, test)))
