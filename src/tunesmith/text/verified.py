"""Which files of a large folder had the right checksum, kept beside them: one that has not changed is not read again.

A file whose bits rot keeps its size and time, so this trusts the disk; what can be read in seconds is read each time.
"""

import contextlib
from pathlib import Path

from tunesmith.base.errors import CheckpointError, StorageError
from tunesmith.base.files import file_hash, read_json, remove_parts_of, write_json

VERIFIED = "verified.json"
ALWAYS_READ = 2**30  # bytes of a folder that are read at each opening: about a second


class Verified:
    """The files of a folder that were verified: size, time of change and SHA-256 of each.

    Args:
        folder: The folder; a record that is damaged counts for nothing.
        num_bytes: Bytes of the files; up to `ALWAYS_READ` nothing is taken from the record.
    """

    def __init__(self, folder: Path, *, num_bytes: int):
        self.path = folder / VERIFIED
        self._kept = num_bytes > ALWAYS_READ
        try:
            self._known = read_json(self.path) if self._kept and self.path.exists() else {}
        except CheckpointError:
            self._known = {}
        self._fresh = False

    def holds(self, path: Path, sha256: str) -> bool:
        """Whether a file has this SHA-256; it is computed where that is not known of the file as it is."""
        found = path.stat()  # before it is read: what changes meanwhile is read again
        stamp = [found.st_size, found.st_mtime_ns, sha256]
        if self._known.get(path.name) == stamp:
            return True
        if file_hash(path) != sha256:
            return False
        self._known[path.name] = stamp
        self._fresh = self._kept
        return True

    def save(self) -> None:
        """Keep what was found; where the folder cannot be written, it is found again the next time."""
        if self._fresh:
            remove_parts_of(self.path)
            with contextlib.suppress(StorageError):
                write_json(self.path, self._known)
