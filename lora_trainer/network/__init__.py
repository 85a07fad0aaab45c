"""What we train: adapters beside frozen weights, their kohya keys, and the file with metadata."""
