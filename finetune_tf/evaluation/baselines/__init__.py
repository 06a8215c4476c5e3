"""Simple methods that a fine-tuned model should beat."""
