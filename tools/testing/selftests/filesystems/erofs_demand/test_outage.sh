#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A web server that is away for a while costs only waiting, whichever way it is away: readers get right bytes and no
# error, and go on soon after it is back.
#
# Soon is: the daemon leaves a source that fails alone for at most half as long again as it has been away, and never
# longer than 22.5 s (15 s and up to a half more); an attempt that began before may take what --source-silence says; then
# the same is fetched as at any other time.
#
# OUTAGE is how long, in seconds (default 4; with more than 80, readers give up, since --source-timeout is 120).
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/web.sh"

OUTAGE=${OUTAGE:-4}
SILENCE=2
HERE=${0%/*}

need_network
load_modules
plan 14

make_input() {
	for kind in usual killed stopped unreachable; do
		mkdir -p "$TMP/tree/$kind" || return
		for n in 1 2 3 4; do head -c $((MiB / 2)) /dev/urandom >"$TMP/tree/$kind/$n" || return; done
	done
	DIGEST=$("$DEMANDD" image build "$TMP/tree" --name app --into "$SOURCE")
}

# The server goes away, and comes back.
away_killed() { stop_servers; }
back_killed() { start_server 8001 "$SERVED"; }
away_stopped() { kill -STOP "$server"; }
back_stopped() { kill -CONT "$server"; }
away_unreachable() { ip -n far address del "$FAR/24" dev far0; }
back_unreachable() { ip -n far address add "$FAR/24" dev far0; }

read_all() { python3 "$HERE/readers.py" --threads 8 "$TMP/tree/$1" "$MNT/$1"; }

usual() {
	began=$(milliseconds)
	read_all usual || return
	usual_ms=$(($(milliseconds) - began))
	echo "it takes $usual_ms ms"
}

# In milliseconds, after the server is back.
bound() {
	pause=$(((came - went) * 3 / 2 + 300))
	[ "$pause" -lt 22500 ] || pause=22500
	# Twice, and a second: other programs may run on this machine.
	echo $((pause + SILENCE * 1000 + 2 * usual_ms + 1000 * SLOW))
}

readers_run() { kill -0 "$READERS" 2>/dev/null; }
readers_ended() { ! readers_run; }
# How often the daemon has said that the server fails.
failures() { grep -c '8001/ fails: ' "$DAEMON_LOG"; }
fails_again() { [ "$(failures)" -gt "$failed_before" ]; }

# outage KIND: readers begin when the server is away.
outage() {
	failed_before=$(failures || :)
	"away_$1" || return
	went=$(milliseconds)
	read_all "$1" >"$TMP/read" 2>&1 &
	READERS=$!
	wait_for 20 fails_again || return
	left=$((OUTAGE * 1000 - $(milliseconds) + went))
	[ "$left" -le 0 ] || sleep "$((left / 1000)).$(printf %03d $((left % 1000)))"
	readers_run || { cat "$TMP/read"; return 1; }
	# From here on an attempt can go well.
	came=$(milliseconds)
	"back_$1" || return
	back=$(milliseconds)
	wait_for 200 readers_ended || return
	took=$(($(milliseconds) - back))
	echo "away for $(((came - went) / 1000)) s; then all was read in $took ms"
}
readers_right() {
	cat "$TMP/read"
	wait "$READERS"
}
in_time() {
	echo "$took ms, at most $(bound)"
	[ "$took" -le "$(bound)" ]
}

check "an image can be made" make_input
SERVED=$SOURCE
make_network
start_server 8001 "$SERVED"
SOURCE=http://$FAR:8001
"$DEMANDD" prepare --root "$CACHE" --proxy none --source "$SOURCE" --image "app@$DIGEST" >/dev/null
start_daemon --proxy none --source-silence $SILENCE --workers 8
check "it is mounted" mount_image app.img
check "readers get right bytes" usual
for kind in killed stopped unreachable; do
	check "a server that is $kind is waited for" outage $kind
	check "readers get right bytes, and no error" readers_right
	check "they have them soon after it is back" in_time
done
check "the daemon says each time that it answers again" \
	equal "$(grep -c '8001/ answers again' "$DAEMON_LOG")" "$(failures)"
check "no request has failed" fails grep -q 'fail' "$TRACE"
finish
