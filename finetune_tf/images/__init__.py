"""Images and clips: decoding of files, and the preparation that a checkpoint was trained with."""

from finetune_tf.images.clips import CheckedClips, PreparedClips, decode_clip
from finetune_tf.images.decoding import decode
from finetune_tf.images.prepared import CheckedImages, PreparedImages
from finetune_tf.images.processor import PREPROCESSOR, ImageProcessor

__all__ = [
    "PREPROCESSOR",
    "CheckedClips",
    "CheckedImages",
    "ImageProcessor",
    "PreparedClips",
    "PreparedImages",
    "decode",
    "decode_clip",
]
