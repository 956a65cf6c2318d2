#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Ways to change a file system that mount-digest does not try, and what comes of them.

usage: refused.py DIRECTORY

DIRECTORY has the regular files "file", with an attribute user.name, and "other", and the directory "dir". A
line for each way: its name and the error, or "done".
"""
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_EXCHANGE = 2
FS_IOC_SETFLAGS = 0x40086602
# Owner, group and others may read.
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 4, 0xffffffff) for tag in (1, 4, 0x20))


def call(function, *arguments):
    if function(*arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def exchange():
    call(libc.renameat2, AT_FDCWD, b"file", AT_FDCWD, b"other", RENAME_EXCHANGE)


def bind_socket():
    socket.socket(socket.AF_UNIX).bind("socket")


def map_for_writing():
    mmap.mmap(os.open("file", os.O_RDONLY), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE)


def make_mapping_writable():
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, os.open("file", os.O_RDONLY), 0)
    call(libc.mprotect, ctypes.c_void_p(at), 4096, mmap.PROT_READ | mmap.PROT_WRITE)


def set_flags():
    fcntl.ioctl(os.open("file", os.O_RDONLY), FS_IOC_SETFLAGS, struct.pack("i", 0))


def use_for_swapping():
    call(libc.swapon, b"file", 0)


WAYS = {
    "truncate": lambda: os.truncate("file", 0),
    "open and truncate": lambda: os.open("file", os.O_RDONLY | os.O_TRUNC),
    "remove an attribute": lambda: os.removexattr("file", "user.name"),
    "set an attribute of security": lambda: os.setxattr("file", "security.name", b"1"),
    "set an access control list": lambda: os.setxattr("file", "system.posix_acl_access", ACL),
    "remove an access control list": lambda: os.removexattr("file", "system.posix_acl_access"),
    "set a default one": lambda: os.setxattr("dir", "system.posix_acl_default", ACL),
    "exchange": exchange,
    "move out": lambda: os.rename("file", "/tmp/file"),
    "move in": lambda: os.rename("/proc/self/exe", "new"),
    "bind a socket": bind_socket,
    "map for writing": map_for_writing,
    "make a mapping writable": make_mapping_writable,
    "set flags": set_flags,
    "use for swapping": use_for_swapping,
}

os.chdir(sys.argv[1])
for name, way in WAYS.items():
    try:
        way()
        print(f"{name}: done")
    except OSError as error:
        print(f"{name}: {errno.errorcode[error.errno]}")
