"""Zip archives whose contents are compared with what their tables say."""

from __future__ import annotations

import zipfile


def damaged_member(archive: zipfile.ZipFile) -> str | None:
    """Name of the first member whose size or checksum is wrong; None if there is none.

    `zipfile.ZipFile.testzip` overlooks a member that is cut to nothing, checksum and all.

    Raises
    ------
    zlib.error, EOFError, RuntimeError, NotImplementedError, OSError
        If a member cannot be unpacked at all.
    """
    for member in archive.infolist():
        packed, unpacked = member.compress_size, member.file_size
        is_stored = member.compress_type == zipfile.ZIP_STORED
        if packed != unpacked if is_stored else packed > 2 and unpacked == 0:
            return member.filename
        size = 0
        try:
            with archive.open(member) as stream:
                while block := stream.read(2**20):
                    size += len(block)
        except zipfile.BadZipFile:
            return member.filename
        if size != member.file_size:
            return member.filename
    return None
