// SPDX-License-Identifier: GPL-2.0
/*
 * A daemon that tells the truth, but is slow, answers in any order, writes more than
 * it was asked for and in odd pieces, forgets what it has read, and fails requests
 * while it may. Its answers come from files; it does not know what is in them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stress.h"

#define WORKERS 12
/* Requests that are read and not answered yet, at most. */
#define WINDOW 256
/* Records that one read(2) takes, at most. */
#define RECORDS 16
/* The largest pwrite(2). */
#define PIECE (1024 * 1024)
/* How far beyond a request is written at most, in blocks. */
#define BEYOND 64

static int device;

/* --- the window ----------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER, emptied = PTHREAD_COND_INITIALIZER;
static struct cachefiles_demand_req window[WINDOW];
static int waiting;

static void put(const struct cachefiles_demand_req *requests, int n)
{
	pthread_mutex_lock(&lock);
	while (waiting + n > WINDOW)
		pthread_cond_wait(&emptied, &lock);
	memcpy(window + waiting, requests, n * sizeof(*requests));
	waiting += n;
	shared->requests += n;
	pthread_cond_broadcast(&filled);
	pthread_mutex_unlock(&lock);
}

/* Any of them. */
static struct cachefiles_demand_req take(uint64_t *r)
{
	struct cachefiles_demand_req request;
	int i;

	pthread_mutex_lock(&lock);
	while (!waiting)
		pthread_cond_wait(&filled, &lock);
	i = rnd_below(r, waiting);
	request = window[i];
	memmove(window + i, window + i + 1, (--waiting - i) * sizeof(*window));
	shared->unordered += i > 0;
	pthread_cond_signal(&emptied);
	pthread_mutex_unlock(&lock);
	return request;
}

/* --- answers ---------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2))) static bool command(const char *format, ...)
{
	char text[CACHEFILES_DEMAND_COMMAND_MAX + 1];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return write(device, text, len) == len;
}

static const struct blob *find_blob(const char *name)
{
	int i, j;

	for (i = 0; i < world.nimages; i++)
		for (j = 0; j < world.images[i].nblobs; j++)
			if (name[0] == 'D' && !strcmp(world.images[i].blobs[j].name, name + 1))
				return &world.images[i].blobs[j];
	return NULL;
}

static void copy(int from, int to, unsigned char *buffer, uint64_t off, size_t len)
{
	ssize_t n, done;

	if (pread(from, buffer, len, off) != (ssize_t)len)
		die("cannot read the source");
	for (done = 0; done < (ssize_t)len; done += n) {
		n = pwrite(to, buffer + done, len - done, off + done);
		if (n <= 0)
			die("cannot write the cache file");
	}
}

/* Writes at least the range, in pieces of whole blocks, forwards or backwards. */
static void fill(uint64_t *r, const struct blob *blob, int from, int to, unsigned char *buffer,
		 uint64_t off, uint64_t len)
{
	uint64_t stop = off + len, before = 0, behind = 0, piece, start;
	bool backwards = one_in(r, 4);

	if (one_in(r, 4)) {
		before = rnd_below(r, BEYOND) * BLOCK;
		behind = rnd_below(r, BEYOND) * BLOCK;
	}
	off -= before < off ? before : off;
	stop = stop + behind < blob->size ? stop + behind : blob->size;
	while (off < stop) {
		piece = (1 + rnd_below(r, one_in(r, 2) ? PIECE / BLOCK : 8)) * BLOCK;
		if (piece > stop - off)
			piece = stop - off;
		if (backwards) {
			/* The last block of a blob may be shorter. */
			start = (stop - piece + BLOCK - 1) / BLOCK * BLOCK;
			copy(from, to, buffer, start, stop - start);
			stop = start;
		} else {
			copy(from, to, buffer, off, piece);
			off += piece;
		}
	}
}

static void answer(uint64_t *r, unsigned char *buffer, const struct cachefiles_demand_req *request)
{
	const struct blob *blob = find_blob(request->path);
	int from, to;
	bool taken;

	if (!blob || !request->len || request->off % BLOCK || request->off + request->len > blob->size ||
	    (request->len % BLOCK && request->off + request->len != blob->size)) {
		violation("a request that makes no sense: %llu bytes at %llu of %.255s",
			  (unsigned long long)request->len, (unsigned long long)request->off,
			  request->path);
		return;
	}
	/* A reader sees it if readahead and its own read fail, one after the other. */
	if (shared->failing && one_in(r, 3)) {
		shared->fails++;
		shared->last_fail_ms = now_ms();
		taken = command("fail %llu %d", (unsigned long long)request->id, EIO);
		shared->last_fail_ms = now_ms();
	} else {
		from = open(blob->source, O_RDONLY | O_CLOEXEC);
		to = open(blob->cache_file, O_WRONLY | O_CLOEXEC);
		if (from < 0 || to < 0)
			die("cannot open a blob");
		fill(r, blob, from, to, buffer, request->off, request->len);
		close(from);
		close(to);
		shared->fills++;
		taken = command("done %llu", (unsigned long long)request->id);
	}
	if (!taken) {
		/* Given up by an unmount, or answered: after a restore it is here twice. */
		shared->refused++;
		if (errno != EINVAL)
			violation("an answer is refused: %s", strerror(errno));
	}
}

static void *worker(void *seed)
{
	uint64_t r = (uintptr_t)seed;
	unsigned char *buffer = malloc(PIECE);
	struct cachefiles_demand_req request;

	if (!buffer)
		die("no memory");
	for (;;) {
		request = take(&r);
		if (one_in(&r, 100))
			sleep_ms(rnd_below(&r, 300));
		else if (one_in(&r, 2))
			sleep_ms(rnd_below(&r, 20));
		answer(&r, buffer, &request);
	}
}

/* --- its life ----------------------------------------------------------------------------- */

void chaotic_daemon(uint64_t seed)
{
	struct cachefiles_demand_req requests[RECORDS];
	struct pollfd pfd = { .events = POLLIN };
	uint64_t r = seed;
	pthread_t thread;
	ssize_t n;
	int i;

	device = open(CACHEFILES_DEMAND_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0 || !command("dir %s", world.root) || !command("tag %s", world.tag) ||
	    !command("bind"))
		die("cannot bind the cache");
	/* Requests larger than reads, for some. */
	if (one_in(&r, 3) && !command("granule %d", BLOCK << rnd_below(&r, 7)))
		die("cannot set the granule");
	for (i = 0; i < WORKERS; i++)
		if (pthread_create(&thread, NULL, worker, (void *)(uintptr_t)rnd(&r)))
			die("cannot start a thread");
	shared->serving = 1;
	for (pfd.fd = device;;) {
		if (poll(&pfd, 1, -1) < 0)
			die("cannot wait for requests");
		n = read(device, requests, (1 + rnd_below(&r, RECORDS)) * sizeof(*requests));
		if (n < 0 || n % sizeof(*requests))
			die("cannot read requests");
		if (n)
			put(requests, n / sizeof(*requests));
		if (one_in(&r, 30)) {
			if (!command("restore"))
				violation("restore: %s", strerror(errno));
			shared->restores++;
		}
	}
}
