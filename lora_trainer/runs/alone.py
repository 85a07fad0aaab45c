"""Who changes a run's files holds its locks meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lora_trainer.errors import FileError, HostBusyError
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.lock import held


@contextmanager
def alone(folder: RunFolder, lora_dir: Path | None = None) -> Iterator[None]:
    """While no run of that name is in progress.

    Raises:
        HostBusyError: if one is.
        FileError: if the folder can't be written.
    """
    locks = folder.locks(lora_dir) if lora_dir is not None and lora_dir.is_dir() else (folder.lock,)
    with ExitStack() as stack:
        try:
            stack.enter_context(held(*locks))
        except HostBusyError:
            raise HostBusyError(f"The run {folder.name} is in progress; stop it first.") from None
        except FileError as error:
            raise FileError(f"{folder.path} can't be changed: {str(error).partition('. ')[0]}.") from error
        yield
