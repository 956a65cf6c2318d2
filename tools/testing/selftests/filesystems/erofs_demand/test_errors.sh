#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A mount that cannot be had fails with the error that tells why, says why in one
# line of the log, and leaves nothing behind that is in the way of the next one.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

load_modules
plan 70

# Where fields of the super block are (fs/erofs/erofs_fs.h), in bytes.
SUPER=1024
MAGIC=$((SUPER + 0))
CHECKSUM=$((SUPER + 4))
ROOT_NID=$((SUPER + 14))
FEATURE_INCOMPAT=$((SUPER + 80))

# good.img: several blocks of metadata, and a blob, "data", that it does not name.
make_good_image() {
	mkdir "$TMP/tree"
	head -c 300000 /dev/urandom >"$TMP/tree/file"
	seq -f "$TMP/tree/%.0f" 500 | xargs touch
	: >"$SOURCE/data"
	make_image good.img "$TMP/tree" --chunksize=65536 --blobdev="$SOURCE/data"
}

# damaged NAME OFFSET BYTES: a copy of the image with other bytes, as printf(1)
# writes them.
damaged() {
	cp "$SOURCE/good.img" "$SOURCE/$1"
	# shellcheck disable=SC2059 # escapes are wanted
	printf "$3" | dd of="$SOURCE/$1" bs=1 seek="$2" conv=notrunc status=none
}

# cut NAME FROM SIZE: a copy of a blob without its end.
cut() {
	cp "$SOURCE/$2" "$SOURCE/$1"
	truncate -s "$3" "$SOURCE/$1"
}

# A cache file that is not as it should be: prepared, then spoiled.
cache_file() { echo "$CACHE"/cache/Ierofs/@*/"D$1"; }
spoiled() {
	cp "$SOURCE/good.img" "$SOURCE/$1"
	prepare "$1" >/dev/null
	spoiled_file=$(cache_file "$1")
	[ -f "$spoiled_file" ]
}

# fails_with ERROR LOG OPTIONS: mount(2) says ERROR, and the log has one line
# more that matches the extended regular expression LOG.
fails_with() {
	mark=$(kernel_log | wc -l)
	got=$("$PROGRAMS/trymount" erofs "$MNT" "$3")
	[ "$got" != 0 ] || umount "$MNT"
	equal "$got" "$1" || return 1
	kernel_log | tail -n "+$((mark + 1))" >"$TMP/log"
	equal "$(grep -E -c -- "$2" "$TMP/log")" 1 || { cat "$TMP/log"; return 1; }
}

# Nothing is mounted, held or pinned, and a good image can be mounted and read.
nothing_stays() {
	fails mountpoint -q "$MNT" &&
		wait_for 10 nothing_in cookies && wait_for 10 nothing_in volumes &&
		wait_for 10 module_unused erofs || return 1
	[ -n "$DAEMON" ] || return 0
	mount_image good.img device=data && cmp "$MNT/file" "$TMP/tree/file" && umount "$MNT"
}
# Two lines at the top are headings.
nothing_in() { [ "$(wc -l <"/proc/fs/fscache/$1")" -le 2 ]; }

# refuses WHAT ERROR LOG OPTIONS
refuses() {
	check "$1 gives $2, and the log says why" fails_with "$2" "$3" "$4"
	check "nothing stays of it" nothing_stays
}

make_good_image
prepare >/dev/null
plain="tag=$TAG"
image="$plain,device=data,uuid"

# --- options -----------------------------------------------------------------

refuses "tag= without uuid=" EINVAL 'needs uuid=' "$plain"
refuses "an option that is not known" EINVAL "nonsense" "uuid=good.img,nonsense"
refuses "an empty uuid=" EINVAL 'uuid.*needs a value' "uuid="
refuses "uuid= twice" EINVAL 'uuid.*given twice' "uuid=a,uuid=b"

# --- the cache ---------------------------------------------------------------

refuses "no cache" ENOTCONN 'no cache is bound' "uuid=good.img,device=data"
refuses "no cache of the tag" ENOTCONN "no cache \"$TAG\" is bound" "$image=good.img"
start_daemon
mount_image good.img device=data
device_number=$(stat -c %d "$MNT")
umount "$MNT"
refuses "another tag than the cache has" ENOTCONN 'no cache "other" is bound' \
	"tag=other,uuid=good.img,device=data"

# --- cache files --------------------------------------------------------------

refuses "an image without a cache file" ENOENT 'no file "Dnowhere.img"' "$image=nowhere.img"
refuses "a blob without a cache file" ENOENT 'no file "Dnowhere"' \
	"$plain,device=nowhere,uuid=good.img"

spoiled unmarked.img
setfattr -x user.CacheFiles.cache "$spoiled_file"
refuses "a cache file without its attribute" ESTALE 'Dunmarked.img.*stale.*no .*attribute' \
	"$image=unmarked.img"
spoiled resized.img
truncate -s +4096 "$spoiled_file"
refuses "a cache file of another size than its attribute tells" ESTALE \
	'Dresized.img.*stale.*size' "$image=resized.img"
spoiled short.img
setfattr -n user.CacheFiles.cache -v 0x00 "$spoiled_file"
refuses "a cache file with a short attribute" ESTALE 'Dshort.img.*stale' "$image=short.img"
spoiled long.img
setfattr -n user.CacheFiles.cache -v "0x$(printf %0200d 0)" "$spoiled_file"
refuses "a cache file with a long attribute" ESTALE 'Dlong.img.*stale' "$image=long.img"
spoiled empty.img
truncate -s 0 "$spoiled_file"
refuses "an empty cache file (T67)" ESTALE 'Dempty.img.*stale.*empty' "$image=empty.img"
spoiled directory.img
rm "$spoiled_file"
mkdir "$spoiled_file"
refuses "a directory in place of a cache file" ESTALE 'Ddirectory.img.*not a regular file' \
	"$image=directory.img"
