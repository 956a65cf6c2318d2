#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What was prefetched is not asked for, and prefetching may go on beside reads.
. "${0%/*}/lib.sh"

load_modules
plan 18

MiB=1048576
BIG=$((32 * MiB))

# Two files of which the first begins at the start of the blob.
make_images() {
	mkdir "$TMP/tree"
	head -c $BIG /dev/urandom >"$TMP/tree/a"
	head -c $BIG /dev/urandom >"$TMP/tree/b"
	: >"$SOURCE/data"
	make_image two.img "$TMP/tree" --chunksize=$MiB --blobdev="$SOURCE/data"
}

prefetch() { "$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" "$@"; }

# percent BLOB: the share that is present, as status tells it.
percent() { "$DEMANDD" status --root "$CACHE" | awk -v blob="$1" '$4 == blob { print $3 }'; }

# same_range FILE OFFSET+LENGTH
same_range() {
	"$PROGRAMS/readrange" --random "$MNT/$1" "$2" >"$TMP/got" &&
		"$PROGRAMS/readrange" "$TMP/tree/$1" "$2" | cmp - "$TMP/got"
}

same_files() { cmp "$MNT/a" "$TMP/tree/a" && cmp "$MNT/b" "$TMP/tree/b"; }

# All files are right, and reading them takes no request.
all_present() {
	: >"$TRACE"
	drop_caches
	same_files && equal "$(requests)" 0
}

# Start over with nothing present.
empty_cache() {
	umount "$MNT"
	stop_daemon
	rm -rf "$CACHE"
	mkdir "$CACHE"
	prepare >/dev/null
	: >"$TRACE"
}

# Reads both files in several ways while everything is prefetched.
race() {
	prefetch two.img data >"$TMP/prefetch" 2>&1 &
	prefetching=$!
	cmp "$MNT/b" "$TMP/tree/b" &
	reading=$!
	backwards=$(seq -f %.0f+16384 $((BIG - 16384)) -262144 0)
	# shellcheck disable=SC2086 # a list
	"$PROGRAMS/readrange" --random "$MNT/a" $backwards >"$TMP/got" || return 1
	# shellcheck disable=SC2086
	"$PROGRAMS/readrange" "$TMP/tree/a" $backwards | cmp - "$TMP/got" || return 1
	wait "$reading" || return 1
	wait "$prefetching" || { cat "$TMP/prefetch"; return 1; }
}

make_images
prepare >/dev/null
start_daemon
mount_image two.img device=data

check "nothing is present at first" equal "$(percent data)" 0
ls -l "$MNT" >"$TMP/names"
: >"$TRACE"
check "a range can be prefetched while it is mounted" prefetch data:0+$((16 * MiB))
check "status tells its share" equal "$(percent data)" 25
check "its bytes are right" same_range a 0+$((16 * MiB))
check "reading it takes no request" equal "$(requests)" 0
check "what was not prefetched is fetched when it is read" same_range a $((16 * MiB))+4096
check "and takes a request" equal "$(requests data)" 1
# A range that ends within blocks is widened to whole ones.
check "a range of a few bytes can be prefetched" prefetch data:$((BIG + 4095))+2
: >"$TRACE"
check "the blocks that it is in are right" same_range b 0+8192
check "reading them takes no request" equal "$(requests)" 0
check "all blobs can be prefetched while they are mounted" prefetch --all
check "status tells that they are complete" equal "$(percent two.img) $(percent data)" "100 100"
check "all files are right, and reading them takes no request" all_present

empty_cache
start_daemon --delay-ms 20
mount_image two.img device=data
check "prefetching while others read gives right bytes" race
check "after that everything is there, and right" all_present

# api METHOD PATH: asks the daemon on its socket.
api() { python3 "${0%/*}/api.py" "$TMP/api" "$@"; }
idle() { api GET /v1/prefetch | grep -q '"blob":null,.*"waiting":0}'; }
empty_cache
start_daemon --api "$TMP/api"
mount_image two.img device=data
check "a daemon can be told to prefetch a range" \
	eval 'api POST "/v1/blobs/data/prefetch?off=0&len=$((16 * MiB))" && wait_for 20 idle && equal "$(percent data)" 25'
check "and whole blobs" \
	eval 'api POST /v1/blobs/two.img/prefetch && api POST /v1/blobs/data/prefetch && wait_for 30 idle'
check "then everything is there, and right" all_present
finish
