"""Writing a file so that a full disk or a crash never harms what was there before."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from minifcn.errors import InputError


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a new file beside `path`, bring it to the disk, then rename it to `path`.

    Until the rename the old file is untouched, and a rename within a folder is all or nothing.
    Raises InputError (naming the file and the reason) when the system refuses to write.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(cannot_write(path, error)) from error
    try:
        with open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise InputError(cannot_write(path, error)) from error
    finally:
        # After the rename nothing is left here; after a failure half a file may be.
        beside.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> str:
    """The sentence for a refused write: which file, why, and the mend."""
    reason = error.strerror or str(error)
    mend = (
        "free some space there, or write to another disk, and try again"
        if reason == os.strerror(28)  # ENOSPC
        else "choose a folder that can be written to"
    )
    return f"{path} cannot be written: {reason}; {mend} (what was saved before is untouched)"
