"""How we train: diffusion maths, caches, the loop, optimisers, schedules, precision, run state, events."""
