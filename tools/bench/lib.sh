# SPDX-License-Identifier: GPL-2.0
# Sourced by the benchmarks of the cache: images in it, a daemon, and measurements.
# shellcheck shell=sh
#
# Needs root in the test guest; BENCH has the programs, WORK_DIR is on the disk that the
# cache is to be on, and the daemon is DEMANDD. Everything goes when the script ends.
#   $source  what the daemon serves. It is in memory: what a network costs is not asked.
#   $raw     an ordinary file with the same bytes as the cache file of "whole", beside it
#   $mnt     a mount point for each image, by its name
set -eu

BENCH=${BENCH:-/build/bench}
DEMANDD=${DEMANDD:-/build/target/release/demandd}
REPETITIONS=${REPETITIONS:-5}
SIZE=$((128 << 20))
# Of the file's 32768 blocks; a miss each.
# shellcheck disable=SC2034 # for those who source this, here and below
READS=2000
TABLES=/sys/kernel/debug/cachefiles_demand

work=$(mktemp -d "${WORK_DIR:-/cache}/bench.XXXXXX")
source=$(mktemp -d /dev/shm/bench.XXXXXX)
root=$work/root mnt=$work/mnt results=$work/results raw=$work/raw log=$work/log
daemon=''

cleanup() {
	cleanup_status=$?
	trap - EXIT
	set +e
	awk -v dir="$work/" 'index($2, dir) == 1 { print $2 }' /proc/mounts |
		while read -r m; do umount "$m"; done
	[ -z "$daemon" ] || { kill "$daemon"; wait "$daemon"; }
	rm -rf "$work" "$source"
	exit $cleanup_status
}
trap cleanup EXIT
trap 'exit 1' INT TERM
mkdir "$root" "$mnt" "$results" "$work/tree"

. "${0%/*}/table.sh"

modprobe -a cachefiles_demand erofs

fail() { echo "${0##*/}: $*" >&2; exit 1; }

# --- images -------------------------------------------------------------------------

# make_image NAME TREE: NAME.img has the names, the blob NAME the bytes of the files.
make_image() {
	: >"$source/$1"
	mkfs.erofs --quiet -b 4096 -T 0 --chunksize=1048576 --blobdev="$source/$1" \
		"$source/$1.img" "$2" >"$log" 2>&1 || fail "$(cat "$log")"
}

# Two images of one large file: "whole", and "missing" with the same bytes.
make_large_images() {
	head -c $SIZE /dev/urandom >"$work/tree/file"
	make_image whole "$work/tree"
	# Else what is compared would not have the same bytes at the same places.
	cmp "$work/tree/file" "$source/whole"
	rm "$work/tree/file"
	ln "$source/whole" "$source/missing"
	ln "$source/whole.img" "$source/missing.img"
	cp "$source/whole" "$raw"
}

prepare() { "$DEMANDD" prepare --root "$root" --source "$source" "$@" >"$log"; }

# fetch BLOB...: all of it, while no image with it is mounted.
fetch() { prepare "$@" && "$DEMANDD" prefetch --root "$root" --source "$source" "$@" >"$log"; }

cache_file() { find "$root" -name "D$1"; }

# --- daemon and mounts --------------------------------------------------------------

# serve [OPTION]...: in the place of the daemon that there is.
serve() {
	[ -z "$daemon" ] || { kill "$daemon"; wait "$daemon" || :; }
	"$DEMANDD" serve --root "$root" --source "$source" --tag bench "$@" >"$log" 2>&1 &
	daemon=$!
	until grep -q '^demandd: ready' "$log"; do
		kill -0 "$daemon" 2>/dev/null || { daemon=''; fail "$(cat "$log")"; }
		sleep 0.1
	done
}

# mount_image NAME
mount_image() {
	mkdir -p "$mnt/$1"
	mountpoint -q "$mnt/$1" || mount -t erofs -o "uuid=$1.img,device=$1,tag=bench" none "$mnt/$1"
}

# forget_data NAME [OPTION]...: its cache file is empty again, and the daemon has OPTIONs.
forget_data() {
	name=$1
	shift
	! mountpoint -q "$mnt/$name" || umount "$mnt/$name"
	rm -f "$(cache_file "$name")"
	prepare "$name.img" "$name"
	serve "$@"
	mount_image "$name"
}

forget_memory() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
}

# column TABLE NAME COLUMN: of the row about NAME, in what the kernel shows of its caches.
column() {
	awk -v name="$2" -v column="$3" '
		NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
		$NF == name { found = 1; print $at[column] }
		END { exit !found }' "$TABLES/$1"
}

# --- measurements -------------------------------------------------------------------

# The columns of what readbench prints.
# shellcheck disable=SC2034
RATE=1 MEDIAN=2 P99=3 READER=4 BUSY=5 SUM=6

# measure ROW MODE FILE [ARG]...: adds a line to the row, with nothing in memory before.
measure() {
	row=$1
	shift
	forget_memory
	"$BENCH/readbench" "$@" >>"$results/$row"
}

# note ROW NUMBER: adds a line of one column to the row.
note() { echo "$2" >>"$results/$1"; }

# same_bytes ROW ROW...: were the same bytes read, in every repetition?
same_bytes() {
	first=$1
	shift
	for other; do
		[ "$(cut -f $SUM "$results/$first")" = "$(cut -f $SUM "$results/$other")" ] ||
			fail "$first and $other read different bytes"
	done
}
