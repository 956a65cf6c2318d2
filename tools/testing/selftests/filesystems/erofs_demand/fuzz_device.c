// SPDX-License-Identifier: GPL-2.0
/*
 * Fuzz /dev/cachefiles_demand: a daemon that is hostile, with readers, mounts and
 * unmounts above it, in epochs. Whatever the daemon does, a reader gets right bytes
 * or an error, and once the daemon is gone everybody returns.
 *
 * usage: fuzz_device [OPTION]... --root CACHE --tag TAG --source DIR --mounts DIR
 *                    TREE:OPTIONS...
 *
 *   --root CACHE    a cache in which all blobs are prepared
 *   --source DIR    the blobs
 *   --mounts DIR    where mounts are made: DIR/0, DIR/1, ...; they stay
 *   TREE:OPTIONS    a mount: its options, without the tag, and what it must show
 *   --seconds N     how long (20); on a slow machine longer, until all branches of
 *                   the grammar were taken, but not more than 4 times as long
 *   --threads N     of the daemon (4)
 *   --readers N     processes (12)
 *   --seed N        (the time)
 *   --slow N        how many times longer than usual things may take (1)
 *
 * In the end the cache has no daemon, and everything is mounted. With one thread,
 * the same seed makes the same daemon; what it meets depends on the readers.
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
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuzz_device.h"

/* After so many epochs everything is unmounted and looked at. */
#define EPOCHS_BETWEEN_RESTS 6
/* Violations after which there is no point in going on. */
#define ENOUGH 20
/* How long it may take until everybody has returned. */
#define LIMIT_MS 30000

struct world world = { .threads = 4, .nreaders = 12 };
struct shared *shared;

static uint64_t seconds = 20, slow = 1;
static const char *mounts_dir;
static pid_t daemon_pid;

/* --- for all -------------------------------------------------------------- */

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
	dprintf(1, "fuzz_device: %s: %s\n", what, strerror(errno));
	if (shared)
		shared->violations++;
	exit(2);
}

bool count(const char *name, bool succeeded)
{
	struct counter *counter = shared->counters;
	const char *found;

	for (;; counter++) {
		if (counter == shared->counters + MAX_COUNTERS)
			die("too many counters");
		found = NULL;
		if (atomic_compare_exchange_strong(&counter->name, &found, name) || !strcmp(found, name))
			break;
	}
	counter->tried++;
	counter->succeeded += succeeded;
	return succeeded;
}

int open_device(int flags)
{
	int fd = open(CACHEFILES_DEMAND_DEVICE, flags | O_CLOEXEC), high;

	if (fd < 0)
		return -1;
	/*
	 * Threads use each other's descriptors while they are closed. No other
	 * file has such a number, so no command gets into a cache file.
	 */
	high = fcntl(fd, F_DUPFD_CLOEXEC, 500);
	close(fd);
	return high;
}

bool command(int fd, const char *format, ...)
{
	char text[CACHEFILES_DEMAND_COMMAND_MAX + 1];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return write(fd, text, n) == n;
}

/* --- hangs ---------------------------------------------------------------- */

static void show_file(const char *format, int pid)
{
	char path[64], text[4096];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), format, pid);
	fd = open(path, O_RDONLY);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n > 0)
		dprintf(1, "%s:\n%.*s\n", path, (int)n, text);
	if (fd >= 0)
		close(fd);
}

static void show_process(int pid)
{
	char pattern[64];
	glob_t tasks;
	size_t i;

	snprintf(pattern, sizeof(pattern), "/proc/%d/task/*", pid);
	if (glob(pattern, 0, NULL, &tasks))
		return;
	for (i = 0; i < tasks.gl_pathc; i++) {
		pid = atoi(strrchr(tasks.gl_pathv[i], '/') + 1);
		show_file("/proc/%d/stat", pid);
		show_file("/proc/%d/wchan", pid);
		show_file("/proc/%d/stack", pid);
	}
	globfree(&tasks);
}

/* Whether it waits for nothing but a processor: then a machine under load is to blame. */
static bool is_running(int pid)
{
	char path[64], text[512] = "", *state;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	/* It comes after the name, which is in parentheses. */
	state = strrchr(text, ')');
	return state && !strncmp(state, ") R", 3);
}

/* Somebody does not return: tell all that is known, and end. */
__attribute__((noreturn)) static void hang(const char *what)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY);

	violation("hang: %s", what);
	/* Who runs, and who waits for what, for the kernel log. */
	if (fd < 0 || write(fd, "l", 1) != 1 || write(fd, "w", 1) != 1)
		dprintf(1, "no sysrq\n");
	exit(1);
}

