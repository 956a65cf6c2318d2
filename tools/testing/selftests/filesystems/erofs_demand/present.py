#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
# Whether what cache files have is what a manifest says, as Documentation/manifest.md has it: without the daemon, and
# without a line of its code.
#
# usage: present.py --manifest FILE --digest sha256:HEX --cache DIR [--seen FILE] [--all]
#
#   --manifest FILE   the manifest; the lists of chunks and the blobs are beside it
#   --digest DIGEST   that of the manifest
#   --cache DIR       the directory that has the cache files, at any depth
#   --seen FILE       what was present the last time, which must be still; written again
#   --all             nothing may be missing
#
# A chunk that is present as a whole must have its digest. Of one that is present in part, as when its writer was killed,
# every block must be that of the blob, whose own digest is looked at first.
# Prints "N chunks: N whole, N in part; N wrong, N lost". The status is 1 if any is wrong or lost, or missing with --all.
import argparse, errno, hashlib, json, os, sys

BLOCK = 4096

parser = argparse.ArgumentParser()
parser.add_argument("--manifest", required=True)
parser.add_argument("--digest", required=True)
parser.add_argument("--cache", required=True)
parser.add_argument("--seen")
parser.add_argument("--all", action="store_true")
args = parser.parse_args()


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def need(what, data, digest):
    if sha256(data) != digest:
        sys.exit(f"{what} is not that of the digest {digest}")
    return data


def contents(name):
    with open(os.path.join(os.path.dirname(args.manifest), name), "rb") as file:
        return file.read()


def cache_file(blob):
    found = [os.path.join(d, "D" + blob) for d, _, names in os.walk(args.cache) if "D" + blob in names]
    if len(found) != 1:
        sys.exit(f"{len(found)} cache files of {blob}")
    return found[0]


def blocks_present(fd, size):
    """The numbers of the blocks that are not holes."""
    present, at = set(), 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        present.update(range(start // BLOCK, -(-at // BLOCK)))
    return present


seen = {}
if args.seen and os.path.exists(args.seen):
    with open(args.seen) as file:
        seen = {name: set(blocks) for name, blocks in json.load(file).items()}

chunks = whole = partly = wrong = lost = 0
lines = need("the manifest", contents(os.path.basename(args.manifest)), args.digest).decode().splitlines()
for line in lines[1:]:
    _, name, size, digest, chunk_size, list_digest = line.split(" ")
    size, chunk_size = int(size), int(chunk_size)
    blob = None
    digests = need("the list of " + name, contents(name + ".chunks"), list_digest)
    fd = os.open(cache_file(name), os.O_RDONLY)
    if os.fstat(fd).st_size != size:
        sys.exit(f"the cache file of {name} has another size")
    present = blocks_present(fd, size)
    lost += len(seen.get(name, set()) - present)
    seen[name] = present
    for number, start in enumerate(range(0, size, chunk_size)):
        end = min(start + chunk_size, size)
        blocks = [block for block in range(start // BLOCK, -(-end // BLOCK)) if block in present]
        chunks += 1
        if not blocks:
            continue
        if len(blocks) == -(-end // BLOCK) - start // BLOCK:
            whole += 1
            right = hashlib.sha256(os.pread(fd, end - start, start)).digest() == digests[number * 32 : number * 32 + 32]
        else:
            partly += 1
            blob = blob or need(name, contents(name), digest)
            right = all(
                os.pread(fd, BLOCK, b * BLOCK) == blob[b * BLOCK : min((b + 1) * BLOCK, size)] for b in blocks
            )
        if not right:
            wrong += 1
            print(f"chunk {number} of {name} is wrong")
    os.close(fd)

if args.seen:
    with open(args.seen, "w") as file:
        json.dump({name: sorted(blocks) for name, blocks in seen.items()}, file)
print(f"{chunks} chunks: {whole} whole, {partly} in part; {wrong} wrong, {lost} lost")
sys.exit(wrong + lost > 0 or (args.all and whole != chunks))
