#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# `demandd mount` is all that a mount takes: it prepares, starts a daemon, mounts; what is missing it names.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

for server in nginx docker-registry; do
	command -v $server >/dev/null || skip_all "there is no $server"
done
load_modules
plan 28

# mount_verb TAG ARGUMENT...
mount_verb() {
	verb_tag=$1
	shift
	"$DEMANDD" mount --root "$CACHE" --source "$SOURCE" --tag "$verb_tag" "$@" 2>"$TMP/said"
}
umount_verb() { "$DEMANDD" umount "$@" 2>"$TMP/said"; }
# refused EXTENDED-REGEX COMMAND...: COMMAND fails, and says so.
refused() {
	refused_for=$1
	shift
	! "$@" || return 1
	cat "$TMP/said"
	grep -Eq -- "$refused_for" "$TMP/said"
}
is_mounted() { awk -v dir="$MNT" '$2 == dir { n++ } END { exit !n }' /proc/mounts; }

# A web server on this machine.
PORT=8071
start_server() {
	cat >"$TMP/nginx.conf" <<-END
		daemon off; master_process off; pid $TMP/pid;
		events { }
		http {
			access_log $TMP/access;
			client_body_temp_path $TMP/body; proxy_temp_path $TMP/proxy; fastcgi_temp_path $TMP/fastcgi;
			uwsgi_temp_path $TMP/uwsgi; scgi_temp_path $TMP/scgi;
			server { listen 127.0.0.1:$PORT; root $1; }
		}
	END
	ip link set lo up
	nginx -e "$TMP/error" -c "$TMP/nginx.conf" &
	SERVER=$!
	wait_for 20 answers
}
answers() { python3 -c "import socket; socket.create_connection(('127.0.0.1', ${1-$PORT}), 5)" 2>/dev/null; }

# A registry on this machine.
REGISTRY_PORT=8072
start_registry() {
	mkdir "$TMP/registry"
	cat >"$TMP/registry.yml" <<-END
		version: 0.1
		log:
		  level: error
		storage:
		  filesystem:
		    rootdirectory: $TMP/registry
		http:
		  addr: 127.0.0.1:$REGISTRY_PORT
		  secret: any
	END
	docker-registry serve "$TMP/registry.yml" >"$TMP/registry.log" 2>&1 &
	REGISTRY=$!
	wait_for 20 answers $REGISTRY_PORT
}

# The daemon that `demandd mount` has started: the one that serves our cache.
started_daemon() { pgrep -f -- "serve --root $CACHE "; }
end_started_daemon() {
	started_daemon | while read -r pid; do kill "$pid"; done
	wait_for 20 fails started_daemon
}
SERVER='' REGISTRY=''
at_exit() {
	at_exit_status=$?
	set +e
	umount "$MNT" 2>/dev/null
	end_started_daemon
	for server in $SERVER $REGISTRY; do
		kill -9 "$server"
		wait "$server"
	done 2>/dev/null
	(exit "$at_exit_status")
	cleanup
}
trap at_exit EXIT

mkdir "$TMP/tree"
head -c 300000 /dev/urandom >"$TMP/tree/file"
head -c 300000 /dev/urandom >"$TMP/tree/other"
# An image whose data is in a second blob, which it names.
: >"$SOURCE/app.blob"
make_image app.img "$TMP/tree" --chunksize=65536 --blobdev="$SOURCE/app.blob"
"$DEMANDD" image stamp "$SOURCE/app.img" app.blob >/dev/null
head -c 65536 /dev/urandom >"$SOURCE/noise.img"