static bool waits_since(const struct actor *actor, uint64_t before)
{
	uint64_t since = actor->since;

	return since && since <= before;
}

static void show_actor(const struct actor *actor)
{
	dprintf(1, "process %d is in %s for %llu ms: mount %d, node %d (%s), %llu bytes at %llu\n",
		actor->pid, actor->what, (unsigned long long)(now_ms() - actor->since), actor->mount,
		actor->node, world.mounts[actor->mount].nodes[actor->node].path,
		(unsigned long long)actor->length, (unsigned long long)actor->offset);
	show_process(actor->pid);
}

/* Whether the actor still waits; ends the program if that has been for too long. */
static bool still_waits(const struct actor *actor, uint64_t before, uint64_t begun, const char *after)
{
	uint64_t limit = world.limit_ms;

	if (!waits_since(actor, before))
		return false;
	if (now_ms() - begun < limit || (is_running(actor->pid) && now_ms() - begun < 4 * limit))
		return true;
	show_actor(actor);
	hang(after);
}

/* Everybody who waited at that time returns. */
static void all_return(uint64_t before, const char *after)
{
	uint64_t begun = now_ms();
	int i;

	while (still_waits(&shared->mounter, before, begun, after))
		sleep_ms(1);
	for (i = 0; i < world.nreaders; i++)
		while (still_waits(&shared->readers[i], before, begun, after))
			sleep_ms(1);
}

/* wait_until(CONDITION, WHAT): within the limit. */
#define wait_until(condition, what)					\
	do {								\
		uint64_t wait_begun = now_ms();				\
									\
		while (!(condition)) {					\
			if (now_ms() - wait_begun > world.limit_ms)	\
				hang(what);				\
			sleep_ms(2);					\
		}							\
	} while (0)

/* --- epochs --------------------------------------------------------------- */

static pid_t spawn(void (*run)(uint64_t), uint64_t seed)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		die("cannot fork");
	if (pid == 0) {
		die_with_parent(parent);
		run(seed);
		_exit(0);
	}
	return pid;
}

static void run_honest(uint64_t seed)
{
	(void)seed;
	honest_daemon();
}

static bool daemon_ended(void)
{
	int status;

	if (waitpid(daemon_pid, &status, WNOHANG) != daemon_pid)
		return false;
	if (WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) != SIGKILL)
		violation("the daemon ended with status %#x", status);
	return true;
}

static void end_daemon(bool by_force)
{
	uint64_t begun = now_ms();

	shared->daemon_stop = 1;
	if (by_force)
		kill(daemon_pid, SIGKILL);
	while (!daemon_ended()) {
		if (now_ms() - begun > world.limit_ms) {
			show_process(daemon_pid);
			hang("the daemon cannot end");
		}
		sleep_ms(1);
	}
	shared->daemon_stop = 0;
	/* It may have died within an upheaval. */
	shared->upheavals_ended = shared->upheavals_begun;
}

static bool bind_cache(int fd)
{
	return command(fd, "bind");
}

/* The device can be opened, and the cache bound, whatever was before. */
static int take_over(void)
{
	static const char *const limits[] = { "brun 7%", "bcull 5%", "bstop 1%", "frun 7%", "fcull 5%", "fstop 1%" };
	int fd, i;

	shared->upheavals_begun++;
	wait_until((fd = open_device(O_RDWR)) >= 0, "the device cannot be opened");
	if (!command(fd, "dir %s", world.root) || !command(fd, "tag %s", world.tag))
		violation("dir and tag are refused: %s", strerror(errno));
	for (i = 0; i < (int)ARRAY_SIZE(limits); i++)
		command(fd, "%s", limits[i]);
	wait_until(bind_cache(fd), "the cache cannot be bound");
	command(fd, "timeout 0");
	command(fd, "granule 4096");
	command(fd, "io auto");
	for (i = 0; i < world.nmounts; i++)
		shared->pinned[i] = 0;
	shared->upheavals_ended++;
	return fd;
}

/* The ways in which a daemon can end so that nobody waits any more. */
static void end_epoch(uint64_t *r)
{
	uint64_t closed;
	int fd;

	end_daemon(count("the daemon is killed", one_in(r, 3)));
	fd = take_over();
	if (one_in(r, 3)) {
		count("the next daemon is a good one", true);
		serve_for(fd, 100);
	}
	switch (rnd_below(r, 4)) {
	case 0:
		if (world.timeout) {
			count("end by timeout", command(fd, "timeout 1"));
			all_return(now_ms(), "requests timed out");
			command(fd, "timeout 0");
		}
		/* fall through */
	case 1:
		if (world.unbind) {
			count("end by unbind", command(fd, "unbind"));
			all_return(now_ms(), "the cache was unbound, the device is open");
		}
		break;
	case 2:
		if (world.linger) {
			count("end by linger 1", command(fd, "linger 1"));
			break;
		}
		/* fall through */
	default:
		count("end by linger 0", command(fd, "linger 0") || !world.linger);
	}
	close(fd);
	closed = now_ms();
	all_return(closed, "the device was closed");
}

