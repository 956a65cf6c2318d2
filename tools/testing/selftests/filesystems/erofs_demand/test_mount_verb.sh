#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# `demandd mount` is all that a mount takes, once a daemon serves; what is missing it names.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

load_modules
plan 16

# mount_verb TAG ARGUMENT...
mount_verb() {
	verb_tag=$1
	shift
	"$DEMANDD" mount --root "$CACHE" --source "$SOURCE" --tag "$verb_tag" "$@" 2>"$TMP/said"
}
umount_verb() { "$DEMANDD" umount "$@" 2>"$TMP/said"; }
# refused EXTENDED-REGEX COMMAND...: COMMAND fails, and says so.
refused() {
	refused_for=$1
	shift
	! "$@" || return 1
	cat "$TMP/said"
	grep -Eq -- "$refused_for" "$TMP/said"
}
is_mounted() { awk -v dir="$MNT" '$2 == dir { n++ } END { exit !n }' /proc/mounts; }

mkdir "$TMP/tree"
head -c 300000 /dev/urandom >"$TMP/tree/file"
# An image whose data is in a second blob, which it names.
: >"$SOURCE/app.blob"
make_image app.img "$TMP/tree" --chunksize=65536 --blobdev="$SOURCE/app.blob"
"$DEMANDD" image stamp "$SOURCE/app.img" app.blob >/dev/null
head -c 65536 /dev/urandom >"$SOURCE/noise.img"

# The daemon serves a cache that has something else.
prepare noise.img >/dev/null
check "without a daemon it says to start one" \
	refused 'no daemon serves a cache: start it' mount_verb "$TAG" app.img "$MNT"
start_daemon
unload_erofs
check "blobs are prepared, the module is loaded, the image is mounted" mount_verb "$TAG" app.img "$MNT"
check "the module is there" [ -d /sys/module/erofs ]
check "its file has the right content" cmp "$MNT/file" "$TMP/tree/file"
check "it is mounted from the cache that was named" grep -q "^none $MNT erofs .*tag=$TAG" /proc/mounts

exec 4<"$MNT/file"
check "what is in use is not unmounted" refused 'something is in use there' umount_verb "$MNT"
exec 4<&-
check "else it is" umount_verb "$MNT"
check "then it is gone" fails is_mounted
check "once is enough" refused 'nothing is mounted on' umount_verb "$MNT"
check "other file systems are left alone" refused 'is tmpfs, not an image' umount_verb /tmp

check "other blobs can be named, and options given" mount_verb "$TAG" --blob app.blob -o noacl app.img "$MNT"
umount_verb "$MNT"
check "what has no table of blobs is no image" \
	refused 'not an EROFS image' mount_verb "$TAG" noise.img "$MNT"
check "when the kernel refuses, its log is pointed at" \
	refused 'make no sense; the kernel.s log says what' mount_verb "$TAG" --blob app.blob noise.img "$MNT"
check "it has the reason" kernel_log_has 'not an EROFS image'
check "another tag has no daemon" \
	refused 'no daemon serves a cache "other"; there is: ' mount_verb other app.img "$MNT"
rm "$CACHE"/cache/Ierofs/@*/Dapp.blob
mv "$SOURCE/app.blob" "$TMP"
check "a blob that nobody has is named" refused '"app.blob" is not prepared' mount_verb "$TAG" app.img "$MNT"
finish
