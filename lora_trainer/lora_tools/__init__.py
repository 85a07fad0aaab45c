"""Tools for finished LoRA files: merge, resize, extract, convert, bake, show. No model is loaded."""
