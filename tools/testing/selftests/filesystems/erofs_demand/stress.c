// SPDX-License-Identifier: GPL-2.0
/*
 * Many readers of many blobs, while the daemon is slow, answers in any order, fails
 * now and then and is killed every few seconds, page caches are dropped all the time,
 * and cached data is taken away. Every byte that is read is compared with what it
 * must be; every read must return; only requests that the daemon failed give errors.
 *
 * usage: stress --make NUMBER SIZE
 *        stress [OPTION]... --root CACHE --tag TAG --source DIR --tree DIR --mounts DIR
 *               BOOTSTRAP,BLOB... ...
 *
 *   --make NUMBER SIZE  write the content of file NUMBER
 *   --root CACHE        a cache in which all blobs are prepared
 *   --source DIR        the blobs
 *   --tree DIR          what they were made of: in a blob of the name NAME-7 is one
 *                       file, NAME-7/data, with the content of number 7
 *   --mounts DIR        where mounts are made: DIR/0a, DIR/0b, DIR/1a, ...; they stay
 *   BOOTSTRAP,BLOB...   an image
 *   --seconds N         how long (20)
 *   --readers N         processes (64)
 *   --seed N            (the time)
 *   --slow N            how many times slower than usual this machine is (1)
 *
 * In the end everything is mounted, and the cache has no daemon.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "stress.h"

#define MARK "user.CacheFiles.cache"
/* A read that takes longer than this is lost; times --slow. */
#define LIMIT_MS 60000
/* A failure reaches its reader within this; times --slow. */
#define GRACE_MS 1000
/* Of every so many milliseconds, requests may fail in the last of so many. */
#define CYCLE_MS 8000
#define FAILING_MS 2000
/* Violations after which there is no point in going on. */
#define ENOUGH 20

struct world world = { .nreaders = 64, .limit_ms = LIMIT_MS, .grace_ms = GRACE_MS };
struct shared *shared;

static uint64_t seconds = 20;
static pid_t daemon_pid, rotator_pid, dropper_pid;

/* --- for all ---------------------------------------------------------------------------- */

void violation(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (shared->violations++ < ENOUGH)
		dprintf(1, "VIOLATION: %s\n", text);
}

void die(const char *what)
{
	dprintf(1, "stress: %s: %s\n", what, strerror(errno));
	if (shared)
		shared->violations++;
	exit(2);
}

void begin(struct actor *actor, const char *what, int image, unsigned int number,
	   uint64_t offset, uint64_t length)
{
	actor->image = image;
	actor->number = number;
	actor->offset = offset;
	actor->length = length;
	actor->what = what;
	actor->since = now_ms();
}

void end(struct actor *actor)
{
	actor->since = 0;
}

void note_error(const struct actor *actor, uint64_t begun, int error)
{
	shared->errors++;
	if (error != EIO)
		violation("%s of file %u at %llu: %s", actor->what, actor->number,
			  (unsigned long long)actor->offset, strerror(error));
	else if (shared->last_fail_ms + world.grace_ms < begun)
		violation("%s of file %u at %llu: an error, but no request has failed for %llu ms",
			  actor->what, actor->number, (unsigned long long)actor->offset,
			  (unsigned long long)(now_ms() - shared->last_fail_ms));
}

uint64_t content(unsigned int number, uint64_t word)
{
	uint64_t state = (uint64_t)number << 40 | word;

	return rnd(&state);
}

/* --- the world ------------------------------------------------------------------------------ */

static int make_file(unsigned int number, uint64_t size)
{
	uint64_t at, word;

	for (at = 0; at < size; at += sizeof(word)) {
		word = content(number, at / sizeof(word));
		if (!fwrite(&word, size - at < sizeof(word) ? size - at : sizeof(word), 1, stdout))
			die("cannot write the file");
	}
	return fflush(stdout) ? 1 : 0;
}

static void add_blob(struct blob *blob, const char *name, const char *source)
{
	char pattern[512];
	struct stat stat_buf;
	glob_t found;

	snprintf(blob->name, sizeof(blob->name), "%s", name);
	snprintf(blob->source, sizeof(blob->source), "%s/%s", source, name);
	snprintf(pattern, sizeof(pattern), "%s/cache/Ierofs/@*/D%s", world.root, name);
	if (glob(pattern, 0, NULL, &found) || found.gl_pathc != 1 || stat(found.gl_pathv[0], &stat_buf))
		die(pattern);
	snprintf(blob->cache_file, sizeof(blob->cache_file), "%s", found.gl_pathv[0]);
	globfree(&found);
	blob->size = stat_buf.st_size;
	blob->mark_size = getxattr(blob->cache_file, MARK, blob->mark, sizeof(blob->mark));
	if (blob->mark_size < 0)
		die(blob->cache_file);
}

