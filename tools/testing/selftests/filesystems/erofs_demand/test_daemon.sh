#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Whatever a daemon does, a reader gets right bytes or an error, and soon: it
# never gets zeros for what has not arrived, and never hangs.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
plan 49

# --- a daemon by hand ---------------------------------------------------------------

# answer_all COMMAND...: answers requests until the reader has ended; counts them.
answer_all() {
	taken=0
	wait_for 10 answer_or_end "$@"
}
answer_or_end() {
	while take_request; do
		taken=$((taken + 1))
		"$@" || return 1
	done
	reader_ended
}

# Answers that a good daemon does not give.
say_fail() { tell "fail $id $1"; }
say_done() { tell "done $id"; }
write_half() {
	half=$((len / BLOCK / 2))
	write_data "$off" $((half * BLOCK))
	say_done
}

# A reader misses once in readahead and once for itself, and then has its error.
at_most_two() { echo "$taken requests"; [ "$taken" -ge 1 ] && [ "$taken" -le 2 ]; }

# ------------------------------------------------------------------------------

make_images

start_daemon --linger 0 --delay-ms 60000
mount_image one.img device=data
start_reader
kill_daemon
check "a reader whose daemon is killed gets EIO at once" reader_gets 'Input/output error'
drop_caches
range=0+$MiB
check "without a daemon data that is present is read" reads_right
fresh_range
check "without a daemon data that is missing gives EIO at once" fails_soon 'Input/output error'
check "the log says that the daemon is gone" kernel_log_has "cache \"$TAG\": its daemon is gone"
start_daemon
check "a new daemon takes over, and the same data is read" reads_right
check "the log says so" kernel_log_has "cache \"$TAG\" on .*: taken over"

kill -STOP "$DAEMON"
start_reader
check "a reader waits for a daemon that is stopped" fails reader_ended
kill -CONT "$DAEMON"
check "and gets its data when the daemon goes on" eval 'wait_for 10 reader_ended && right_bytes'

cp "$SOURCE/data" "$TMP/whole"
truncate -s $MiB "$SOURCE/data"
fresh_range
check "a source that is cut off gives EIO" fails_soon 'Input/output error'
cat "$TMP/whole" >"$SOURCE/data"
check "data that could not be had is read once it can" reads_right

kill -TERM "$DAEMON"
check "demandd ends with success when it is told to" wait "$DAEMON"
DAEMON=''
check "its summary is right" eval 'tail -n 1 "$DAEMON_LOG" &&
	grep -q "^served $(grep -c done "$TRACE") requests, .* $(grep -c fail "$TRACE") failed$" "$DAEMON_LOG"'
mv "$DAEMON_LOG" "$DAEMON_LOG.ended"

# A request is pending in each of these, and nobody will answer it.
start_daemon --delay-ms 60000
start_reader
kill -KILL "$READER"
check "a reader that waits for the daemon can be killed (T10)" wait_for $SOON reader_ended
check "its mount can be unmounted while the request is pending" timeout $((10 * SLOW)) umount "$MNT"
kill_daemon
check "a cache that nobody uses goes with its daemon" wait_for 10 fails cache_bound

# --- answers -----------------------------------------------------------------

bind_by_hand "linger 0"
check "what is present is mounted without a request" eval 'mount_image one.img device=data && fails take_request'
for answer in "28 No space left on device" "110 Connection timed out" "13 Permission denied"; do
	start_reader
	answer_all say_fail "${answer%% *}"
	check "fail ${answer%% *}: the reader gets '${answer#* }'" reader_gets "${answer#* }"
	check "it costs no more than two requests" at_most_two
done
start_reader
answer_all say_done
check "done without data (T63): the reader gets EIO" reader_gets 'Input/output error'
check "it costs no more than two requests, and no loop" at_most_two
check "the log says what is missing" kernel_log_has "Ddata.*said done, but $BLOCK bytes at ${range%+*} are missing"
start_reader $((2 * BLOCK))
answer_all write_half
check "done with half of the data: the reader gets no zeros" \
	eval 'wait_for $SOON reader_ended && [ "$(stat -c %s "$TMP/got")" -lt $((2 * BLOCK)) ] &&
		"$PROGRAMS/readrange" "$TMP/tree/file" "$range" | cmp -n "$(stat -c %s "$TMP/got")" - "$TMP/got"'
