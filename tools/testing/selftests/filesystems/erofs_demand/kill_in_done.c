// SPDX-License-Identifier: GPL-2.0
/*
 * Kill a daemon's thread within its "done": the reads that waited go on there, and
 * who reads must not suffer from it.
 *
 * usage: kill_in_done FILE CACHE-FILE SOURCE ROUNDS    (the device is the standard input)
 *
 * The granule must be 4 MiB. Each round takes such a part of FILE, from the second one
 * on, of which nothing may be present. Readers want all of it, each a piece. When all of
 * them wait, the bytes are copied from SOURCE, which has them at the same offsets, to
 * CACHE-FILE, and a child says "done" and is killed. If the request is still there
 * then, that was too early, and another child lives a little longer.
 *
 * When readahead fails, the reader tries again, with the one page that it needs next, and
 * only the error of that is its own. So every second round begins with a request that fails.
 *
 * Prints "killed within done: N of N for readahead, N of N for pages; readers with
 * errors N, wrong N"; the status is 1 if a reader had an error or wrong bytes, 2 if
 * something else went wrong. Time limits are multiplied by $SLOW.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/cachefiles_demand.h>

#define PART (4 << 20)
#define READERS 32
#define PIECE (PART / READERS)
/* How long something may take, in milliseconds. */
#define PATIENCE_MS 30000

/* How a reader ends. */
enum { RIGHT, WRONG, ERROR };

/* How far a child has come with its "done"; in shared memory. */
enum { BORN, BEGUN, ENDED };
static _Atomic int *step;

static const char *path;
static int cache_file, source, errors, wrong;
/* What a round is about: how often it was played, with success, and how long a child lives. */
static struct kind {
	int rounds, within;
	unsigned int life_us;
} ahead, pages;
static uint64_t patience_us;

static void die(const char *what)
{
	fprintf(stderr, "kill_in_done: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000ull + now.tv_nsec / 1000;
}

/* For what happens soon: `since` is when it was first waited for. */
static void wait_a_little(uint64_t since, const char *what)
{
	if (now_us() - since > patience_us) {
		errno = ETIMEDOUT;
		die(what);
	}
	poll(NULL, 0, 1);
}

/* --- readers ---------------------------------------------------------------------- */

/* With one pread(2). */
static int read_piece(off_t offset)
{
	char *got = malloc(PIECE), *expected = malloc(PIECE);
	int file = open(path, O_RDONLY);
	ssize_t n;

	if (!got || !expected || file < 0)
		die(path);
	errno = posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
	if (errno)
		die(path);
	n = pread(file, got, PIECE, offset);
	if (n != PIECE) {
		fprintf(stderr, "a read: %s\n", n < 0 ? strerrorname_np(errno) : "too short");
		return ERROR;
	}
	if (pread(source, expected, PIECE, offset) != PIECE)
		die("cannot read the source");
	return memcmp(got, expected, PIECE) ? WRONG : RIGHT;
}

static void start_readers(pid_t *readers, off_t part)
{
	int i;

	for (i = 0; i < READERS; i++) {
		readers[i] = fork();
		if (readers[i] < 0)
			die("cannot fork");
		if (!readers[i])
			_exit(read_piece(part + (off_t)i * PIECE));
	}
}

static bool waits(pid_t pid)
{
	char name[64], state = 0;
	FILE *stat;

	snprintf(name, sizeof(name), "/proc/%d/stat", pid);
	stat = fopen(name, "r");
	if (!stat)
		die(name);
	if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1)
		die(name);
	fclose(stat);
	return state == 'D';
}

static void wait_for_waiting(const pid_t *readers)
{
	uint64_t since = now_us();
	int i;

	for (i = 0; i < READERS; i++)
		while (!waits(readers[i]))
			wait_a_little(since, "a reader does not wait");
}

static void end_reader(pid_t pid)
{
	uint64_t since = now_us();
	pid_t ended;
	int status;

	while (!(ended = waitpid(pid, &status, WNOHANG)))
		wait_a_little(since, "a reader does not end");
	if (ended < 0 || !WIFEXITED(status))
		die("a reader is lost");
	switch (WEXITSTATUS(status)) {
	case RIGHT:
		return;
	case WRONG:
		wrong++;
		return;
	case ERROR:
		errors++;
		return;
	default:
		die("a reader cannot read");
	}
}

