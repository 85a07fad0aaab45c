"""The calibration of the verdict: LoRAs of known truth, a judge that reads pixels, and the table."""