range=${range%+*}+$BLOCK
check "the half that was written is present" reads_right
check "and takes no request" fails take_request

start_reader
wait_for 10 take_request
close_device
check "a request that a daemon took with it fails" reader_gets 'Input/output error'
check "the device can be opened again while mounted" bind_by_hand "linger 0"
check "an answer to the old request is refused" fails tell "done $id"
close_device
check "a mount without a daemon can be unmounted" timeout $((10 * SLOW)) umount "$MNT"
check "then its cache goes, too" wait_for 5 fails cache_bound

# --- unmounted ------------------------------------------------------------------------
# A request that is pending when its mount goes is given up, and nobody else's.

cp "$SOURCE/one.img" "$SOURCE/other.img"
cp "$SOURCE/data" "$SOURCE/other"
prepare other.img other >/dev/null
"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" other.img >/dev/null
mkdir "$TMP/other"
bind_by_hand "linger 0"
mount_image one.img device=data
mount_image other.img device=other "$TMP/other"
# ask_ahead FILE OFFSET
ask_ahead() { "$PROGRAMS/readrange" "$1" "$2+1" >/dev/null 2>&1 3>&- & }
ask_ahead "$TMP/other/file" $((8 * MiB))
OTHER=$!
wait_for 10 take_request
other_id=$id
kill -KILL $OTHER
start_reader
take_request
check "a mount can be unmounted while another one has readers" timeout $((10 * SLOW)) umount "$TMP/other"
check "an answer to it is refused, and does no harm (T24)" says EINVAL "done $other_id"
check "the other's reader still waits (T18)" reader_waits
check "and gets its data" eval 'serve "$id" "$off" "$len" && reader_right'
fresh_range
write_data "${range%+*}" $BLOCK
check "what a daemon wrote before anybody asked is read (T25)" reads_right
check "and takes no request" fails take_request

# What no daemon may do: it holds the cache file, and waits for what somebody has to write
# into that. To a block that is there: of a new one ext4 would keep zeros.
fresh_range
from=${range%+*}
"$PROGRAMS/write_from" "$MNT/file" "$from" "$(cache_file data)" 0 3>&- &
WRITER=$!
check "a daemon that fills a blob from a mapping of it waits for itself" wait_for 10 waits $WRITER
kill -KILL $WRITER
check "it can be killed" wait_for "$SOON" ended $WRITER
wait_for 10 take_request
check "then what it waited for can be served" eval 'serve "$id" "$off" "$len" && reads_right'

# Both have asked for something, and nobody waits for it any more.
mount_image one.img device=data,noacl "$TMP/other"
ask_ahead "$MNT/file" $((9 * MiB))
FIRST=$!
ask_ahead "$TMP/other/file" $((12 * MiB))
SECOND=$!
check "two volumes of a blob wait for the daemon" wait_for 10 eval 'waits $FIRST && waits $SECOND'
kill -KILL $FIRST $SECOND
wait_for 10 eval "ended $FIRST && ended $SECOND"
umount "$MNT" 3>&- &
FIRST=$!
umount "$TMP/other" 3>&- &
SECOND=$!
check "both can be unmounted at once" wait_for 10 eval "ended $FIRST && ended $SECOND"
check "nothing is left in the table" equal "$(column caches queued) $(column caches delivered)" "0 0"
close_device
wait_for 5 fails cache_bound

# --- memory -----------------------------------------------------------------------

start_daemon
check "what demandd writes from cannot be swapped out (T39)" \
	eval '[ "$(awk "/^VmLck:/ { print \$2 }" "/proc/$DAEMON/status")" -gt 0 ]'
stop_daemon

# --- the smallest daemon ---------------------------------------------------------

"$PROGRAMS/minimal_daemon" "$CACHE" "$TAG" "$SOURCE" >"$DAEMON_LOG" 2>&1 &
DAEMON=$!
check "the sample daemon binds its cache" wait_for 10 cache_bound
check "an image is mounted with it" mount_image one.img device=data
check "all bytes are right" cmp "$MNT/file" "$TMP/tree/file"
finish
