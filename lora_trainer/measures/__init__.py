"""What of a LoRA can be measured with what is in memory anyway: the UNet, the VAE, the text encoders and the images.

A measure is a small function. It knows neither the plan of the pictures nor the verdict.
"""
