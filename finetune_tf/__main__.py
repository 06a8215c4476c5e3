"""Runs the command line interface with `python -m finetune_tf`."""

from finetune_tf.cli import main

if __name__ == "__main__":
    main()
