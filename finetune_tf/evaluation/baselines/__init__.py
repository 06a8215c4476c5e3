"""Baselines: simple methods without a pretrained model, which a fine-tuned model should beat."""
