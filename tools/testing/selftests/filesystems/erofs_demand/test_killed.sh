#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A daemon that is killed while its "done" gives readers their bytes is no matter to
# them: they get all of them, and no error.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
plan 5

ROUNDS=16
PART=$((4 * MiB))

play() {
	export SLOW
	"$PROGRAMS/kill_in_done" "$MNT/file" "$(cache_file data)" "$SOURCE/data" "$ROUNDS" \
		<&3 >"$TMP/summary" 2>"$TMP/errors" || kill_status=$?
	sort "$TMP/errors" | uniq -c
	cat "$TMP/summary"
	[ "$kill_status" -lt 2 ]
}

# A round takes a part; what is prefetched is in the one before the first.
make_images $(((1 + ROUNDS) * PART))
bind_by_hand "granule $PART"
mount_image one.img device=data
kill_status=0
check "daemons can be killed while they answer" play
check "some were within it, for readahead and for single pages" grep \
	'[1-9][0-9]* of [0-9]* for readahead, [1-9][0-9]* of [0-9]* for pages' "$TMP/summary"
check "no reader had an error or wrong bytes" grep 'readers with errors 0, wrong 0' "$TMP/summary"
check "no request is left" table_is_empty
check "every byte of the parts is right" cmp -i "$PART" "$MNT/file" "$TMP/tree/file"
finish
