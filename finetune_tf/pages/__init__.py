"""A report as one HTML file that needs no network: `Report.save_html`."""

from finetune_tf.pages.saving import save_html
from finetune_tf.pages.sections.settings import COMMAND
from finetune_tf.pages.words import Words

__all__ = ["COMMAND", "Words", "save_html"]
