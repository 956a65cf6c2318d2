#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An image may be hostile: whatever is damaged in it, a mount, and everything that can
# be asked of the mount, ends with an answer. The kernel's own module is asked the same,
# and where its answer is another one, that is of a class that Documentation/mutants.md
# explains.
#
# MUTANTS is how many (default 80), SEED the first one (1). COMPARE=no leaves out the
# kernel's own module. MATRIX is the folder with the images that are damaged.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

MUTANTS=${MUTANTS:-80}
SEED=${SEED:-1}
COMPARE=${COMPARE:-yes}
MATRIX=${MATRIX:-/build/matrix}
MUTATE=${MUTATE:-/build/target/release/image-mutate}
HERE=${0%/*}

# All layouts, kinds of inodes, sizes of blocks, attributes, and devices.
BASES=${BASES:-"acls acls-filter acls-shared xattrs-x0-512 xattrs-x1-4096 xattrs-prefix
	xattrs-compact blob-512-512 blob-4096-4096 holes-blob-16384 holes-index-512 map-512-512
	index-1024-1024 extended-2048 links-512 deep-512 hard-links-extended nodes
	directories-512 merged-three"}

# So many are on the disk at a time, and looked at.
BATCH=40
# They wait for grace periods of RCU most of the time.
JOBS=4
# So many are also mounted from a cache.
CACHED=${CACHED:-20}
# A mutant takes a tenth of a second.
SECONDS_EACH=$((30 * SLOW))

[ -s "$MATRIX/list" ] || skip_all "no images in $MATRIX"
[ -x "$MUTATE" ] || skip_all "no $MUTATE"
if [ "$COMPARE" = yes ]; then
	need_stock_module
else
	modprobe loop 2>/dev/null || [ -e /dev/loop-control ] || skip_all "no loop devices"
fi

mkdir "$TMP/batch" "$TMP/blobs"
for job in $(seq 0 $((JOBS - 1))); do mkdir "$MNT/$job"; done
: >"$TMP/changes"
: >"$TMP/log"

# blobs_of BASE: those of an image, in their order.
blobs_of() {
	awk -F '\t' -v name="$1" '$1 == name && $2 != "-" { print $2 }' "$MATRIX/list"
}

# set_devices BASE: $files and $blocks are options for its blobs, $loops their devices.
set_devices() {
	files='' blocks='' loops=''
	for blob in $(blobs_of "$1"); do
		[ -e "$TMP/blobs/$blob" ] || cp "$MATRIX/$blob" "$TMP/blobs/"
		loop=$(losetup -f --show -r "$TMP/blobs/$blob") || return
		files=$files${files:+,}device=$TMP/blobs/$blob
		blocks=$blocks${blocks:+,}device=$loop
		loops="$loops $loop"
	done
}

# ask WHO: whichever erofs is loaded is asked; its answers go to $TMP/WHO.
ask() {
	# The kernel's own module cannot read a page that a file has only a part of.
	pages=''
	[ "$1" != stock ] || pages=--pages
	next=$SEED
	end=$((SEED + MUTANTS))
	left=$BASE_COUNT
	for base in $BASES; do
		last=$((next + (end - next) / left))
		left=$((left - 1))
		set_devices "$base" || return
		while [ "$next" -lt "$last" ]; do
			count=$((last - next))
			[ "$count" -le $BATCH ] || count=$BATCH
			"$MUTATE" --seed "$next" --count "$count" "$MATRIX/$base" "$TMP/batch" >"$TMP/lines" || return
			if [ "$1" = stock ]; then leave_out; else cat "$TMP/lines" >>"$TMP/changes"; fi
			"$PROGRAMS/mutants" --jobs $JOBS --seconds "$SECONDS_EACH" $pages --options "$files" \
				--block "$blocks" "$MNT" "$TMP/$1" "$TMP"/batch/* || return
			rm "$TMP"/batch/*
			next=$((next + count))
			told "$1"
		done
		# shellcheck disable=SC2086 # a list
		[ -z "$loops" ] || losetup -d $loops
	done
	cat "$TMP/$1".? >"$TMP/$1"
}

# leave_out: the mutants that the kernel's own module is not asked about, as it crashes: those
# of which an inode of the image itself is a socket or the like.
leave_out() {
	sed -n 's,.*batch/\([0-9]*\).* inode [0-9]*: not a regular file.*,\1,p' "$TMP/log" | sort -u |
		while read -r number; do
			[ -e "$TMP/batch/$number" ] || continue
			rm "$TMP/batch/$number"
			printf '%s\t-\tmount\tnot asked\n' "$number" >>"$TMP/stock.0"
		done
}

# leave_sectors FILE...: of these, those that are sectors as a whole. A loop device has no
# others, and no blob is empty.
leave_sectors() {
	for file; do
		size=$(stat -c %s "$file")
		if [ "$size" = 0 ] || [ $((size % 512)) != 0 ]; then rm "$file"; fi
	done
}

# The same mutants give the same answers, whether they are files or blobs of a cache.
ask_the_cache() {
	"$MUTATE" --seed "$SEED" --count "$CACHED" "$MATRIX/xattrs-x1-4096" "$SOURCE" >"$TMP/lines" &&
		leave_sectors "$SOURCE"/* &&
		"$PROGRAMS/mutants" --seconds "$SECONDS_EACH" "$MNT" "$TMP/direct" "$SOURCE"/* &&
		find "$SOURCE" -name '*.device' -delete &&
		prepare >/dev/null && start_daemon &&
		"$PROGRAMS/mutants" --seconds "$SECONDS_EACH" --uuid --options "tag=$TAG" "$MNT" \
			"$TMP/cached" "$SOURCE"/* && stop_daemon &&
		diff "$TMP/direct.0" "$TMP/cached.0"
}

# Now and then, so that a long run is seen to go on.
told_at=$(date +%s) told_from=$(date +%s)
told() {
	[ "$(date +%s)" -ge $((told_at + 60)) ] || return 0
	told_at=$(date +%s)
	echo "# $1: $((next - SEED)) of $MUTANTS"
}

# answers WHO [ANSWER]: how many mounts had it.
answers() {
	awk -F '\t' -v wanted="${2:-.*}" '$3 == "mount" && $4 ~ "^(" wanted ")$" { n++ }
		END { print n + 0 }' "$TMP/$1"
}
memory() {
	drop_caches
	awk '/^(MemAvailable|SUnreclaim):/ { n[$1] = $2 }
		END { print n[name] }' name="$1:" /proc/meminfo
}
none_stays_mounted() { fails grep '	umount	' "$TMP/$1"; }

# Every line about a mutant, for the sake of its class.
follow_log() {
	[ "$COMPARE" = yes ] || return 0
	ratelimit=$(cat /proc/sys/kernel/printk_ratelimit)
	echo 0 >/proc/sys/kernel/printk_ratelimit
	dmesg -W >"$TMP/log" &
	follower=$!
}
end_log() {
	[ "$COMPARE" = yes ] || return 0
	echo "mutants: the end" >/dev/kmsg
	wait_for 60 grep -q 'mutants: the end' "$TMP/log" || return
	echo "$ratelimit" >/proc/sys/kernel/printk_ratelimit
	kill "$follower"
}

BASE_COUNT=0
for base in $BASES; do BASE_COUNT=$((BASE_COUNT + 1)); done

if [ "$COMPARE" = yes ]; then plan 9; else plan 6; fi
load_modules
follow_log
available=$(memory MemAvailable) slab=$(memory SUnreclaim)
# Not check: that would keep back what it says until the end.
if ask ours; then result=ok; else result=not_ok; fi
note "$(($(date +%s) - told_from)) s"
$result "every mutant is answered in time"
[ $result = ok ] || finish
check "mutants in a cache have the same answers" ask_the_cache
check "the log has its end" end_log
tried=$(answers ours) mounted=$(answers ours 0)
check "all were tried, some mounted, some refused" \
	test "$tried" = "$MUTANTS" -a "$mounted" -gt 0 -a "$mounted" -lt "$tried"
check "and could be unmounted" none_stays_mounted ours
# The debug kernel keeps some of what is freed, to see who uses it.
room=$((32768 * SLOW))
check "memory is given back" test "$(memory MemAvailable)" -gt $((available - room)) -a \
	"$(memory SUnreclaim)" -lt $((slab + room))

if [ "$COMPARE" = yes ]; then
	unload_erofs
	rmmod cachefiles_demand
	check "the kernel's own module can be loaded" load_stock_module
	if ask stock; then result=ok; else result=not_ok; fi
	$result "it answers, too"
	unload_erofs
	if awk -f "$HERE/mutants.awk" "$HERE/mutants.classes" "$TMP/changes" "$TMP/log" "$TMP/stock" "$TMP/ours" \
		>"$TMP/differences"; then result=ok; else result=not_ok; fi
	sed 's/^/# /' "$TMP/differences"
	$result "each difference is of a class that is known"
fi
note "mutants: $tried tried, $mounted mounted, $((tried - mounted)) refused"
finish
