#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Caches on demand and fscache's other caches and clients share a kernel: nobody
# gets what is another's, whoever came first.
#
# The other client is 9p, with the share that the test guest has in /build/out;
# the other cache is the kernel's own cachefiles.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

SHARED=/build/out
STOCK=$WORK/stock
modprobe -n cachefiles 2>/dev/null || skip_all "this kernel has no cachefiles"
grep -q "^out $SHARED 9p " /proc/mounts || skip_all "no 9p share in $SHARED"

load_modules
plan 29

# --- the 9p client -----------------------------------------------------------
# A share can be mounted once, so it moves, and returns when the test ends.

share_options=trans=virtio,version=9p2000.L,msize=512000,access=any
shared_files=$(mktemp -d "$SHARED/$TEST.XXXXXX")
share=$TMP/share
mkdir "$share"
return_share() {
	ended=$?
	set +e
	umount "$share" 2>/dev/null
	mountpoint -q "$SHARED" || mount -t 9p -o "$share_options,cache=none" out "$SHARED"
	rm -rf "$shared_files"
	(exit "$ended")
	cleanup
}
trap return_share EXIT

mount_share() { mount -t 9p -o "$share_options,cache=fscache" out "$share"; }

# shared_file_right NAME: one that was not opened before brings a new cookie.
shared_file_right() { cmp "$share/${shared_files##*/}/$1" "$TMP/$1"; }

for name in before between among without after stock; do
	head -c 300000 /dev/urandom >"$TMP/$name"
	cp "$TMP/$name" "$shared_files"
done
sync

# --- the kernel's cachefiles: descriptor 4 is its device -----------------------

# It takes a command per write, without a newline.
tell_stock() { printf '%s' "$1" >&4; }
bind_stock() {
	modprobe cachefiles && mkdir "$STOCK" && exec 4<>/dev/cachefiles &&
		tell_stock "dir $STOCK" && tell_stock "tag stock" && tell_stock bind
}

# --- looking -----------------------------------------------------------------

# volume_cache KEY: the cache that the volume whose key begins so is in.
volume_cache() { awk -v key="$1" 'index($NF, key) == 1 { print $6 }' /proc/fs/fscache/volumes; }
unload() { wait_for 10 module_unused "$1" && rmmod "$1"; }

# In our cache is the volume of the images, and no other.
only_images() { equal "$(ls "$CACHE/cache")" Ierofs; }

# no_blobs_in DIRECTORY: there may be an empty one for the volume, but no file.
no_blobs_in() { find "$1" -type f | fails grep .; }

image_right() { cmp "$MNT/file" "$TMP/tree/file"; }
mounts_right() { mount -t erofs -o "$1" none "$MNT" && image_right && umount "$MNT"; }
# refused ERROR LOG OPTIONS
refused() {
	equal "$("$PROGRAMS/trymount" erofs "$MNT" "$3")" "$1" && kernel_log_has "$2"
}

# ------------------------------------------------------------------------------

mkdir "$TMP/tree"
head -c 300000 /dev/urandom >"$TMP/tree/file"
make_image one.img "$TMP/tree"
cp "$SOURCE/one.img" "$SOURCE/two.img"
cp "$SOURCE/one.img" "$SOURCE/three.img"
prepare >/dev/null

umount "$SHARED"
check "9p is mounted before there is a cache" mount_share
check "it reads right without one" shared_file_right before
start_daemon
check "after ours is bound 9p still reads right" shared_file_right between
check "the log says that 9p's volume is not for us" \
	kernel_log_has "cache \"$TAG\": not for the volume \"9p"
check "an image is mounted by its tag" mounts_right "uuid=one.img,tag=$TAG"
check "and without a tag" mounts_right "uuid=two.img"
check "beside it 9p reads right" shared_file_right among
check "nothing of 9p is in our cache" only_images
drop_caches
check "9p reads right again, and not from us" eval \
	'shared_file_right between && only_images'
stop_daemon
check "our cache goes though 9p stays" wait_for 10 fails cache_bound
check "erofs unloads though 9p stays" unload erofs
check "cachefiles_demand unloads though 9p stays" unload cachefiles_demand
check "9p reads right without us" shared_file_right without
load_modules
start_daemon
check "ours can be bound again" mounts_right "uuid=one.img,tag=$TAG"
check "and 9p still reads right" shared_file_right after
umount "$share"
stop_daemon
wait_for 10 fails cache_bound

# --- with the kernel's cachefiles ------------------------------------------------

check "the kernel's cachefiles is bound" bind_stock
check "an image is not mounted from it" \
	refused ENOTCONN 'one.img.*cache "stock" cannot fetch on demand' uuid=one.img
check "not even by its tag" \
	refused ENOTCONN 'three.img.*cache "stock" cannot fetch on demand' uuid=three.img,tag=stock
check "no blob of the image is in it" no_blobs_in "$STOCK/cache"
check "our daemon cannot take its tag" eval 'fails timeout $((10 * SLOW)) "$DEMANDD" serve --root "$CACHE" \
	--source "$SOURCE" --tag stock 4>&- 2>&1 | grep "os error 16"'
start_daemon 4>&-
mount_image three.img
check "ours serves an image beside it" image_right
check "the image is in ours" equal "$(volume_cache erofs)" "$TAG"
check "9p is mounted beside both" mount_share
check "it reads right" shared_file_right stock
check "9p is in the kernel's cachefiles" equal "$(volume_cache 9p)" stock
check "no blob of the image is there" no_blobs_in "$STOCK/cache/Ierofs"
check "nothing of 9p is in ours" only_images
umount "$share"
exec 4>&-
drop_caches
check "when the kernel's cachefiles goes, ours stays" image_right
umount "$MNT"
stop_daemon
check "all of it unloads" eval 'unload erofs && unload cachefiles_demand && unload cachefiles'
finish
