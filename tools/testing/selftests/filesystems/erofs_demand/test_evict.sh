#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What nobody uses can be removed from a cache, and what is in use cannot; a disk that
# gets full makes the kernel ask for that, and in the end fetch nothing.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
plan 49

# A disk of its own, with blocks that are smaller than those that are fetched (T29).
DISK=$((96 * MiB)) OLD=$((32 * MiB))
make_disk() {
	truncate -s $DISK "$WORK/disk"
	modprobe -q loop || :
	mkfs.ext4 -q -b 1024 -m 0 "$WORK/disk" && mount -o loop "$WORK/disk" "$CACHE"
}
# Free space of it, in bytes and in per cent.
free_bytes() { stat -f -c '%a %S' "$CACHE" | awk '{ printf "%d\n", $1 * $2 }'; }
free_percent() { stat -f -c '%a %b' "$CACHE" | awk '{ printf "%d\n", $1 * 100 / $2 }'; }
# leave PERCENT: free, by a file that takes up the rest.
leave() {
	rm -f "$CACHE/ballast"
	# What was freed comes back with the next commit.
	sync
	left=$(stat -f -c '%b %S' "$CACHE" | awk -v percent="$1" '{ printf "%d", $1 * $2 * (percent + 0.5) / 100 }')
	fallocate -l $(($(free_bytes) - left)) "$CACHE/ballast" && sync &&
		equal "$(free_percent)" "$1"
}

# in_fan RESULT COMMAND BLOB: told from the folder that the blob's file is in.
in_fan() {
	(cd "$(dirname "$(cache_file "$3")")" && says "$1" "$2 D$3")
}
culls() { in_fan 0 cull "$1" && fails [ -e "$(cache_file "$1")" ]; }
told_from() { (cd "$1" && says "$2" "$3"); }
says_out() { [ "$(polled)" = "$1" ]; }
# Any setting makes the kernel look how much space there is.
look() { tell "linger 30"; }

make_disk
mkdir "$TMP/spare"
head -c $OLD /dev/urandom >"$TMP/spare/file"
make_image old.img "$TMP/spare"
for spare in spare stale.img bad.img; do head -c $MiB /dev/urandom >"$SOURCE/$spare"; done
make_images
"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" old.img bad.img >/dev/null
fan=$(dirname "$(cache_file data)")

# --- cull and inuse ----------------------------------------------------------------

bind_by_hand
mount_image one.img device=data
check "a blob that is mounted is in use" in_fan EBUSY inuse data
check "and cannot be culled" in_fan EBUSY cull data
check "a blob that is not mounted is not in use" in_fan 0 inuse spare
check "and can be culled" culls spare
check "a blob that is not there cannot be culled" told_from "$fan" ENOENT "cull Dspare"
check "nor be in use" told_from "$fan" ENOENT "inuse Dspare"
check "files that are not of the cache cannot be culled" told_from "$SOURCE" EINVAL "cull data"
check "nor asked for" told_from "$SOURCE" EINVAL "inuse data"
check "nor the root of the cache" told_from "$CACHE" EINVAL "cull cache"
check "names with a slash are refused" told_from "$fan" EINVAL "cull ../@00/Ddata"
check "so is the folder itself" told_from "$fan" EINVAL "cull ."
mkdir "$fan/Dfolder"
check "a folder cannot be culled" told_from "$fan" EISDIR "cull Dfolder"
check "it is still there" rmdir "$fan/Dfolder"
check "the other commands went nowhere: the source is there" test -f "$SOURCE/data"

# What a mount that failed has looked at.
setfattr -x user.CacheFiles.cache "$(cache_file stale.img)"
check "a mount of a stale file fails" \
	equal "$("$PROGRAMS/trymount" erofs "$MNT" "uuid=stale.img,tag=$TAG")" ESTALE
check "the file is not in use (T32)" wait_for 10 in_fan 0 inuse stale.img
check "and can be culled, so that it takes no space (T38)" culls stale.img
check "a mount of a blob that is no image fails" \
	equal "$("$PROGRAMS/trymount" erofs "$MNT" "uuid=bad.img,tag=$TAG")" EINVAL
check "the blob is not in use (T32)" wait_for 10 in_fan 0 inuse bad.img

before=$(free_bytes)
check "a blob that was mounted can be culled" eval 'mkdir "$TMP/old" &&
	mount_image old.img "" "$TMP/old" && cmp "$TMP/old/file" "$TMP/spare/file" &&
	umount "$TMP/old" && wait_for 10 in_fan 0 inuse old.img && culls old.img'
freed() { sync && [ $(($(free_bytes) - before)) -ge "$OLD" ]; }
check "its space is free (T35)" wait_for 10 freed
check "a blob that was culled cannot be mounted" \
	equal "$("$PROGRAMS/trymount" erofs "$TMP/old" "uuid=old.img,tag=$TAG")" ENOENT
umount "$MNT"
close_device
wait_for 10 fails cache_bound

# --- limits ---------------------------------------------------------------------------

prepare old.img >/dev/null
"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" old.img >/dev/null
limits="brun 50%:bcull 30%:bstop 10%"
IFS=:
# shellcheck disable=SC2086 # a list
bind_by_hand $limits
unset IFS
mount_image one.img device=data
leave 31
check "above the limit the device does not ask to cull" wait_for 5 says_out ''
leave 29
check "below it it does" wait_for 5 says_out out
check "the tables say so" column_is caches culling 1
check "what is missing can still be fetched" eval \
	'start_reader && equal "$(polled)" "in out" && take_request && serve "$id" "$off" "$len" && reader_right'
