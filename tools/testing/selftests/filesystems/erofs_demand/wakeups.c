// SPDX-License-Identifier: GPL-2.0
/*
 * A daemon that sleeps is woken by everything that gives it something to read, also
 * by edges alone; and what it then reads is the oldest first. Who waits for something
 * else goes on sleeping.
 *
 * usage: wakeups CACHE-ROOT TAG FILE
 *
 * FILE is on a mount that uses the cache TAG in CACHE-ROOT, which has no daemon; its
 * last MiB is missing, and stays so: all requests are made to fail.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/cachefiles_demand.h>

#include "ktap.h"

#define BLOCK CACHEFILES_DEMAND_BLOCK
#define RECORD sizeof(struct cachefiles_demand_req)
#define PLAN 29
#define PATIENCE_MS 10000
#define MANY 16

static const char *root, *tag;
static int device, edges, file;
static off_t first_block, next_block;
static struct cachefiles_demand_req records[MANY];

/* 0 or the error. */
static long command(const char *format, const char *argument)
{
	char text[CACHEFILES_DEMAND_COMMAND_MAX + 1];
	int len = snprintf(text, sizeof(text), format, argument);

	return write(device, text, len) == len ? 0 : -errno;
}

static void open_and_watch(void)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };

	device = open(CACHEFILES_DEMAND_DEVICE, O_RDWR | O_CLOEXEC);
	edges = epoll_create1(EPOLL_CLOEXEC);
	if (device < 0 || edges < 0 || epoll_ctl(edges, EPOLL_CTL_ADD, device, &event))
		die("cannot watch the device");
}

static void bind_cache(void)
{
	if (command("dir %s", root) || command("tag %s", tag) || command("bind", NULL))
		die("cannot bind the cache");
}

static void close_device(void)
{
	close(edges);
	close(device);
}

/* Whether there is an edge within so many milliseconds, for something to read. */
static long edge(int timeout)
{
	struct epoll_event event = { 0 };

	return epoll_wait(edges, &event, 1, timeout) > 0 && event.events == EPOLLIN;
}

/* What poll(2) says now, asked anew. */
static long readable(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	int level = epoll_create1(EPOLL_CLOEXEC);
	long n;

	if (level < 0 || epoll_ctl(level, EPOLL_CTL_ADD, device, &event))
		die("cannot ask the device");
	n = epoll_wait(level, &event, 1, 0);
	close(level);
	return n;
}

/* Makes a request: asks for a block that is missing, and does not wait for it. */
static void want(void)
{
	errno = posix_fadvise(file, next_block, BLOCK, POSIX_FADV_WILLNEED);
	if (errno)
		die("cannot ask for a block");
	/* Far from it, so that requests do not merge. */
	next_block += 16 * BLOCK;
}

/* How many records a read takes, into `records` from `at` on. */
static long take(int at, int n)
{
	ssize_t size = read(device, records + at, n * RECORD);

	return size < 0 ? -errno : size / (long)RECORD;
}

static void fail_all(int n)
{
	char text[64];

	while (n--) {
		snprintf(text, sizeof(text), "%llu", (unsigned long long)records[n].id);
		if (command("fail %s 5", text))
			die("cannot answer");
	}
}

static long ids_grow(int n)
{
	while (--n > 0)
		if (records[n].id <= records[n - 1].id)
			return 0;
	return 1;
}

