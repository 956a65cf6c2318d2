#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The guest's side of scripts/power-cut, which says what it is for.
#
# usage: power_cut.sh CHECK FILL
#
#   CHECK  look at the cache on /dev/vdb, on a file system of this type
#   FILL   make one of this type there, and fill a cache on it until the power is cut
#
# Either may be "none". Prints, as they happen:
#   checked TYPE present N missing N wrong N   blocks that were there after the cut, of
#                                              these bytes that are wrong
#   filling TYPE                               the cache is being filled
#   synced N                                   so many blocks are on the disk for good
. "${0%/*}/lib.sh"

DISK=/dev/vdb ROOT=/cut INPUT=/build/power-cut
CACHE=$ROOT/cache SOURCE=$INPUT/source
# Blocks that are present when the filling has begun.
BEGUN=100

mount_disk() { modprobe -q "$1" || :; mount -t "$1" "$DISK" "$ROOT"; }
mount_both() { mount_image apart.img device=data "$MNT/apart" && mount_image whole.img '' "$MNT/whole"; }

# with_truth PROGRAM...: PROGRAM with pairs of cache file and blob behind.
with_truth() {
	for blob in "$SOURCE"/*; do
		set -- "$@" "$(echo "$CACHE"/cache/Ierofs/@*/"D${blob##*/}")" "$blob"
	done
	"$@"
}
count_present() { "$PROGRAMS/blocks" count "$CACHE"/cache/Ierofs/@*/*; }

# --- check -------------------------------------------------------------------------

# What is present is right, as the file system shows it.
check_files() {
	with_truth "$PROGRAMS/blocks" compare >"$TMP/files" && status=0 || status=$?
	sed '$d' "$TMP/files"
	sed -n "\$s/^present \(.*\), missing \(.*\), wrong \(.*\)/checked $1 present \1 missing \2 wrong \3/p" "$TMP/files"
	return "$status"
}

# And as the mount shows it, which has no daemon to help it: the image is fetched
# first, its data is not.
check_mount() {
	"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" apart.img >/dev/null
	exec 3<>"$DEVICE"
	for command in "dir $CACHE" "tag $TAG" "linger 0" bind; do
		printf '%s' "$command" >&3
	done
	mount_image apart.img device=data "$MNT/apart"
	exec 3>&-
	set --
	for f in "$INPUT"/tree/apart/*; do set -- "$@" "$MNT/apart/${f##*/}" "$f"; done
	"$PROGRAMS/blocks" read "$@" >"$TMP/mount" || { cat "$TMP/mount"; return 1; }
	umount "$MNT/apart"
	equal "$(sed -n 's/^present \([0-9]*\),.*/\1/p' "$TMP/mount")" \
		"$("$PROGRAMS/blocks" count "$CACHE"/cache/Ierofs/@*/Ddata)"
	wait_for 10 fails cache_bound
}

# What is missing is fetched, and then everything is right.
check_all() {
	start_daemon && mount_both
	diff -r "$INPUT/tree/apart" "$MNT/apart" && diff -r "$INPUT/tree/whole" "$MNT/whole"
	umount "$MNT/apart" && umount "$MNT/whole"
	stop_daemon
	with_truth "$PROGRAMS/blocks" compare >"$TMP/all" || { cat "$TMP/all"; return 1; }
	grep -q ', missing 0, ' "$TMP/all"
}

# --- fill --------------------------------------------------------------------------

# Reads single blocks of a file, in any order and for ever.
read_at_random() {
	while :; do
		shuf -n 500 -i "0-$(($(stat -c %s "$1") / 4096 - 1))" | awk '{ printf "%d+4096\n", $1 * 4096 }' |
			xargs "$PROGRAMS/readrange" --random "$1" >/dev/null
	done
}
# Small files, whose blocks have names and ends of files in them.
read_small_files() {
	while :; do
		find "$MNT/whole/dir" -type f | shuf | head -n 50 | xargs cat >/dev/null
	done
}
has_begun() { [ "$(count_present)" -ge $BEGUN ]; }
sync_and_tell() {
	present=$(count_present)
	sync -f "$ROOT"
	echo "synced $present"
}

fill() {
	start_daemon && mount_both
	for f in "$MNT"/apart/* "$MNT"/whole/big*; do read_at_random "$f" & done
	read_small_files &
	wait_for 120 has_begun
	# So that there is something to look at, whenever the power is cut.
	sync_and_tell
	echo "filling $1"
	while :; do
		sleep "0.$(shuf -n 1 -i 0-9)"
		sync_and_tell
	done
}

# --------------------------------------------------------------------------------------

load_modules
mkdir "$ROOT" "$MNT/apart" "$MNT/whole"
if [ "$1" != none ]; then
	mount_disk "$1"
	check_files "$1"
	check_mount
	check_all
	wait_for 10 umount "$ROOT"
fi
if [ "$2" != none ]; then
	case $2 in ext4) force=-F ;; *) force=-f ;; esac
	"mkfs.$2" -q $force "$DISK"
	mount_disk "$2"
	mkdir "$CACHE"
	prepare >/dev/null
	sync -f "$ROOT"
	fill "$2"
fi
