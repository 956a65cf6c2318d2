#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Bytes that the disk did not take are missing again, and are fetched again: a reader
# never gets zeros in their place.
#
# The disk is a sparse file on a tmpfs. When that is full, the disk fails to write where
# it has not been written before; what it has is overwritten without fail.
#
# FILE_SYSTEMS names some of those that are tested. btrfs is not: its metadata get a new
# place at every commit, and when that cannot be written it becomes read-only.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

FILE_SYSTEMS=${FILE_SYSTEMS:-ext4 xfs}
TESTS_EACH=31
SIZE=$((16 * MiB))
PIECE=$((16 * BLOCK))
# Unmounted after the cache, which is on it: see cleanup.
BELOW=$WORK/below

load_modules
# Nothing is written before a test says so, however long the steps before that take.
change /proc/sys/vm/dirty_writeback_centisecs 0
# shellcheck disable=SC2086 # a list
set -- $FILE_SYSTEMS
plan $(($# * TESTS_EACH))

# --- the disk --------------------------------------------------------------------

# make_disk TYPE: the metadata that a few files need are written, not left as holes.
make_disk() {
	mkdir -p "$BELOW"
	mount -t tmpfs -o size=160M tmpfs "$BELOW" && truncate -s 512M "$BELOW/disk" || return 1
	modprobe -q -a loop "$1" || :
	case $1 in
	ext4)
		UNIX_IO_NOZEROOUT=1 mkfs.ext4 -q -m 0 -N 128 -O ^has_journal,^metadata_csum,^uninit_bg \
			-E lazy_itable_init=0,nodiscard "$BELOW/disk"
		;;
	*) "mkfs.$1" -q -K "$BELOW/disk" ;;
	esac
}
mount_disk() { mount -o loop "$BELOW/disk" "$CACHE"; }
fill_disk() {
	forget_pages
	on_disk=$(present_blocks)
	dd if=/dev/zero of="$BELOW/ballast" bs="$MiB" status=none 2>/dev/null || :
	equal "$(stat -f -c %f "$BELOW")" 0
}
free_disk() { rm "$BELOW/ballast"; }

# On the disk, or in the page cache: what the disk did not take goes with its pages.
present_blocks() { "$PROGRAMS/blocks" count "$(cache_file data)"; }
present_right() { "$PROGRAMS/blocks" compare "$(cache_file data)" "$SOURCE/data"; }
forgotten() {
	drop_caches
	equal "$(present_blocks)" "$on_disk"
}
# What a reader got from the cache file is not in it any more: it goes now, or went when
# the kernel tried before. The log need not tell: it leaves out what comes too often.
loses_bytes() {
	sync || :
	wait_for 10 forgotten
}

# --- readers ------------------------------------------------------------------------

asked_or_ended() { { reader_waits && equal "$(polled)" in; } || reader_ended; }
# asks RANGE: somebody who reads that waits for the daemon.
asks() {
	range=$1
	"$PROGRAMS/readrange" --random "$MNT/file" "$1" >"$TMP/got" 2>"$TMP/error" 3>&- &
	READER=$!
	wait_for 10 asked_or_ended >/dev/null
	take_all
	[ -n "$ids" ] || { echo "it was not asked for"; return 1; }
}
taken_bytes() { awk '{ n += $3 } END { print n }' "$TMP/taken"; }
# The kernel may write to the disk when it likes, also before the reader has its bytes: then
# he asks for those once more.
ended_or_served() {
	reader_ended && return
	if equal "$(polled)" in; then take_all && serve_taken; fi >/dev/null
	return 1
}
gets_right() { serve_taken && wait_for 20 ended_or_served && { reader_right || first_bytes_are; }; }
first_bytes_are() {
	od -A d -t x1 -N 32 "$TMP/got"
	return 1
}
asks_and_gets() { asks "$1" && gets_right; }
# Somebody whose bytes the disk has lost before he had them may get fewer, but none that is wrong.
got_fewer() {
	got=$(stat -c %s "$TMP/got")
	[ "$got" -lt "$PIECE" ] && "$PROGRAMS/readrange" "$TMP/tree/file" "$range" | cmp -n "$got" - "$TMP/got"
}
# After one who got fewer: reads until somebody gets all of them.
gets_rest() {
	for try in $(seq 10); do
		got_fewer || return 1
		echo "before try $try: $got bytes"
		asks_and_gets "$range" && return
	done
	return 1
}
# Brings what was taken, and says so once the disk has lost it.
lost_before_done() {
	while read -r id off len; do write_data "$off" "$len" || return 1; done <"$TMP/taken"
	loses_bytes || return 1
	for id in $ids; do tell "done $id" || return 1; done
}
# Fetches some pieces, whose names are $pieces, while the disk is full.
fetch() {
	pieces=''
	for _ in $(seq "$1"); do
		fresh_range "$PIECE"
		pieces="$pieces $range"
		asks_and_gets "$range" || gets_rest || return 1
	done
}
# right_at_once RANGE
right_at_once() {
	range=$1
	timeout $((SOON * SLOW)) "$PROGRAMS/readrange" --random "$MNT/file" "$1" >"$TMP/got" && right_bytes
}

