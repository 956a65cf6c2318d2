// SPDX-License-Identifier: GPL-2.0
/*
 * A daemon whose threads get into each other's way: all of them poll, read, fetch and
 * answer, while one has everything delivered again and again. It writes right bytes
 * only, and does not end as it should.
 *
 * usage: many_hands CACHE-ROOT TAG MILLISECONDS {unbind|close|exit} {CACHE-FILE SOURCE}...
 *
 * After that time it unbinds, closes the device or exits, its threads at work. The
 * status is 1 if the device could not be had, 2 if it gave an error that it must not.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/cachefiles_demand.h>

#define THREADS 4
#define BATCH 4

static int device, nblobs;
static struct {
	const char *name;
	int to, from;
} blobs[8];

static void die(int status, const char *what)
{
	fprintf(stderr, "many_hands: %s: %s\n", what, strerror(errno));
	_exit(status);
}

static int command(const char *format, const char *argument)
{
	char text[CACHEFILES_DEMAND_COMMAND_MAX + 1];
	int len = snprintf(text, sizeof(text), format, argument);

	return write(device, text, len) == len ? 0 : -1;
}

static int copy(int to, int from, __u64 off, __u64 len)
{
	static __thread char piece[256 * CACHEFILES_DEMAND_BLOCK];
	size_t size;

	for (; len; off += size, len -= size) {
		size = len < sizeof(piece) ? len : sizeof(piece);
		if (pread(from, piece, size, off) != (ssize_t)size ||
		    pwrite(to, piece, size, off) != (ssize_t)size)
			return -1;
	}
	return 0;
}

static void serve(const struct cachefiles_demand_req *request)
{
	char id[32];
	int i;

	snprintf(id, sizeof(id), "%llu", (unsigned long long)request->id);
	for (i = 0; i < nblobs; i++)
		if (!strcmp(blobs[i].name, request->path))
			break;
	if (i == nblobs || copy(blobs[i].to, blobs[i].from, request->off, request->len))
		die(2, "cannot fetch");
	/* EINVAL: another thread was faster, or the reader is gone, or we have unbound. */
	if (command("done %s", id) && errno != EINVAL && errno != EBADF)
		die(2, "cannot answer");
}

static void *work(void *arg)
{
	struct cachefiles_demand_req requests[BATCH];
	struct pollfd pfd = { .fd = device, .events = POLLIN };
	int n, i;

	for (;;) {
		if (poll(&pfd, 1, 10) < 0 || pfd.revents & POLLNVAL)
			return arg;
		n = read(device, requests, sizeof(requests));
		if (n < 0 && errno != EBADF)
			die(2, "cannot read");
		for (i = 0; i < n / (int)sizeof(requests[0]); i++)
			serve(&requests[i]);
	}
}

static void *deliver_again(void *arg)
{
	while (!command("restore", NULL))
		usleep(1000);
	return arg;
}

static void open_blobs(char **files)
{
	for (; files[0] && files[1] && nblobs < 8; files += 2) {
		blobs[nblobs].to = open(files[0], O_WRONLY);
		blobs[nblobs].from = open(files[1], O_RDONLY);
		if (blobs[nblobs].to < 0 || blobs[nblobs].from < 0)
			die(1, files[0]);
		blobs[nblobs++].name = basename(files[0]);
	}
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int i;

	if (argc < 7) {
		fprintf(stderr, "usage: many_hands CACHE-ROOT TAG MILLISECONDS "
				"{unbind|close|exit} {CACHE-FILE SOURCE}...\n");
		return 1;
	}
	open_blobs(argv + 5);
	device = open(CACHEFILES_DEMAND_DEVICE, O_RDWR);
	if (device < 0 || command("dir %s", argv[1]) || command("tag %s", argv[2]) ||
	    command("linger 1", NULL) || command("bind", NULL))
		die(1, "cannot bind the cache");
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&thread, NULL, work, NULL))
			die(1, "cannot make a thread");
	if (pthread_create(&thread, NULL, deliver_again, NULL))
		die(1, "cannot make a thread");

	usleep(atoi(argv[3]) * 1000);
	if (!strcmp(argv[4], "unbind") && command("unbind", NULL))
		die(2, "cannot unbind");
	if (!strcmp(argv[4], "close"))
		close(device);
	_exit(0);
}