static void check_edges(void)
{
	void *nowhere = mmap(NULL, BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	want();
	check("a request wakes (T17)", edge(PATIENCE_MS), 1);
	want();
	check("so does another one, though none was read", edge(PATIENCE_MS), 1);
	check("an edge is told once", edge(0), 0);
	check("a read that cannot store fails", read(device, nowhere, BLOCK) < 0 ? errno : 0, EFAULT);
	check("what it has put back wakes (T17)", edge(PATIENCE_MS), 1);
	check("both requests are read", take(0, MANY), 2);
	check("restore is taken", command("restore", NULL), 0);
	check("what is restored wakes (T17)", edge(PATIENCE_MS), 1);
	check("both requests are read again", take(0, MANY), 2);
	close_device();

	open_and_watch();
	check("a device without a cache gives no edge", edge(0), 0);
	bind_cache();
	check("what is taken over wakes (T17)", edge(PATIENCE_MS), 1);
	check("both requests are read by the new daemon", take(0, MANY), 2);
	fail_all(2);
	check("restore with nothing to restore is taken", command("restore", NULL), 0);
	check("and gives no edge", edge(0), 0);
}

static void check_agreement(void)
{
	check("nothing pending: poll says no (T16)", readable(), 0);
	check("and there is nothing", take(0, MANY), 0);
	want();
	check("one request: poll says yes (T16)", readable(), 1);
	check("and there is one", take(0, MANY), 1);
	check("only delivered ones: poll says no (T16)", readable(), 0);
	check("and there is nothing", take(1, MANY - 1), 0);
	if (command("restore", NULL))
		die("cannot restore");
	check("after restore poll says yes (T16)", readable(), 1);
	check("and there is one", take(0, MANY), 1);
	fail_all(1);
}

/* A daemon that takes one request at a time, while there are always newer ones. */
static void check_order(void)
{
	int i;

	for (i = 0; i < 4; i++)
		want();
	for (i = 0; i < 8; i++) {
		if (take(i, 1) != 1)
			die("no request came");
		if (i < 4)
			want();
	}
	check("the oldest is delivered first, however many come (T20)", ids_grow(8), 1);
	if (command("restore", NULL))
		die("cannot restore");
	want();
	check("one read takes all that there are", take(0, MANY), 9);
	check("old ones that were restored come before a new one (T20)", ids_grow(9), 1);
	fail_all(9);
}

/* A thread that waits until files have to be culled. */
static struct {
	pthread_t thread;
	pid_t tid;
	long told;
} culler;

static void *wait_to_cull(void *unused)
{
	struct epoll_event event = { .events = EPOLLOUT };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, device, &event))
		die("cannot wait for culling");
	__atomic_store_n(&culler.tid, gettid(), __ATOMIC_RELEASE);
	if (epoll_wait(epoll, &event, 1, -1) == 1)
		culler.told = event.events == EPOLLOUT;
	close(epoll);
	return unused;
}

/* A line of what the kernel shows of the thread, from behind the name on. */
static void about_culler(const char *name, char *value, int size)
{
	pid_t tid = __atomic_load_n(&culler.tid, __ATOMIC_ACQUIRE);
	char path[64], line[256];
	FILE *status;

	*value = 0;
	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	status = tid ? fopen(path, "r") : NULL;
	if (!status)
		return;
	while (fgets(line, sizeof(line), status))
		if (!strncmp(line, name, strlen(name)))
			snprintf(value, size, "%s", line + strlen(name));
	fclose(status);
}

/* How often the thread has gone to sleep; tells when it sleeps. */
static long sleeps(void)
{
	char value[256];

	do
		about_culler("State:", value, sizeof(value));
	while (!strstr(value, "sleeping"));
	about_culler("voluntary_ctxt_switches:", value, sizeof(value));
	return atol(value);
}

static void check_culler(void)
{
	struct timespec until;
	long before;
	int i;

	if (pthread_create(&culler.thread, NULL, wait_to_cull, NULL))
		die("cannot make a thread");
	before = sleeps();
	/* Between those that were asked for: they are in memory, as failed. */
	next_block = first_block + 8 * BLOCK;
	for (i = 0; i < 8; i++) {
		want();
		if (!edge(PATIENCE_MS) || take(0, MANY) != 1)
			die("no request came");
		fail_all(1);
	}
	check("requests do not wake who waits to cull", sleeps() - before, 0);

	/* Less than that is free on any file system. */
	if (command("unbind", NULL) || command("brun 99%%", NULL) || command("bcull 98%%", NULL))
		die("cannot set limits");
	bind_cache();
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_MS / 1000;
	if (pthread_timedjoin_np(culler.thread, NULL, &until))
		culler.told = 0;
	check("too little space does", culler.told, 1);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: wakeups CACHE-ROOT TAG FILE\n");
		return 2;
	}
	root = argv[1];
	tag = argv[2];
	file = open(argv[3], O_RDONLY | O_CLOEXEC);
	if (file < 0)
		die(argv[3]);
	first_block = lseek(file, 0, SEEK_END) / BLOCK * BLOCK - 256 * BLOCK;
	next_block = first_block;

	printf("KTAP version 1\n1..%d\n", PLAN);
	open_and_watch();
	bind_cache();
	check_edges();
	check_agreement();
	check_order();
	check_culler();
	check("unbind is taken", command("unbind", NULL), 0);
	check("a device without a cache is not readable (T16)", readable(), 0);
	return failed ? 1 : 0;
}