leave 40
look
check "it goes on until there is as much space as it wants" says_out out
leave 29
check "culling makes space" eval 'culls old.img && sync && [ "$(free_percent)" -ge 50 ]'
check "then it ends" wait_for 5 says_out ''
check "the tables say so" column_is caches culling 0

leave 9
wait_for 5 says_out out
check "below stop the tables say so" column_is caches stopped 1
fresh_range
check "and what is missing gives ENOSPC at once" fails_soon 'No space left on device'
check "nothing is asked for" fails take_request
check "the log says why" kernel_log_has "file \"Ddata\": no space is left to fetch $BLOCK bytes at ${range%+*}"
range=0+$MiB
check "what is present is read" reads_right
rm "$CACHE/ballast"
sync
look
check "when there is space again what is missing is fetched" eval \
	'start_reader && take_request && serve "$id" "$off" "$len" && reader_right'
close_device

# --- demandd culls ------------------------------------------------------------------------

prepare old.img >/dev/null
"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" old.img >/dev/null
leave 29
start_daemon --brun 50% --bcull 30% --bstop 10%
check "demandd culls what is not mounted" wait_for 20 eval '[ ! -e "$(cache_file old.img)" ]'
check "and nothing else" eval '[ -e "$(cache_file data)" ] && [ -e "$(cache_file one.img)" ]'
check "until there is space" column_becomes 10 caches culling 0
umount "$MNT"
stop_daemon
wait_for 10 fails cache_bound

# --- demandd keeps to a size --------------------------------------------------------------

rm -f "$CACHE/ballast"
prepare old.img >/dev/null
"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" old.img >/dev/null
# Mounted first: what is not may be culled as soon as there is a limit.
start_daemon --cull off
mount_image one.img device=data
stop_daemon
start_daemon --cull off --limit-size $((OLD / 2))
check "demandd culls what takes more of the disk than it may" wait_for 20 eval '[ ! -e "$(cache_file old.img)" ]'
check "and no more than that" eval '[ -e "$(cache_file data)" ] && [ -e "$(cache_file one.img)" ]'
stop_daemon
prepare old.img >/dev/null
"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" old.img >/dev/null
start_daemon --cull off --limit-size 4K
check "with less than what is mounted takes, the rest goes" wait_for 20 eval '[ ! -e "$(cache_file old.img)" ]'
check "the daemon says that it is too much" \
	wait_for 20 grep -q 'more of the disk than they may, and nothing is left to cull' "$DAEMON_LOG"
check "what is mounted stays" eval '[ -e "$(cache_file data)" ] && [ -e "$(cache_file one.img)" ]'
fresh_range
check "and what is missing of it is fetched" reads_right
umount "$MNT"
stop_daemon
wait_for 10 fails cache_bound

# --- culling raced with mounting -------------------------------------------------------------
# The file is complete; a link to it takes the place of preparing it each time.

rm -f "$CACHE/ballast"
cp -r "$TMP/tree" "$TMP/small"
truncate -s $MiB "$TMP/small/file"
make_image race.img "$TMP/small"
prepare race.img >/dev/null
"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" race.img >/dev/null
file=$(cache_file race.img)
ln "$file" "$CACHE/race"
cull_for_ever() {
	cd "$(dirname "$file")"
	while [ -e "$TMP/racing" ]; do
		"$PROGRAMS/device" command "cull Drace.img" <&3
		# At one moment of a mount or the other.
		sleep "$(shuf -i 0-$((300 * SLOW)) -n 1)e-3"
	done
}
# Either it is mounted, and whole, or it is not there. For a while, and until both have
# happened, and culling was refused.
race() {
	end=$(($(date +%s) + 6 * SLOW)) enough=$(($(date +%s) + 60 * SLOW))
	while [ "$(date +%s)" -lt "$end" ] || ! everything_happened && [ "$(date +%s)" -lt "$enough" ]; do
		[ -e "$file" ] || ln "$CACHE/race" "$file"
		result=$("$PROGRAMS/trymount" erofs "$MNT" "uuid=race.img,tag=$TAG")
		echo "$result"
		case $result in
		0) cmp "$MNT/file" "$TMP/small/file" && umount "$MNT" || return 1 ;;
		ENOENT) ;;
		*) return 1 ;;
		esac
	done
}
happened() { grep -q -x "$1" "$2"; }
everything_happened() {
	happened 0 "$TMP/mounts" && happened ENOENT "$TMP/mounts" &&
		happened 0 "$TMP/culls" && happened EBUSY "$TMP/culls"
}

bind_by_hand
: >"$TMP/racing"
cull_for_ever >"$TMP/culls" &
check "a mount that races with culling has the file, whole, or has ENOENT (T34)" eval 'race >"$TMP/mounts"'
rm "$TMP/racing"
wait $!
note "mounts: $(sort "$TMP/mounts" | uniq -c | xargs), culls: $(sort "$TMP/culls" | uniq -c | xargs)"
check "it was mounted, it was culled, and could not be while it was mounted" everything_happened
close_device
wait_for 10 fails cache_bound
check "nothing holds the disk (T34, T35)" wait_for 10 umount "$CACHE"
check "and it is in order" e2fsck -fn "$WORK/disk"
finish
