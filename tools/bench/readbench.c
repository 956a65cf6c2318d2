// SPDX-License-Identifier: GPL-2.0
/*
 * Read in one way, and tell how long it took.
 *
 * usage: readbench sequential FILE
 *        readbench random FILE COUNT SEED [READERS]
 *        readbench stride FILE FIRST STEP COUNT
 *        readbench pieces FILE DIR
 *        readbench tree DIR
 *        readbench walk DIR
 *        readbench fetched FILE COUNT SEED SOURCE
 *        readbench copied FILE SOURCE
 *
 *   sequential  all of the file, 1 MiB at a time
 *   random      COUNT different blocks of 4 KiB, without readahead, in an order that
 *               SEED decides, by READERS threads (default: 1) that share the work
 *   stride      COUNT blocks of 4 KiB, without readahead, STEP bytes from one to the
 *               next, beginning at FIRST
 *   tree        the regular files in DIR whole, in the order of their names, each
 *               opened for itself
 *   pieces      the same bytes from a FILE that has the files of DIR in that order,
 *               each from the next border of 4 KiB on; opened for each piece
 *   walk        the size of each file in DIR, in the same order
 *   fetched     as random, of a FILE that is made, of the size of SOURCE and without
 *               data: each block is copied from SOURCE first, by another process that
 *               is asked, and tells, through a pipe
 *   copied      all of SOURCE into a FILE that is made likewise, 1 MiB at a time; what
 *               is timed is the writes
 *
 * Prints one line, with tabs between: the rate (MB/s; reads/s for random and stride,
 * files/s for walk); the median and the 99th percentile of the time of one read, in
 * microseconds; the processor time of this program per read, in microseconds; the time
 * that the machine's processors were not idle, per read, in microseconds, which
 * includes what other threads and the kernel's workers do; and a sum over what was
 * read: the same for the same bytes at the same places, wherever they come from.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"

#define BLOCK 4096
#define PIECE (1 << 20)

static double *times;
static size_t reads;
static uint64_t sum;

static void die(const char *what)
{
	fprintf(stderr, "readbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *get_memory(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		die("memory");
	return memory;
}

/*
 * One word of each block, so that the sum costs little beside the read; and not in any
 * order, as several threads add to it.
 */
static void add_to_sum(const char *bytes, size_t len, uint64_t pos)
{
	uint64_t added = 0, word;

	for (size_t at = 0; at + sizeof(word) <= len; at += BLOCK) {
		memcpy(&word, bytes + at, sizeof(word));
		added += (word ^ (pos + at)) * ((pos + at) | 1);
	}
	__atomic_fetch_add(&sum, added, __ATOMIC_RELAXED);
}

static void read_whole(int fd, char *buffer, size_t len, uint64_t at, uint64_t pos)
{
	for (size_t done = 0; done < len;) {
		size_t want = len - done < PIECE ? len - done : PIECE;
		ssize_t n = pread(fd, buffer, want, at + done);

		if (n <= 0)
			die("pread");
		add_to_sum(buffer, n, pos + done);
		done += n;
	}
}

static int open_file(const char *name)
{
	int fd = open(name, O_RDONLY);

	if (fd < 0)
		die(name);
	return fd;
}

static uint64_t file_size(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		die("fstat");
	return st.st_size;
}

static double sequential(const char *name)
{
	char *buffer = get_memory(1, PIECE);
	int fd = open_file(name);
	uint64_t pos = 0;
	ssize_t n;

	times = get_memory(file_size(fd) / PIECE + 1, sizeof(*times));
	for (;; pos += n) {
		double before = now_us();

		n = read(fd, buffer, PIECE);
		if (n < 0)
			die("read");
		if (!n)
			return pos;
		times[reads++] = now_us() - before;
		add_to_sum(buffer, n, pos);
	}
}

/* Where missing blocks are copied from, if they are; and the pipes to who does it. */
static int source, ask[2], tell[2];

static void get_copied(uint64_t pos)
{
	if (write(ask[1], &pos, sizeof(pos)) != sizeof(pos) ||
	    read(tell[0], &pos, sizeof(pos)) != sizeof(pos))
		die("the other process");
}

