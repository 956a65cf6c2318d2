#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# When there is no memory, what is asked for fails or succeeds; nobody hangs, gets
# wrong bytes, or finds later that something is broken.
#
# Every allocation of every operation is made to fail, one after another (see
# fault_nth.c), and for what goes on in work items some are, at random. It takes a
# kernel with CONFIG_FAILSLAB and CONFIG_FAIL_PAGE_ALLOC.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

MiB=1048576
# How long one operation may take, and a stretch of random failures, in seconds.
LIMIT=$((20 * ${SLOW:-1}))
STRETCH=$((4 * ${SLOW:-1}))
faults=/sys/kernel/debug
if ! [ -e /proc/self/fail-nth ] || ! [ -d $faults/failslab ] || ! [ -d $faults/fail_page_alloc ]; then
	skip_all "this kernel has no CONFIG_FAILSLAB and CONFIG_FAIL_PAGE_ALLOC"
fi
load_modules
plan 37

# --- what may fail -------------------------------------------------------------

# set_faults NAME VALUE: of slab objects and of pages.
set_faults() {
	for set_kind in failslab fail_page_alloc; do echo "$2" >"$faults/$set_kind/$1"; done
}

# only_within FIRST LAST: only allocations that functions at these addresses
# make, or that are made on their behalf.
only_within() {
	set_faults require-start "$1"
	set_faults require-end "$2"
}
everywhere() { only_within 0 0xffffffffffffffff; }

