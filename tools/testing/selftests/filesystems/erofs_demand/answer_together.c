// SPDX-License-Identifier: GPL-2.0
/*
 * Answer each request from several threads at once, as a daemon may that has lost
 * count: one of them must be believed, all others must get EINVAL.
 *
 * usage: answer_together FILE OFFSET COUNT    (the device is the standard input)
 *
 * Asks for COUNT blocks of FILE, from OFFSET on and 16 blocks apart, without waiting
 * for them; takes these requests, which must be the only ones, and answers them all.
 * Prints "requests N, believed N, refused N"; the status is 1 if a thread gets
 * another error.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/cachefiles_demand.h>

#define THREADS 8
#define BLOCK CACHEFILES_DEMAND_BLOCK

static pthread_barrier_t start;
static struct cachefiles_demand_req *requests;
static int count;
static atomic_int believed, refused, others;

static void die(const char *what)
{
	fprintf(stderr, "answer_together: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *answer_all(void *arg)
{
	char text[64];
	int i, len;

	for (i = 0; i < count; i++) {
		len = snprintf(text, sizeof(text), "fail %llu 5", (unsigned long long)requests[i].id);
		pthread_barrier_wait(&start);
		if (write(STDIN_FILENO, text, len) == len)
			believed++;
		else if (errno == EINVAL)
			refused++;
		else
			others++;
	}
	return arg;
}

/* A readahead that nobody waits for makes a request. */
static void ask(const char *path, off_t offset)
{
	int fd = open(path, O_RDONLY), i;

	if (fd < 0)
		die(path);
	for (i = 0; i < count; i++) {
		errno = posix_fadvise(fd, offset + 16 * i * BLOCK, BLOCK, POSIX_FADV_WILLNEED);
		if (errno)
			die("cannot ask for a block");
	}
	close(fd);
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	ssize_t room;
	int i;

	if (argc != 4 || (count = atoi(argv[3])) < 1) {
		fprintf(stderr, "usage: answer_together FILE OFFSET COUNT\n");
		return 2;
	}
	room = count * sizeof(*requests);
	requests = malloc(room);
	if (!requests)
		die("no memory");
	ask(argv[1], atoll(argv[2]));
	if (read(STDIN_FILENO, requests, room) != room)
		die("not all requests came");

	pthread_barrier_init(&start, NULL, THREADS);
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, answer_all, NULL))
			die("cannot make a thread");
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("requests %d, believed %d, refused %d\n", count, believed, refused);
	return others != 0;
}
