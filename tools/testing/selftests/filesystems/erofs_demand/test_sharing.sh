#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An image that is mounted several times is one volume, whose pages are in memory once;
# a blob that several volumes use is one object of the cache, fetched once.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
plan 31

A=$MNT/a B=$MNT/b
mkdir "$A" "$B"
make_images "$MiB"
mkdir "$TMP/tree/names"
(cd "$TMP/tree/names" && seq 2000 | xargs touch)
: >"$SOURCE/data"
make_image one.img "$TMP/tree" --chunksize=65536 --blobdev="$SOURCE/data"
cp "$SOURCE/one.img" "$SOURCE/two.img"
rm -r "$CACHE/cache"
prepare >/dev/null
start_daemon

device() { stat -c %d "$1"; }
one_volume() { equal "$(device "$A")" "$(device "$B")"; }
mount_both() { mount_image one.img "device=data${1:+,$1}" "$A" && mount_image one.img "device=data${2:+,$2}" "$B"; }
umount_both() { umount "$A" && umount "$B"; }
read_all() { cmp "$1/file" "$TMP/tree/file" && find "$1" -printf '%s %T@ %f\n' >"$TMP/found"; }
# Reads of the cache by all its volumes.
cache_reads() {
	awk -v own="^$TAG/" '
		NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
		$NF ~ own { n += $at["hits"] + $at["misses"] } END { print n + 0 }' \
		/sys/kernel/debug/cachefiles_demand/objects
}
# counts COMMAND...: runs it; how many reads of the cache it took is in $reads.
counts() {
	reads=$(cache_reads)
	"$@" || return
	reads=$(($(cache_reads) - reads))
}
# Objects of the cache for the blob.
objects() { column objects size "$TAG/D$1" | wc -l; }

# --- the same image with the same options ---------------------------------------------

check "an image is mounted twice" mount_both
check "the two are one volume" one_volume
check "all of it is read through one of them" counts read_all "$A"
check "that takes reads of the cache" [ "$reads" -gt 0 ]
check "all of it is read through the other one" counts read_all "$B"
check "nothing is read from the cache for that, neither data nor metadata" equal "$reads" 0
: >"$TRACE"
drop_caches
check "without its pages it is read again" counts read_all "$B"
check "from the cache" [ "$reads" -gt 0 ]
check "which does not ask for anything" equal "$(requests)" 0
check "one is unmounted, with a file of the other one open" eval 'exec 4<"$B/file" && umount "$A"'
check "the other one is as it was" eval 'read_all "$B" && cmp "$TMP/tree/file" - <&4; exec 4<&-'
check "it can be mounted again beside that" mount_image one.img device=data "$A"
check "as the same volume" one_volume
check "both are unmounted" umount_both
check "then nothing of it is left" wait_for 10 eval '[ "$(objects one.img)" = 0 ] && [ "$(objects data)" = 0 ]'

# --- other options, other images --------------------------------------------------------

check "an image is mounted with options, and with other ones" mount_both '' noacl
check "these are two volumes" fails one_volume
check "with their own options" eval 'grep -q "$A .*,acl" /proc/mounts && grep -q "$B .*,noacl" /proc/mounts'
check "but one object of the cache for each blob" eval 'equal "$(objects one.img)" 1 && equal "$(objects data)" 1'
check "both are right" eval 'read_all "$A" && read_all "$B"'
check "they become alike by a remount" mount -o remount,acl "$B"
check "and stay what they are" fails one_volume
check "a remount with other options does not give those to a later mount" eval '
	umount "$B" && mount -o remount,noacl "$A" && mount_image one.img device=data "$B" &&
		fails one_volume && grep -q "$B .*,acl" /proc/mounts'
check "both are unmounted" umount_both

check "two images of one blob are mounted" eval '
	mount_image one.img device=data "$A" && mount_image two.img device=data "$B"'
check "these are two volumes, with one object for the blob" eval 'fails one_volume && equal "$(objects data)" 1'
check "both are right" eval 'read_all "$A" && read_all "$B"'
check "both are unmounted" umount_both

# --- at the same time ----------------------------------------------------------------------

mount_at_once() {
	for n in $(seq 16); do
		mkdir -p "$MNT/$n"
		mount_image one.img device=data "$MNT/$n" 2>"$TMP/error.$n" &
		mounts="${mounts:-} $!"
	done
	for mount in $mounts; do wait "$mount" || { cat "$TMP"/error.*; return 1; }; done
}
volumes() { for n in $(seq 16); do device "$MNT/$n"; done | sort -u | wc -l; }
umount_all() { for n in $(seq 16); do umount "$MNT/$n" || return; done; }
check "an image is mounted 16 times at once" mount_at_once
check "as one volume" equal "$(volumes)" 1
check "all are unmounted" umount_all
finish
