"""The zip archives that ``torch.save`` writes, with their checksums verified while they are read."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

LOCAL_HEADER = 30  # bytes; the lengths of a name and of what follows it stand at its end


class _Record(NamedTuple):
    name: str
    size: int
    checksum: int


class CheckedFile(io.RawIOBase):
    """A zip archive as a file, for ``torch.load``, which looks at no checksum itself.

    torch reads a record of the archive from its begin to its end. Its checksum is added up from these very bytes, so
    that the file is read once. Archives without checksums have 0 in their places
    (``torch.serialization.set_crc32_options(False)``): there is nothing to verify.

    Args:
        path: The file.

    Attributes:
        broken: Name of the first record whose bytes are others than its checksum tells, or of one that was not read as
            expected and turned out so; None until then.

    Raises:
        zipfile.BadZipFile: The list of records cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, io.FileIO(path)
        self.broken: str | None = None
        self._started: set[str] = set()
        self._verified: set[str] = set()
        self._records = self._find_records()
        self._current: _Record | None = None
        self._checksum = self._left = self._expected = 0

    def _find_records(self) -> dict[int, _Record]:
        """The records that have a checksum, by where their bytes begin."""
        with zipfile.ZipFile(self._path) as archive:
            listed = archive.infolist()
        found = {}
        for info in listed if any(info.CRC for info in listed) else ():
            self._file.seek(info.header_offset)
            name, extra = struct.unpack('<HH', self._file.read(LOCAL_HEADER)[26:])
            if info.file_size and info.compress_type == zipfile.ZIP_STORED:
                begin = info.header_offset + LOCAL_HEADER + name + extra
                found[begin] = _Record(info.filename, info.file_size, info.CRC)
        self._file.seek(0)
        return found

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer) -> int:
        place, view, done = self._file.tell(), memoryview(buffer).cast('B'), 0
        while done < len(view):  # one call of the system reads 2 GB at most
            count = self._file.readinto(view[done:])
            if not count:
                break
            done += count
        self._add(place, view[:done])
        return done

    def close(self) -> None:
        self._file.close()
        super().close()

    def _add(self, place: int, content: memoryview) -> None:
        record = self._records.get(place)
        if record is not None:
            self._current, self._checksum, self._left = record, 0, record.size
            self._started.add(record.name)
        elif self._current is None or place != self._expected:
            self._current = None
            return
        part = content[: self._left]
        self._checksum, self._left = zlib.crc32(part, self._checksum), self._left - len(part)
        self._expected = place + len(content)
        if not self._left:
            self._end(self._current)

    def _end(self, record: _Record) -> None:
        self._verified.add(record.name)
        if self._checksum != record.checksum:
            self.broken = self.broken or record.name
        self._current = None

    def find_broken(self) -> str | None:
        """:attr:`broken`, with what was read in another order than from begin to end looked at once more."""
        rest = self._started - self._verified
        if self.broken is None and rest:
            with zipfile.ZipFile(self._path) as archive:
                for name in sorted(rest):
                    try:
                        archive.read(name)
                    except (zipfile.BadZipFile, zlib.error):
                        self.broken = name
                        break
        return self.broken
