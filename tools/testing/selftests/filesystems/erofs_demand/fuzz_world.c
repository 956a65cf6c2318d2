// SPDX-License-Identifier: GPL-2.0
/*
 * What fuzz_device works with: the blobs, with their cache files, and what each
 * mount must show.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fuzz_device.h"

#define MARK "user.CacheFiles.cache"
/* Most bytes of one write to a cache file. */
#define FILL_MAX (256 * 1024)

/* --- before the first fork ------------------------------------------------ */

static const unsigned char *map_file(const char *path, uint64_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *map = fd < 0 || !size ? NULL : mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);

	if (fd < 0 || map == MAP_FAILED)
		die(path);
	close(fd);
	return map;
}

static void add_blob(const char *name)
{
	struct blob *blob = &world.blobs[world.nblobs++];
	char path[1024];
	struct stat stat_;
	glob_t found;

	if (world.nblobs > MAX_BLOBS)
		die("too many blobs");
	snprintf(blob->name, sizeof(blob->name), "%s", name);
	snprintf(path, sizeof(path), "%s/%s", world.source, name);
	if (stat(path, &stat_))
		die(path);
	blob->size = stat_.st_size;
	blob->data = map_file(path, blob->size);
	snprintf(path, sizeof(path), "%s/cache/Ierofs/@*/D%s", world.root, name);
	if (glob(path, 0, NULL, &found))
		die(path);
	blob->mark_size = getxattr(found.gl_pathv[0], MARK, blob->mark, sizeof(blob->mark));
	if (blob->mark_size <= 0)
		die(found.gl_pathv[0]);
	*strrchr(found.gl_pathv[0], '/') = 0;
	snprintf(blob->fan, sizeof(blob->fan), "%s", found.gl_pathv[0]);
	globfree(&found);
}

void add_blobs(void)
{
	DIR *dir = opendir(world.source);
	struct dirent *entry;

	if (!dir)
		die(world.source);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			add_blob(entry->d_name);
	closedir(dir);
}

static int count_names(const char *path)
{
	DIR *dir = opendir(path);
	int names = 0;

	if (!dir)
		die(path);
	while (readdir(dir))
		names++;
	closedir(dir);
	return names;
}

static int add_node(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
	struct mount *mount = &world.mounts[world.nmounts - 1];
	struct node *node = &mount->nodes[mount->nnodes];

	(void)type;
	(void)ftw;
	if (mount->nnodes == MAX_NODES)
		return 0;
	mount->nnodes++;
	path += strlen(mount->tree);
	node->path = strdup(*path ? path + 1 : ".");
	node->stat = *stat;
	path -= strlen(mount->tree);
	if (S_ISREG(stat->st_mode) && stat->st_size)
		node->data = map_file(path, stat->st_size);
	if (S_ISDIR(stat->st_mode))
		node->names = count_names(path);
	return 0;
}

void add_mount(const char *argument, const char *mounts_dir)
{
	struct mount *mount = &world.mounts[world.nmounts];
	const char *colon = strchr(argument, ':');

	if (!colon || ++world.nmounts > MAX_MOUNTS) {
		errno = EINVAL;
		die(argument);
	}
	snprintf(mount->tree, sizeof(mount->tree), "%.*s", (int)(colon - argument), argument);
	snprintf(mount->options, sizeof(mount->options), "%s,tag=%s", colon + 1, world.tag);
	snprintf(mount->dir, sizeof(mount->dir), "%s/%d", mounts_dir, world.nmounts - 1);
	if (mkdir(mount->dir, 0755) && errno != EEXIST)
		die(mount->dir);
	if (nftw(mount->tree, add_node, 16, FTW_PHYS))
		die(mount->tree);
}

/* --- cache files ---------------------------------------------------------- */

const struct blob *find_blob(const char *name)
{
	int i;

	for (i = 0; i < world.nblobs; i++)
		if (name[0] == 'D' && !strcmp(name + 1, world.blobs[i].name))
			return &world.blobs[i];
	return NULL;
}

static void cache_file(const struct blob *blob, char *path, size_t size)
{
	snprintf(path, size, "%s/D%s", blob->fan, blob->name);
}

/*
 * From memory that is there: when a page fault cuts a pwrite short, ext4 and tmpfs
 * leave zeros behind where its other bytes would be, and those count as present.
 */
bool fill(const struct blob *blob, uint64_t off, uint64_t len)
{
	static _Thread_local unsigned char piece[FILL_MAX];
	char path[1024];
	ssize_t n = 1;
	int fd;

	cache_file(blob, path, sizeof(path));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || off >= blob->size)
		return fd >= 0 && !close(fd);
	if (len > blob->size - off)
		len = blob->size - off;
	/* A block that is written in part counts as present. */
	if (off % BLOCK || (len % BLOCK && off + len != blob->size))
		len = blob->size - (off -= off % BLOCK);
	while (len && n > 0) {
		n = len < sizeof(piece) ? len : sizeof(piece);
		memcpy(piece, blob->data + off, n);
		n = pwrite(fd, piece, n, off);
		off += n > 0 ? n : 0;
		len -= n > 0 ? n : 0;
	}
	close(fd);
	return !len;
}

void renew(const struct blob *blob, bool with_mark)
{
	char path[1024];
	int fd;

	cache_file(blob, path, sizeof(path));
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	/* Another thread may be at it. */
	if (fd < 0)
		return;
	if (ftruncate(fd, blob->size) ||
	    (with_mark && fsetxattr(fd, MARK, blob->mark, blob->mark_size, 0)))
		die(path);
	close(fd);
}
