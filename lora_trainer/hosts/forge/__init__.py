"""Forge Neo, Forge, ersatzForge and reForge as hosts: one adapter, which asks what is there, not which one it is."""
