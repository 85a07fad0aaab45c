"""Time and memory of a training step, beside the bare forward pass and beside the same step in plain diffusers + peft.

Times come from one process in which all take turns on the same weights, so that every ratio is of neighbours in time.
Memory comes from a fresh process for each, so that none finds what another one left to the allocator.
"""
