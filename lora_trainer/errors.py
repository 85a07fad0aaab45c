"""Errors whose text is shown to the user as it is: one sentence that names the thing and the remedy."""

from __future__ import annotations


class LoraTrainerError(Exception):
    """Base of every error that a user can cause or cure; the CLI and the tab show its text without a traceback."""


class ConfigError(LoraTrainerError):
    """A setting is unknown, has a wrong type or range, or contradicts another one."""


class DatasetError(LoraTrainerError):
    """The dataset folder holds nothing to train on, or something that can't be read."""


class UnsupportedModelError(LoraTrainerError):
    """The checkpoint or the WebUI's state is one that can't be trained."""


class FileError(LoraTrainerError):
    """A file can't be read or written, or isn't what its name says."""


class TrainingDivergedError(LoraTrainerError):
    """Loss, gradients or latents became NaN or infinite; everything up to the step before was saved."""


class HostBusyError(LoraTrainerError):
    """The host can't lend its model now, for instance because another run holds it."""
