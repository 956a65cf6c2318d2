#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Everything that can be seen of an image is the same with our module as with the
# kernel's own erofs.ko, for every image that scripts/make-image-matrix makes.
#
# MATRIX  the folder with the images   IMAGES  a pattern: only these (default: *)
# KINDS   how our module mounts them (default: demand block file; as that takes a debug
#         kernel hours, there one of these for each image, by turns)
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

MATRIX=${MATRIX:-/build/matrix}
IMAGES=${IMAGES:-*}
KINDS=${KINDS:-}
DIGEST=${DIGEST:-/build/target/release/mount-digest}

# Groups of items (mount-digest --help) that are only the same on the same device.
OF_THE_DEVICE=dio,physical

[ -s "$MATRIX/list" ] || skip_all "no images in $MATRIX"
[ -x "$DIGEST" ] || skip_all "no $DIGEST"
need_stock_module

TAB=$(printf '\t')

# for_each_image COMMAND [ARG]...: with name and blobs of each behind the arguments, and
# how it is mounted in $kinds.
# Five digests of a whole tree take half an hour on a debug kernel: there, test_whole.sh
# has to do.
for_each_image() {
	turn=0
	while IFS=$TAB read -r image blobs _ <&3; do
		# shellcheck disable=SC2254 # a pattern
		case $image in $IMAGES) ;; *) continue ;; esac
		[ "$image" != debian ] || [ "$SLOW" = 1 ] || continue
		[ "$blobs" != - ] || blobs=''
		turn=$((turn % 3 + 1))
		set_kinds "$turn"
		"$@" "$image" "$blobs"
	done 3<"$MATRIX/list"
}

# set_kinds TURN
set_kinds() {
	kinds=$KINDS
	[ -z "$kinds" ] || return 0
	case $SLOW,$1 in
	1,*) kinds='demand block file' ;;
	*,1) kinds='demand' ;;
	*,2) kinds='block' ;;
	*,3) kinds='file' ;;
	esac
}

# --- the kinds of mounts ---------------------------------------------------------
# mount_KIND IMAGE BLOBS: on $MNT, with whichever erofs is loaded.

# options PREFIX BLOBS: read-only, and a device= for each blob.
options() {
	# shellcheck disable=SC2086 # a list
	printf ro && for blob in $2; do printf ',device=%s' "$1$blob"; done
}

# Each in a block device.
mount_block() {
	loops='' devices=ro mounted=0
	for blob in $1 $2; do
		loop=$(losetup -f --show -r "$SOURCE/$blob") || mounted=1
		[ -z "$loops" ] || devices=$devices,device=$loop
		loops="$loops $loop"
	done
	# The first one is the image.
	# shellcheck disable=SC2086 # a list
	set -- $loops
	[ "$mounted" != 0 ] || mount -t erofs -o "$devices" "$1" "$MNT" || mounted=1
	# Those that are in use go with the mount.
	losetup -d "$@"
	return "$mounted"
}

# From the files themselves.
mount_file() { mount -t erofs -o "$(options "$SOURCE/" "$2")" "$SOURCE/$1" "$MNT"; }

# From the cache, filled by the daemon.
mount_demand() { mount_image "$1" "$(options '' "$2")"; }

# --- digests -----------------------------------------------------------------------

# left_out KIND IMAGE: sets $left_out to the groups that are not compared.
left_out() {
	left_out=''
	[ "$1" != block ] || return 0
	left_out=$OF_THE_DEVICE
	# Without a UUID a file system is known by its device.
	[ "$2" != uuid-none ] || left_out=$left_out,fsid
}

# digest KIND IMAGE: of what is mounted.
digest() {
	left_out "$1" "$2"
	"$DIGEST" ${left_out:+--without "$left_out"} "$MNT"
}

# stock_digests IMAGE BLOBS: for its kinds. What fails is told when it is missed.
stock_digests() {
	mount_block "$1" "$2" >"$TMP/stock/$1.log" 2>&1 || return 0
	before='' groups=none
	for kind in $kinds; do
		left_out "$kind" "$1"
		if [ "$left_out" = "$groups" ]; then
			[ ! -e "$before" ] || ln "$before" "$TMP/stock/$kind/$1"
			continue
		fi
		before=$TMP/stock/$kind/$1 groups=$left_out
		digest "$kind" "$1" >"$before" 2>>"$TMP/stock/$1.log" || rm "$before"
	done
	umount "$MNT"
}

# same_as_stock KIND IMAGE BLOBS
same_as_stock() {
	[ -e "$TMP/stock/$1/$2" ] || { echo "the kernel's own:"; cat "$TMP/stock/$2.log"; return 1; }
	"mount_$1" "$2" "$3" || return
	same=0
	digest "$1" "$2" >"$TMP/ours" || same=1
	umount "$MNT"
	diff "$TMP/stock/$1/$2" "$TMP/ours" >"$TMP/diff" || same=1
	head -n 20 "$TMP/diff" | cut -c 1-500
	[ "$same" != 0 ] || equals=$((equals + 1))
	return "$same"
}
# compare KIND IMAGE BLOBS: if it is one of its kinds.
compare() {
	case " $kinds " in *" $1 "*) check "$2, $1: as the kernel's own" same_as_stock "$@" ;; esac
}

# -------------------------------------------------------------------------------------

images=0 equals=0
# Each is one as often as it is mounted.
count() { for _ in $kinds; do images=$((images + 1)); done; }
for_each_image count
plan $((images + 1))

# Copies on a disk: /build may be a share of another machine.
copy() {
	for file in $1 $2; do
		[ -e "$SOURCE/$file" ] || cp --sparse=always "$MATRIX/$file" "$SOURCE/"
	done
}
for_each_image copy

mkdir -p "$TMP/stock/demand" "$TMP/stock/block" "$TMP/stock/file"
check "the kernel's own module can be loaded" load_stock_module
for_each_image stock_digests
unload_erofs

load_modules
prepare >/dev/null && start_daemon
for kind in demand block file; do for_each_image compare "$kind"; done
note "erofs-matrix: $images images, $equals equal to stock"
finish
