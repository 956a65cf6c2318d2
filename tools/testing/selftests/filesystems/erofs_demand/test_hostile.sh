#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A daemon may be hostile: whatever it does with the device, readers get right
# bytes or an error, everybody returns when it is gone, and the next daemon finds
# a cache that works.
#
# FUZZ_SECONDS is how long (default 20); FUZZ_SEED and FUZZ_THREADS repeat a run.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

load_modules
plan 7

# apart.img has its data in a blob, of which several mounts are made; whole.img has
# data, directories and ends of files in itself. No block of them is all zeros.
make_images() {
	mkdir "$TMP/apart" "$TMP/whole" "$TMP/whole/dir" "$TMP/whole/dir/deep"
	head -c 6000000 /dev/urandom >"$TMP/apart/big"
	head -c 1048576 /dev/urandom >"$TMP/apart/blocks"
	head -c 4097 /dev/urandom >"$TMP/apart/end"
	head -c 3000001 /dev/urandom >"$TMP/whole/big"
	for n in $(seq 150); do
		head -c $((n * 61)) /dev/urandom >"$TMP/whole/dir/small-file-number-$n"
	done
	ln -s big "$TMP/whole/dir/deep/link"
	: >"$SOURCE/data"
	make_image apart.img "$TMP/apart" --chunksize=4096 --blobdev="$SOURCE/data"
	make_image whole.img "$TMP/whole"
	prepare >/dev/null
}

# Its words go to the log as they come: a long run shows that it goes on.
fuzz() {
	{
		"$PROGRAMS/fuzz_device" --root "$CACHE" --tag "$TAG" --source "$SOURCE" --mounts "$MNT" \
			--seconds "${FUZZ_SECONDS:-$((20 * ${SLOW:-1}))}" --threads "${FUZZ_THREADS:-4}" \
			${FUZZ_SEED:+--seed "$FUZZ_SEED"} --slow "${SLOW:-1}" \
			"$TMP/apart:uuid=apart.img,device=data" "$TMP/apart:uuid=apart.img,device=data" \
			"$TMP/whole:uuid=whole.img" "$TMP/apart:uuid=apart.img,device=data,noacl" && fuzz_status=0 || fuzz_status=$?
		echo "$fuzz_status" >"$TMP/status"
	} 2>&1 | sed -u 's/^/# /'
	read -r fuzz_status <"$TMP/status"
	return "$fuzz_status"
}

# same_tree MOUNT TREE: or else which bytes are not, of which files.
same_tree() {
	diff -r -q --no-dereference "$1" "$2" && return
	(cd "$2" && find . -type f) | while read -r f; do
		cmp -l "$1/$f" "$2/$f" | awk -v file="$f" '
			$1 > last + 4096 { print file ": wrong bytes from", $1 - 1, "on (octal):", $2, "for", $3 }
			{ last = $1 }' | head -n 20
	done
	return 1
}

# Of the blocks that a cache file has, those that are not the blob's.
wrong_blocks() {
	for blob in "$SOURCE"/*; do
		for file in "$CACHE"/cache/Ierofs/@*/"D${blob##*/}"; do
			cmp -l "$file" "$blob" | awk -v file="$file" '
				{ block = int(($1 - 1) / 4096) }
				block != last || NR == 1 { if (NR > 1 && data) print file ": block", last, "is wrong"; data = 0; last = block }
				$2 != 0 { data = 1 }
				END { if (data) print file ": block", last, "is wrong" }'
		done
	done
}
unmount_all() { umount "$MNT/0" "$MNT/1" "$MNT/2" "$MNT/3"; }

make_images
# Not check: that would keep back what it says until the end.
if fuzz; then result=ok; else result=not_ok; fi
$result "a hostile daemon: right bytes or errors, and everybody returns"

check "a good daemon binds the same cache" start_daemon
drop_caches
check "every byte is right on the mounts that were there" same_tree "$MNT/0" "$TMP/apart"
check "also on those that share all pages, or the blobs" eval \
	'same_tree "$MNT/1" "$TMP/apart" && same_tree "$MNT/3" "$TMP/apart"'
check "also in images of one blob" same_tree "$MNT/2" "$TMP/whole"
check "they can be unmounted" unmount_all
stop_daemon
check "the modules unload" eval 'wait_for 10 module_unused erofs && rmmod erofs &&
	wait_for 10 module_unused cachefiles_demand && rmmod cachefiles_demand'
finish
