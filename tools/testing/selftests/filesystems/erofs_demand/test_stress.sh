#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Under load readers get right bytes and all of them return, while the daemon is slow
# and unordered and is killed every few seconds, and cached data is taken away. Only
# requests that the daemon failed give errors.
#
# STRESS_SECONDS is how long (default 20); STRESS_SEED repeats what is random;
# STRESS_FS puts the cache on a new file system of that type (default: where
# $WORK_DIR is).
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

# 32 blobs: each image has its bootstrap and the blobs that it is made of.
IMAGES=8 LAYERS=3 SIZE=2097152

load_modules
plan 7

# The numbers of an image's blobs.
layers() { seq $(($1 * LAYERS + 1)) $((($1 + 1) * LAYERS)); }
# names IMAGE SEPARATOR: of them
names() { layers "$1" | sed "s/^/layer-$1-/" | paste -s -d "$2"; }

make_layer() {
	mkdir -p "$TMP/tree/$1" "$TMP/one/$1"
	"$PROGRAMS/stress" --make "${1##*-}" $((SIZE + ${1##*-} * 1357)) >"$TMP/tree/$1/data" || return 1
	ln "$TMP/tree/$1/data" "$TMP/one/$1/data"
	make_image "$1" "$TMP/one" -E noinline_data || return 1
	rm -r "$TMP/one"
}
make_images() {
	for image in $(seq 0 $((IMAGES - 1))); do
		set --
		for layer in $(names "$image" ' '); do
			make_layer "$layer" || return 1
			set -- "$@" "$SOURCE/$layer"
		done
		mkfs.erofs --quiet -b 4096 -T 0 --mkfs-time "$SOURCE/image-$image" "$@" || return 1
	done
	equal "$(find "$SOURCE" -type f | wc -l)" 32
}

# A file system of its own, below $CACHE.
make_file_system() {
	truncate -s 2G "$WORK/disk"
	modprobe -q -a loop "$STRESS_FS" || :
	"mkfs.$STRESS_FS" -q "$WORK/disk" && mount -o loop "$WORK/disk" "$CACHE"
}

# Its words go to the log as they come: a long run shows that it goes on.
stress() {
	for image in $(seq 0 $((IMAGES - 1))); do
		set -- "$@" "image-$image,$(names "$image" ,)"
	done
	{
		"$PROGRAMS/stress" --root "$CACHE" --tag "$TAG" --source "$SOURCE" --tree "$TMP/tree" \
			--mounts "$MNT" --seconds "${STRESS_SECONDS:-$((20 * ${SLOW:-1}))}" \
			--slow "${SLOW:-1}" ${STRESS_SEED:+--seed "$STRESS_SEED"} "$@" &&
			stress_status=0 || stress_status=$?
		echo "$stress_status" >"$TMP/status"
	} 2>&1 | sed -u 's/^/# /'
	read -r stress_status <"$TMP/status"
	return "$stress_status"
}

same_everywhere() {
	for image in $(seq 0 $((IMAGES - 1))); do
		for layer in $(names "$image" ' '); do
			cmp "$MNT/${image}a/$layer/data" "$TMP/tree/$layer/data" &&
				cmp "$MNT/${image}b/$layer/data" "$TMP/tree/$layer/data" || return 1
		done
	done
}
no_request_left() {
	awk -v tag="$TAG/" 'index($NF, tag) == 1 { n++; print } END { exit n > 0 }' \
		/sys/kernel/debug/cachefiles_demand/requests
}
unmount_all() { for m in "$MNT"/*; do umount "$m" || return 1; done; }

[ -z "${STRESS_FS:-}" ] || make_file_system
check "images of 32 blobs can be made" make_images
prepare >/dev/null
# Not check: that would keep back what it says until the end.
if stress; then result=ok; else result=not_ok; fi
$result "readers under stress get right bytes, and all return"

check "a good daemon binds the same cache" start_daemon
drop_caches
check "every byte is right on all mounts" same_everywhere
# That one is old says little: on a slow kernel 64 readers ask for more than the daemon
# answers in half a minute.
check "no request is left without an answer" wait_for 10 no_request_left
check "everything can be unmounted" unmount_all
stop_daemon
check "the modules unload" eval 'wait_for 10 module_unused erofs && rmmod erofs &&
	wait_for 10 module_unused cachefiles_demand && rmmod cachefiles_demand'
finish
