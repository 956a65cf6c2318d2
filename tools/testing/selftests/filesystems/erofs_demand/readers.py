#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
# Many readers of a mount at once, who compare every byte with the tree that the image was made of.
#
# usage: readers.py [--threads N] [--copies N] [--piece BYTES] [--seed N] [--watch PID] TREE MOUNT
#
#   --threads N    readers (8)
#   --copies N     how many of them read each byte (2)
#   --piece BYTES  how much a read asks for (16384)
#   --seed N       of the order, in which nothing is read in order (1)
#   --watch PID    after each read, while the others are in theirs, count the open files of this process
#
# Every other reader lets the kernel read ahead. Prints "READS reads, BYTES bytes, N wrong, N errors, the longest MS ms",
# and with --watch a line "DESCRIPTORS descriptors at most, counted N times". The status is 1 if anything was wrong.
import argparse, os, random, sys, threading, time

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=8)
parser.add_argument("--copies", type=int, default=2)
parser.add_argument("--piece", type=int, default=16384)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--watch", type=int)
parser.add_argument("tree")
parser.add_argument("mount")
args = parser.parse_args()

lock = threading.Lock()
reads = read_bytes = wrong = errors = descriptors = counted = 0
longest = 0.0


def say(text):
    if wrong + errors < 10:
        print(text, flush=True)


def read(path, offset, size, ahead):
    fd = os.open(os.path.join(args.mount, path), os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NORMAL if ahead else os.POSIX_FADV_RANDOM)
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def reader(number, pieces):
    global reads, read_bytes, wrong, errors, longest, descriptors, counted
    for path, offset, size in pieces:
        began = time.monotonic()
        got = error = None
        try:
            got = read(path, offset, size, number % 2)
        except OSError as failure:
            error = failure
        took = time.monotonic() - began
        right = got == contents[path][offset : offset + size]
        have = len(os.listdir(f"/proc/{args.watch}/fd")) if args.watch else 0
        with lock:
            longest = max(longest, took)
            descriptors = max(descriptors, have)
            counted += 1
            if error:
                say(f"{path} {offset}+{size}: {error}")
                errors += 1
            elif not right:
                say(f"{path} {offset}+{size}: wrong bytes")
                wrong += 1
            else:
                reads += 1
                read_bytes += size


contents = {}
for directory, _, names in os.walk(args.tree):
    for name in names:
        path = os.path.join(directory, name)
        with open(path, "rb") as file:
            contents[os.path.relpath(path, args.tree)] = file.read()

pieces = []
for path, data in sorted(contents.items()):
    for offset in range(0, len(data), args.piece):
        pieces.append((path, offset, min(args.piece, len(data) - offset)))
pieces *= args.copies
random.Random(args.seed).shuffle(pieces)

threads = [
    threading.Thread(target=reader, args=(number, pieces[number :: args.threads])) for number in range(args.threads)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{reads} reads, {read_bytes} bytes, {wrong} wrong, {errors} errors, the longest {longest * 1000:.0f} ms")
if args.watch:
    print(f"{descriptors} descriptors at most, counted {counted} times")
sys.exit(not reads or wrong + errors > 0)