# Nothing is there but a place that has images: a directory, and a web server.
mkdir "$TMP/place" "$TMP/far"
DIGEST=$("$DEMANDD" image build "$TMP/tree" --name dir --into "$TMP/place")
WEB_DIGEST=$("$DEMANDD" image build "$TMP/tree" --name web --into "$TMP/far")
OTHER=sha256:$(printf '%064d' 4)
start_server "$TMP/far"
mount_place() {
	"$DEMANDD" mount --root "$CACHE" --tag "$TAG" --proxy none "$1" "$MNT" 2>"$TMP/said" || { cat "$TMP/said"; return 1; }
}
with_another_daemon() {
	start_daemon --proxy none &&
		mount_place "http://127.0.0.1:$PORT/web@$WEB_DIGEST" &&
		cmp "$MNT/other" "$TMP/tree/other" &&
		umount "$MNT" &&
		[ "$(requests web.blob)" -gt 0 ] || return 1
	stop_daemon
}
check "an image of a directory is mounted, and all that takes is started" mount_place "$TMP/place/dir@$DIGEST"
check "its file has the right content" cmp "$MNT/file" "$TMP/tree/file"
umount "$MNT"
check "one of a web server is mounted with the daemon that runs" mount_place "http://127.0.0.1:$PORT/web@$WEB_DIGEST"
check "it is the same one" [ "$(started_daemon | wc -l)" = 1 ]
check "its file has the right content, too" cmp "$MNT/file" "$TMP/tree/file"
check "only ranges of its blobs were asked for" fails grep -E '"GET /web.(img|blob) HTTP/1.1" 200' "$TMP/access"
umount "$MNT"
start_registry
IMAGE="oci://127.0.0.1:$REGISTRY_PORT/apps/app:1 plain-http=true"
"$DEMANDD" image build "$TMP/tree" --name pushed --into "$TMP/far" >/dev/null
check "an image is pushed to a registry" \
	"$DEMANDD" image push "$TMP/far" --name pushed --to "$IMAGE" --proxy none
check "and mounted by its address there" mount_place "$IMAGE"
check "its file has the right content, too" cmp "$MNT/other" "$TMP/tree/other"
umount "$MNT"
check "another digest is refused" refused 'another image, or damaged' mount_place "http://127.0.0.1:$PORT/web@$OTHER"
check "the log of the daemon is for its owner" [ "$(stat -c %a "$CACHE/demandd.log")" = 600 ]
end_started_daemon
check "a daemon with another source fetches from there, too" with_another_daemon

# The daemon serves a cache that has something else.
prepare noise.img >/dev/null
check "without a source no daemon can be started" \
	refused 'no daemon serves a cache: start it' mount_place noise.img
start_daemon
unload_erofs
check "blobs are prepared, the module is loaded, the image is mounted" mount_verb "$TAG" app.img "$MNT"
check "the module is there" [ -d /sys/module/erofs ]
check "its file has the right content" cmp "$MNT/file" "$TMP/tree/file"
check "it is mounted from the cache that was named" grep -q "^none $MNT erofs .*tag=$TAG" /proc/mounts

exec 4<"$MNT/file"
check "what is in use is not unmounted" refused 'something is in use there' umount_verb "$MNT"
exec 4<&-
check "else it is" umount_verb "$MNT"
check "then it is gone" fails is_mounted
check "once is enough" refused 'nothing is mounted on' umount_verb "$MNT"
check "other file systems are left alone" refused 'is tmpfs, not an image' umount_verb /tmp

check "other blobs can be named, and options given" mount_verb "$TAG" --blob app.blob -o noacl app.img "$MNT"
umount_verb "$MNT"
check "what has no table of blobs is no image" \
	refused 'not an EROFS image' mount_verb "$TAG" noise.img "$MNT"
check "when the kernel refuses, its log is pointed at" \
	refused 'make no sense; the kernel.s log says what' mount_verb "$TAG" --blob app.blob noise.img "$MNT"
check "it has the reason" kernel_log_has 'not an EROFS image'
check "another tag has no daemon" \
	refused 'no daemon serves a cache "other"; there is: ' mount_verb other app.img "$MNT"
rm "$CACHE"/cache/Ierofs/@*/Dapp.blob
mv "$SOURCE/app.blob" "$TMP"
check "a blob that nobody has is named" refused '"app.blob" is not prepared' mount_verb "$TAG" app.img "$MNT"
finish
