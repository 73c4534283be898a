"""Archives that somebody sent: unpacked into a folder, or refused whole. Nothing is ever written outside the folder.

What the names say is judged before anything is written: of a zip by its directory, of a tar by reading it once. Only
then, in a second reading, are files written, and that reading trusts nothing that the first one saw.
"""

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Self
from urllib.parse import unquote

from bgpanet.data.index import Finding
from bgpanet.data.readers.files import Complaints
from bgpanet.errors import InvalidInput

CHUNK = 1 << 20  # bytes
NESTED = (
    ".zip",
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".gz",
    ".bz2",
    ".xz",
    ".7z",
    ".rar",
)
LONGEST_NAME, LONGEST_PATH = 255, 1024  # bytes
LONGEST_HEADER = 1 << 20  # bytes of a tar's extended header
SMALL = 10 << 20  # bytes; what unpacks to less is no bomb, whatever its ratio
XZ_MEMORY = 256 << 20  # bytes; xz -9 needs 65 MiB
_KNOWN_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}
_LINK_IN_ZIP = {stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK}


@dataclass(frozen=True)
class Limits:
    """What an archive may hold. entries: files and folders. ratio: unpacked bytes over packed ones."""

    entries: int = 200_000
    total_bytes: int = 500_000_000_000
    ratio: float = 100.0


@dataclass(frozen=True)
class Extracted:
    """files and bytes that were written. findings: archives inside it, which stay as they are, and the like."""

    files: int
    bytes: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Entry:
    """One file or folder of an archive. size, packed: bytes, as the archive claims; packed is None where they are not
    counted entry by entry. wrong: what it is that can't be unpacked. open: its content, once."""

    name: str
    is_folder: bool
    size: int
    packed: int | None
    wrong: str | None
    open: Callable[[], IO[bytes] | None]


