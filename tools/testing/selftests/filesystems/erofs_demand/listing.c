// SPDX-License-Identifier: GPL-2.0
/*
 * What a tree consists of, one line per file, so that two trees are the same
 * exactly when diff(1) finds their listings to be.
 *
 * usage: listing DIRECTORY
 *
 * Columns: mode with type (octal), owner, group, size (but of directories, where
 * it is the file system's own affair), mtime, then by type a hash of the content,
 * the link target or the device number, "=" and the first name of the same inode
 * if that is another one, and the name. Sorted by name. The status is 1 if
 * anything could not be read; the name of what could not is told.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <search.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define BUFFER (256 * 1024)

static int failed;

static void fail(const char *path, int error)
{
	fprintf(stderr, "listing: %s: %s\n", path, strerror(error));
	failed = 1;
}

/* An inode that has several names. */
struct node {
	dev_t dev;
	ino_t ino;
	char *name;
};

static int compare_nodes(const void *a, const void *b)
{
	const struct node *x = a, *y = b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return (x->ino > y->ino) - (x->ino < y->ino);
}

/* The first name that the walk met this inode under. */
static const char *first_name(const struct stat *st, const char *name)
{
	static void *seen;
	struct node *node = malloc(sizeof(*node)), **found;

	*node = (struct node){ st->st_dev, st->st_ino, NULL };
	found = tsearch(node, &seen, compare_nodes);
	if (*found != node)
		free(node);
	else
		node->name = strdup(name);
	return (*found)->name;
}

/*
 * Not against an enemy: it tells bytes that changed, moved, or are missing. A
 * multiplication for 8 bytes is quick where the machine is emulated.
 */
static uint64_t hash_words(uint64_t hash, const uint8_t *bytes, size_t len)
{
	uint64_t word;

	for (; len >= sizeof(word); bytes += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, bytes, sizeof(word));
		hash = (hash ^ word) * 0x9e3779b97f4a7c15;
		hash ^= hash >> 29;
	}
	if (len) {
		word = len;
		memcpy((uint8_t *)&word + 1, bytes, len);
		hash = (hash ^ word) * 0x9e3779b97f4a7c15;
		hash ^= hash >> 29;
	}
	return hash;
}

static void print_hash(const char *path)
{
	static uint8_t buffer[BUFFER];
	uint64_t hash = 1, total = 0;
	ssize_t n = 1;
	int fd = open(path, O_RDONLY);

	if (fd < 0) {
		fail(path, errno);
		return;
	}
	while (n > 0) {
		size_t filled = 0;

		/* Words must begin at the same places however short reads are. */
		while (filled < BUFFER) {
			n = read(fd, buffer + filled, BUFFER - filled);
			if (n <= 0)
				break;
			filled += n;
		}
		hash = hash_words(hash, buffer, filled);
		total += filled;
	}
	if (n < 0)
		fail(path, errno);
	close(fd);
	printf("%016jx:%ju", (uintmax_t)hash, (uintmax_t)total);
}

static void print_target(const char *path)
{
	char target[4097];
	ssize_t n = readlink(path, target, sizeof(target));

	if (n < 0)
		fail(path, errno);
	else
		printf("->%.*s", (int)n, target);
}

static void print_entry(const FTSENT *entry, const char *name)
{
	const struct stat *st = entry->fts_statp;
	const char *first;

	printf("%06o\t%u\t%u\t", st->st_mode, st->st_uid, st->st_gid);
	if (S_ISDIR(st->st_mode))
		printf("-");
	else
		printf("%jd", (intmax_t)st->st_size);
	printf("\t%jd.%09ld\t", (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
	if (S_ISREG(st->st_mode))
		print_hash(entry->fts_accpath);
	else if (S_ISLNK(st->st_mode))
		print_target(entry->fts_accpath);
	else if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		printf("%u:%u", major(st->st_rdev), minor(st->st_rdev));
	else
		printf("-");
	if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) {
		first = first_name(st, name);
		if (strcmp(first, name))
			printf("\t=%s", first);
	}
	printf("\t%s\n", name);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

int main(int argc, char **argv)
{
	char *roots[] = { argv[1], NULL };
	FTSENT *entry;
	size_t prefix;
	FTS *walk;

	if (argc != 2) {
		fprintf(stderr, "usage: listing DIRECTORY\n");
		return 2;
	}
	prefix = strlen(argv[1]);
	walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	if (!walk) {
		fail(argv[1], errno);
		return 1;
	}
	while (errno = 0, (entry = fts_read(walk))) {
		switch (entry->fts_info) {
		case FTS_DP:
			break;
		case FTS_DNR:
		case FTS_ERR:
		case FTS_NS:
			fail(entry->fts_path, entry->fts_errno);
			break;
		default:
			print_entry(entry, entry->fts_level ? entry->fts_path + prefix + 1 : ".");
		}
	}
	if (errno)
		fail(argv[1], errno);
	if (fflush(stdout) || ferror(stdout))
		fail("standard output", errno);
	return failed;
}
