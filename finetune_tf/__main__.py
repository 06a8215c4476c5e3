"""`python -m finetune_tf` is the command line."""

from finetune_tf.cli import main

if __name__ == "__main__":
    main()
