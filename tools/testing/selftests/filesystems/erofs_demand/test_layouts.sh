#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Files are read right whatever the image looks like: every layout, block size,
# chunk size and number of blobs that mkfs.erofs makes, each image mounted while
# its blobs are empty. (Merged images share blobs, which then have some data.)
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

load_modules

BLOCK_SIZES="512 1024 2048 4096"
CHUNK_SIZES="4096 65536 1048576"
# Per block size: tail-packed and plain; per chunk size: block map, indexes, and
# a blob. Then merged images by count and naming, many names, and a sparse file.
plan $((4 * (2 + 3 * 3) + 1 + 4 + 2 + 4))

# Sizes around what layouts distinguish.
make_tree() {
	mkdir -p "$1/sub/sub"
	for size in 0 1 511 512 513 4095 4096 4097 8191 12288 300001; do
		head -c $size /dev/urandom >"$1/size-$size"
	done
	# A chunk that two files share, and one that is all zeros.
	head -c 65536 /dev/urandom >"$1/half"
	cat "$1/half" "$1/half" >"$1/twice"
	{ cat "$1/half"; head -c 65536 /dev/zero; cat "$1/half"; } >"$1/zeros-within"
	echo below >"$1/sub/sub/file"
	ln -s size-4096 "$1/link"
	ln -s "$(printf %04000d 0)" "$1/long-link"
	echo long >"$1/$(printf %0255d 0)"
	echo names >"$1/Grüße, 世界 🙂"
	# No text in any encoding.
	echo bytes >"$1/$(printf '\377\376\001')"
}

make_names() {
	mkdir -p "$1/many"
	python3 -c 'import sys
for n in range(2000):
    with open("%s/%d-%s" % (sys.argv[1], n, "n" * (n % 200)), "w") as file:
        file.write(str(n) * (n % 50))' "$1/many"
}

# reads_right NAME TREE [OPTIONS]: mounts the image NAME with its cache empty.
reads_right() {
	"$PROGRAMS/listing" "$2" >"$TMP/wanted" || return 1
	mount_image "$1" "${3:-}" || return 1
	"$PROGRAMS/listing" "$MNT" >"$TMP/got" && diff "$TMP/wanted" "$TMP/got"
	reads_right=$?
	umount "$MNT"
	return "$reads_right"
}

images=0
# image NAME TREE [MKFS-OPTION]...: makes one, with empty files in the cache.
image() {
	images=$((images + 1))
	make_image "$@" && prepare "$1" >/dev/null
}

one_image() {
	name=$1
	shift
	image "$name" "$TMP/tree" "$@" && reads_right "$name" "$TMP/tree"
}

one_blob() {
	name=$1
	shift
	: >"$SOURCE/$name.blob"
	image "$name" "$TMP/tree" --blobdev="$SOURCE/$name.blob" "$@" && prepare "$name.blob" >/dev/null &&
		reads_right "$name" "$TMP/tree" "device=$name.blob"
}

# make_layers COUNT: images layer-1 to layer-COUNT, of a part of the tree each,
# and the tree that they make together.
make_layers() {
	mkdir "$TMP/layers"
	n=0
	while [ $n -lt "$1" ]; do
		n=$((n + 1))
		mkdir -p "$TMP/layer/dir-$n"
		head -c $((n * 1000)) /dev/urandom >"$TMP/layer/dir-$n/data"
		echo $n >"$TMP/layer/file-$n"
		touch -d @1700000000 "$TMP/layer"
		image layer-$n "$TMP/layer" -E noinline_data || return 1
		mv "$TMP"/layer/* "$TMP/layers/"
	done
}

# merge NAME COUNT: an image over the first COUNT layers.
merge() {
	merged=$1
	layers=$(seq -f "$SOURCE/layer-%.0f" 1 "$2")
	# shellcheck disable=SC2086 # a list
	mkfs.erofs --quiet -b 4096 -T 0 --mkfs-time "$SOURCE/$merged" $layers
	images=$((images + 1))
}

# Its root is made up by mkfs.erofs, so that it cannot be compared.
merged_reads_right() {
	rm -rf "$TMP/part"
	mkdir "$TMP/part"
	for n in $(seq 1 "$2"); do
		cp -a "$TMP/layers/dir-$n" "$TMP/layers/file-$n" "$TMP/part/"
	done
	chmod 777 "$TMP/part"
	touch -d @0 "$TMP/part"
	reads_right "$1" "$TMP/part" "$(echo "${3:-}" | tr ' ' ,)"
}

named_by_options() {
	merge "options-$1" "$1" && prepare "options-$1" >/dev/null &&
		merged_reads_right "options-$1" "$1" "$(seq -s ' ' -f device=layer-%.0f 1 "$1")"
}

named_by_tags() {
	# shellcheck disable=SC2046 # a list
	merge "tags-$1" "$1" &&
		"$DEMANDD" image stamp "$SOURCE/tags-$1" $(seq -f layer-%.0f 1 "$1") >/dev/null &&
		prepare "tags-$1" >/dev/null && merged_reads_right "tags-$1" "$1"
}

# layouts: the numbers of the file layouts that mkfs.erofs gave a file of 4097 bytes.
layouts() {
	for name; do
		dump.erofs --path=/size-4097 "$SOURCE/$name" | sed -n 's/.*Layout: \([0-9]*\).*/\1/p'
	done | paste -sd ' '
}

