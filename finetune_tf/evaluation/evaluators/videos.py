"""The evaluators of video classification and regression: those of texts with other baselines."""

from finetune_tf.evaluation.baselines.videos import baselines_for_videos
from finetune_tf.evaluation.evaluators.images import TopOfScores
from finetune_tf.evaluation.evaluators.text import MultiLabel, Regression, SingleLabel


class _VideoEvaluator:
    unit = example_unit = "videos"

    def __init__(self) -> None:
        super().__init__()
        self.baselines = baselines_for_videos(self.kind)


class SingleLabelVideos(_VideoEvaluator, TopOfScores, SingleLabel):
    """Evaluates class indices (n,); the main metric is the accuracy.

    With more than five classes there is also the top-5 accuracy.
    """


class MultiLabelVideos(_VideoEvaluator, MultiLabel):
    """Evaluates 0 and 1 (n, num_labels); the main metric is the micro-averaged F1."""


class VideoRegression(_VideoEvaluator, Regression):
    """Evaluates numbers (n,); the main metric is Pearson's correlation."""
