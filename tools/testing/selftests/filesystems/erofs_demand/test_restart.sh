#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A daemon can be killed, restarted and replaced while readers wait: they get their
# data from whoever comes next, and no error.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
plan 36

daemon_gone() { ended "$DAEMON"; }
stay() { equal "$(waiting_readers)" "$1"; }
taken() { equal "$ids" "$1"; }
# Nobody answers a request twice, nor one that is not his.
refused() { for id; do says EINVAL "done $id" || return 1; done; }

make_images

# --- killed ------------------------------------------------------------------
# Caches wait for their next daemon so long that a slow machine does not matter.

start_daemon --linger 600 --delay-ms 60000
mount_image one.img device=data
start_readers 4
kill -KILL "$DAEMON"
check "a daemon that is killed is gone at once, though readers wait (T21)" \
	wait_for $SOON daemon_gone
kill_daemon
check "its cache waits for another one" column_becomes $SOON caches daemon lingering
check "the log says so" kernel_log_has "cache \"$TAG\": its daemon is gone; what is missing waits"
check "the readers still wait" stay 4
range=0+$MiB
check "data that is present is read meanwhile" reads_right
start_daemon
check "the next daemon gives them their data, and no error" readers_right
check "the log says that it took over" kernel_log_has "cache \"$TAG\" on .*: taken over"
check "all requests were answered" column_is caches failed 0
stop_daemon

# --- the same requests, the same ids ---------------------------------------------

bind_by_hand "linger 600"
start_readers 3
take_all
ids_before=$ids
check "three readers make three requests" equal "$(wc -l <"$TMP/taken")" 3
tell restore
take_all
check "restore delivers them again, in the same order and with the same ids (T2)" \
	taken "$ids_before"
tail -n +2 "$TMP/taken" >"$TMP/rest"
sed -i 1q "$TMP/taken"
check "one of them is answered" serve_taken
tell restore
take_all
check "restore then delivers the other two" cmp "$TMP/taken" "$TMP/rest"

close_device
bind_by_hand "linger 600"
check "when the device is closed and opened their readers still wait" stay 2
# shellcheck disable=SC2046 # ids
check "the next daemon cannot answer what it has not read (T5)" \
	refused $(cut -d ' ' -f 1 "$TMP/rest")
take_all
check "it reads the same two" cmp "$TMP/taken" "$TMP/rest"
check "and answers them with the ids of the daemon before (T14)" serve_taken
check "all three readers have the right data" readers_right
# shellcheck disable=SC2086 # ids
check "no answer is taken twice, from whomever (T2)" refused $ids_before

fresh_range
next_range=$((next_range + 32 * 16 * BLOCK))
check "of threads that answer a request together one is believed (T2)" \
	equal "$("$PROGRAMS/answer_together" "$MNT/file" "${range%+*}" 32 <&3)" \
	"requests 32, believed 32, refused $((32 * 7))"
check "nothing is left in the table" equal "$(column caches queued) $(column caches delivered)" "0 0"

# --- mounts while there is no daemon -------------------------------------------------

cp "$SOURCE/one.img" "$SOURCE/two.img"
prepare two.img >/dev/null
mkdir "$TMP/again" "$TMP/two"
start_reader
close_device
check "without a daemon what is present can be mounted" mount_image one.img device=data "$TMP/again"
mount_image two.img device=data "$TMP/two" 2>"$TMP/mount" &
MOUNTING=$!
check "a mount of what is missing waits for the next daemon" \
	wait_for 10 eval '[ "$(column caches queued)" -ge 2 ]'
check "it still waits" fails ended $MOUNTING
# As a service with a private /tmp has it: the same directory, but another mount.
printf '#!/bin/sh\nexec unshare --mount "%s" "$@"\n' "$DEMANDD" >"$TMP/sandboxed"
chmod +x "$TMP/sandboxed"
DEMANDD_BEFORE=$DEMANDD DEMANDD=$TMP/sandboxed
check "a daemon in a mount namespace of its own takes the cache over" start_daemon --linger 600
DEMANDD=$DEMANDD_BEFORE
check "that one makes it succeed" wait $MOUNTING
check "its file is right" cmp -n $((2 * MiB)) "$TMP/two/file" "$TMP/tree/file"
check "so is what a reader waited for" reader_right
umount "$TMP/two"

kill -STOP "$DAEMON"
start_reader
kill_daemon
kill -KILL "$READER"
check "a reader that waits for the next daemon can be killed (T10)" wait_for $SOON reader_ended
check "what it asked for waits on" equal "$(column caches queued) $(column caches delivered)" "1 0"

# --- another cache beside it -----------------------------------------------------------

prepare_other() {
	mkdir "$WORK/other"
	cp -a "$CACHE/cache" "$WORK/other/"
	sync
}
prepare_other
CACHE_BEFORE=$CACHE TAG_BEFORE=$TAG CACHE=$WORK/other TAG=other
start_daemon
check "a daemon can bind another cache beside it" column_becomes $SOON caches daemon connected
check "a mount asks for that by its tag, and gets it (T48)" mount_image one.img device=data "$TMP/two"
check "and reads right from it" cmp -n $((2 * MiB)) "$TMP/two/file" "$TMP/tree/file"
umount "$TMP/two"
stop_daemon
check "it goes with its daemon" wait_for 10 fails cache_bound
CACHE=$CACHE_BEFORE TAG=$TAG_BEFORE
check "the first cache still waits" column_is caches daemon lingering

check "its mounts can be unmounted at once, with a request in the table (T12)" \
	eval 'timeout 10 umount "$TMP/again" && timeout 10 umount "$MNT"'
check "then it goes, without waiting for a daemon" wait_for $SOON fails cache_bound
finish
