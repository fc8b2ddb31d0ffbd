"""Files written completely or not at all, locks that end with their process, and checksums, for any content.

While a file or folder is being written, it lies beside its place under the name `partial-<random>-<name>`. It gets
its real name once it is complete and on the disk. So a reader sees the old content or the new, never half of it, and
two processes that write the same file at once don't mix their content.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

PARTIAL = "partial-"
NAMING_SECONDS = 10  # longer than it takes to write a name into a new lock
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room for anybody, for this user, for this process


def partial_path(path: Path) -> Path:
    """A path beside `path`, never used before, for the content that will replace it."""
    return path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:12]}-{path.name}")


def find_partial(folder: Path, name: str = "*") -> list[Path]:
    """Files and folders that processes are writing in a folder, or left half-written when they were killed.

    Args:
        folder: where to look.
        name: of the files that were being written; a pattern of `fnmatch`.
    """
    return list(folder.glob(f"{PARTIAL}{'[0-9a-f]' * 12}-{name}"))


def remove_partial(folder: Path, name: str = "*") -> None:
    """Remove what `find_partial` finds; call this only where no other process can be writing."""
    for path in find_partial(folder, name):
        remove(path)


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder; do nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def written_whole(path: Path, keep_partial: bool = False) -> Iterator[Path]:
    """A path to write a file to inside the `with` block; afterwards the file stands at `path`.

    If the block fails, nothing is left of the new file and `path` is as it was. Not even a power cut can leave half a
    file at `path`.

    Args:
        path: where the file goes.
        keep_partial: leave what was written before an interruption, under its partial name.
    """
    partial = partial_path(path)
    # The file is created here: a file that exists already, or a link that somebody placed there, is an error.
    open(partial, "xb", opener=no_follow).close()
    try:
        yield partial
        flush_to_disk(partial)
        partial.replace(path)
    finally:
        if not keep_partial:
            partial.unlink(missing_ok=True)
    flush_to_disk(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with written_whole(path) as partial, naming(path):
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


@contextlib.contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """A new folder to fill inside the `with` block; afterwards it stands at `folder`, in place of one that was there.

    If the block fails, or a signal comes, nothing is left of the new folder and the old one is as it was.
    """
    folder = folder.resolve()  # `.` has no name, and what a link points at may lie on another disk
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = partial_path(folder), partial_path(folder)
    new.mkdir()
    try:
        yield new
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        except BaseException:  # also for a signal between the two renames
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
    finally:
        remove(new)
    remove(old)


@contextlib.contextmanager
def locked(path: Path, message: str) -> Iterator[None]:
    """Hold the lock file `path` inside the `with` block; the lock ends with the process, however that ends.

    Args:
        path: the lock file. It is created if absent and stays afterwards; a link in its place is refused.
        message: of the error if another process holds the lock.

    Raises:
        FileExistsError: another process holds the lock, or a link lies in its place.
    """
    import filelock  # here, since importing it takes a fifth of a second

    if path.is_symlink():
        raise FileExistsError(f"{path} is a link, and a lock is none. Delete it.")
    by_system = _knows_locks(path.parent)
    lock = (filelock.FileLock if by_system else filelock.SoftFileLock)(path, thread_local=False)
    if not by_system:
        # Then the lock is a file that names its holder. If it is empty, it comes from a file system on which the
        # system did the locking, or its holder is just about to write its name.
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if not status.st_size and time.time() - status.st_mtime > NAMING_SECONDS:
                path.unlink()
        message += f" Where its machine is gone, delete {path}."
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise FileExistsError(message) from None
    try:
        yield
    finally:
        lock.release()


def _knows_locks(folder: Path) -> bool:
    """Whether the system locks files in a folder, and releases the locks of a process that ends."""
    if os.name == "nt":
        return True
    try:
        import fcntl
    except ImportError:
        return False
    probe = partial_path(folder / "lock")
    try:
        with open(probe, "xb", opener=no_follow) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to an error while it is read or written, which the system reports without it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def is_full_disk(error: BaseException) -> bool:
    """Whether an error means that the disk is full. TensorFlow and HDF5 raise errors of their own for it."""
    return getattr(error, "errno", None) in FULL_DISK or any(os.strerror(n) in str(error) for n in FULL_DISK)


def file_of_full_disk(error: BaseException) -> str | None:
    """The file that a full disk stopped from being written, if the error names it (`{{op}} FILE; No space ...`)."""
    reasons = "|".join(re.escape(os.strerror(number)) for number in FULL_DISK)
    words = re.match(rf"(?:\{{\{{.*?\}}\}} )?(.*); (?:{reasons})", str(error))
    return getattr(error, "filename", None) or (words and words[1])


def no_follow(path: str, flags: int) -> int:
    """For `open(..., opener=no_follow)`: a link in a file's place is an error instead of being followed."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def flush_to_disk(path: Path) -> None:
    """Force a file's bytes or a folder's entries to the disk, so that a power cut can't leave half a file."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders, and writes their entries by itself
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file, naming(path):
        return hashlib.file_digest(file, "sha256").hexdigest()