# within_modules MODULE...: in the code of these, and between. The upper half of an
# address is the same for all, and too large for the shell.
within_modules() {
	for within_module; do
		within_text=$(cat "/sys/module/$within_module/sections/.text")
		within_text=${within_text#0xffffffff}
		within_size=$(awk -v name="$within_module" '$1 == name { print $2 }' /proc/modules)
		printf '%s\n%08x\n' "$within_text" $((0x$within_text + within_size))
	done | sort >"$TMP/within"
	only_within "0xffffffff$(head -n 1 "$TMP/within")" "0xffffffff$(tail -n 1 "$TMP/within")"
}

# within_function NAME: in a function of the kernel.
within_function() {
	# shellcheck disable=SC2046 # two words
	only_within $(sort /proc/kallsyms | awk -v name="$1" '
		start && $1 != start { print "0x" start, "0x" $1; exit }
		$3 == name { start = $1 }')
}
# In what a module does when it is loaded, not in what loads it.
within_module_init() { within_function do_one_initcall; }

no_faults() {
	set_faults probability 0
	everywhere
}

# every_failure OPERATION ARGUMENT...
every_failure() { "$PROGRAMS/fault_nth" --limit "$LIMIT" "$@"; }

# --- images ----------------------------------------------------------------------

# A file whose bytes are those of the blob "data". Whoever needs bytes that are not
# there takes them from a place of its own.
make_images() {
	mkdir "$TMP/tree" "$TMP/tree/dir"
	head -c $((128 * MiB)) /dev/urandom >"$TMP/tree/file"
	seq -f "$TMP/tree/dir/a name that is rather long %.0f" 100 | xargs -d '\n' touch
	: >"$SOURCE/data"
	make_image one.img "$TMP/tree" --chunksize=65536 --blobdev="$SOURCE/data"
	prepare >/dev/null
	"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" one.img "data:0+$MiB" >/dev/null
}

next_place=$MiB
# place MIB: bytes that nobody has read, in $place.
place() {
	place=$next_place
	next_place=$((next_place + $1 * MiB))
}

# by_daemon OPERATION: what a daemon does, here done by fault_nth.
by_daemon() {
	place 4
	# shellcheck disable=SC2086 # options
	every_failure ${2:-} --from "$place" "$1" "$CACHE" "$TAG" "$MNT/file" "$TMP/tree/file" "$data_file" "$SOURCE/data"
}

# --- modules -----------------------------------------------------------------------

make_images
data_file=$(echo "$CACHE"/cache/Ierofs/@*/Ddata)
image_file=$(echo "$CACHE"/cache/Ierofs/@*/Done.img)
tables=$faults/cachefiles_demand
options=uuid=one.img,device=data,tag=$TAG
no_faults
set_faults ignore-gfp-wait N
set_faults verbose 0
echo N >$faults/fail_page_alloc/ignore-gfp-highmem
echo 0 >$faults/fail_page_alloc/min-order

for module in erofs cachefiles_demand; do
	within_modules "$module"
	ko=$(modinfo -n "$module")
	check "rmmod $module" every_failure rmmod "$ko"
	rmmod "$module"
done
within_module_init
for module in cachefiles_demand erofs; do
	check "insmod $module" every_failure insmod "$(modinfo -n "$module")"
done
no_faults
modprobe -a cachefiles_demand erofs

# --- a cache and its mounts -----------------------------------------------------------

within_modules cachefiles_demand erofs
check "bind" every_failure bind "$CACHE" "$TAG"
start_daemon
check "mount" every_failure mount "$MNT" "$options"
stop_daemon
# One that does not keep cache files open, which are replaced here.
"$PROGRAMS/minimal_daemon" "$CACHE" "$TAG" "$SOURCE" >>"$DAEMON_LOG" 2>&1 &
DAEMON=$!
wait_for 10 cache_bound
check "mount an image that is not there yet" every_failure cold-mount "$MNT" "$options" "$image_file"
mount_image one.img device=data
check "umount, which cannot fail" every_failure --harmless 1 umount "$MNT" "$options"
check "list a directory" every_failure list "$MNT/dir" 100

# --- reads -----------------------------------------------------------------------------

check "read what is there" every_failure hit "$MNT/file" "$TMP/tree/file"
place 8
check "read what is not there" every_failure --from "$place" miss "$MNT/file" "$TMP/tree/file"
place 64
check "read ahead what is not there" every_failure --from "$place" ahead "$MNT/file" "$TMP/tree/file"
# Also in the page cache above, and all else that a read meets on its way.
everywhere
check "read what is there, failures everywhere" every_failure hit "$MNT/file" "$TMP/tree/file"
place 8
check "read what is not there, failures everywhere" \
	every_failure --from "$place" miss "$MNT/file" "$TMP/tree/file"
within_modules cachefiles_demand erofs
check "look inside" every_failure see "$tables/caches" "$tables/objects" "$tables/requests"
stop_daemon

# --- a daemon, while a reader waits ----------------------------------------------------

check "daemon: take, which allocates nothing" by_daemon take "--none 1"
for operation in "done" fail restore takeover close unbind; do
	check "daemon: $operation" by_daemon $operation
done
for operation in cull inuse; do
	check "daemon: $operation" every_failure $operation "$CACHE" "$TAG" "$data_file"
done

# --- at random, in work items, too --------------------------------------------------------

# A daemon may end when a call fails: then there is a new one.
keep_a_daemon() {
	until [ -e "$TMP/enough" ]; do
		"$PROGRAMS/minimal_daemon" "$CACHE" "$TAG" "$SOURCE" >>"$DAEMON_LOG" 2>&1 &
		echo $! >"$TMP/daemon"
		wait $! || :
	done
}

# Mounts beside the one that is read, and unmounts.
keep_mounting() {
	until [ -e "$TMP/enough" ]; do
		"$PROGRAMS/trymount" erofs "$TMP/mnt" "$options" >/dev/null || :
		umount "$TMP/mnt" 2>/dev/null || :
	done
}

# Who fails where only some may (task-filter): this shell's readers, and work items.
may_fail() {
	for comm in /proc/[0-9]*/comm; do
		case $(cat "$comm" 2>/dev/null) in
		kworker*) echo 1 >"${comm%comm}make-it-fail" || : ;;
		esac
	done
}

# storm PER-CENT [FILTERED]: readers, mounts and a daemon while so many allocations fail.
storm() {
	storm_readers='' storm_status=0
	set_faults times -1
	set_faults probability "$1"
	for reader in 1 2 3; do
		"$PROGRAMS/fault_nth" --limit "$LIMIT" storm "$MNT/file" "$TMP/tree/file" "$STRETCH" ${2:+"$2"} &
		storm_readers="$storm_readers $!"
	done
	for reader in $storm_readers; do wait "$reader" || storm_status=1; done
	set_faults probability 0
	return "$storm_status"
}

mkdir "$TMP/mnt"
keep_a_daemon &
keeper=$!
keep_mounting &
mounting=$!
for percent in 1 5 20; do
	check "$percent% fail in the modules: readers get right bytes, or errors" storm $percent
done
everywhere
set_faults task-filter Y
may_fail
check "1% fail in readers and work items: readers get right bytes, or errors" storm 1 filtered
set_faults task-filter N
no_faults

# --- afterwards ----------------------------------------------------------------------------

: >"$TMP/enough"
check "mounts come to an end" wait "$mounting"
kill "$(cat "$TMP/daemon")"
wait "$keeper"
umount "$TMP/mnt" 2>/dev/null || :
check "a daemon binds the cache" start_daemon
drop_caches
check "all bytes are right" cmp "$MNT/file" "$TMP/tree/file"

# --- what the file system loses ----------------------------------------------------------------

# A line in the log is all that ext4 says when it cannot note that blocks were written: what the
# daemon has brought is right as long as it is in memory, and a hole once it is not.
mkdir "$TMP/lost"
head -c $((4 * MiB)) /dev/urandom >"$TMP/lost/file"
: >"$SOURCE/lost"
make_image lost.img "$TMP/lost" --chunksize=65536 --blobdev="$SOURCE/lost"
prepare lost.img lost >/dev/null
mount_image lost.img device=lost "$TMP/mnt"
lost_blocks() { dmesg | grep -c 'failed to convert unwritten extents' || :; }
before=$(lost_blocks)
# What it is compared with, and fetched from, is not to be lost.
sync
within_function ext4_convert_unwritten_extents
set_faults times -1
set_faults probability 100
check "what is fetched is right" cmp "$TMP/mnt/file" "$TMP/lost/file"
sync
no_faults
check "the file system loses it" test "$(lost_blocks)" -gt "$before"
drop_caches
check "it is fetched again, and no zeros are read" cmp "$TMP/mnt/file" "$TMP/lost/file"
check "the mount of it can be unmounted" umount "$TMP/mnt"
check "the mount can be unmounted" umount "$MNT"
stop_daemon
check "the modules unload" eval 'wait_for 10 module_unused erofs && rmmod erofs &&
	wait_for 10 module_unused cachefiles_demand && rmmod cachefiles_demand'
finish
