"""A small HTTP server of a saved model; it needs the extra `finetune-tf[serve]`."""

from finetune_tf.serving.server import serve

__all__ = ["serve"]
