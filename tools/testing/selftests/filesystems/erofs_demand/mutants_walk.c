// SPDX-License-Identifier: GPL-2.0
/*
 * Look at everything of a mount that may be damaged: no answer is wrong here, but
 * each is bounded. Directories may contain themselves, files may be as long as
 * they like, and each call may fail.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "mutants.h"

#define ITEMS_MAX 100	/* files of a mount that are looked at */
#define DEPTH_MAX 10
#define ENTRIES_MAX 4000 /* of a directory that are listed */
#define BLOCK 4096
#define HEAD_BLOCKS 12	/* of a file from its beginning */

struct walk {
	FILE *out;
	const char *number;
	size_t root;	/* length of the path of the mount point */
	int items;
};

const char *error_name(int error)
{
	const char *name = strerrorname_np(error);

	return name ? name : "E?";
}

static uint64_t hash(uint64_t sum, const void *bytes, size_t len)
{
	const unsigned char *at = bytes;
	uint64_t word;

	/* By words: the machine may be emulated, and slow. */
	for (; len >= sizeof(word); at += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		sum = (sum ^ word) * 0x9e3779b97f4a7c15;
		sum ^= sum >> 29;
	}
	while (len--)
		sum = (sum ^ *at++) * 0x100000001b3;
	return sum;
}
#define HASH_START 0xcbf29ce484222325

static void escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = *text;

		if (isalnum(c) || strchr("/._-", c))
			putc_unlocked(c, out);
		else
			fprintf(out, "%%%02x", c);
	}
}

/* Begin a line; what follows is the answer. */
static void item(struct walk *w, const char *path, const char *what, const char *name)
{
	fprintf(w->out, "%s\t/", w->number);
	escaped(w->out, path[w->root] ? path + w->root + 1 : "");
	fprintf(w->out, "\t%s", what);
	if (name) {
		fputc(':', w->out);
		escaped(w->out, name);
	}
	fputc('\t', w->out);
}

static void look_at_block(int fd, off_t pos, uint64_t *sum, off_t *good, off_t *bad, int *error)
{
	char block[BLOCK];
	ssize_t got = pread(fd, block, sizeof(block), pos);

	if (got >= 0) {
		*sum = hash(*sum, block, got);
		*good += got;
	} else if (*bad < 0) {
		*bad = pos;
		*error = errno;
	}
}

static void look_at_content(struct walk *w, const char *path, off_t size)
{
	off_t blocks = size / BLOCK + !!(size % BLOCK), good = 0, bad = -1, i;
	static char buffer[HEAD_BLOCKS * BLOCK];
	uint64_t sum = HASH_START;
	int fd, error = 0;

	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	item(w, path, "read", NULL);
	if (fd < 0) {
		fprintf(w->out, "%s\n", error_name(errno));
		return;
	}
	/* As most readers do, with readahead; then block by block. */
	(void)!read(fd, buffer, sizeof(buffer));
	lseek(fd, 0, SEEK_HOLE);
	lseek(fd, 0, SEEK_DATA);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	for (i = 0; i < blocks && i < HEAD_BLOCKS; i++)
		look_at_block(fd, i * BLOCK, &sum, &good, &bad, &error);
	if (blocks > HEAD_BLOCKS) {
		look_at_block(fd, blocks / 2 * BLOCK, &sum, &good, &bad, &error);
		look_at_block(fd, (blocks - 1) * BLOCK, &sum, &good, &bad, &error);
	}
	fprintf(w->out, "%lld %016llx", (long long)good, (unsigned long long)sum);
	if (bad >= 0)
		fprintf(w->out, " %s at %lld", error_name(error), (long long)bad);
	fputc('\n', w->out);
	close(fd);
}

static void look_at_link(struct walk *w, const char *path)
{
	char target[PATH_MAX];
	ssize_t len = readlink(path, target, sizeof(target));

	item(w, path, "link", NULL);
	if (len < 0)
		fprintf(w->out, "%s\n", error_name(errno));
	else
		fprintf(w->out, "%zd %016llx\n", len,
			(unsigned long long)hash(HASH_START, target, len));
}

static void look_at_xattr(struct walk *w, const char *path, const char *name)
{
	static char value[XATTR_SIZE_MAX];
	ssize_t len = lgetxattr(path, name, value, sizeof(value));

	item(w, path, "xattr", name);
	if (len < 0)
		fprintf(w->out, "%s\n", error_name(errno));
	else
		fprintf(w->out, "%zd %016llx\n", len,
			(unsigned long long)hash(HASH_START, value, len));
}

