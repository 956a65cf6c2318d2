#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Many blobs, many mounts and many readers at once; and nothing is left of them.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

SETS=2 LAYERS=15 IMAGES=64 READERS=16

load_modules
plan 14

# One set of layers and the image over them. Sets differ, so that blobs which
# are mixed up show.
make_set() {
	layers=''
	for layer in $(seq "$LAYERS"); do
		directory=$TMP/set-$1/layer-$layer
		mkdir -p "$directory"
		head -c $((4096 + layer * 1234)) /dev/urandom >"$directory/data"
		echo "$1 $layer" >"$directory/name"
		mkdir "$TMP/layer"
		mv "$directory" "$TMP/layer/"
		make_image "set-$1-$layer" "$TMP/layer" -E noinline_data || return 1
		mv "$TMP"/layer/* "$TMP/set-$1/"
		rmdir "$TMP/layer"
		layers="$layers $SOURCE/set-$1-$layer"
	done
	# shellcheck disable=SC2086 # a list
	mkfs.erofs --quiet -b 4096 -T 0 --mkfs-time "$SOURCE/set-$1" $layers || return 1
	chmod 777 "$TMP/set-$1"
	touch -d @0 "$TMP/set-$1"
	"$PROGRAMS/listing" "$TMP/set-$1" >"$TMP/set-$1.listing"
}

set_of() { echo $(($1 % SETS)); }

# Images are copies of a set, each with blobs of its own, but for the last image,
# which shares them with the one before it of the same set.
owner_of() {
	if [ "$1" = $IMAGES ]; then echo $(($1 - SETS)); else echo "$1"; fi
}

# In one process: two thousand would take their time.
make_copies() {
	python3 - "$SOURCE" "$SETS" "$LAYERS" "$IMAGES" <<-'END'
		import os, sys
		os.chdir(sys.argv[1])
		sets, layers, images = map(int, sys.argv[2:])
		for image in range(1, images + 1):
		    os.link(f"set-{image % sets}", f"image-{image}")
		    for layer in range(1, layers + 1):
		        if image < images:
		            os.link(f"set-{image % sets}-{layer}", f"blob-{image}-{layer}")
	END
}

make_images() {
	for set in $(seq 0 $((SETS - 1))); do
		make_set "$set" || return 1
	done
	make_copies && rm "$SOURCE"/set-*
}

# mount_number IMAGE DIRECTORY
mount_number() {
	mkdir -p "$2"
	mount_image "image-$1" \
		"$(seq -s , -f "device=blob-$(owner_of "$1")-%.0f" "$LAYERS")" "$2"
}

mount_all() {
	for image in $(seq "$IMAGES"); do
		mount_number "$image" "$MNT/$image" || return 1
	done
}

# right IMAGE DIRECTORY: is it the tree that the image was made of?
right() { "$PROGRAMS/listing" "$2" | diff "$TMP/set-$(set_of "$1").listing" -; }

read_images() {
	for image in $(seq "$1" "$READERS" "$IMAGES"); do
		right "$image" "$MNT/$image" || return 1
	done
	echo right
}
read_all() {
	for reader in $(seq "$READERS"); do
		read_images "$reader" >"$TMP/reader-$reader" 2>&1 &
		readers="${readers:-} $!"
	done
	# shellcheck disable=SC2086 # a list
	wait $readers
	grep -Lx right "$TMP"/reader-* | xargs -r head -n 5
	equal "$(grep -lx right "$TMP"/reader-* | wc -l)" "$READERS"
}

unmount_all() {
	for image in $(seq "$IMAGES"); do
		umount "$MNT/$image" || return 1
	done
}

# Objects that fscache knows: cookies, volumes or caches.
fscache_has() { grep -c '^[0-9a-f]\{8\}' "/proc/fs/fscache/$1" || :; }
fscache_has_no() { [ "$(fscache_has "$1")" = 0 ]; }
nothing_open() { fscache_has_no cookies && fscache_has_no volumes; }
nothing_left() { nothing_open && fscache_has_no caches; }

unused() { [ "$(cat "/sys/module/$1/refcnt")" = 0 ]; }
# What a mount held is given up by a work item, a moment after umount.
unload() {
	wait_for 10 unused erofs && rmmod erofs &&
		wait_for 10 unused cachefiles_demand && rmmod cachefiles_demand
}

# A layer is an image of its own.
load_mount_unload() {
	for _ in $(seq 20); do
		modprobe cachefiles_demand && modprobe erofs && start_daemon || return 1
		mount_image blob-1-1 && cmp "$MNT/layer-1/data" "$TMP/set-1/layer-1/data" || return 1
		umount "$MNT" && stop_daemon && unload || return 1
	done
}

no_slab() { fails grep '^erofs' /proc/slabinfo; }

check "images can be made" make_images
prepare >/dev/null
blobs=$(find "$CACHE/cache" -type f | wc -l)
note "$blobs blobs"
check "there are at least 1,000 blobs in the cache" test "$blobs" -ge 1000
check "none of them has data" equal "$(find "$CACHE/cache" -type f -size +0 -printf '%b\n' | sort -u)" 0
start_daemon

check "$IMAGES images can be mounted at once" mount_all
check "one image can be mounted twice" mount_number 1 "$MNT/again"
check "each blob is opened once, however many mounts use it" equal "$(fscache_has cookies)" "$blobs"
check "$READERS readers at a time read right bytes from all images" read_all
note "$(requests) requests, $(fetched_bytes) bytes fetched"
umount "$MNT/1"
drop_caches
check "the second mount of an image goes on without the first" right 1 "$MNT/again"
umount "$MNT/again"
mount_number 1 "$MNT/1"
check "all images can be unmounted" unmount_all
check "fscache has no cookie and no volume of them left" wait_for 30 nothing_open
stop_daemon
check "the modules can be unloaded" unload
check "and loaded, used and unloaded 20 times more" load_mount_unload
check "no cache of inodes is left of them" no_slab
check "fscache has nothing left of them" nothing_left
finish
