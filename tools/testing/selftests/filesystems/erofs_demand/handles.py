#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""File handles that outlive what is in memory.

usage: handles.py take DIRECTORY >FILE
usage: handles.py open MOUNT <FILE

"take" prints a handle for each name below DIRECTORY, with what stat(2) says of it. "open" opens each on
the file system at MOUNT and prints what is not as it was: inode number, mode, size, the content of regular
files, and the paths of directories. Its last line is how many were.
"""
import ctypes
import errno
import hashlib
import os
import stat
import sys

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


class Handle(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


def call(function, *arguments):
    result = function(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def content(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_by(mode, path, name, top):
    """What tells a file from another one of its kind: content, or of directories the path."""
    if stat.S_ISREG(mode):
        return content(path)
    if stat.S_ISDIR(mode):
        return "./" + os.path.relpath(name, top)
    return "-"


def names(directory):
    yield directory
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from names(entry.path)
        else:
            yield entry.path


def take(directory):
    for path in names(directory):
        handle, mount = Handle(length=128), ctypes.c_int()
        call(libc.name_to_handle_at, AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0)
        seen = os.lstat(path)
        print(handle.kind, bytes(handle.data[:handle.length]).hex(), seen.st_ino, seen.st_mode, seen.st_size,
              known_by(seen.st_mode, path, path, directory))


def as_it_was(fd, top, ino, mode, size, known):
    seen = os.fstat(fd)
    if (seen.st_ino, seen.st_mode, seen.st_size) != (int(ino), int(mode), int(size)):
        return False
    path = f"/proc/self/fd/{fd}"
    return known_by(seen.st_mode, path, os.readlink(path), top) == known


def open_all(top):
    mount = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    count = 0
    for line in sys.stdin:
        kind, data, *known = line.split()
        data = bytes.fromhex(data)
        handle = Handle(length=len(data), kind=int(kind))
        ctypes.memmove(handle.data, data, len(data))
        # Device nodes and symlinks are not to be opened themselves.
        flags = os.O_RDONLY if stat.S_ISREG(int(known[1])) else os.O_PATH
        try:
            fd = call(libc.open_by_handle_at, mount, ctypes.byref(handle), flags)
        except OSError as error:
            print("cannot be opened:", errno.errorcode[error.errno], line.strip())
            continue
        if as_it_was(fd, top, *known):
            count += 1
        else:
            print("is another one:", line.strip())
        os.close(fd)
    print(count)


if sys.argv[1] == "take":
    take(sys.argv[2])
else:
    open_all(sys.argv[2])
