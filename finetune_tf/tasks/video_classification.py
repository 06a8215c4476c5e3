"""Video classification: one label, several labels or a number for a clip."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from finetune_tf.architectures import PIXELS
from finetune_tf.errors import DataError
from finetune_tf.tasks.classification import Classification
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.image_classification import prepared_feature
from finetune_tf.tasks.interfaces import Columns
from finetune_tf.tasks.usage import make_usage

_TRANSFORMERS = """# The frames of a clip: a list of images, as many as config.num_frames
from transformers import AutoImageProcessor, AutoModelForVideoClassification

processor = AutoImageProcessor.from_pretrained("{folder}")
model = AutoModelForVideoClassification.from_pretrained("{folder}")
logits = model(**processor(frames, return_tensors="pt")).logits"""


class VideoClassification(Classification):
    """One value per label for a clip."""

    name = "video-classification"
    can_explain = False  # there is no picture of what a clip shows over time
    reads_clips = True
    class_suffix = "ForVideoClassification"
    columns = ("video", "label")
    output_layers = ("temporal", "classifier")
    poolings = ("pooler",)
    preprocessor = "image_processor"
    has_old_classes = False
    usage = make_usage(
        predict='ft.predict(model, video=["clip.mp4"])',
        names_task=False,
        transformers=_TRANSFORMERS,
    )

    @property
    def evaluator(self) -> str:
        """The evaluator of videos with the problem type."""
        return f"videos/{self.problem_type}"

    def complete_options(
        self, options: Mapping[str, Any], config: MutableMapping[str, Any]
    ) -> dict[str, Any]:
        """Adds the number of frames that the model reads of a clip."""
        return {**options, "frames": config["num_frames"]}

    def encode(
        self, examples: Columns, processor: Any, max_length: None = None, frames: int = 1
    ) -> Encoded:
        """Prepares frames of each clip; targets are in the order of the labels.

        Args:
            examples: Examples with videos.
            processor: The `ImageProcessor` of the model.
            max_length: Has no meaning for clips.
            frames: Frames of each clip; see `images.clips.frame_numbers` for which ones.

        Raises:
            DataError: If a clip cannot be used, or a label is not one of the model's.
        """
        has_labels = "label" in examples.columns
        targets = Feature.of_array(self.targets(examples)) if has_labels else None
        rows = prepared_feature(examples, "video", processor, frames=frames)
        return Encoded({PIXELS: rows}, targets)

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Returns the videos: the first argument of `predict`, or `video=`.

        Raises:
            DataError: If anything else is given.
        """
        videos = columns.pop("video", None) if texts is None else texts
        if text_pair is not None or columns or videos is None:
            raise DataError(
                f"predict for {self.name} takes videos: predict(model, paths), or "
                "predict(model, video=…)."
            )
        return {"video": videos}
