"""How good a LoRA is: pictures at several strengths, grids, a report."""
