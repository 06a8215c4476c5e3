"""What the classes of the everyday reviews are called."""

NAMES = ("negative", "neutral", "positive")