static void epoch(uint64_t *r)
{
	uint64_t seed = rnd(r), until = now_ms() + (200 + rnd_below(r, 1500)) * slow;

	daemon_pid = spawn(hostile_daemon, seed);
	while (now_ms() < until && shared->violations < ENOUGH)
		sleep_ms(10);
	end_epoch(r);
	count("epoch", true);
}

/* --- rests: nothing is left ----------------------------------------------- */

static bool module_unused(const char *module)
{
	char path[128], text[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", module);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		die(path);
	close(fd);
	return !strcmp(text, "0\n");
}

static bool unmounted(int i)
{
	while (is_mounted(i) && !umount2(world.mounts[i].dir, 0))
		;
	return !is_mounted(i);
}

/* Without readers and a daemon everything can be unmounted, and then nothing is in use. */
static void rest(void)
{
	int i;

	shared->moored = 1;
	wait_until(!shared->mounter.pid, "the mounter does not rest");
	shared->pause = 1;
	for (i = 0; i < world.nmounts; i++)
		wait_until(unmounted(i), "a mount without a daemon cannot be unmounted");
	wait_until(module_unused("erofs"), "erofs is in use, though nothing is mounted");
	wait_until(module_unused("cachefiles_demand"), "cachefiles_demand is in use, though nothing is mounted");
	for (i = 0; i < world.nblobs; i++)
		renew(&world.blobs[i], true);
	count("rest", true);
}

/* Everything is mounted, with the help of a good daemon; hardly anything is present. */
static void mount_all(void)
{
	int i;

	daemon_pid = spawn(run_honest, 0);
	for (i = 0; i < world.nmounts; i++)
		wait_until(is_mounted(i) || mount_once(i, world.mounts[i].options, world.limit_ms),
			   "mount with a good daemon");
	end_daemon(false);
}

static void go_on(void)
{
	shared->pause = 0;
	shared->moored = 0;
}

/* Mounts and cache files stay as they are. */
static void last_epoch(uint64_t *r)
{
	rest();
	shared->gentle = 1;
	mount_all();
	shared->pause = 0;
	epoch(r);
}

/* --- the report ----------------------------------------------------------- */

/* What must have happened for the run to mean something. */
static const char *const must_succeed[] = {
	"reader: pread", "reader: mmap", "reader: read", "reader: list", "reader: stat", "kill a reader",
	"mount", "umount -l", "take", "done", "fail", "done without data",
	"done with the first half", "done with some blocks", "answer late",
	"fill what nobody asked for", "bind as it should", "dup", "open", "epoll add", "epoll wait",
	"poll", "the daemon is killed",
};
static const char *const must_fail[] = {
	"reader: pread", "reader: mmap", "spoilt command", "answer twice", "fail after done",
	"read to a bad pointer", "read to memory that is partly bad", "write from a bad pointer",
	"write from memory that is partly bad", "call that does not fit",
};

static const struct counter *find_counter(const char *name)
{
	static const struct counter none;
	const struct counter *c;

	for (c = shared->counters; c < shared->counters + MAX_COUNTERS && c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return &none;
}

/* What is missing for the run to mean something, or NULL. */
static const char *missing(void)
{
	const struct counter *c;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(must_succeed); i++)
		if (!find_counter(must_succeed[i])->succeeded)
			return must_succeed[i];
	for (i = 0; i < ARRAY_SIZE(must_fail); i++) {
		c = find_counter(must_fail[i]);
		if (c->tried == c->succeeded)
			return must_fail[i];
	}
	for (i = 0; command_word(i); i++)
		if (!find_counter(command_word(i))->tried)
			return command_word(i);
	return NULL;
}

static void progress(uint64_t begun, uint64_t epochs)
{
	uint64_t errors = 0;
	int i;

	for (i = 0; i < 512; i++)
		errors += shared->read_errors[i];
	printf("%llu s, %llu epochs: %llu reads, %llu MiB compared, %llu directories, %llu errors, %llu readers killed, %llu violations\n",
	       (unsigned long long)(now_ms() - begun) / 1000, (unsigned long long)epochs,
	       (unsigned long long)shared->reads, (unsigned long long)shared->read_bytes >> 20,
	       (unsigned long long)shared->lists, (unsigned long long)errors,
	       (unsigned long long)shared->kills, (unsigned long long)shared->violations);
	fflush(stdout);
}

static void report(void)
{
	unsigned int i, kinds = 0;
	const struct counter *c;

	for (c = shared->counters; c < shared->counters + MAX_COUNTERS && c->name; c++)
		printf("%-45s %8llu tried %8llu succeeded\n", c->name, (unsigned long long)c->tried,
		       (unsigned long long)c->succeeded);
	for (i = 1; i < 512; i++)
		kinds += shared->read_errors[i] > 0;
	printf("readers saw %u kinds of errors, and %llu SIGBUS\n", kinds,
	       (unsigned long long)shared->read_errors[0]);

	if (missing())
		violation("the run tells nothing: '%s' never happened", missing());
}

/* --- the start ------------------------------------------------------------ */

/* What the kernel at hand knows of the newer commands. */
static void probe(void)
{
	int fd = take_over();

	world.linger = command(fd, "linger 0");
	world.timeout = command(fd, "timeout 0");
	world.unbind = command(fd, "unbind");
	close(fd);
	printf("the kernel has%s%s%s\n", world.linger ? " linger" : " no linger",
	       world.timeout ? ", timeout" : ", no timeout", world.unbind ? ", unbind" : ", no unbind");
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "root", 1, NULL, 'r' },    { "tag", 1, NULL, 't' },	 { "source", 1, NULL, 's' },
		{ "mounts", 1, NULL, 'm' },  { "seconds", 1, NULL, 'n' }, { "seed", 1, NULL, 'e' },
		{ "threads", 1, NULL, 'j' }, { "readers", 1, NULL, 'p' }, { "slow", 1, NULL, 'l' },
		{ 0 },
	};
	static char other_root[1024];
	struct stat below;
	int option;

	world.seed = time(NULL);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'r': world.root = optarg; break;
		case 't': world.tag = optarg; break;
		case 's': world.source = optarg; break;
		case 'm': mounts_dir = optarg; break;
		case 'n': seconds = strtoull(optarg, NULL, 0); break;
		case 'e': world.seed = strtoull(optarg, NULL, 0); break;
		case 'j': world.threads = atoi(optarg); break;
		case 'p': world.nreaders = atoi(optarg); break;
		case 'l': slow = strtoull(optarg, NULL, 0); break;
		default: exit(2);
		}
	}
	world.limit_ms = LIMIT_MS * slow;
	if (!world.root || !world.tag || !world.source || !mounts_dir || optind == argc ||
	    world.threads < 1 || world.threads > 16 || world.nreaders < 1 || world.nreaders > MAX_READERS) {
		fprintf(stderr, "usage: see the top of fuzz_device.c\n");
		exit(2);
	}
	snprintf(other_root, sizeof(other_root), "%s.other", world.root);
	if (mkdir(other_root, 0755) && errno != EEXIST)
		die(other_root);
	world.other_root = other_root;
	if (stat(mounts_dir, &below))
		die(mounts_dir);
	world.below = below.st_dev;
	for (; optind < argc; optind++)
		add_mount(argv[optind], mounts_dir);
	add_blobs();
}

