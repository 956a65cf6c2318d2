#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A file has its content in whatever way it is read: mapped, spliced, sent, copied, direct, in
# pieces, from behind. Each way is the first one to read its file (reading.py), on an image that
# arrives on demand and on one in a file. What the kernel's own erofs.ko refuses is refused.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

need_stock_module

READING=${0%/*}/reading.py
WAYS=$("$READING" --names)
# shellcheck disable=SC2086 # a list
set -- $WAYS
plan $(($# * 2 + 5))

# What is not to be read, but refused: nobody waits for a miss, and copy_file_range(2) stays in
# its file system.
wanted() {
	case $1 in
	copied) echo EXDEV ;;
	without_waiting) echo ENOTSUP ;;
	*) echo same ;;
	esac
}
mkdir "$TMP/tree"
for way in $WAYS; do
	# The last 16 bytes return 42.
	{ head -c 299985 /dev/urandom; printf '\270\052\0\0\0\303\0\0\0\0\0\0\0\0\0\0'; } >"$TMP/tree/$way"
	echo "$way $(wanted "$way")" >>"$TMP/wanted"
done
make_image reading.img "$TMP/tree"
cp "$SOURCE/reading.img" "$TMP/file.img"

# results KIND: of all ways, to read what is mounted.
results() { "$READING" "$MNT" "$TMP/tree" >"$TMP/$1"; }
as_wanted() { equal "$(sed -n "s/^$2 //p" "$TMP/$1")" "$(wanted "$2")"; }

check "the kernel's own module can be loaded" load_stock_module
check "and reads from a block device as is wanted" eval \
	'mount -t erofs -o ro,loop "$TMP/file.img" "$MNT" && results stock && umount "$MNT" &&
	 diff "$TMP/wanted" "$TMP/stock"'
unload_erofs

load_modules
check "all ways are tried with an image in a file" eval \
	'mount -t erofs "$TMP/file.img" "$MNT" && results file && umount "$MNT"'
for way in $WAYS; do check "in a file: $way" as_wanted file "$way"; done

prepare >/dev/null
start_daemon
check "all ways are tried with an image that arrives" eval \
	'mount_image reading.img && results demand && umount "$MNT"'
for way in $WAYS; do check "on demand: $way" as_wanted demand "$way"; done
note "$(requests) requests, $(fetched_bytes) bytes fetched"
files=$(cat "$TMP"/tree/* | wc -c)
check "the files were fetched for that, but for those that were not read" \
	test "$(fetched_bytes)" -gt $((files * 9 / 10))
finish
