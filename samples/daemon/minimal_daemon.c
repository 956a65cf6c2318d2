// SPDX-License-Identifier: GPL-2.0
/*
 * The smallest daemon that works: it serves one request at a time from a
 * directory in which every blob is a file of the blob's name.
 *
 *	minimal_daemon ROOT TAG SOURCE [DEVICE]
 *
 * ROOT must have been prepared (`demandd prepare --root ROOT --source SOURCE ...`).
 * It may be killed and started again: the kernel gives the next daemon what has no
 * answer. It has no eviction: it does not ask poll() for POLLOUT.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/cachefiles_demand.h>

static int device;

static void die(const char *what)
{
	fprintf(stderr, "minimal_daemon: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* One write is one command. The newline may be left out on the real device. */
__attribute__((format(printf, 1, 2))) static int command(const char *format, ...)
{
	char text[CACHEFILES_DEMAND_COMMAND_MAX + 1];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (len < 0 || (size_t)len >= sizeof(text)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return write(device, text, len) == len ? 0 : -1;
}

/*
 * A record does not say in which of the 256 fan directories the file lies:
 * computing it takes the key's hash (see demandd), trying them all does not.
 */
static int open_cache_file(const char *root, const char *name)
{
	char path[4096];
	int fan, fd;

	for (fan = 0; fan < 256; fan++) {
		if (snprintf(path, sizeof(path), "%s/cache/Ierofs/@%02x/%s", root, fan,
			     name) >= (int)sizeof(path)) {
			errno = ENAMETOOLONG;
			return -1;
		}
		fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd >= 0 || errno != ENOENT)
			return fd;
	}
	return -1;
}

/*
 * Copy a range in pieces that are whole blocks: each piece is complete before any
 * of it is written, because a block that is partly written counts as present.
 */
static int copy(int from, int to, __u64 off, __u64 len)
{
	static char piece[64 * CACHEFILES_DEMAND_BLOCK];
	size_t want, have;
	ssize_t n;

	for (; len; off += want, len -= want) {
		want = len < sizeof(piece) ? len : sizeof(piece);
		for (have = 0; have < want; have += n) {
			n = pread(from, piece + have, want - have, off + have);
			if (n <= 0)	/* 0: the source is too short */
				return EIO;
		}
		for (have = 0; have < want; have += n) {
			n = pwrite(to, piece + have, want - have, off + have);
			if (n <= 0)
				return errno == ENOSPC ? ENOSPC : EIO;
		}
	}
	return 0;
}

static int fetch(const char *root, const char *source, const struct cachefiles_demand_req *req)
{
	char path[4096];
	int from, to, error = EIO;

	/* "D" and the blob's name; other names are encoded, which demandd knows. */
	if (req->path[0] != 'D' || strchr(req->path, '/') ||
	    snprintf(path, sizeof(path), "%s/%s", source, req->path + 1) >= (int)sizeof(path))
		return EIO;
	from = open(path, O_RDONLY | O_CLOEXEC);
	to = open_cache_file(root, req->path);
	if (from >= 0 && to >= 0)
		error = copy(from, to, req->off, req->len);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return error;
}

int main(int argc, char **argv)
{
	struct cachefiles_demand_req req;
	struct pollfd pfd = { .events = POLLIN };
	int n, error;

	if (argc < 4 || argc > 5) {
		fprintf(stderr, "usage: minimal_daemon ROOT TAG SOURCE [DEVICE]\n");
		return 2;
	}
	device = open(argc == 5 ? argv[4] : CACHEFILES_DEMAND_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0)
		die("cannot open the device");
	if (command("dir %s\n", argv[1]) || command("tag %s\n", argv[2]) || command("bind\n"))
		die("cannot bind the cache");

	for (pfd.fd = device;;) {
		if (poll(&pfd, 1, -1) < 0)
			die("cannot wait for requests");
		while ((n = read(device, &req, sizeof(req))) == (int)sizeof(req)) {
			error = fetch(argv[1], argv[3], &req);
			/* EINVAL: nobody waits any more, after an unmount. */
			if ((error ? command("fail %llu %d\n", req.id, error) :
				     command("done %llu\n", req.id)) && errno != EINVAL)
				die("cannot answer");
		}
		if (n)	/* 0: nothing waits any more */
			die("cannot read a request");
	}
}
