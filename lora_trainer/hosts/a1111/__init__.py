"""AUTOMATIC1111's WebUI as a host: trains the checkpoint that it holds in memory."""