static void look_at_xattrs(struct walk *w, const char *path)
{
	static char names[XATTR_LIST_MAX + 1];
	ssize_t len = llistxattr(path, names, XATTR_LIST_MAX), at;

	item(w, path, "xattrs", NULL);
	if (len < 0) {
		fprintf(w->out, "%s\n", error_name(errno));
	} else {
		fprintf(w->out, "%zd %016llx\n", len,
			(unsigned long long)hash(HASH_START, names, len));
		names[len] = '\0';
		for (at = 0; at < len; at += strlen(names + at) + 1)
			if (names[at])
				look_at_xattr(w, path, names + at);
	}
	/* Found by its name, whatever can be listed. */
	look_at_xattr(w, path, "user.mutants");
	look_at_xattr(w, path, "system.posix_acl_access");
}

/* A list of names that can be gone through after the directory is closed. */
struct names {
	char *text;
	size_t len;
};

static struct names look_at_entries(struct walk *w, const char *path)
{
	struct names names = { NULL, 0 };
	uint64_t sum = HASH_START;
	struct dirent *entry;
	size_t room = 0;
	int count = 0;
	DIR *dir;

	dir = opendir(path);
	item(w, path, "list", NULL);
	if (!dir) {
		fprintf(w->out, "%s\n", error_name(errno));
		return names;
	}
	while (errno = 0, count < ENTRIES_MAX && (entry = readdir(dir))) {
		size_t len = strlen(entry->d_name) + 1;

		count++;
		sum = hash(sum, entry->d_name, len);
		sum = hash(sum, &entry->d_ino, sizeof(entry->d_ino));
		sum = hash(sum, &entry->d_type, 1);
		if (names.len + len > room) {
			room = 2 * room + 4096;
			names.text = realloc(names.text, room);
		}
		memcpy(names.text + names.len, entry->d_name, len);
		names.len += len;
	}
	fprintf(w->out, "%d %016llx%s%s\n", count, (unsigned long long)sum,
		errno ? " then " : "", errno ? error_name(errno) : "");
	closedir(dir);
	return names;
}

static void look_at(struct walk *w, char *path, int depth)
{
	struct names names;
	struct stat st;
	size_t at, len;

	if (w->items++ == ITEMS_MAX)
		fprintf(w->out, "%s\t-\tlimit\treached\n", w->number);
	if (w->items > ITEMS_MAX)
		return;
	item(w, path, "stat", NULL);
	if (lstat(path, &st)) {
		fprintf(w->out, "%s\n", error_name(errno));
		return;
	}
	fprintf(w->out, "%o links=%lu %u:%u size=%lld blocks=%lld time=%lld.%09ld ino=%llu rdev=%x:%x\n",
		st.st_mode, (unsigned long)st.st_nlink, st.st_uid, st.st_gid, (long long)st.st_size,
		(long long)st.st_blocks, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		(unsigned long long)st.st_ino, major(st.st_rdev), minor(st.st_rdev));
	look_at_xattrs(w, path);
	if (S_ISREG(st.st_mode))
		look_at_content(w, path, st.st_size);
	if (S_ISLNK(st.st_mode))
		look_at_link(w, path);
	if (!S_ISDIR(st.st_mode) || depth == DEPTH_MAX)
		return;
	names = look_at_entries(w, path);
	len = strlen(path);
	for (at = 0; at < names.len; at += strlen(names.text + at) + 1) {
		const char *name = names.text + at;

		if (!strcmp(name, ".") || !strcmp(name, "..") ||
		    len + 1 + strlen(name) >= PATH_MAX)
			continue;
		sprintf(path + len, "/%s", name);
		look_at(w, path, depth + 1);
		path[len] = '\0';
	}
	free(names.text);
}

void walk(FILE *out, const char *number, const char *root)
{
	struct walk w = { out, number, strlen(root), 0 };
	static char path[PATH_MAX + NAME_MAX + 2];
	struct statfs st;

	fprintf(out, "%s\t-\tstatfs\t", number);
	if (statfs(root, &st))
		fprintf(out, "%s\n", error_name(errno));
	else
		fprintf(out, "%ld %llu %llu %llu\n", (long)st.f_bsize, (unsigned long long)st.f_blocks,
			(unsigned long long)st.f_files, (unsigned long long)st.f_ffree);
	strcpy(path, root);
	look_at(&w, path, 0);
}
