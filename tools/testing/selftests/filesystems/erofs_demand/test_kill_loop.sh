#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# kill -9, again and again while readers wait for fetches: readers get right bytes and no error, nothing gets into the
# cache that is not verified, and what has been there stays.
#
# What a kill cannot take is what write(2) has taken: the process dies, its kernel does not. So after each kill every block
# that was present before is present still, and in the end all that was read is read again with neither daemon nor server.
# (What a loss of power may take is another question: power_cut.sh asks it.)
# The first of two servers has a wrong bit in every third chunk, so that there is something that must not get in.
#
# KILLS is how often (default 6).
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"
. "${0%/*}/web.sh"

KILLS=${KILLS:-6}
# Chunks that a daemon may fetch before it is killed, at most.
FETCHES=8
HERE=${0%/*}

need_network
load_modules
plan 12

# Each kill may take 32 chunks: FETCHES, and those that come until somebody looks.
make_input() {
	mkdir -p "$TMP/tree"
	for n in $(seq $((2 * KILLS))); do
		head -c "$MiB" /dev/urandom >"$TMP/tree/file$n" || return
	done
	DIGEST=$("$DEMANDD" image build "$TMP/tree" --name app --into "$SOURCE") || return
	cp -r "$SOURCE" "$TMP/wrong" || return
	python3 - "$TMP/wrong/app.blob" <<-'END'
		import os, sys
		with open(sys.argv[1], "r+b") as blob:
		    for at in range(1000, os.path.getsize(sys.argv[1]), 3 * 65536):
		        blob.seek(at)
		        byte = blob.read(1)[0]
		        blob.seek(at)
		        blob.write(bytes([byte ^ 1]))
	END
}

# begin_daemon LINGER [OPTION]...: with a new trace. The first source is that of lib.sh.
FIRST=8001 SECOND=8002
begin_daemon() {
	: >"$TRACE"
	SOURCE=http://$FAR:$FIRST
	start_daemon --linger "$@" --proxy none --source "http://$FAR:$SECOND"
}

delivered() {
	awk -v name="$TAG" '
		NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
		$NF == name { print $at["delivered"] }' /sys/kernel/debug/cachefiles_demand/caches
}
# has_served N: it has answered as many, and is at the next ones
has_served() { [ "$(requests)" -ge "$1" ] && [ "$(delivered)" -gt 0 ]; }
has_served_or_all() { has_served "$1" || ! readers_run; }
readers_run() { kill -0 "$READERS" 2>/dev/null; }

look() {
	python3 "$HERE/present.py" --manifest "$SERVED/app.manifest" --digest "$DIGEST" --cache "$CACHE/cache" "$@"
}

# One kill. Who is killed has requests that it has not answered.
kill_once() {
	has_to_serve=$(shuf -n 1 -i 1-$FETCHES)
	wait_for 60 has_served_or_all "$has_to_serve" || return
	readers_run || { echo "the readers have ended before kill $1"; return 1; }
	kill_daemon
	held=$(delivered)
	[ "$held" = 0 ] || BUSY=$((BUSY + 1))
	wrong_seen=$((wrong_seen + $(grep -c 'is wrong: its digest' "$(newest_log)" || :)))
	found=$(look --seen "$TMP/seen") || { echo "after kill $1: $found"; return 1; }
	note "kill $1: $held requests were without an answer; $found"
	case $found in *" 0 in part"*) ;; *) PARTLY=$((PARTLY + 1)) ;; esac
	begin_daemon 600
}
# end_daemon has moved it.
newest_log() { find "$WORK" -name 'demandd.log.*' | sort | tail -n 1; }

kill_loop() {
	for kill in $(seq "$KILLS"); do kill_once "$kill" || return; done
}
no_requests_left() { equal "$(delivered)" 0; }
readers_ended() { ! readers_run; }

check "an image can be made, and a copy of it with wrong bits" make_input
SERVED=$SOURCE
make_network
# So slow that each chunk takes a second, and a kill hits transfers: half of it comes at once.
start_server 8001 "$TMP/wrong" "limit_rate 32k;"
start_server 8002 "$SERVED" "limit_rate 32k;"
check "it is prepared" "$DEMANDD" prepare --root "$CACHE" --proxy none --source "http://$FAR:8002" --image "app@$DIGEST"
begin_daemon 600
check "it is mounted" mount_image app.img

BUSY=0 PARTLY=0 wrong_seen=0
python3 "$HERE/readers.py" "$TMP/tree" "$MNT" >"$TMP/readers" 2>&1 &
READERS=$!
# Not check: that would keep back what it says until the end.
if kill_loop; then result=ok; else result=not_ok; fi
$result "after each of $KILLS kills all that is present is right, and nothing is lost"
note "$BUSY of $KILLS daemons had requests without an answer; after $PARTLY kills chunks were there in part"
note "$wrong_seen wrong chunks were refused by those that were killed"
check "most of them were killed amid requests" [ $((BUSY * 2)) -gt "$KILLS" ]
check "they had wrong chunks to refuse" [ "$wrong_seen" -gt 0 ]

# The last one may hurry, however much is left.
stop_daemon
start_server 8003 "$TMP/wrong"
start_server 8004 "$SERVED"
FIRST=8003 SECOND=8004
begin_daemon 600 --workers 32
check "readers got right bytes, and no error" eval 'wait_for $((60 + 2 * KILLS)) readers_ended && wait "$READERS"'
note "$(tail -n 1 "$TMP/readers")"
check "no request is left" wait_for 10 no_requests_left
kill_daemon
stop_servers
check "then all is present and right" look --seen "$TMP/seen" --all

# Who misses something now fails at once.
umount "$MNT"
begin_daemon 0
check "it is mounted again, while no server is there" mount_image app.img
kill_daemon
drop_caches
check "every byte is read again without a daemon" python3 "$HERE/readers.py" --copies 1 "$TMP/tree" "$MNT"
check "which has taken no request" equal "$(requests)" 0
finish
