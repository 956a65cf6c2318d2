#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A Debian tree, mounted before any of its data is there, is the tree that it
# was made of: contents, types, modes, owners, sizes, times, link targets, hard
# links and device numbers.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

TREE=${TREE:-/build/tree}
[ -d "$TREE/usr/lib" ] || skip_all "no Debian tree in $TREE"
load_modules
plan 11

# What a distribution's tree rarely has.
make_oddities() {
	mkdir -p "$1/links" "$1/nodes" "$1/modes"
	echo shared >"$1/links/a"
	ln "$1/links/a" "$1/links/b"
	ln "$1/links/a" "$1/modes/c"
	ln -s nowhere "$1/links/dangling"
	ln -s "$(printf '%01000d' 0)" "$1/links/long"
	mknod "$1/nodes/null" c 1 3
	mknod "$1/nodes/disk" b 259 1048575
	mknod "$1/nodes/large" c 4095 256
	mkfifo "$1/nodes/pipe"
	python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$1/nodes/socket"
	for mode in 0000 0111 0640 1777 2755 4711 6777 7777; do
		echo "$mode" >"$1/modes/$mode"
		chmod "$mode" "$1/modes/$mode"
	done
	echo owned >"$1/modes/owner"
	chown 65534:4294967294 "$1/modes/owner"
	chown -h 1000:100 "$1/links/dangling"
	touch -d @1234567890.123456789 "$1/modes/owner"
	touch -d @4102444800.000000001 "$1/links/a"
	touch -d @0.5 "$1/nodes/null"
}

# Directories that are in both blobs must not differ in anything but entries.
align_directories() {
	for directory in "$TMP/base" "$TMP/python"; do
		touch -d @1700000000 "$directory/usr/lib" "$directory/usr" "$directory"
	done
}

# Two blobs, and a bootstrap with all names and no data.
make_images() {
	mkdir "$TMP/base"
	# Read in one go: the tree may be on a slow file system. Without some of
	# what there is much of, to stay within the time.
	tar -C "$TREE" --exclude=./usr/share/locale --exclude=./usr/lib/x86_64-linux-gnu -c . |
		tar -C "$TMP/base" -x --numeric-owner || return 1
	make_oddities "$TMP/oddities"
	cp -a "$TMP/oddities" "$TMP/base/"
	# Not in the merged image: merging makes two inodes of one symbolic link.
	ln "$TMP/oddities/links/dangling" "$TMP/oddities/links/dangling2"
	mkdir -p "$TMP/python/usr/lib"
	mv "$TMP"/base/usr/lib/python3* "$TMP/python/usr/lib/"
	align_directories
	make_image base.img "$TMP/base" -E noinline_data || return 1
	make_image python.img "$TMP/python" -E noinline_data || return 1
	make_image oddities.img "$TMP/oddities" || return 1
	mv "$TMP"/python/usr/lib/python3* "$TMP/base/usr/lib/"
	align_directories
	mkfs.erofs --quiet -b 4096 -T 0 --mkfs-time "$SOURCE/tree.img" \
		"$SOURCE/base.img" "$SOURCE/python.img"
}

listing() { "$PROGRAMS/listing" "$1" >"$2"; }

# The root directory of a merged image is made up by mkfs.erofs.
listing_without_root() { listing "$1" "$2" && sed -i 1d "$2"; }

# same_listing WANTED GOT
same_listing() {
	diff "$1" "$2" >"$TMP/diff" || { head -n 20 "$TMP/diff"; return 1; }
}

same_oddities() {
	listing "$TMP/oddities" "$TMP/wanted" && listing "$TMP/mnt" "$TMP/got" &&
		same_listing "$TMP/wanted" "$TMP/got"
}

same_tree() { listing_without_root "$MNT" "$TMP/got" && same_listing "$TMP/tree" "$TMP/got"; }

# What of the tree's blobs is in the cache, told by the files there.
present_bytes() {
	"$DEMANDD" status --root "$CACHE" |
		awk '$4 == "tree.img" || $4 == "base.img" || $4 == "python.img" { n += $2 } END { printf "%d\n", n }'
}

at_least() { [ "$1" -ge "$2" ] || { echo "got $1, wanted at least $2"; return 1; }; }

check "an image of two blobs and a bootstrap" make_images
check "the source can be read" listing_without_root "$TMP/base" "$TMP/tree"
bytes=$(awk '/^10/ { n += $4 } END { printf "%.0f", n }' "$TMP/tree")
note "$(wc -l <"$TMP/tree") entries, $bytes bytes"
check "the tree has at least 5,000 files" at_least "$(grep -c '^10' "$TMP/tree")" 5000
check "the tree has at least 100 MB" at_least "$bytes" 100000000
rm -rf "$TMP/base" "$TMP/python"
prepare >/dev/null
start_daemon

mkdir "$TMP/mnt"
check "an image of rare things can be mounted while its blob is empty" \
	mount_image oddities.img '' "$TMP/mnt"
check "every rare thing is as in the source" same_oddities
umount "$TMP/mnt"

: >"$TRACE"
check "the tree can be mounted while all its blobs are empty" \
	mount_image tree.img device=base.img,device=python.img
check "every file is as in the source, read on demand" same_tree
note "$(requests) requests, $(fetched_bytes) bytes fetched"
check "no byte was fetched twice" equal "$(fetched_bytes)" "$(present_bytes)"

: >"$TRACE"
drop_caches
check "every file is as in the source, read from the cache" same_tree
check "that takes no request" equal "$(requests)" 0
finish
