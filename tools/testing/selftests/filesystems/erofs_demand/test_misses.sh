#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A miss delays those who need its bytes and nobody else, and nothing is asked for
# twice or beyond the end.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
plan 19

# The file ends within a block, and the blob within every granule but the smallest.
SIZE=$((16 * MiB + 5000))
DATA=$TAG/Ddata
# Accesses to the cookie of the blob ("data", in hexadecimal) that have not ended.
accesses() { awk '$8 ~ /^64617461,?$/ { print $5 }' /proc/fs/fscache/cookies; }
costs_no_miss() {
	before=$(column objects misses "$DATA")
	"$@" && column_is objects misses "$before" "$DATA"
}
# Asks for bytes of the file ahead, and does not wait for them.
ask() {
	timeout $((SOON * SLOW)) python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, int(sys.argv[2]), int(sys.argv[3]), os.POSIX_FADV_WILLNEED)' "$MNT/file" "$1" "$2" 3>&-
}

make_images $SIZE
next_range=$((4 * MiB))
bind_by_hand "linger 600"
mount_image one.img device=data

# --- misses side by side --------------------------------------------------------------

mkdir "$TMP/second"
# With other options it is a volume of its own, with its own pages.
mount_image one.img device=data,noacl "$TMP/second"
start_reader
"$PROGRAMS/readrange" --random "$TMP/second/file" "$range" >"$TMP/got-second" 2>&1 3>&- &
SECOND=$!
check "readers of one block on two volumes wait for one request" \
	wait_for 10 eval '[ "$(request 1)" = "queued ${range%+*} $BLOCK 2" ]'
take_all
check "the daemon reads it once" equal "$(wc -l <"$TMP/taken")" 1
serve_taken
check "both get their data" eval 'reader_right && wait_for 10 ended $SECOND && cmp "$TMP/got" "$TMP/got-second"'
umount "$TMP/second"

# A block before the end of what is present, and blocks behind: one window of readahead.
forget_pages
range=$((MiB - 16 * BLOCK))+$((32 * BLOCK))
start_reader_of "$range"
check "a read of present and missing bytes asks for the missing ones, once" \
	equal "$(request 1 | cut -d ' ' -f 2,3), $(request 2)" "$MiB $((16 * BLOCK)), "
check "meanwhile the present ones before them are read (T65)" eval 'timeout $((SOON * SLOW)) \
	"$PROGRAMS/readrange" --random "$MNT/file" $((MiB - BLOCK))+$BLOCK >"$TMP/beside"'
check "that reader still waits" reader_waits
check "what it waits for has access to the cookie (T44, T56)" test "$(accesses)" -ge 1
take_all
serve_taken
check "and has all its bytes, each read completed once (T58)" reader_right

fresh_range
check "who asks for missing bytes ahead does not wait for them (T65)" ask "${range%+*}" $((8 * BLOCK))
check "they are one request" equal "$(request 1 | cut -d ' ' -f 2,3)" "${range%+*} $((8 * BLOCK))"
check "there is no other" equal "$(request 2)" ''
take_all
serve_taken

# --- granules ----------------------------------------------------------------------------

tell "granule 65536"
start_reader_of $((3 * MiB + 5 * BLOCK))+$BLOCK
check "a miss asks for its granule" equal "$(request 1)" "queued $((3 * MiB)) 65536 1"
"$PROGRAMS/readrange" --random "$MNT/file" $((3 * MiB + 9 * BLOCK))+$BLOCK >"$TMP/got-second" 3>&- &
SECOND=$!
check "a miss of another block of it waits for the same request" \
	wait_for 10 eval '[ "$(request 1)" = "queued $((3 * MiB)) 65536 2" ]'
take_all
serve_taken
wait_for 10 eval "reader_ended && ended $SECOND"
range=$((3 * MiB))+65536
check "then all of it is present" costs_no_miss reads_right
tell "granule 16777216"
last=$((SIZE / BLOCK * BLOCK))
start_reader_of $last+$((SIZE - last))
check "the last granule ends where the blob ends (T62, T66)" \
	equal "$(request 1)" "queued $((16 * MiB)) $(($(stat -c %s "$SOURCE/data") - 16 * MiB)) 1"
take_all
serve_taken
range=$last+$((SIZE - last))
check "its bytes are right, up to the last one (T62)" reader_right
check "a read at the end of the file reads nothing, and asks for nothing (T66)" eval \
	'read_range $SIZE+$BLOCK && fails [ -s "$TMP/got" ] && table_is_empty'
tell "granule $BLOCK"
check "a direct read is refused, or right (T64)" eval \
	'dd if="$MNT/file" of="$TMP/got" iflag=direct bs=$BLOCK count=1 2>"$TMP/error" &&
		cmp -n $BLOCK "$TMP/got" "$TMP/tree/file" || grep "Invalid argument" "$TMP/error"'

# Others have ended by now.
check "every read has ended its access to the cookie (T44, T56)" equal "$(accesses)" 0
finish
