"""Train a LoRA on the checkpoint that is already in memory, and test it. Importing this package loads nothing heavy."""

__version__ = "0.1.0"
