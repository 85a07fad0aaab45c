"""What we train: LoRA layers, their kohya keys, and the file with metadata."""
