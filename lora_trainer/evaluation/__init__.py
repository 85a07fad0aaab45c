"""How good the result is: prompts, strength sweep, grids, report."""