def extract(
    source: Path | BinaryIO,
    folder: Path,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Unpacks a zip, or a tar with or without gzip, bzip2 or xz, into `folder`, which must not exist or be empty.

    source: a file, or an open one that can seek. `progress` is called with bytes read and in all, over both readings,
    and may raise to stop. Memory stays bounded whatever the archive's size. Modes, owners and times are not kept.

    Raises:
        InvalidInput: with every problem. After this or any other error nothing is left behind.
        OSError: the disk is full, say.
    """
    limits = limits or Limits()
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput.one(str(folder), "must be empty before an archive is unpacked into it")
    existed = folder.exists()
    with _opened(source) as file:
        archive = _Archive(file, limits, progress)
        total, findings = _judge(archive, limits)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if total > shutil.disk_usage(folder).free:
                raise OSError(errno.ENOSPC, f"the archive unpacks to {total:,} bytes, more than are free", str(folder))
            files, written = _write(archive, folder, limits)
        except BaseException:
            _empty(folder)
            if not existed:
                folder.rmdir()
            raise
    if progress is not None:
        progress(2 * archive.size, 2 * archive.size)
    return Extracted(files, written, tuple(findings))


class _Archive:
    """A zip or tar that is read twice."""

    def __init__(self, file: BinaryIO, limits: Limits, progress: Callable[[int, int], None] | None) -> None:
        self.size = file.seek(0, os.SEEK_END)
        self._file, self._limits, self._progress = file, limits, progress
        self._readings = 0
        file.seek(0)
        self._magic = file.read(6)

    def entries(self) -> Iterator[_Entry]:
        """All of them, in order; each is opened before the next one is asked for. Raises InvalidInput."""
        self._readings += 1
        source = _Counted(self._file, (self._readings - 1) * self.size, 2 * self.size, self._progress)
        source.seek(0)
        with _told():
            yield from self._zipped(source) if self._magic[:2] == b"PK" else self._tarred(source)

    def _zipped(self, source: "_Counted") -> Iterator[_Entry]:
        # zipfile keeps the whole directory in memory, so one that is too long is not opened.
        end = source.tail(66_000)
        found = end.rfind(b"PK\x05\x06")
        if found < 0 or len(end) < found + 22:
            raise _damaged("a zip without its directory")
        claimed = int.from_bytes(end[found + 12 : found + 16], "little")
        zip64 = end.rfind(b"PK\x06\x06", 0, found)
        if zip64 >= 0:
            claimed = int.from_bytes(end[zip64 + 40 : zip64 + 48], "little")
        if claimed > self._limits.entries * 512:
            raise _too_many(self._limits)
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                yield self._member(archive, info)

    @staticmethod
    def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
        wrong = None
        if stat.S_IFMT(info.external_attr >> 16) in _LINK_IN_ZIP:
            wrong = "links and devices are not unpacked"
        elif info.flag_bits & 1:
            wrong = "is encrypted; send it without a password"
        elif info.compress_type not in _KNOWN_METHODS:
            wrong = "is compressed by a method other than deflate and bzip2"
        # zipfile itself cuts a name at NUL and turns backslashes round.
        name = info.orig_filename
        return _Entry(name, name.endswith("/"), info.file_size, info.compress_size, wrong, lambda: archive.open(info))

    def _tarred(self, source: "_Counted") -> Iterator[_Entry]:
        stream = _Stream(_decompressed(source, self._magic), max(SMALL, self._limits.ratio * self.size))
        header = type("_Header", (_Header,), {"read": 0, "most": 4 * self._limits.entries + 1000})
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=header) as archive:  # type: ignore[call-overload]
            while (info := archive.next()) is not None:
                archive.members = []  # else it remembers every entry
                wrong = None if info.isreg() or info.isdir() else "links and devices are not unpacked"
                if info.issparse():
                    wrong = "is a sparse file, which is not unpacked"
                yield _Entry(info.name, info.isdir(), info.size, None, wrong, lambda: archive.extractfile(info))
            while stream.read(CHUNK):
                pass  # to its end, where the checksum stands


class _Header(tarfile.TarInfo):
    """Refuses what tarfile would pass over in silence, or read into memory whole."""

    read, most = 0, 0  # headers

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        cls.read += 1
        if cls.read > cls.most:
            raise InvalidInput.one("archive", "has too many headers")
        try:
            info = super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise _damaged(str(error)) from None
        extended = (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if info.type in extended and info.size > LONGEST_HEADER:
            raise InvalidInput.one("archive", f"has a header of {info.size:,} bytes")
        return info


class _Counted:
    """A file that tells how far it was read."""

    def __init__(self, file: BinaryIO, base: int, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._file, self._base, self._total, self._progress = file, base, total, progress
        self._unsaid = 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._unsaid += len(content)
        if self._progress is not None and self._unsaid >= CHUNK:
            self._unsaid = 0
            self._progress(self._base + self._file.tell(), self._total)
        return content

    def tail(self, size: int) -> bytes:
        """The last bytes."""
        length = self.seek(0, os.SEEK_END)
        self.seek(max(length - size, 0))
        return self._file.read(size)

    def seekable(self) -> bool:
        return True


class _Stream:
    """Unpacked bytes, one after the other, but not more than `most`."""

    def __init__(self, source: Any, most: float) -> None:
        self._source, self._most, self._done = source, most, 0

    def read(self, size: int) -> bytes:
        content: bytes = self._source.read(size)
        self._done += len(content)
        if self._done > self._most:
            raise _bomb(self._most)
        return content


class _Xz:
    """What `lzma.open` reads, within a limit of memory."""

    def __init__(self, source: _Counted) -> None:
        self._source = source
        self._decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    def read(self, size: int) -> bytes:
        while True:
            packed = b""
            if self._decoder.eof:
                packed = self._decoder.unused_data or self._source.read(CHUNK)
                packed = packed.lstrip(b"\0")  # padding between streams
                if not packed:
                    return b""
                self._decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            elif self._decoder.needs_input:
                packed = self._source.read(CHUNK)
                if not packed:
                    raise EOFError("its end is missing")
            if content := self._decoder.decompress(packed, size):
                return content


def _decompressed(source: _Counted, magic: bytes) -> Any:
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=source)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(source)
    return _Xz(source) if magic == b"\xfd7zXZ\0" else source


@contextmanager
def _told() -> Iterator[None]:
    """Whatever a damaged archive makes of its decoders becomes InvalidInput."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
        raise _damaged(str(error)) from None
    except (OSError, RuntimeError, struct.error, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of a disk; decoders give no number
        raise _damaged(str(error)) from None


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        yield source


def _judge(archive: _Archive, limits: Limits) -> tuple[int, list[Finding]]:
    """(bytes that it unpacks to, what is to be told). Raises InvalidInput with every problem."""
    refused, warned = Complaints(), Complaints()
    seen: dict[str, tuple[str, bool]] = {}
    entries = total = files = 0
    for entry in archive.entries():
        entries, total = entries + 1, total + entry.size
        shown = ascii(entry.name)[1:-1][:200]
        if entries > limits.entries:
            raise _too_many(limits)
        if total > limits.total_bytes:
            raise InvalidInput.one("archive", f"unpacks to more than {limits.total_bytes:,} bytes")
        if total > max(SMALL, limits.ratio * archive.size):
            raise _bomb(max(SMALL, limits.ratio * archive.size))
        if entry.packed is not None and entry.size > max(SMALL, limits.ratio * entry.packed):
            refused.add(f"unpacks to more than {limits.ratio:g} times its size", shown)
        parts, wrong = _parts(entry.name)
        if not parts and not entry.is_folder:
            wrong = wrong or "the name is empty"
        if wrong or entry.wrong:
            refused.add(wrong or entry.wrong or "", shown)
        elif clash := _clash(parts, entry.is_folder, seen):
            refused.add(clash, shown)
        if not entry.is_folder:
            files += 1
            if entry.name.lower().endswith(NESTED):
                warned.add("an archive inside the archive stays as it is", shown)
    if problems := refused.problems():
        raise InvalidInput(problems)
    if not files:
        raise InvalidInput.one("archive", "holds no files")
    return total, warned.findings()


def _parts(name: str) -> tuple[tuple[str, ...], str | None]:
    """(the path's names, what is wrong with it)."""
    forms = [name]
    for _ in range(4):
        forms.append(unquote(forms[-1]))
    forms.append(unicodedata.normalize("NFKC", forms[-1]))
    for form in forms:
        if "\\" in form:
            return (), "the name has a backslash"
        if form.startswith("/") or form[1:2] == ":":
            return (), "the name is absolute"
        if ".." in form.split("/"):
            return (), "the name leads out of the folder"
        if not form.isprintable():
            return (), "the name has characters that can't be printed"
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        return (), "the name is not UTF-8"
    if any(len(part) > LONGEST_NAME for part in encoded) or sum(map(len, encoded)) + len(encoded) > LONGEST_PATH:
        return (), "the name is too long"
    return parts, None


def _clash(parts: tuple[str, ...], is_folder: bool, seen: dict[str, tuple[str, bool]]) -> str | None:
    """Why a path and those seen before can't lie in one folder on every file system; remembers it else."""
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        folder = is_folder or depth < len(parts)
        key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
        known = seen.get(key)
        if known is None:
            seen[key] = (path, folder)
        elif known[0] != path:
            return "another name differs from it by case or coding alone"
        elif known[1] != folder:
            return "it is both a file and a folder"
        elif not folder:
            return "the name stands in it twice"
    return None


def _write(archive: _Archive, folder: Path, limits: Limits) -> tuple[int, int]:
    """(files, bytes) written. Raises InvalidInput where the archive is damaged or changed since it was judged."""
    files = total = 0
    for entry in archive.entries():
        parts, wrong = _parts(entry.name)
        if wrong or entry.wrong:
            raise _damaged("it changed while it was read")
        path = folder.joinpath(*parts)
        (path if entry.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
        if entry.is_folder:
            continue
        with _told(), _content(entry) as content, path.open("xb") as file:
            # "x": what is there already, a link for instance, is never followed or written over.
            while chunk := content.read(CHUNK):
                total += len(chunk)
                if total > limits.total_bytes:
                    raise InvalidInput.one("archive", f"unpacks to more than {limits.total_bytes:,} bytes")
                file.write(chunk)
        files += 1
    return files, total


def _content(entry: _Entry) -> IO[bytes]:
    content = entry.open()
    if content is None:
        raise _damaged("it changed while it was read")
    return content


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)


def _damaged(why: str) -> InvalidInput:
    return InvalidInput.one("archive", f"is damaged, cut off, or neither zip nor tar: {why}")


def _bomb(most: float) -> InvalidInput:
    return InvalidInput.one(
        "archive", f"unpacks to more than {int(most):,} bytes, which no images do; send it otherwise"
    )


def _too_many(limits: Limits) -> InvalidInput:
    return InvalidInput.one("archive", f"holds more than {limits.entries:,} files and folders")