static void add_file(struct file *file, const char *blob, const char *tree)
{
	const char *number = strrchr(blob, '-');
	char path[512];
	struct stat stat_buf;

	snprintf(file->path, sizeof(file->path), "%s/data", blob);
	snprintf(path, sizeof(path), "%s/%s", tree, file->path);
	if (!number || stat(path, &stat_buf))
		die(path);
	file->number = atoi(number + 1);
	file->size = stat_buf.st_size;
}

static void add_image(char *names, const char *source, const char *tree, const char *mounts)
{
	struct image *image = &world.images[world.nimages];
	char *end_of_options = image->options;
	char *name, *rest = names;
	int i;

	if (world.nimages == MAX_IMAGES)
		die("too many images");
	end_of_options += sprintf(image->options, "tag=%s", world.tag);
	while ((name = strsep(&rest, ","))) {
		if (image->nblobs == MAX_BLOBS)
			die("too many blobs");
		end_of_options += sprintf(end_of_options, ",%s=%s",
					  image->nblobs ? "device" : "uuid", name);
		add_blob(&image->blobs[image->nblobs++], name, source);
		if (image->nblobs > 1)
			add_file(&image->files[image->nfiles++], name, tree);
	}
	for (i = 0; i < TWINS; i++) {
		snprintf(image->dirs[i], sizeof(image->dirs[i]), "%s/%d%c", mounts, world.nimages, 'a' + i);
		if (mkdir(image->dirs[i], 0755) && errno != EEXIST)
			die(image->dirs[i]);
	}
	world.nimages++;
}

static void make_shared(void)
{
	pthread_rwlockattr_t attributes;
	int i;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("cannot map memory");
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	/* Readers never take it twice; whoever wants to unmount must get a turn. */
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	for (i = 0; i < world.nimages; i++)
		pthread_rwlock_init(&shared->mounted[i], &attributes);
}

/* --- processes ---------------------------------------------------------------------------- */

/* Forks; true in the child. */
static bool start(pid_t *pid)
{
	pid_t parent = getpid();

	*pid = fork();
	if (*pid < 0)
		die("cannot fork");
	if (*pid == 0)
		die_with_parent(parent);
	return *pid == 0;
}

static void start_daemon(uint64_t seed)
{
	uint64_t begun = now_ms();

	shared->serving = 0;
	if (start(&daemon_pid))
		chaotic_daemon(seed);
	while (!shared->serving) {
		if (waitpid(daemon_pid, NULL, WNOHANG))
			die("the daemon does not serve");
		if (now_ms() - begun > world.limit_ms)
			die("the daemon takes too long");
		sleep_ms(5);
	}
}

static void kill_daemon(void)
{
	kill(daemon_pid, SIGKILL);
	waitpid(daemon_pid, NULL, 0);
	daemon_pid = 0;
}

/* Nobody may end but those that were told to. */
static void watch_children(void)
{
	pid_t pid;
	int status, i;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (i = 0; i < world.nreaders; i++)
			if (shared->readers[i].pid == pid) {
				shared->readers[i].since = 0;
				shared->readers[i].pid = 0;
			}
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			violation("process %d ended with status %#x", pid, status);
		else if (!shared->stop)
			violation("process %d ended early", pid);
	}
}

static bool is_lost(struct actor *actor)
{
	uint64_t since = actor->since;

	if (!since || now_ms() < since + world.limit_ms)
		return false;
	shared->lost++;
	violation("lost: %s of image %d, file %u, %llu bytes at %llu: for %llu ms", actor->what,
		  actor->image, actor->number, (unsigned long long)actor->length,
		  (unsigned long long)actor->offset, (unsigned long long)(now_ms() - since));
	return true;
}

/* Whether everybody gets on. */
static bool watch(void)
{
	int i, lost = is_lost(&shared->rotator);

	watch_children();
	for (i = 0; i < world.nreaders; i++)
		lost += is_lost(&shared->readers[i]);
	return !lost && shared->violations < ENOUGH;
}

static void tell(void)
{
	printf("reads %llu (mapped %llu, %llu MiB), errors %llu, requests %llu (filled %llu, failed %llu, unordered %llu, restores %llu), kills %llu, rotations %llu, drops %llu\n",
	       (unsigned long long)(shared->reads + shared->mapped_reads),
	       (unsigned long long)shared->mapped_reads,
	       (unsigned long long)(shared->read_bytes >> 20), (unsigned long long)shared->errors,
	       (unsigned long long)shared->requests, (unsigned long long)shared->fills,
	       (unsigned long long)shared->fails, (unsigned long long)shared->unordered,
	       (unsigned long long)shared->restores, (unsigned long long)shared->kills,
	       (unsigned long long)shared->rotations, (unsigned long long)shared->drops);
	fflush(stdout);
}

