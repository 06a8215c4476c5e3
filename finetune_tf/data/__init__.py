"""From files and data sets to batches: sources make `Examples`, examples make batches."""

from finetune_tf.data.duplicates import overlap
from finetune_tf.data.examples import Examples
from finetune_tf.data.reviews import reviews
from finetune_tf.data.sources.arrays import from_arrays, from_pandas
from finetune_tf.data.sources.csv_files import from_csv
from finetune_tf.data.sources.excel import from_excel
from finetune_tf.data.sources.huggingface import from_huggingface
from finetune_tf.data.sources.image_folder import from_image_folder
from finetune_tf.data.sources.json_lines import from_jsonl
from finetune_tf.data.sources.tfds import from_tfds
from finetune_tf.data.sources.video_folder import from_video_folder
from finetune_tf.data.token_files import TokenFiles, read_tokens, write_tokens
from finetune_tf.data.tokenized import tokenized_batches

__all__ = [
    "Examples",
    "TokenFiles",
    "from_arrays",
    "from_csv",
    "from_excel",
    "from_huggingface",
    "from_image_folder",
    "from_jsonl",
    "from_pandas",
    "from_tfds",
    "from_video_folder",
    "overlap",
    "read_tokens",
    "reviews",
    "tokenized_batches",
    "write_tokens",
]
