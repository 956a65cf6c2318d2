#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A disk that is full gives ENOSPC, to whoever needs space on it, and never wrong
# bytes; when there is space again everything works.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
plan 30

# make_disk MEGABYTES MKFS-OPTION...: an ext4 of its own for the cache, whose metadata
# take what they need beforehand. Its blocks are smaller than those that are fetched,
# so that one of the latter can get onto it in part.
make_disk() {
	truncate -s "$1M" "$WORK/disk"
	shift
	modprobe -q loop || :
	mkfs.ext4 -q -b 1024 -m 0 "$@" "$WORK/disk" && mount -o loop "$WORK/disk" "$CACHE"
}
new_disk() {
	wait_for 10 umount "$CACHE"
	rm "$WORK/disk"
	make_disk "$@"
}
# Takes up all space, or all but some bytes.
fill_disk() {
	# To the last block in few steps: each is slow on a debug kernel.
	for size in 1M 1K; do
		dd if=/dev/zero bs="$size" status=none 2>/dev/null || :
	done >>"$CACHE/ballast"
	sync "$CACHE/ballast"
	[ $# = 0 ] || truncate -s "-$1" "$CACHE/ballast"
	sync
	fails dd if=/dev/zero of="$CACHE/probe" bs=1024 count=$((1 + ${1:-0} / 1024)) status=none
	rm -f "$CACHE/probe"
	sync
}
# Takes up all names for files.
fill_inodes() {
	mkdir "$CACHE/inodes"
	seq -f "$CACHE/inodes/%.0f" "$(stat -f -c %c "$CACHE")" | xargs touch 2>/dev/null || :
	fails touch "$CACHE/inodes/one-more" 2>/dev/null
}
free_disk() {
	rm -rf "$CACHE/ballast" "$CACHE/inodes"
	sync
}
serve_all() { start_daemon --cull off --brun 2% --bcull 1% --bstop 0%; }
present_right() { "$PROGRAMS/blocks" compare "$(cache_file data)" "$SOURCE/data"; }
mounts() { equal "$("$PROGRAMS/trymount" erofs "$MNT" "uuid=$2,device=data,tag=$TAG")" "$1"; }
end_all() {
	umount "$MNT"
	stop_daemon
	wait_for 10 fails cache_bound
}
# binds RESULT
binds() {
	open_device
	tell "dir $CACHE" && tell "tag $TAG" && says "$1" bind
}

# --- the daemon has no space ------------------------------------------------------

make_disk 40
make_images
cp "$SOURCE/one.img" "$SOURCE/two.img"
serve_all
mount_image one.img device=data
check "the disk can be filled" fill_disk
fresh_range $((64 * BLOCK))
check "a read of missing data gives ENOSPC" eval 'fails read_range "$range" &&
	grep "No space left on device" "$TMP/error"'
check "no byte of it was read" fails [ -s "$TMP/got" ]
check "the daemon said so" eval 'grep "fail 28" "$TRACE"'
range=0+$MiB
check "data that is present is read" reads_right
# Room for one and a half of a daemon's blocks.
check "the disk can be filled but for 6 KiB" eval 'rm "$CACHE/ballast" && fill_disk 6144'
fresh_range $((4 * BLOCK))
check "a read that gets onto it in part gives ENOSPC, or what is there" eval 'read_range "$range" ||
	grep "No space left on device" "$TMP/error"'
check "no byte that was read is wrong" eval '"$PROGRAMS/readrange" "$TMP/tree/file" "$range" |
	cmp -n "$(stat -c %s "$TMP/got")" - "$TMP/got"'
torn=$range
check "no block of the cache file is wrong" present_right
free_disk
range=$torn
check "when there is space it is read right, also where a block was torn (T30)" reads_right
drop_caches
check "every byte of the file is right" cmp "$MNT/file" "$TMP/tree/file"
check "and of the cache file" present_right
end_all

# --- the kernel has no space for folders ----------------------------------------------

rm -r "$CACHE/cache"
check "the disk can be filled when there is no cache on it" fill_disk
check "a bind that has to make its folder gives ENOSPC" binds ENOSPC
check "the log says which" kernel_log_has 'bind: .* cannot hold a cache: the directory "cache" .* cannot be .*made'
free_disk
check "when there is space the same descriptor can bind" says 0 bind
check "the disk can be filled again" fill_disk
check "a mount for which folders have to be made gives ENOSPC" mounts ENOSPC one.img
check "the log says so, with the name of the file" kernel_log_has 'file "Done.img" cannot be used: ENOSPC'
free_disk
check "when there is space the error is that there is no file" mounts ENOENT one.img
check "the folders are made" test -d "$CACHE/cache/Ierofs"
close_device
prepare >/dev/null
serve_all
check "and when it is prepared it is mounted, and right" eval 'mounts 0 one.img &&
	cmp -n $((2 * MiB)) "$MNT/file" "$TMP/tree/file"'
end_all

# --- no more files can be made ------------------------------------------------------------

new_disk 16 -N 64
check "all names for files can be taken" fill_inodes
check "a bind gives ENOSPC" binds ENOSPC
free_disk
check "and succeeds when there are some" says 0 bind
check "all can be taken again" fill_inodes
check "a mount for which folders have to be made gives ENOSPC" mounts ENOSPC one.img
free_disk
check "when there are some the error is that there is no file" mounts ENOENT one.img
close_device
wait_for 10 fails cache_bound

# --- an attribute that cannot be read -----------------------------------------------------
# Inodes of 128 bytes have no room for it, so it has a block, which can be spoiled.

new_disk 16 -I 128 -O ^metadata_csum
prepare one.img >/dev/null
inode=$(stat -c %i "$(cache_file one.img)")
umount "$CACHE"
block=$(debugfs -R "stat <$inode>" "$WORK/disk" 2>/dev/null | sed -n 's/.*File ACL: \([0-9]*\).*/\1/p')
dd if=/dev/urandom of="$WORK/disk" bs=1024 seek="$block" count=1 conv=notrunc status=none
mount -o loop,errors=continue "$WORK/disk" "$CACHE"
binds 0
check "a mount of its file gives that error, and does not try for ever (T31)" \
	eval 'mounts EUCLEAN one.img'
check "the log does not call the file stale" kernel_log_has 'file "Done.img" cannot be used: EUCLEAN'
close_device
finish