int main(int argc, char **argv)
{
	uint64_t r, begun = now_ms(), epochs = 0, told = begun;
	pid_t children[3];
	int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("cannot share memory");
	parse(argc, argv);
	printf("seed %llu, %llu s, %d threads, %d readers\n", (unsigned long long)world.seed,
	       (unsigned long long)seconds, world.threads, world.nreaders);
	probe();

	/* None of these ever has the device open. */
	mount_all();
	r = world.seed;
	children[0] = spawn(readers, rnd(&r));
	children[1] = spawn(mounter, rnd(&r));
	children[2] = spawn(nuisance, rnd(&r));
	while (now_ms() - begun < seconds * (missing() ? 4000 : 1000) && shared->violations < ENOUGH) {
		epoch(&r);
		if (++epochs % EPOCHS_BETWEEN_RESTS == 0) {
			rest();
			mount_all();
			go_on();
		}
		if (now_ms() - told > 10000) {
			told = now_ms();
			progress(begun, epochs);
		}
	}
	last_epoch(&r);
	shared->stop = 1;
	for (i = 0; i < 3; i++)
		wait_until(waitpid(children[i], NULL, WNOHANG) > 0, "readers do not end");
	progress(begun, epochs + 1);
	report();
	return shared->violations ? 1 : 0;
}
