#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A file handle leads to its file when nothing of that is in memory any more, and on the next
# mount of the image, too; a handle that was made up leads nowhere.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

load_modules
plan 12

HANDLES=${0%/*}/handles.py

make_tree() {
	mkdir -p "$1/a/b/c/d" "$1/empty"
	for n in $(seq 40); do
		head -c $((n * 997)) /dev/urandom >"$1/a/b/file-$n"
		echo "$n" >"$1/a/b/c/d/small-$n"
	done
	ln "$1/a/b/file-1" "$1/other-name"
	ln -s a/b/file-1 "$1/link"
	mkfifo "$1/fifo"
	mknod "$1/node" c 1 3
}

take() { "$HANDLES" take "$MNT" >"$TMP/handles"; }
# all_lead: all that were taken.
all_lead() {
	"$HANDLES" open "$MNT" <"$TMP/handles" >"$TMP/led" || return
	head -n 5 "$TMP/led"
	equal "$(tail -n 1 "$TMP/led")" "$(wc -l <"$TMP/handles")"
}
# made_up UPPER LOWER GENERATION: the error for a handle that nobody gave, of such words, lowest
# byte first. The type is FILEID_INO64_GEN.
made_up() { echo "129 $1$2$3 1 33188 0 -" | "$HANDLES" open "$MNT" | sed -n 's/^cannot be opened: \([A-Z]*\) .*/\1/p'; }

make_tree "$TMP/tree"
make_image handles.img "$TMP/tree" -b 512
cp "$SOURCE/handles.img" "$TMP/file.img"
prepare >/dev/null
start_daemon

mount_demand() { mount_image handles.img; }
mount_file() { mount -t erofs "$TMP/file.img" "$MNT"; }
for kind in file demand; do
	mount_$kind
	check "$kind: every name has a handle" eval 'take && equal "$(wc -l <"$TMP/handles")" "$(find "$TMP/tree" | wc -l)"'
	check "$kind: they lead to their files" all_lead
	drop_caches
	check "$kind: also after the caches were dropped" all_lead
	umount "$MNT"
	mount_$kind
	check "$kind: and on the next mount" all_lead
	umount "$MNT"
done
# Only the image's own bytes matter, not where they come from.
mount_file
check "those of one kind of mount lead to the same on the other" all_lead
check "an inode beyond the image is ESTALE" equal "$(made_up 00000000 ffffff0f 00000000)" ESTALE
check "so is the largest number" equal "$(made_up ffffffff ffffffff 00000000)" ESTALE
check "and one where there is no inode" equal "$(made_up 00000000 01000000 00000000)" ESTALE
umount "$MNT"
finish
