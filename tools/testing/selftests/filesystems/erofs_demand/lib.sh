# SPDX-License-Identifier: GPL-2.0
# Sourced by the tests: a daemon, images, mounts, and ways to look at them.
# shellcheck shell=sh
#
# Every test has its own folders, made here and gone when it ends:
#   $CACHE   root of the cache      (on a disk file system: /cache)
#   $SOURCE  what the daemon serves: one file per blob
#   $TRACE   the daemon's trace: one line per request it answered,
#            "id blob offset length result", separated by tabs
#   $MNT     a mount point          $TMP  scratch
set -eu

. "${0%/*}/ktap.sh"

DEMANDD=${DEMANDD:-/build/target/release/demandd}
# Where the C programs are that the Makefile builds.
PROGRAMS=${PROGRAMS:-/build/selftests}
DEVICE=/dev/cachefiles_demand
TEST=$(basename "$0" .sh)
WORK=$(mktemp -d "${WORK_DIR:-/cache}/$TEST.XXXXXX")
CACHE=$WORK/cache SOURCE=$WORK/source TMP=$WORK/tmp MNT=$WORK/mnt
TRACE=$WORK/trace DAEMON_LOG=$WORK/demandd.log
TAG=${TEST#test_}
DAEMON=''
mkdir "$CACHE" "$SOURCE" "$TMP" "$MNT"
: >"$TRACE"

# What the kernel says from here on belongs to this test.
START_MARK="selftest $TEST $$ starts"
echo "$START_MARK" >/dev/kmsg

cleanup() {
	cleanup_status=$?
	trap - EXIT
	set +e
	# The lines that tell why go where the failure is reported.
	if [ "$cleanup_status" != 0 ] || [ "$ktap_failed" != 0 ]; then
		tail -n 20 "$DAEMON_LOG" 2>/dev/null | sed 's/^/# demandd: /'
		kernel_log | tail -n 20 | sed 's/^/# kernel: /'
	fi
	awk -v dir="$WORK/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r |
		while read -r m; do umount "$m" || umount -l "$m"; done
	[ -z "$DAEMON" ] || stop_daemon
	[ ! -e "$WORK/changed" ] ||
		while read -r file value; do echo "$value" >"$file"; done <"$WORK/changed"
	rm -rf "$WORK"
	exit "$cleanup_status"
}
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# How many times longer than usual things may take: a debug kernel sets it.
SLOW=${SLOW:-1}

# wait_for SECONDS COMMAND [ARG]...: until COMMAND is true, but not for ever.
wait_for() {
	wait_end=$(($(date +%s) + $1 * SLOW))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt "$wait_end" ] || { echo "waited in vain for: $*"; return 1; }
		sleep 0.1
	done
}

# change FILE VALUE: a setting of the kernel, which is again as it was when the test ends.
change() {
	echo "$1 $(cat "$1")" >>"$WORK/changed"
	echo "$2" >"$1"
}

# Load our modules; without them there is nothing to test.
load_modules() {
	for module in cachefiles_demand erofs; do
		case $(modinfo -n "$module" 2>/dev/null) in
		*/updates/*) ;;
		*) skip_all "$module is not installed" ;;
		esac
		modprobe "$module" || { echo "Bail out! modprobe $module"; exit 1; }
	done
}

# --- the kernel's own erofs.ko ------------------------------------------------------

# need_stock_module: sets $STOCK to its path; without it this test is skipped.
need_stock_module() {
	STOCK=$(find "/lib/modules/$(uname -r)/kernel/fs/erofs" -name 'erofs.ko*' 2>/dev/null | head -n 1)
	[ -n "$STOCK" ] || skip_all "the kernel has no erofs.ko of its own"
	modprobe loop 2>/dev/null || [ -e /dev/loop-control ] || skip_all "no loop devices"
	! grep -q '^erofs ' /proc/modules || rmmod erofs || skip_all "an erofs is in use"
}
load_stock_module() {
	# shellcheck disable=SC2046 # a list
	for module in $(modinfo -F depends "$STOCK" | tr , ' '); do modprobe "$module" || return; done
	insmod "$STOCK"
}
# unload_erofs: whichever it is, when it is not used any more.
unload_erofs() { wait_for 10 module_unused erofs && rmmod erofs; }

# make_image NAME TREE [MKFS-OPTION]...: an image of TREE in $SOURCE. Block size, build
# time and UUID are fixed, so that the same tree gives the same image.
make_image() {
	image_name=$1 image_tree=$2
	shift 2
	mkfs.erofs --quiet -b 4096 -T 0 --mkfs-time -U 00000000-0000-4000-8000-000000000000 "$@" \
		"$SOURCE/$image_name" "$image_tree" >"$TMP/mkfs.log" 2>&1 ||
		{ cat "$TMP/mkfs.log"; return 1; }
}

# Give the blobs in $SOURCE that are named (default: all) an empty cache file.
prepare() {
	if [ $# = 0 ]; then
		for blob in "$SOURCE"/*; do set -- "$@" "${blob##*/}"; done
	fi
	"$DEMANDD" prepare --root "$CACHE" --source "$SOURCE" "$@"
}

# start_daemon [OPTION]...: returns when it serves.
start_daemon() {
	"$DEMANDD" serve --root "$CACHE" --source "$SOURCE" --tag "$TAG" --trace "$TRACE" \
		"$@" >>"$DAEMON_LOG" 2>&1 &
	DAEMON=$!
	wait_for 30 daemon_ready_or_gone || return 1
	kill -0 "$DAEMON" 2>/dev/null || { DAEMON=''; cat "$DAEMON_LOG"; return 1; }
}
daemon_ready_or_gone() {
	grep -q '^demandd: ready' "$DAEMON_LOG" || ! kill -0 "$DAEMON" 2>/dev/null
}

# end_daemon SIGNAL
end_daemon() {
	kill "-$1" "$DAEMON" 2>/dev/null || :
	wait "$DAEMON" || :
	DAEMON=''
	# The next one has to say for itself that it is ready.
	mv "$DAEMON_LOG" "$DAEMON_LOG.$(date +%s%N)"
}
stop_daemon() { end_daemon TERM; }
kill_daemon() { end_daemon KILL; }

# mount_image BOOTSTRAP [OPTIONS] [DIR]
mount_image() {
	mount -t erofs -o "uuid=$1,tag=$TAG${2:+,$2}" none "${3:-$MNT}"
}

# requests [BLOB], fetched_bytes [BLOB]: of all blobs unless one is named.
requests() { awk -F '\t' -v blob="${1:-}" '!blob || $2 == blob { n++ } END { print n + 0 }' "$TRACE"; }
fetched_bytes() { awk -F '\t' -v blob="${1:-}" '!blob || $2 == blob { n += $4 } END { printf "%d\n", n }' "$TRACE"; }

drop_caches() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
}

# The kernel's messages since this test began.
kernel_log() {
	dmesg | awk -v mark="$START_MARK" 'found; index($0, mark) { found = 1 }'
}
# kernel_log_has EXTENDED-REGEX
kernel_log_has() { kernel_log | grep -E -q -- "$1"; }

# cache_bound [TAG]: one that was withdrawn may stay in the list, but not active.
cache_bound() {
	awk -v tag="${1:-$TAG}" '$6 == "A" && $7 == tag { n++ } END { exit !n }' /proc/fs/fscache/caches
}
# module_unused NAME: after the last unmount that takes a moment to come true.
module_unused() { awk -v name="$1" '$1 == name { exit $3 != 0 }' /proc/modules; }
