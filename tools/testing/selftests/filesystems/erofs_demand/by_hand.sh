# SPDX-License-Identifier: GPL-2.0
# Sourced after lib.sh by tests that are the daemon themselves and watch single
# readers wait for it. Descriptor 3 is the device.
# shellcheck shell=sh

BLOCK=4096
MiB=1048576
# Something that is to happen at once may take this long, in seconds.
SOON=5

# --- readers -----------------------------------------------------------------
# The file's bytes are those of the blob "data", of which the first MiB is there.
# Every reader that is to miss takes bytes that no other one has touched.

# make_images [SIZE]: one.img, with a file of so many bytes (default: 16 MiB).
make_images() {
	mkdir "$TMP/tree"
	head -c "${1:-$((16 * MiB))}" /dev/urandom >"$TMP/tree/file"
	: >"$SOURCE/data"
	make_image one.img "$TMP/tree" --chunksize=65536 --blobdev="$SOURCE/data"
	prepare >/dev/null
	"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" one.img "data:0+$MiB" >/dev/null
}
# cache_file BLOB
cache_file() { echo "$CACHE"/cache/Ierofs/@*/"D$1"; }

next_range=$MiB
# A range of some bytes (default: a block) that is missing, in $range.
fresh_range() {
	range=$next_range+${1:-$BLOCK}
	next_range=$((next_range + 16 * BLOCK))
}

# read_range RANGE: what is read is in $TMP/got, the error in $TMP/error.
read_range() { "$PROGRAMS/readrange" --random "$MNT/file" "$1" >"$TMP/got" 2>"$TMP/error"; }

# start_reader [BYTES]: reads a fresh range in the background; returns when it waits
# for the daemon. Descriptor 3 must be closed when this shell closes it.
start_reader() {
	fresh_range "$@"
	start_reader_of "$range"
}
start_reader_of() {
	"$PROGRAMS/readrange" --random "$MNT/file" "$1" >"$TMP/got" 2>"$TMP/error" 3>&- &
	READER=$!
	wait_for 10 waits "$READER"
}
# waits PID
waits() { grep -q '^State:.D' "/proc/$1/status" 2>/dev/null; }
ended() { ! kill -0 "$1" 2>/dev/null; }
reader_waits() { waits "$READER"; }
reader_ended() { ended "$READER"; }

# reader_gets ERROR: soon, and not one byte.
reader_gets() {
	wait_for "$SOON" reader_ended || return 1
	cat "$TMP/error"
	grep -q "$1" "$TMP/error" && fails [ -s "$TMP/got" ]
}
reader_right() {
	wait_for 10 reader_ended || return 1
	cat "$TMP/error"
	right_bytes
}

# The bytes of the range are right (and are read, if nothing was read before).
right_bytes() {
	"$PROGRAMS/readrange" "$TMP/tree/file" "$range" | cmp - "$TMP/got"
}
reads_right() { read_range "$range" && right_bytes; }
fails_soon() {
	before=$(date +%s)
	fails read_range "$range" || return 1
	[ $(($(date +%s) - before)) -le $((SOON * SLOW)) ] && reader_gets "$1"
}

# start_readers COUNT: as start_reader, so many.
start_readers() {
	rm -rf "$TMP/readers"
	mkdir "$TMP/readers"
	READERS=''
	for _ in $(seq "$1"); do
		fresh_range
		"$PROGRAMS/readrange" --random "$MNT/file" "$range" >"$TMP/readers/$range" \
			2>"$TMP/readers/error" 3>&- &
		READERS="$READERS $!"
	done
	wait_for 20 readers_wait
}
readers_wait() {
	for reader in $READERS; do waits "$reader" || return 1; done
}
readers_ended() {
	for reader in $READERS; do ended "$reader" || return 1; done
}
waiting_readers() {
	for reader in $READERS; do waits "$reader" && echo "$reader"; done | wc -l
}
readers_right() {
	wait_for 20 readers_ended || return 1
	cat "$TMP/readers/error"
	for got in "$TMP"/readers/*+*; do
		"$PROGRAMS/readrange" "$TMP/tree/file" "${got##*/}" | cmp - "$got" || return 1
	done
}

# --- the daemon ----------------------------------------------------------------

open_device() { exec 3<>"$DEVICE"; }
close_device() { exec 3>&-; }
tell() { printf '%s' "$1" >&3; }
# bind_by_hand [COMMAND]...: these come before bind
bind_by_hand() {
	open_device && tell "dir $CACHE" && tell "tag $TAG" || return 1
	for command; do tell "$command" || return 1; done
	tell bind
}
# says RESULT COMMAND: what write(2) says, "0" or the name of the error.
says() { equal "$("$PROGRAMS/device" command "$2" <&3)" "$1"; }
# What poll(2) says at once: "in", "out", both or nothing.
polled() { "$PROGRAMS/device" poll 0 <&3; }

# Takes one request, if there is one: $id, $off and $len.
take_request() {
	dd bs=280 count=1 status=none <&3 >"$TMP/record"
	[ -s "$TMP/record" ] || return 1
	# shellcheck disable=SC2046 # three numbers
	set -- $(od -An -t u8 -N 24 "$TMP/record")
	id=$1 off=$2 len=$3
}
# Takes all requests: a line "ID OFFSET LENGTH" for each in $TMP/taken, the ids in $ids.
take_all() {
	ids=''
	: >"$TMP/taken"
	while take_request; do
		ids="$ids $id"
		echo "$id $off $len" >>"$TMP/taken"
	done
}

# write_data OFFSET LENGTH: as a good daemon does, to the cache file of "data".
write_data() {
	dd if="$SOURCE/data" of="$(cache_file data)" bs=$MiB conv=notrunc status=none \
		iflag=skip_bytes,count_bytes oflag=seek_bytes skip="$1" seek="$1" count="$2"
}
# serve ID OFFSET LENGTH
serve() { write_data "$2" "$3" && tell "done $1"; }
serve_taken() {
	while read -r id off len; do serve "$id" "$off" "$len" || return 1; done <"$TMP/taken"
}

# --- the kernel's tables ---------------------------------------------------------

# column TABLE COLUMN [NAME]: of the rows of that name (default: this test's cache).
column() {
	awk -v column="$2" -v name="${3:-$TAG}" '
		NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; if (!(column in at)) exit 1 }
		$NF == name { print $at[column] }' "/sys/kernel/debug/cachefiles_demand/$1"
}
# column_is TABLE COLUMN VALUE [NAME]
column_is() { equal "$(column "$1" "$2" ${4:+"$4"})" "$3"; }
# column_becomes SECONDS TABLE COLUMN VALUE [NAME]
column_becomes() {
	patience=$1
	shift
	wait_for "$patience" column_is "$@" >"$TMP/column" || { tail -n 2 "$TMP/column"; return 1; }
}
# request N: the Nth request for the blob "data", as "STATE START LENGTH WAITING"
request() {
	awk -v row="$1" -v name="$TAG/Ddata" '$NF == name && ++n == row { print $2, $4, $5, $6 }' \
		/sys/kernel/debug/cachefiles_demand/requests
}

# No request for the blob "data" is without an answer.
table_is_empty() { equal "$(column requests id "$TAG/Ddata")" ''; }

# Takes file data out of the page cache.
forget_pages() {
	sync
	echo 1 >/proc/sys/vm/drop_caches
}
