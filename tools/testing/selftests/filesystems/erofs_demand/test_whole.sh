#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every file of a whole Debian tree is as in the tree when it is read through a
# mount whose blobs were empty. scripts/make-tree-image lists the tree beforehand,
# with the program that lists the mount here.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

WHOLE=${WHOLE:-/build/whole}
[ -s "$WHOLE/listing" ] || skip_all "no image of a whole tree in $WHOLE"
load_modules
plan 6

# Links, so that the daemon's source is where the image was made.
ln -s "$WHOLE/debian.img" "$WHOLE/debian.blob" "$SOURCE/"

same_tree() {
	"$PROGRAMS/listing" "$MNT" >"$TMP/got" || return 1
	diff "$WHOLE/listing" "$TMP/got" >"$TMP/diff" || { head -n 20 "$TMP/diff"; return 1; }
}
at_least() { [ "$1" -ge "$2" ] || { echo "got $1, wanted at least $2"; return 1; }; }

bytes=$(awk '/^10/ { n += $4 } END { printf "%.0f", n }' "$WHOLE/listing")
note "$(wc -l <"$WHOLE/listing") entries, $bytes bytes"
check "the tree has at least 10,000 entries" at_least "$(wc -l <"$WHOLE/listing")" 10000
check "the tree has at least 200 MB" at_least "$bytes" 200000000
prepare debian.img debian.blob >/dev/null
start_daemon
check "it can be mounted while its blobs are empty" mount_image debian.img device=debian.blob
check "every file is as in the tree, read on demand" same_tree
note "$(requests) requests, $(fetched_bytes) bytes fetched"
: >"$TRACE"
drop_caches
check "every file is as in the tree, read from the cache" same_tree
check "that takes no request" equal "$(requests)" 0
finish