/* --- the daemon ------------------------------------------------------------------- */

/* False if there is none. */
static bool next_request(struct cachefiles_demand_req *request)
{
	ssize_t n = read(STDIN_FILENO, request, sizeof(*request));

	if (n && n != sizeof(*request))
		die("cannot take a request");
	return n;
}

static uint64_t take_request(off_t part)
{
	struct cachefiles_demand_req request;
	uint64_t since = now_us();

	while (!next_request(&request))
		wait_a_little(since, "no request");
	errno = 0;
	if ((off_t)request.off != part || request.len != PART)
		die("the request is not one for a whole fresh part");
	return request.id;
}

static void command(const char *format, uint64_t id)
{
	char text[32];
	int len = snprintf(text, sizeof(text), format, (unsigned long long)id);

	if (write(STDIN_FILENO, text, len) != len)
		die(text);
}

/* Whether the request has no answer: then it is delivered again. */
static bool is_pending(void)
{
	struct cachefiles_demand_req request;

	command("restore", 0);
	return next_request(&request);
}

static void fill(off_t part)
{
	static char *bytes;

	if (!bytes)
		bytes = malloc(PART);
	if (!bytes || pread(source, bytes, PART, part) != PART ||
	    pwrite(cache_file, bytes, PART, part) != PART)
		die("cannot fill the cache file");
}

/* Says done in a child and kills that after so long: whether it had come to an end. */
static bool kill_after(uint64_t id, unsigned int life_us)
{
	pid_t pid;
	uint64_t since;

	*step = BORN;
	pid = fork();
	if (pid < 0)
		die("cannot fork");
	if (!pid) {
		*step = BEGUN;
		command("done %llu", id);
		*step = ENDED;
		pause();
	}
	/* Asleep, one might wake up when all is over. */
	while (*step == BORN)
		;
	since = now_us();
	while (now_us() - since < life_us)
		;
	kill(pid, SIGKILL);
	if (waitpid(pid, NULL, 0) != pid)
		die("a daemon is lost");
	return *step == ENDED;
}

static void kill_within(struct kind *kind, uint64_t id)
{
	uint64_t since = now_us();

	kind->rounds++;
	for (;;) {
		if (kill_after(id, kind->life_us)) {
			kind->life_us /= 2;
			return;
		}
		if (!is_pending())
			break;
		kind->life_us += kind->life_us / 8 + 1;
		wait_a_little(since, "all daemons are killed too early");
	}
	kind->within++;
	/* The next one somewhere else. */
	kind->life_us += random() % (kind->life_us / 2 + 1);
}

static void play_round(struct kind *kind, off_t part)
{
	pid_t readers[READERS];
	uint64_t id;
	int i;

	start_readers(readers, part);
	wait_for_waiting(readers);
	id = take_request(part);
	if (kind == &pages) {
		command("fail %llu 5", id);
		id = take_request(part);
		wait_for_waiting(readers);
	}
	fill(part);
	kill_within(kind, id);
	for (i = 0; i < READERS; i++)
		end_reader(readers[i]);
}

int main(int argc, char **argv)
{
	const char *slow = getenv("SLOW");
	int rounds, i;

	if (argc != 5) {
		fprintf(stderr, "usage: kill_in_done FILE CACHE-FILE SOURCE ROUNDS\n");
		return 2;
	}
	path = argv[1];
	cache_file = open(argv[2], O_WRONLY);
	source = open(argv[3], O_RDONLY);
	if (cache_file < 0 || source < 0)
		die("cannot open the files");
	step = mmap(NULL, sizeof(*step), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (step == MAP_FAILED)
		die("no memory");
	rounds = atoi(argv[4]);
	patience_us = PATIENCE_MS * 1000ull * (slow ? atoi(slow) : 1);
	srandom(now_us());
	for (i = 1; i <= rounds; i++)
		play_round(i % 2 ? &ahead : &pages, (off_t)i * PART);
	printf("killed within done: %d of %d for readahead, %d of %d for pages; readers with errors %d, wrong %d\n",
	       ahead.within, ahead.rounds, pages.within, pages.rounds, errors, wrong);
	return errors || wrong;
}
