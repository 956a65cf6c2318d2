#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A read fetches what it needs and what readahead adds to it, and nothing else.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

load_modules
plan 16

BLOCK=4096
MiB=1048576
BIG=$((64 * MiB))

# One file with data, which are in a blob of their own: requests for it are for
# data, those for the bootstrap for metadata. The many names make metadata that
# opening the file does not need.
make_images() {
	mkdir "$TMP/tree" "$TMP/tree/names" "$TMP/tree/files"
	head -c "$BIG" /dev/urandom >"$TMP/tree/files/big"
	python3 -c 'import sys
for n in range(8000):
    open("%s/%0200d" % (sys.argv[1], n), "x")' "$TMP/tree/names"
	: >"$SOURCE/data"
	make_image one.img "$TMP/tree" --chunksize=$MiB --blobdev="$SOURCE/data"
}

# read_back [--random] OFFSET+LENGTH...: reads, and compares with the source.
read_back() {
	[ "$1" = --random ] || set -- '' "$@"
	advice=$1
	shift
	"$PROGRAMS/readrange" ${advice:+"$advice"} "$MNT/files/big" "$@" >"$TMP/got" || return 1
	"$PROGRAMS/readrange" "$TMP/tree/files/big" "$@" | cmp - "$TMP/got"
}

# Reads one byte of a page through a mapping.
touch_page() {
	python3 -c 'import mmap, sys
with open(sys.argv[1], "rb") as file:
    mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[int(sys.argv[2])]' "$MNT/files/big" "$1"
}

# Bytes of the file at OFFSET are at OFFSET of the blob: there is nothing else in
# it. Every data request must lie within a window of [START, END).
near() {
	awk -F '\t' -v from=$(($1 - window)) -v to=$(($2 + window)) '
		$2 == "data" && ($3 < from || $3 + $4 > to) { print "fetched " $3 "+" $4; far = 1 }
		END { exit far }' "$TRACE"
}

# Whether a number lies between two others.
between() {
	if [ "$1" -lt "$2" ] || [ "$1" -gt "$3" ]; then
		echo "got $1, wanted $2 to $3"
		return 1
	fi
}
at_most() { between "$1" 0 "$2"; }

# What the cache file of the data takes on disk, in bytes.
on_disk() {
	find "$CACHE" -name Ddata -printf '%b\n' | awk '{ print $1 * 512 }'
}

forget_requests() { : >"$TRACE"; }

make_images
prepare >/dev/null
start_daemon
mount_image one.img device=data
# There is one mount, and so one of them.
window=$((1024 * $(cat /sys/class/bdi/erofs-*/read_ahead_kb)))
note "readahead window: $window bytes; bootstrap: $(stat -c %s "$SOURCE/one.img") bytes"

at=$((33 * MiB + 5 * BLOCK))
check "mounting fetches no data" equal "$(requests data)" 0
check "a block from the middle of a file is right" read_back $at+$BLOCK
check "it takes one request for data" equal "$(requests data)" 1
check "it fetches at most a readahead window of data" at_most "$(fetched_bytes data)" "$window"
check "it fetches nothing that is far away" near $at $((at + BLOCK))
check "on disk is what was fetched" equal "$(on_disk)" "$(fetched_bytes data)"
note "$(fetched_bytes data) bytes of data, $(fetched_bytes one.img) of metadata in $(requests one.img) requests"
check "it fetches at most a quarter of the metadata" \
	at_most "$(fetched_bytes one.img)" $(($(stat -c %s "$SOURCE/one.img") / 4))

forget_requests
touch_page $((20 * MiB))
check "a page fault fetches at most a readahead window" at_most "$(fetched_bytes)" "$window"
check "a page fault fetches nothing that is far away" near $((20 * MiB)) $((20 * MiB + BLOCK))

# Scattered over the second half, each once, none where data are already.
forget_requests
ranges=$(awk -v block=$BLOCK -v first=$((40 * MiB)) 'BEGIN {
	for (n = 0; n < 64; n++)
		printf "%d+%d ", first + (n * 29 % 64) * 80 * block, block
}')
before=$(on_disk)
# shellcheck disable=SC2086 # a list
check "64 random blocks are right" read_back --random $ranges
check "each takes one request of one block" \
	equal "$(awk -F '\t' '$2 == "data" { print $4 }' "$TRACE" | sort | uniq -c | tr -s ' ')" " 64 $BLOCK"
# The file system below may need blocks of its own to say where so many blocks are.
check "on disk are these blocks and nothing else" \
	between $(($(on_disk) - before)) $((64 * BLOCK)) $((65 * BLOCK))

forget_requests
drop_caches
# shellcheck disable=SC2086 # a list
check "the same blocks are right again" read_back --random $ranges
check "they are not fetched again" equal "$(requests)" 0

forget_requests
# shellcheck disable=SC2046 # a list
check "4 MiB from the start, read in pieces, are right" \
	read_back $(seq -f %.0f+65536 0 65536 $((4 * MiB - 1)))
check "that fetches these 4 MiB, and at most a window more" \
	between "$(fetched_bytes data)" $((4 * MiB)) $((4 * MiB + window))
note "$(requests data) requests, $(fetched_bytes data) bytes"
finish
