"""Automatic captions: models that describe images, and how what they say becomes a caption."""
