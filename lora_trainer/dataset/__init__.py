"""What we train on: folders, captions, buckets, checks, preparation."""