# --- one file system ---------------------------------------------------------------

set_up() {
	rm -rf "$TMP/tree"
	next_range=$MiB
	make_disk "$1" && mount_disk && make_images "$SIZE" || return 1
	# Nothing of these is only in memory or in a journal.
	umount "$CACHE" && mount_disk && bind_by_hand "linger 600" "granule $PIECE" &&
		mount_image one.img device=data
}
tear_down() {
	umount "$MNT"
	close_device
	wait_for 10 fails cache_bound && wait_for 10 umount "$CACHE" && wait_for 10 umount "$BELOW"
}

test_file_system() {
	check "$1: can be made" set_up "$1"

	check "$1: its disk can be filled" fill_disk
	check "$1: a reader gets its bytes, which are in memory" fetch 1
	piece=${pieces# }
	check "$1: the disk does not take them" loses_bytes
	check "$1: the file system does not count them as there" present_right
	check "$1: they are asked for again" asks "$piece"
	check "$1: and are right again" eval 'gets_right || gets_rest'
	check "$1: the disk does not take them again" loses_bytes
	free_disk
	check "$1: when there is space they are asked for once more" asks "$piece"
	check "$1: and are right" gets_right
	drop_caches
	check "$1: then they stay" right_at_once "$piece"

	check "$1: the disk can be filled again" fill_disk
	check "$1: three pieces are fetched" fetch 3
	# shellcheck disable=SC2086 # ranges
	set -- "$1" $pieces
	check "$1: the disk does not take them" loses_bytes
	free_disk
	check "$1: what is on disk is read at once" right_at_once 0+$MiB
	check "$1: the second piece is asked for again" asks "$3"
	check "$1: and is right" gets_right
	check "$1: so is the first one" asks_and_gets "$2"
	drop_caches
	check "$1: and, later, the third one" asks_and_gets "$4"

	check "$1: the disk can be filled again" fill_disk
	fresh_range "$PIECE"
	check "$1: a piece is asked for" asks "$range"
	check "$1: the disk loses it before the daemon says done" lost_before_done
	check "$1: no reader gets anything else" eval 'wait_for 20 ended_or_served && { got_fewer || reader_right; }'
	check "$1: the daemon is not blamed" fails kernel_log_has 'the daemon said done'
	check "$1: what he asked for once more is lost, too" loses_bytes
	tell "granule $SIZE"
	fresh_range
	check "$1: everything is fetched" eval 'asks_and_gets "$range" &&
		equal "$(taken_bytes)" $((SIZE - on_disk * BLOCK))'
	check "$1: the disk does not take all of it" loses_bytes
	free_disk
	check "$1: what is missing is asked for again" asks "0+$SIZE"
	check "$1: every byte of the file is right" gets_right
	check "$1: and of the cache file" eval 'drop_caches && present_right &&
		equal "$(present_blocks)" "$(($(stat -c %s "$SOURCE/data") / BLOCK))"'
	check "$1: it can be unmounted" tear_down
}

for file_system in $FILE_SYSTEMS; do
	test_file_system "$file_system"
done
finish