/* Blocks that several threads read, in order; the next one to read is what they share. */
static struct {
	int fd;
	uint64_t *positions;
	size_t next;
} blocks;

static void *read_blocks(void *unused)
{
	char *buffer = get_memory(1, BLOCK);
	size_t n;

	while ((n = __atomic_fetch_add(&blocks.next, 1, __ATOMIC_RELAXED)) < reads) {
		double before = now_us();

		if (source)
			get_copied(blocks.positions[n]);
		if (pread(blocks.fd, buffer, BLOCK, blocks.positions[n]) != BLOCK)
			die("pread");
		times[n] = now_us() - before;
		add_to_sum(buffer, BLOCK, blocks.positions[n]);
	}
	free(buffer);
	return unused;
}

static void read_all_blocks(size_t readers)
{
	pthread_t *threads = get_memory(readers, sizeof(*threads));

	errno = posix_fadvise(blocks.fd, 0, 0, POSIX_FADV_RANDOM);
	if (errno)
		die("fadvise");
	times = get_memory(reads, sizeof(*times));
	for (size_t n = 1; n < readers; n++) {
		errno = pthread_create(&threads[n], NULL, read_blocks, NULL);
		if (errno)
			die("thread");
	}
	read_blocks(NULL);
	for (size_t n = 1; n < readers; n++)
		pthread_join(threads[n], NULL);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void pick_random_blocks(const char *name, size_t count, uint64_t seed)
{
	uint64_t state = seed * 2 + 1;
	size_t there;

	blocks.fd = open_file(name);
	there = file_size(blocks.fd) / BLOCK;
	reads = count < there ? count : there;
	blocks.positions = get_memory(there, sizeof(*blocks.positions));
	/* Shuffled, so that no block comes twice. */
	for (size_t n = 0; n < there; n++) {
		size_t other = next_random(&state) % (n + 1);

		blocks.positions[n] = blocks.positions[other];
		blocks.positions[other] = n * BLOCK;
	}
}

/* An ordinary file on its way to being a cache file. */
static int make_sparse(const char *name, uint64_t size)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || ftruncate(fd, size))
		die(name);
	return fd;
}

/* The other process. */
static void copy_blocks(void)
{
	char *buffer = get_memory(1, BLOCK);
	uint64_t pos;

	close(ask[1]);
	while (read(ask[0], &pos, sizeof(pos)) == sizeof(pos)) {
		if (pread(source, buffer, BLOCK, pos) != BLOCK ||
		    pwrite(blocks.fd, buffer, BLOCK, pos) != BLOCK ||
		    write(tell[1], &pos, sizeof(pos)) != sizeof(pos))
			die("copy");
	}
	_exit(0);
}

static void start_copying(const char *name, const char *from)
{
	pid_t child;

	source = open_file(from);
	close(blocks.fd);
	blocks.fd = make_sparse(name, file_size(source));
	if (pipe(ask) || pipe(tell))
		die("pipe");
	child = fork();
	if (child < 0)
		die("fork");
	if (!child)
		copy_blocks();
}

static double write_all(const char *name, const char *from)
{
	char *buffer = get_memory(1, PIECE);
	int in = open_file(from), out;
	uint64_t size = file_size(in), pos = 0;
	ssize_t n;

	out = make_sparse(name, size);
	times = get_memory(size / PIECE + 1, sizeof(*times));
	for (; pos < size; pos += n) {
		double before;

		n = pread(in, buffer, PIECE, pos);
		before = now_us();
		if (n <= 0 || pwrite(out, buffer, n, pos) != n)
			die("copy");
		times[reads++] = now_us() - before;
		add_to_sum(buffer, n, pos);
	}
	return pos;
}

static void pick_stride(const char *name, uint64_t first, uint64_t step, size_t count)
{
	blocks.fd = open_file(name);
	reads = count;
	blocks.positions = get_memory(count, sizeof(*blocks.positions));
	for (size_t n = 0; n < count; n++)
		blocks.positions[n] = first + n * step;
}

