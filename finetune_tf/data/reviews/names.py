"""What the classes and the splits of the everyday reviews are called, and their version."""

NAMES = ("negative", "neutral", "positive")
SPLITS = ("train", "validation", "test")
VERSION = "1.1.0"