/* Waits, and watches meanwhile: whether all is well. */
static bool watch_for(uint64_t begun, uint64_t ms)
{
	static uint64_t told;
	uint64_t until = now_ms() + ms;

	do {
		shared->failing = (now_ms() - begun) % CYCLE_MS >= CYCLE_MS - FAILING_MS;
		if (now_ms() - begun >= (told + 1) * 10000) {
			told = (now_ms() - begun) / 10000;
			tell();
		}
		if (!watch())
			return false;
		sleep_ms(20);
	} while (now_ms() < until);
	return true;
}

static void run(void)
{
	uint64_t r = world.seed, begun = now_ms(), stop = begun + seconds * 1000;

	while (watch_for(begun, 1500 + rnd_below(&r, 3000)) && now_ms() < stop) {
		kill_daemon();
		shared->kills++;
		/* Readers must not notice, as this is less than the time to linger. */
		if (!watch_for(begun, rnd_below(&r, 2000)))
			return;
		start_daemon(rnd(&r));
	}
}

/* Everybody comes home. */
static void finish(void)
{
	int i, left = 1;

	shared->failing = 0;
	shared->stop = 1;
	while (left && watch()) {
		for (left = i = 0; i < world.nreaders; i++)
			left += shared->readers[i].pid != 0;
		sleep_ms(20);
	}
	shared->stop_rest = 1;
	while (!left && watch() && !(kill(rotator_pid, 0) && kill(dropper_pid, 0)))
		sleep_ms(20);
	if (daemon_pid)
		kill_daemon();
}

/* What never happened was not tested. */
static void must_have_happened(const char *what, uint64_t count)
{
	if (!count)
		violation("nothing was shown: no %s", what);
}

static int result(void)
{
	tell();
	must_have_happened("read", shared->reads);
	must_have_happened("read of a mapping", shared->mapped_reads);
	must_have_happened("failed request", shared->fails);
	must_have_happened("error of a reader", shared->errors);
	must_have_happened("answer out of order", shared->unordered);
	must_have_happened("restore", shared->restores);
	must_have_happened("killed daemon", shared->kills);
	must_have_happened("rotation", shared->rotations);
	must_have_happened("dropped cache", shared->drops);
	printf("wrong %llu, lost %llu, other violations %llu\n", (unsigned long long)shared->wrong,
	       (unsigned long long)shared->lost,
	       (unsigned long long)(shared->violations - shared->wrong - shared->lost));
	return shared->violations ? 1 : 0;
}

static void start_all(void)
{
	uint64_t r = world.seed + 1;
	pid_t pid;
	int i;

	for (i = 0; i < world.nreaders; i++) {
		if (start(&pid))
			reader(&shared->readers[i], rnd(&r) + i);
		shared->readers[i].pid = pid;
	}
	if (start(&rotator_pid))
		rotator(rnd(&r));
	if (start(&dropper_pid))
		dropper(rnd(&r));
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "make", no_argument, NULL, 'k' },	{ "root", required_argument, NULL, 'r' },
		{ "tag", required_argument, NULL, 't' }, { "source", required_argument, NULL, 's' },
		{ "tree", required_argument, NULL, 'e' }, { "mounts", required_argument, NULL, 'm' },
		{ "seconds", required_argument, NULL, 'n' }, { "readers", required_argument, NULL, 'p' },
		{ "seed", required_argument, NULL, 'd' }, { "slow", required_argument, NULL, 'l' },
		{ 0 }
	};
	const char *source = NULL, *tree = NULL, *mounts = NULL;
	bool make = false;
	int c, i;

	world.seed = time(NULL);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'k': make = true; break;
		case 'r': world.root = optarg; break;
		case 't': world.tag = optarg; break;
		case 's': source = optarg; break;
		case 'e': tree = optarg; break;
		case 'm': mounts = optarg; break;
		case 'n': seconds = strtoull(optarg, NULL, 0); break;
		case 'p': world.nreaders = atoi(optarg); break;
		case 'd': world.seed = strtoull(optarg, NULL, 0); break;
		case 'l':
			world.limit_ms = LIMIT_MS * strtoull(optarg, NULL, 0);
			world.grace_ms = GRACE_MS * strtoull(optarg, NULL, 0);
			break;
		default: return 2;
		}
	}
	if (make && argc - optind == 2)
		return make_file(atoi(argv[optind]), strtoull(argv[optind + 1], NULL, 0));
	if (make || !world.root || !world.tag || !source || !tree || !mounts || optind == argc ||
	    world.nreaders < 1 || world.nreaders > MAX_READERS) {
		fprintf(stderr, "stress: wrong arguments (see stress.c)\n");
		return 2;
	}
	for (i = optind; i < argc; i++)
		add_image(argv[i], source, tree, mounts);
	make_shared();
	printf("seed %llu\n", (unsigned long long)world.seed);
	fflush(stdout);
	start_daemon(world.seed);
	for (i = 0; i < world.nimages; i++)
		if (!mount_image(&shared->rotator, i))
			die("cannot mount");
	start_all();
	run();
	finish();
	return result();
}
