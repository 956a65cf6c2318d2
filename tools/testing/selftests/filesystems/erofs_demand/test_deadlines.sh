#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# How long readers wait is what the daemon said: for an answer, and for the next
# daemon when it is gone. Who waits for long is told of.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/by_hand.sh"

load_modules
plan 34

milliseconds() { date +%s%3N; }
# waited_at_least MILLISECONDS
waited_at_least() {
	now=$(milliseconds)
	echo "waited $((now - begun)) ms"
	[ $((now - begun)) -ge "$1" ]
}
serves_one() {
	start_reader && wait_for 10 take_request && serve "$id" "$off" "$len" && reader_right
}
hung_lines() { kernel_log | grep -c "file \"Ddata\": request $id for $BLOCK bytes at $off has no answer for 30 s"; }
older_than() { [ "$(column requests age_ms "$TAG/Ddata")" -gt "$1" ]; }

make_images

# --- too long without an answer: hung ----------------------------------------------

bind_by_hand "linger 2"
mount_image one.img device=data
start_reader
take_request
check "a request waits" column_is caches hung 0
check "after 30 s it is counted as hung" column_becomes 40 caches hung 1
check "not before" older_than 29999
wait_for 10 older_than 33000
check "it is counted once" column_is caches hung 1
check "and named in the log, once" equal "$(hung_lines)" 1
check "fdinfo of the device tells it" equal "$(awk '/^hung:/ { print $2 }' /proc/$$/fdinfo/3)" 1
check "its reader still waits" reader_waits
serve "$id" "$off" "$len"
check "and gets its data when the answer comes" reader_right

# --- no next daemon --------------------------------------------------------------------

start_reader
begun=$(milliseconds)
close_device
check "when no daemon comes a reader gets EIO in the end" \
	eval 'wait_for 10 reader_ended && reader_gets "Input/output error"'
check "but not before linger says so" waited_at_least 2000
check "the log says that no daemon has come" kernel_log_has "cache \"$TAG\": no new daemon has come"
check "the tables say that it is gone" column_is caches daemon gone
fresh_range
check "then what is missing gives EIO at once" fails_soon 'Input/output error'
range=0+$MiB
check "what is present is read" reads_right
bind_by_hand "linger 0"
check "a later daemon makes the mount whole again" serves_one
start_reader
begun=$(milliseconds)
close_device
check "with linger 0 a reader gets EIO when the device is closed" reader_gets 'Input/output error'

# --- unbind ------------------------------------------------------------------------------

bind_by_hand
start_reader
take_request
check "unbind is taken" says 0 unbind
check "all that waits gets EIO at once, though linger is 30 (T9)" reader_gets 'Input/output error'
check "an answer to it is refused" says EINVAL "done $id"
fresh_range
check "what is missing gives EIO at once" fails_soon 'Input/output error'
check "what is not bound cannot be unbound" says EINVAL unbind
check "the settings are gone" says EINVAL bind
check "the descriptor can bind the cache again" eval 'tell "dir $CACHE" && tell "tag $TAG" && tell bind'
check "and serve it" serves_one
umount "$MNT"
check "unbind without a mount is taken" says 0 unbind
check "the cache is gone" wait_for $SOON fails cache_bound
check "and can be bound again" eval 'tell "dir $CACHE" && tell "tag $TAG" && tell bind'
close_device
check "a cache without a mount does not linger" wait_for $SOON fails cache_bound

# --- timeout -----------------------------------------------------------------------------

bind_by_hand "timeout 1"
mount_image one.img device=data
begun=$(milliseconds)
start_reader
check "a reader that gets no answer gets ETIMEDOUT" \
	eval 'wait_for 20 reader_ended && reader_gets "Connection timed out"'
check "but not before timeout says so" waited_at_least 1000
check "its requests are out of the table" equal "$(column caches queued) $(column caches delivered)" "0 0"
check "and the device is not readable any more (T16)" equal "$(polled)" ''
check "timeout can be changed to never" says 0 "timeout 0"
check "an answer in time is taken" serves_one
finish
