"""Search: settings of the recipe and checkpoints to start from."""
