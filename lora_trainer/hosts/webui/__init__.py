"""What every WebUI that trains in its own process shares, whichever of them it is."""
