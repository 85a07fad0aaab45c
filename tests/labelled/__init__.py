"""Labelled cases for the checks of images: made from real photographs, measured, and counted."""
