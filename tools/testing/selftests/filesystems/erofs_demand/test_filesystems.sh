#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What is present and what is missing is right on every file system that a cache may
# be on (T39), with blocks that are as large as ours and smaller ones. On tmpfs it could
# not be, and so there is no cache on it.
#
# FILE_SYSTEMS names some of them, or others: see below.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

BLOCK=4096
FILE_SIZE=3000001
# TYPE[-LABEL][,MKFS-OPTION]...
FILE_SYSTEMS=${FILE_SYSTEMS:-ext4-1k,-b,1024 ext4-4k,-b,4096 xfs-1k,-b,size=1024 xfs-4k,-b,size=4096 btrfs}
TESTS_EACH=17

load_modules
# shellcheck disable=SC2086 # a list
set -- $FILE_SYSTEMS
plan $(($# * TESTS_EACH + 2))
SEED=$(od -An -N 2 -t u2 /dev/urandom)
note "seed$SEED"

# apart.img has its data in the blob "data"; whole.img has all in itself. Files end
# anywhere, and blobs, whose blocks are smaller than those of the cache, within one.
make_images() {
	mkdir -p "$TMP/apart" "$TMP/whole/dir"
	head -c $FILE_SIZE /dev/urandom >"$TMP/apart/file"
	for size in 1 1023 1025 4095 4097 10239 405505; do
		head -c "$size" /dev/urandom >"$TMP/whole/dir/$size"
	done
	: >"$SOURCE/data"
	make_image apart.img "$TMP/apart" -b 512 --chunksize=4096 --blobdev="$SOURCE/data"
	make_image whole.img "$TMP/whole" -b 512
	data_size=$(stat -c %s "$SOURCE/data")
	data_blocks=$(((data_size + BLOCK - 1) / BLOCK))
	[ $((data_size % BLOCK)) != 0 ]
}

# --- one file system -------------------------------------------------------------

# make_file_system LABEL MKFS-OPTION...: on a sparse disk, to be mounted at $ROOT
make_file_system() {
	type=${1%-*}
	shift
	rm -f "$WORK/disk"
	truncate -s 1G "$WORK/disk"
	modprobe -q -a loop "$type" || :
	"mkfs.$type" -q "$@" "$WORK/disk"
}
mount_file_system() { mount -t "$type" -o loop "$WORK/disk" "$ROOT"; }

cache_file() { echo "$CACHE"/cache/Ierofs/@*/"D$1"; }
mount_both() { mount_image apart.img device=data "$MNT/apart" && mount_image whole.img '' "$MNT/whole"; }
umount_both() { umount "$MNT/apart" && umount "$MNT/whole"; }

# Blocks that are not neighbours, so that each lies between holes; in any order. The
# last one is among them.
choose_blocks() {
	awk -v seed="$SEED" -v blocks="$data_blocks" 'BEGIN {
		srand(seed)
		for (b = blocks - 1; b >= 0; b -= 2 + int(rand() * 20)) print rand(), b }' |
		sort -n | awk -v block=$BLOCK '{ printf "%d+%d\n", $2 * block, block }' >"$TMP/chosen"
}
chosen_blocks() { wc -l <"$TMP/chosen"; }
# read_blocks FILE: prints what is read
read_blocks() { xargs -a "$TMP/chosen" "$PROGRAMS/readrange" --random "$1"; }
chosen_right() { read_blocks "$TMP/apart/file" >"$TMP/want" && read_blocks "$MNT/apart/file" | cmp - "$TMP/want"; }

# One request for each, of exactly its bytes.
fetched_chosen() {
	equal "$(requests data)" "$(chosen_blocks)" &&
		equal "$(fetched_bytes data)" $((($(chosen_blocks) - 1) * BLOCK + data_size % BLOCK))
}
present_chosen() { equal "$("$PROGRAMS/blocks" count "$(cache_file data)")" "$(chosen_blocks)"; }
costs_no_request() {
	before=$(requests)
	"$@" && equal "$(requests)" "$before"
}

all_right() { diff -r "$TMP/apart" "$MNT/apart" && diff -r "$TMP/whole" "$MNT/whole"; }
all_present() {
	for blob in data apart.img whole.img; do
		"$PROGRAMS/blocks" compare "$(cache_file "$blob")" "$SOURCE/$blob" || return 1
	done
	equal "$("$PROGRAMS/blocks" count "$(cache_file data)")" "$data_blocks"
}

# An empty file again. Where the file system has blocks of 1 KiB, one block is torn: its
# first kibibyte is there, as after a full disk or a power cut.
take_data_away() {
	rm "$(cache_file data)"
	prepare data >/dev/null
	[ "${label#*-}" != 1k ] || dd if="$SOURCE/data" of="$(cache_file data)" \
		bs=1024 skip=28 seek=28 count=1 conv=notrunc status=none
}
# The block that may be torn.
torn_right() {
	"$PROGRAMS/readrange" --random "$TMP/apart/file" "28672+$BLOCK" >"$TMP/want" &&
		"$PROGRAMS/readrange" --random "$MNT/apart/file" "28672+$BLOCK" | cmp - "$TMP/want"
}

# What a power cut or a disk that fails can leave behind, and somebody who looks at the
# cache file makes data of it, for the file system.
reserved_right() {
	fallocate -o 65536 -l 262144 "$(cache_file data)" && cat "$(cache_file data)" >/dev/null &&
		"$PROGRAMS/readrange" --random "$TMP/apart/file" "131072+$BLOCK" >"$TMP/want" &&
		"$PROGRAMS/readrange" --random "$MNT/apart/file" "131072+$BLOCK" | cmp - "$TMP/want"
}

# A daemon is killed within a pwrite(2). XFS shows all of the range as data from the
# start, and takes back what was not written: a reader who asked meanwhile was misled.
read_while_write_dies() {
	"$PROGRAMS/stuck_write" "$(cache_file data)" "$SOURCE/data" 1048576 262144 >"$TMP/writer" &
	writer=$!
	wait_for 10 grep -q stuck "$TMP/writer" || return 1
	"$PROGRAMS/readrange" --random "$MNT/apart/file" "1179648+$BLOCK" >"$TMP/got" &
	reader=$!
	wait_for 10 grep -q '^State:.D' "/proc/$reader/status" || return 1
	kill -KILL "$writer"
	wait "$reader" || return 1
	od -A d -t x1 -N 32 "$TMP/got"
	"$PROGRAMS/readrange" "$TMP/apart/file" "1179648+$BLOCK" | cmp - "$TMP/got"
}

test_file_system() {
	label=$1
	ROOT=$WORK/fs-$label CACHE=$ROOT/cache TAG=$label
	: >"$TRACE"
	mkdir "$ROOT"
	check "$label: can be made" make_file_system "$@"
	mount_file_system
	mkdir "$CACHE"
	prepare >/dev/null
	check "$label: a cache can be bound" start_daemon
	check "$label: empty blobs can be mounted" mount_both
	check "$label: single blocks are read right" chosen_right
	check "$label: each takes one request of its bytes" fetched_chosen
	check "$label: exactly they are present" present_chosen
	drop_caches
	check "$label: they are read again without a request" costs_no_request chosen_right
	check "$label: all bytes are right" all_right
	check "$label: all bytes are present, and right in the cache files" all_present
	drop_caches
	check "$label: a second pass is right, without a request" costs_no_request all_right
	kill_daemon
	drop_caches
	check "$label: so is one without a daemon" all_right

	check "$label: everything can be unmounted" eval 'umount_both && wait_for 10 fails cache_bound'
	wait_for 10 umount "$ROOT" && mount_file_system
	start_daemon && mount_both
	check "$label: after mounting it again nothing is missing" costs_no_request all_right
	umount_both
	stop_daemon
	wait_for 10 fails cache_bound

	take_data_away
	start_daemon && mount_both
	check "$label: a blob that was taken away is fetched again, also a torn block" torn_right
	check "$label: so are blocks that have a place, no bytes, and pages of zeros" reserved_right
	title="$label: a reader gets no zeros from a pwrite that dies"
	if [ ! -e /proc/sys/vm/unprivileged_userfaultfd ]; then
		skip "$title" "no userfaultfd"
	elif [ "$type" = ext4 ]; then
		# Not when a pwrite ends between two of its pages, only when memory is lost.
		skip "$title" "here one whose memory never arrives leaves zeros as data"
	else
		check "$title" read_while_write_dies
	fi
	check "$label: and all its bytes are right" all_right
	umount_both
	stop_daemon
	wait_for 10 fails cache_bound
	wait_for 10 umount "$ROOT"
}

# On tmpfs a pwrite(2) that dies leaves zeros that look like data.
is_refused() {
	CACHE=$TMP/tmpfs
	mkdir "$CACHE" && mount -t tmpfs tmpfs "$CACHE" && prepare >/dev/null && fails start_daemon
}

make_images
choose_blocks
mkdir "$MNT/apart" "$MNT/whole"
for file_system in $FILE_SYSTEMS; do
	IFS=,
	# shellcheck disable=SC2086 # the fields of an entry
	set -- $file_system
	unset IFS
	test_file_system "$@"
done
check "a cache on tmpfs is refused" is_refused
check "the log says why" kernel_log_has "bind: .*tmpfs.* cannot hold a cache: holes tell what is missing only on"
finish
