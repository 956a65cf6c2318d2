// SPDX-License-Identifier: GPL-2.0
/*
 * Read a file in one way, and tell how long it took.
 *
 * usage: readbench sequential FILE
 *        readbench random FILE COUNT SEED
 *
 *   sequential  all of it, 1 MiB at a time; prints MB/s
 *   random      COUNT different blocks of 4 KiB, without readahead, in an order
 *               that SEED decides; prints reads/s, and the median and the 99th
 *               percentile of their times in microseconds
 *
 * The last column is a sum over what was read: the same for the same bytes,
 * wherever they come from.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define PIECE (1 << 20)

static uint64_t buffer[PIECE / sizeof(uint64_t)];
static uint64_t sum;

static void die(const char *what)
{
	fprintf(stderr, "readbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

/* One word of each block: the sum is to cost little beside the read. */
static void add_to_sum(size_t len)
{
	for (size_t at = 0; at < len / sizeof(*buffer); at += BLOCK / sizeof(*buffer))
		sum = sum * 31 + buffer[at];
}

static void sequential(int fd)
{
	double start = now_us(), bytes = 0;
	ssize_t n;

	while ((n = read(fd, buffer, PIECE)) > 0) {
		add_to_sum(n);
		bytes += n;
	}
	if (n < 0)
		die("read");
	printf("%.1f", bytes / (now_us() - start));
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void random_blocks(int fd, size_t count, uint64_t seed)
{
	struct stat st;
	size_t blocks, n;
	double *times, start;
	uint64_t *order, state = seed * 2 + 1;

	if (fstat(fd, &st))
		die("fstat");
	blocks = st.st_size / BLOCK;
	if (count > blocks)
		count = blocks;
	times = calloc(count, sizeof(*times));
	order = calloc(blocks, sizeof(*order));
	if (!times || !order || !count)
		die("nothing to read");
	/* Shuffled, so that no block comes twice. */
	for (n = 0; n < blocks; n++) {
		size_t other = next_random(&state) % (n + 1);

		order[n] = order[other];
		order[other] = n;
	}
	errno = posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	if (errno)
		die("fadvise");
	start = now_us();
	for (n = 0; n < count; n++) {
		double before = now_us();

		if (pread(fd, buffer, BLOCK, order[n] * BLOCK) != BLOCK)
			die("pread");
		times[n] = now_us() - before;
		add_to_sum(BLOCK);
	}
	printf("%.0f", count / (now_us() - start) * 1e6);
	qsort(times, count, sizeof(*times), by_value);
	printf("\t%.0f\t%.0f", times[count / 2], times[count * 99 / 100]);
}

int main(int argc, char **argv)
{
	int fd;

	if (argc < 3)
		goto usage;
	fd = open(argv[2], O_RDONLY);
	if (fd < 0)
		die(argv[2]);
	if (!strcmp(argv[1], "sequential") && argc == 3)
		sequential(fd);
	else if (!strcmp(argv[1], "random") && argc == 5)
		random_blocks(fd, strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	else
		goto usage;
	printf("\t%016jx\n", (uintmax_t)sum);
	return 0;
usage:
	fprintf(stderr, "usage: readbench sequential FILE | random FILE COUNT SEED\n");
	return 2;
}