spoiled pipe.img
rm "$spoiled_file"
mkfifo "$spoiled_file"
refuses "a pipe in place of a cache file" ESTALE 'Dpipe.img.*not a regular file' "$image=pipe.img"
spoiled link.img
mv "$spoiled_file" "$TMP/elsewhere"
ln -s "$TMP/elsewhere" "$spoiled_file"
refuses "a symbolic link in place of a cache file" ESTALE 'Dlink.img.*not a regular file' "$image=link.img"

# --- names -----------------------------------------------------------------

# The longest one has 252 bytes: one more, and its file's name could not be encoded.
long() { printf "%0$1d" 0; }
long_names_right() {
	for length in 1 2 3 5 126 251 252; do
		cp "$SOURCE/good.img" "$SOURCE/$(long "$length")" && prepare "$(long "$length")" >/dev/null &&
			mount_image "$(long "$length")" device=data && cmp "$MNT/file" "$TMP/tree/file" &&
			umount "$MNT" || return 1
	done
}
check "names of many lengths can be mounted (T46)" long_names_right
refuses "a name that is too long" ENAMETOOLONG "$(long 253)" "$image=$(long 253)"

# --- devices -----------------------------------------------------------------

refuses "too many device= options" EINVAL '2 device= options, but the image has 1 device' \
	"$plain,device=data,device=data,uuid=good.img"
make_image whole.img "$TMP/tree"
prepare whole.img >/dev/null
refuses "device= for an image without blobs" EINVAL \
	'1 device= options, but the image has 0 devices' "$image=whole.img"
refuses "a blob without a name in the image and without device=" EINVAL \
	'device 1 has no name' "$plain,uuid=good.img"
cut cut-data data 65536
prepare cut-data >/dev/null
refuses "a blob that is truncated (T67)" EUCLEAN 'blob "cut-data" is truncated' \
	"$plain,device=cut-data,uuid=good.img"

# --- images ------------------------------------------------------------------

damaged no-magic.img $MAGIC '\0\0\0\0'
prepare no-magic.img >/dev/null
refuses "an image of another kind" EINVAL 'no-magic.img.*super block.*magic' "$image=no-magic.img"

damaged no-checksum.img $CHECKSUM '\1\2\3\4'
prepare no-checksum.img >/dev/null
refuses "a wrong checksum" EUCLEAN 'no-checksum.img.*checksum' "$image=no-checksum.img"

damaged root.img $ROOT_NID '\377\377'
prepare root.img >/dev/null
refuses "a super block that was changed" EUCLEAN 'root.img.*checksum' "$image=root.img"

damaged future.img $FEATURE_INCOMPAT '\14\0\0\200'
prepare future.img >/dev/null
refuses "a feature that nobody knows" EOPNOTSUPP 'future.img.*not supported.*unknown' \
	"$image=future.img"

mkdir "$TMP/text"
yes | head -c 100000 >"$TMP/text/file"
make_image clusters.img "$TMP/text" -zlz4 -C65536
prepare clusters.img >/dev/null
refuses "an image of big compressed clusters" EOPNOTSUPP 'clusters.img.*not supported.*cluster' \
	"$plain,uuid=clusters.img"

# The plainest compression has no feature bit of its own: its files are refused.
make_image compressed.img "$TMP/text" -zlz4
prepare compressed.img >/dev/null
mount_image compressed.img
check "a compressed file (T57) gives EOPNOTSUPP" \
	eval 'fails cat "$MNT/file" 2>&1 | grep "not supported"'
check "and the log says why" kernel_log_has 'compressed.img.*not supported.*compress'
umount "$MNT"

cut cut.img good.img $(($(stat -c %s "$SOURCE/good.img") - 4096))
prepare cut.img >/dev/null
refuses "an image that is truncated (T67)" EUCLEAN '"cut.img" is truncated' "$image=cut.img"
cut cut-in-block.img good.img 2000
prepare cut-in-block.img >/dev/null
refuses "an image that ends in its first block" EUCLEAN 'cut-in-block.img.*the image ends' \
	"$image=cut-in-block.img"
cut tiny.img good.img 1000
prepare tiny.img >/dev/null
refuses "an image that ends before its super block" EUCLEAN 'tiny.img.*the image ends' \
	"$image=tiny.img"

# --- the daemon --------------------------------------------------------------

cp "$SOURCE/good.img" "$SOURCE/lost.img"
prepare lost.img >/dev/null
rm "$SOURCE/lost.img"
refuses "an image that the daemon cannot get" EIO 'lost.img' "$image=lost.img"

# --- mounted --------------------------------------------------------------------

mount_image good.img device=data
check "after all these the number of a mount's device is that of the first (T51)" \
	equal "$(stat -c %d "$MNT")" "$device_number"
mkdir "$TMP/again"
check "what is mounted can be mounted once more (T49)" mount_image good.img device=data "$TMP/again"
check "a remount does not change what is mounted (T50)" \
	eval 'mount -o remount,uuid=lost.img "$MNT" || :; grep " $MNT erofs .*uuid=good.img" /proc/mounts'
check "the file is still right" cmp "$MNT/file" "$TMP/tree/file"
check "both can be unmounted" umount "$MNT" "$TMP/again"
finish
