"""One run of a name at a time: a lock file in the run's folder, and one beside its LoRA.

On one machine the operating system's lock on that file tells whether its owner lives: it goes with the process, however
that ends, so that no process id has to be trusted (ids are used again). Machines that share a folder often don't share
such locks; for them the owner renews the file's time for as long as it works. The standard library has both; a package
such as filelock has only the first, and doesn't say whose a lock is.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lora_trainer.errors import FileError, HostBusyError
from lora_trainer.files import parse_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt  # type: ignore[import-not-found,unused-ignore]

BEAT = 15.0  # seconds between two renewals
SILENCE = 120.0  # seconds after which an owner that can't be asked counts as gone
TRIES = 10  # somebody may give a lock back and remove its file, or look whether it is held, just while we open it
FAR = 1 << 30  # Windows keeps others from reading the locked byte, so it is one that isn't there


@contextmanager
def held(*paths: Path) -> Iterator[None]:
    """Hold these lock files for as long as the block lasts.

    Raises:
        HostBusyError: says whose run holds one of them.
        FileError: if a folder can't be written.
    """
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(_held(path))
        done = threading.Event()
        beat = threading.Thread(target=_renew, args=(paths, done), name="lora-trainer-lock", daemon=True)
        beat.start()
        try:
            yield
        finally:
            done.set()
            beat.join()


def check_free(*paths: Path) -> None:
    """Refuse if somebody holds one of these lock files; nothing is left held.

    Raises:
        HostBusyError: says whose run holds it.
        FileError: if its folder can't be written.
    """
    for path in paths:
        if path.exists():
            with _held(path):
                pass


def in_use(path: Path) -> bool:
    """Whether somebody holds this lock file. Writes nothing, so that a list of runs can ask about each of them.

    The lock itself is tried only where its owner can't be seen to live: for that moment nobody else could take it.
    """
    try:
        with path.open("rb") as stream:
            owner = _owner(stream.read())
            if not owner:
                return False
            if owner.get("host") == socket.gethostname() and _started(owner.get("pid")) == owner.get("started") != "":
                return True
            locked = _try_lock(stream, shared=True)
            return locked is False or _lives(owner, path, locked is True, _age_by_our_clock)
    except OSError:  # there is none, or it can't be looked at
        return False


@contextmanager
def _held(path: Path) -> Iterator[None]:
    try:
        stream = _acquired(path)
    except OSError as error:
        raise FileError(f"Can't write {path} ({error.strerror or error}). Choose another folder.") from error
    try:
        yield
    finally:
        if os.name == "nt":  # where an open file can't be removed
            stream.close()
        with suppress(OSError):  # Windows: the next one has it open already
            path.unlink()
        stream.close()


def _acquired(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(TRIES)):
        stream = path.open("a+b")
        try:
            locked = _try_lock(stream)
            if locked is False and left:
                stream.close()
                time.sleep(0.01)
                continue
            stream.seek(0)
            owner = _owner(stream.read())
            if locked is False or _lives(owner, path, locked is True, _age):
                raise HostBusyError(_refusal(path, owner))
            if _is_at(stream, path):
                stream.seek(0)
                stream.truncate()
                stream.write(json.dumps(_ourselves()).encode())
                stream.flush()
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()
    raise HostBusyError(_refusal(path, {}))


def _try_lock(stream: IO[bytes], shared: bool = False) -> bool | None:
    """Whether the operating system gives the lock; None where the file system has none.

    Args:
        shared: one of several who look whether it is free.
    """
    try:
        if fcntl is not None:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        else:
            stream.seek(FAR)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _lives(owner: dict[str, Any], path: Path, locked: bool, age: Callable[[Path], float]) -> bool:
    """Whether the owner that the file names is at work. Of this machine it isn't, if we have got the lock."""
    us = _ourselves()
    here = owner.get("host") == us["host"] or (us["boot"] and owner.get("boot") == us["boot"])
    if locked and (here or not owner):
        return False
    if owner.get("host") == us["host"] and us["started"]:
        return _started(owner.get("pid")) == owner.get("started")
    return age(path) < SILENCE and (bool(owner) or path.stat().st_size > 0)


def _age(path: Path) -> float:
    """Seconds since the file's last renewal, by the clock of the disk: another machine's may be wrong."""
    probe = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _age_by_our_clock(path: Path) -> float:
    """The same where nothing may be written; by two clocks that may differ."""
    return time.time() - path.stat().st_mtime


def _is_at(stream: IO[bytes], path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _owner(content: bytes) -> dict[str, Any]:
    try:
        found = parse_json(content, "the lock")
    except FileError:
        return {}
    return found if isinstance(found, dict) else {}


def _ourselves() -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "started": _started(pid), "host": socket.gethostname(), "boot": _boot()}


def _started(pid: object) -> str:
    """When a process started, in ticks since the machine did; empty where there is no such process, or no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError, ValueError):
        return ""


def _boot() -> str:
    """What containers on one machine have in common, unlike their host names."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _renew(paths: tuple[Path, ...], done: threading.Event) -> None:
    while not done.wait(BEAT):
        for path in paths:
            with suppress(OSError):
                os.utime(path)


def _refusal(path: Path, owner: dict[str, Any]) -> str:
    whose = f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
    far = owner and owner.get("host") != socket.gethostname()
    wait = f" If that machine was switched off, try again in {SILENCE:.0f} seconds." if far else ""
    return (
        f"Another run of that name is in progress ({whose} holds {path}). Wait for it to finish, stop it, or choose "
        f"another name.{wait}"
    )
