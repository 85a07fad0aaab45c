"""The stand-alone host: a checkpoint file on diffusers' modules, without a WebUI and without any download."""