static int is_file(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* What is done with one file, which begins at a place in the row of all files. */
typedef double file_action(const char *path, uint64_t pos);

static const char *pieces_of;
static char piece[PIECE];

static double read_file(const char *path, uint64_t pos)
{
	int fd = open_file(path);
	uint64_t size = file_size(fd);

	read_whole(fd, piece, size, 0, pos);
	close(fd);
	return size;
}

static double look_at(const char *path, uint64_t pos)
{
	struct stat st;

	(void)pos;
	if (stat(path, &st))
		die(path);
	return st.st_size;
}

static double read_piece(const char *path, uint64_t pos)
{
	double size = look_at(path, pos);
	int fd = open_file(pieces_of);

	read_whole(fd, piece, size, pos, pos);
	close(fd);
	return size;
}

static double each_file(const char *dir, file_action *action)
{
	char path[PATH_MAX];
	struct dirent **entries;
	uint64_t pos = 0;
	double bytes = 0;
	int count = scandir(dir, &entries, is_file, alphasort);

	if (count < 0)
		die(dir);
	times = get_memory(count, sizeof(*times));
	for (int n = 0; n < count; n++) {
		double before = now_us(), size;

		snprintf(path, sizeof(path), "%s/%s", dir, entries[n]->d_name);
		size = action(path, pos);
		times[reads++] = now_us() - before;
		bytes += size;
		pos += ((uint64_t)size + BLOCK - 1) / BLOCK * BLOCK;
	}
	return bytes;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static uint64_t number(const char *text)
{
	return strtoull(text, NULL, 10);
}

static int usage(void)
{
	fprintf(stderr, "usage: readbench sequential FILE | random FILE COUNT SEED [READERS] |\n"
			"  stride FILE FIRST STEP COUNT | pieces FILE DIR | tree DIR | walk DIR |\n"
			"  fetched FILE COUNT SEED SOURCE | copied FILE SOURCE\n");
	return 2;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[1] : "";
	size_t readers = 0;
	double start, used, idle, wall, done = 0;

	/* Made before the clock starts. */
	if (!strcmp(mode, "random") && (argc == 5 || argc == 6)) {
		readers = argc == 6 ? number(argv[5]) : 1;
		pick_random_blocks(argv[2], number(argv[3]), number(argv[4]));
	} else if (!strcmp(mode, "fetched") && argc == 6) {
		readers = 1;
		pick_random_blocks(argv[5], number(argv[3]), number(argv[4]));
		start_copying(argv[2], argv[5]);
	} else if (!strcmp(mode, "stride") && argc == 6) {
		readers = 1;
		pick_stride(argv[2], number(argv[3]), number(argv[4]), number(argv[5]));
	}
	idle = idle_us();
	used = used_us();
	start = now_us();
	if (readers) {
		read_all_blocks(readers);
		done = reads * 1e6;
	} else if (!strcmp(mode, "sequential") && argc == 3) {
		done = sequential(argv[2]);
	} else if (!strcmp(mode, "copied") && argc == 4) {
		done = write_all(argv[2], argv[3]);
	} else if (!strcmp(mode, "pieces") && argc == 4) {
		pieces_of = argv[2];
		done = each_file(argv[3], read_piece);
	} else if (!strcmp(mode, "tree") && argc == 3) {
		done = each_file(argv[2], read_file);
	} else if (!strcmp(mode, "walk") && argc == 3) {
		each_file(argv[2], look_at);
		done = reads * 1e6;
	} else {
		return usage();
	}
	wall = now_us() - start;
	used = used_us() - used;
	idle = idle_us() - idle;
	if (!reads) {
		errno = ENODATA;
		die(argv[2]);
	}
	qsort(times, reads, sizeof(*times), by_value);
	printf("%.1f\t%.0f\t%.0f\t%.1f\t%.1f\t%016jx\n", done / wall, times[reads / 2],
	       times[reads * 99 / 100], used / reads,
	       (wall * sysconf(_SC_NPROCESSORS_ONLN) - idle) / reads, (uintmax_t)sum);
	return 0;
}