many_names() {
	image "$@" && reads_right "$1" "$2"
}

# A file with holes between data at its start, behind 4 GiB and at its end.
GiB=$((1 << 30))
SPARSE_SIZE=$((5 * GiB + 12345))
DATA="0+16384 $((4 * GiB + 50000))+90000 $((SPARSE_SIZE - 6000))+10000"
HOLES="$((2 * GiB - 4096))+8192 $((4 * GiB - 8192))+8192 $((5 * GiB - 65536))+1000"
make_sparse() {
	mkdir "$TMP/sparse"
	truncate -s $SPARSE_SIZE "$TMP/sparse/file"
	put 10000 0
	put 70000 $((4 * GiB + 54321))
	put 5000 $((SPARSE_SIZE - 5000))
}
# put COUNT OFFSET: random bytes.
put() {
	head -c "$1" /dev/urandom |
		dd of="$TMP/sparse/file" bs=65536 seek="$2" oflag=seek_bytes conv=notrunc status=none
}

# same_ranges OFFSET+LENGTH...
same_ranges() {
	"$PROGRAMS/readrange" --random "$MNT/file" "$@" >"$TMP/got" &&
		"$PROGRAMS/readrange" "$TMP/sparse/file" "$@" | cmp - "$TMP/got"
}

# no_fetch COMMAND [ARG]...: it takes no request for data.
no_fetch() {
	before=$(requests sparse.blob)
	"$@" && equal "$(requests sparse.blob)" "$before"
}

make_tree "$TMP/tree"
make_names "$TMP/names"
make_layers 20 || exit 1
make_sparse
start_daemon

for bs in $BLOCK_SIZES; do
	check "blocks of $bs, tail-packed" one_image "inline-$bs" -b "$bs"
	check "blocks of $bs, plain" one_image "plain-$bs" -b "$bs" -E noinline_data
	for chunk in $CHUNK_SIZES; do
		check "blocks of $bs, chunks of $chunk, block map" \
			one_image "map-$bs-$chunk" -b "$bs" --chunksize="$chunk" -E force-inode-blockmap
		check "blocks of $bs, chunks of $chunk, indexes" \
			one_image "index-$bs-$chunk" -b "$bs" --chunksize="$chunk" -E force-chunk-indexes
		check "blocks of $bs, chunks of $chunk, in a blob" \
			one_blob "blob-$bs-$chunk" -b "$bs" --chunksize="$chunk"
	done
done
# Plain, tail-packed and chunk-based are 0, 2 and 4.
check "the images have the layouts that they should have" \
	equal "$(layouts plain-512 inline-4096 map-4096-65536 index-4096-4096)" "0 2 4 4"
for count in 2 20; do
	check "$count blobs named by mount options" named_by_options $count
	check "$count blobs named in the image" named_by_tags $count
done
check "2,000 names in a directory, blocks of 512" many_names names-512 "$TMP/names" -b 512
check "2,000 names in a directory, blocks of 4096" many_names names-4096 "$TMP/names"

: >"$SOURCE/sparse.blob"
check "a sparse file of 5 GiB" \
	image sparse "$TMP/sparse" --blobdev="$SOURCE/sparse.blob" --chunksize=65536
prepare sparse.blob >/dev/null
mount_image sparse device=sparse.blob
check "has its size" equal "$(stat -c %s "$MNT/file")" $SPARSE_SIZE
# shellcheck disable=SC2086 # lists
{
	check "its data are right, before and behind 4 GiB" same_ranges $DATA
	check "its holes are zeros, and are not fetched" no_fetch same_ranges $HOLES
}
umount "$MNT"
note "$images images"
finish
