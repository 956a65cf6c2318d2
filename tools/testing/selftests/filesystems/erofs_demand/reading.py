#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Read files in as many ways as there are, and tell how it went.

usage: reading.py DIRECTORY REFERENCE

Each way reads a file of its own name in DIRECTORY, so that it is the first to read it, and compares
with the file of that name in REFERENCE. A line for each: its name, and "same", where the first other
byte is, or the error.

usage: reading.py --names
"""
import ctypes
import errno
import mmap
import os
import socket
import sys

PAGE = mmap.PAGESIZE
RWF_NOWAIT = 8
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def size(fd):
    return os.fstat(fd).st_size


def mapped(fd, flags, prot):
    with mmap.mmap(fd, 0, flags=flags, prot=prot) as memory:
        return memory[:]


def map_private(fd):
    return mapped(fd, mmap.MAP_PRIVATE, mmap.PROT_READ)


def map_shared(fd):
    return mapped(fd, mmap.MAP_SHARED, mmap.PROT_READ)


def map_executable(fd):
    return mapped(fd, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)


def map_populated(fd):
    return mapped(fd, mmap.MAP_PRIVATE | mmap.MAP_POPULATE, mmap.PROT_READ)


def map_written(fd):
    """What is written to a private mapping is nobody else's: it must not get into the file."""
    with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as memory:
        before = memory[:]
        memory[:] = bytes(len(memory))
        assert memory[:] == bytes(len(memory))
    return before if os.pread(fd, size(fd), 0) == before else b""


def map_backwards(fd):
    with mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as memory:
        starts = range(0, len(memory), PAGE)
        return b"".join(reversed([memory[start:start + PAGE] for start in reversed(starts)]))


def map_tail(fd):
    """The whole last page: behind the end of the file it has zeros."""
    length = (size(fd) + PAGE - 1) // PAGE * PAGE
    at = libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if at == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    memory = ctypes.string_at(at, length)
    behind = memory[size(fd):]
    return memory[:size(fd)] if behind == bytes(len(behind)) else b""


def map_and_call(fd):
    """The last 16 bytes are a function that returns 42."""
    length = (size(fd) + PAGE - 1) // PAGE * PAGE
    at = libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
    if at == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    function = ctypes.CFUNCTYPE(ctypes.c_int)(at + size(fd) - 16)
    return ctypes.string_at(at, size(fd)) if function() == 42 else b""


def through_pipe(fd):
    data = b""
    read_end, write_end = os.pipe()
    while moved := os.splice(fd, write_end, 65536, offset_src=len(data)):
        data += os.read(read_end, moved)
    return data


def through_socket(fd):
    data = b""
    ours, theirs = socket.socketpair()
    while moved := os.sendfile(ours.fileno(), fd, len(data), 65536):
        data += theirs.recv(moved, socket.MSG_WAITALL)
    return data


def sent_to_file(fd):
    out = os.memfd_create("out")
    done = 0
    while moved := os.sendfile(out, fd, done, 1 << 20):
        done += moved
    return os.pread(out, size(fd) + 1, 0)


def copied(fd):
    """To another file system, which copy_file_range(2) need not do; cp(1) then reads."""
    out = os.memfd_create("out")
    done = 0
    while moved := os.copy_file_range(fd, out, 1 << 20, done, done):
        done += moved
    return os.pread(out, size(fd) + 1, 0)


def direct(fd):
    fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT)
    room = mmap.mmap(-1, 64 * PAGE)
    data = b""
    while got := os.preadv(fd, [room], len(data)):
        data += room[:got]
        if got % PAGE:
            break
    return data


def direct_in_pieces(fd):
    fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT)
    room = mmap.mmap(-1, PAGE)
    pieces = {}
    for start in reversed(range(0, size(fd), PAGE)):
        pieces[start] = room[:os.preadv(fd, [room], start)]
    return b"".join(pieces[start] for start in sorted(pieces))


def scattered(fd):
    """Into memory of odd lengths, with preadv2(2)."""
    rooms = [bytearray(length) for length in (1, 4095, 4097, 13, 100000, 200000)]
    got = os.preadv(fd, rooms, 0)
    return b"".join(rooms)[:got]


def without_waiting(fd):
    return os.preadv(fd, [bytearray(1)], 0, RWF_NOWAIT) and b""


def backwards(fd):
    starts = range(0, size(fd), 1000)
    return b"".join(reversed([os.pread(fd, 1000, start) for start in reversed(starts)]))


def advised(fd, advice):
    os.posix_fadvise(fd, 0, 0, advice)
    return os.pread(fd, size(fd) + 1, 0)


def will_need(fd):
    return advised(fd, os.POSIX_FADV_WILLNEED)


def at_random(fd):
    return advised(fd, os.POSIX_FADV_RANDOM)


def in_order(fd):
    return advised(fd, os.POSIX_FADV_SEQUENTIAL)


def not_needed(fd):
    before = advised(fd, os.POSIX_FADV_NORMAL)
    return before if advised(fd, os.POSIX_FADV_DONTNEED) == before else b""


WAYS = [map_private, map_shared, map_executable, map_populated, map_written, map_backwards, map_tail, map_and_call,
        through_pipe, through_socket, sent_to_file, copied, direct, direct_in_pieces, scattered,
        without_waiting, backwards, will_need, at_random, in_order, not_needed]


def compare(got, wanted):
    if got == wanted:
        return "same"
    for at, (a, b) in enumerate(zip(got, wanted)):
        if a != b:
            return f"differs at {at}"
    return f"has {len(got)} of {len(wanted)} bytes"


def main(arguments):
    if arguments == ["--names"]:
        print("\n".join(way.__name__ for way in WAYS))
        return
    directory, reference = arguments
    for way in WAYS:
        fd = os.open(os.path.join(directory, way.__name__), os.O_RDONLY)
        with open(os.path.join(reference, way.__name__), "rb") as file:
            wanted = file.read()
        try:
            result = compare(way(fd), wanted)
        except OSError as error:
            result = errno.errorcode[error.errno]
        print(way.__name__, result, flush=True)


main(sys.argv[1:])
