#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What the kernel tells of itself is right: its tables, the device's fdinfo and the
# tracepoints. They show that a hit costs nothing but the read.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
plan 38

TRACING=/sys/kernel/tracing
SIZE=$((16 * MiB))
DATA=$TAG/Ddata
heading() { equal "$(head -n 1 "/sys/kernel/debug/cachefiles_demand/$1")" "$2"; }
# object COLUMN: of the blob "data"
object() { column objects "$1" "$DATA"; }
cache_numbers() { for c in "$@"; do column caches "$c"; done | xargs; }
fdinfo() { sed -n "s/^$1:\t//p" "/proc/$$/fdinfo/3"; }
# reads_file: all of it
reads_file() { cmp "$MNT/file" "$TMP/tree/file"; }
# unmoved COLUMN... -- COMMAND [ARG]...: the command is true, and the columns of the
# blob are as before.
unmoved() {
	columns=''
	while [ "$1" != -- ]; do columns="$columns $1"; shift; done
	shift
	before=$(for c in $columns; do object "$c"; done)
	"$@" && equal "$(for c in $columns; do object "$c"; done)" "$before"
}
grown() { [ "$(object "$1")" -gt "$2" ]; }
# traced EVENT REGEX: a line that tells of it
traced() { grep -E " $1: .*$2" "$TMP/trace"; }

make_images $SIZE
# What is not on disk yet is not believed at once.
sync
next_range=$((2 * MiB))
bind_by_hand

# --- tables --------------------------------------------------------------------

check "the table of caches has its columns" heading caches "daemon linger timeout granule volumes \
objects queued delivered oldest_ms done failed hung done_bytes culling stopped tag"
check "the table of objects has its columns" heading objects \
	"size present_blocks unsettled_blocks complete hits misses seeks tag/name"
check "the table of requests has its columns" heading requests "id state age_ms start len waiting tag/name"
check "a cache without a mount has nothing" equal "$(cache_numbers volumes objects queued delivered)" "0 0 0 0"
mount_image one.img device=data
check "with one it has a volume and two blobs" equal "$(cache_numbers volumes objects queued)" "1 2 0"
check "its settings are as at first" \
	equal "$(cache_numbers daemon linger timeout granule culling stopped)" "connected 30 0 $BLOCK 0 0"
check "settings are shown" eval 'tell "linger 7" && tell "timeout 600" && tell "granule 65536" &&
	equal "$(cache_numbers linger timeout granule)" "7 600 65536"'
tell "linger 600"
tell "timeout 0"
tell "granule $BLOCK"
check "the blob has its size" equal "$(object size)" $SIZE
check "it is not complete" equal "$(object complete)" 0
check "the bootstrap, which is, has all its blocks" equal \
	"$(column objects present_blocks "$TAG/Done.img") $(column objects complete "$TAG/Done.img")" \
	"$((($(stat -c %s "$SOURCE/one.img") + BLOCK - 1) / BLOCK)) 1"
check "at most two questions were enough to know" test "$(column objects seeks "$TAG/Done.img")" -le 2

start_reader
check "a miss is a request of its block" equal "$(request 1)" "queued ${range%+*} $BLOCK 1"
check "fdinfo of the device tells of the cache" \
	equal "$(fdinfo cache) $(fdinfo queued) $(fdinfo delivered)" "\"$TAG\" 1 0"
take_request
check "when it is read it is delivered" equal "$(request 1)" "delivered $off $len 1"
check "its id is that of the record" equal "$(column requests id "$DATA")" "$id"
check "fdinfo tells of that" equal "$(fdinfo queued) $(fdinfo delivered)" "0 1"
check "it gets older" eval 'age=$(fdinfo oldest_ms) && wait_for 5 eval "[ \$(fdinfo oldest_ms) -gt $age ]"'
serve "$id" "$off" "$len"
check "when it is answered it is gone" eval 'table_is_empty && reader_right'
check "it is counted, and its bytes" equal "$(cache_numbers "done" failed done_bytes)" "1 0 $BLOCK"

# --- hits ----------------------------------------------------------------------

range=0+$MiB
check "what is present is read" reads_right
hits=$(object hits)
check "some time later all of it is on disk" column_becomes 30 objects unsettled_blocks 0 "$DATA"
forget_pages
check "reading it again asks the file system nothing, and misses nothing" \
	unmoved seeks misses present_blocks -- reads_right
check "though it is read from the cache" grown hits "$hits"

# --- tracepoints ----------------------------------------------------------------------------

echo 1 >"$TRACING/events/cachefiles_demand/enable"
echo >"$TRACING/trace"
start_reader
take_request
serve "$id" "$off" "$len"
reader_right >/dev/null
start_reader
take_request
tell "fail $id 5"
failed_id=$id
take_request || wait_for 10 take_request
tell "fail $id 5"
wait_for 10 reader_ended
forget_pages
range=0+$BLOCK
reads_right
echo 0 >"$TRACING/events/cachefiles_demand/enable"
cat "$TRACING/trace" >"$TMP/trace"
id=$((failed_id - 1))
at=$((next_range - 32 * BLOCK))
check "a miss is traced" traced presence "miss start=$at len=$BLOCK file=Ddata"
check "so is its request" traced request_queued "id=$id start=$at len=$BLOCK file=Ddata cache=$TAG$"
check "that the daemon read it" traced request_delivered "id=$id$"
check "that it was answered" traced request_completed "id=$id errno=0 age_us=[0-9]+$"
check "with which error, if any" traced request_completed "id=$failed_id errno=-5 age_us=[0-9]+$"
check "a hit is traced" traced presence "hit start=0 len=$BLOCK file=Ddata"

# --- a complete blob -------------------------------------------------------------------------

close_device
start_daemon
check "the whole file is right" reads_file
check "all of its blocks are present" equal "$(object present_blocks)" $(((SIZE + BLOCK - 1) / BLOCK))
hits=$(object hits)
check "all of it gets to disk" column_becomes 30 objects unsettled_blocks 0 "$DATA"
check "then it is known to be complete" column_is objects complete 1 "$DATA"
forget_pages
check "reading it all again asks the file system nothing" unmoved seeks misses -- reads_file
check "though it is read from the cache" grown hits "$hits"
umount "$MNT"
mount_image one.img device=data
check "mounted again it is complete at once" equal "$(object complete)" 1
check "that took at most two questions" test "$(object seeks)" -le 2
check "and no other one follows" unmoved seeks misses -- reads_file
finish
