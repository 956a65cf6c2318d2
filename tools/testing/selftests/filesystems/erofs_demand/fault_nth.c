// SPDX-License-Identifier: GPL-2.0
/*
 * Do something with its first, its second, ... allocation of memory failing, until
 * none is left to fail. Each time it must end, with an error or as it should, and
 * succeed when it is done once more without a failure.
 *
 * usage: fault_nth [--limit SECONDS] [--from OFFSET] [--none 1] [--harmless 1]
 *                  OPERATION ARGUMENT...
 *
 *   insmod FILE, rmmod FILE      load or unload a module (with the other unharmed)
 *   bind ROOT TAG                open the device and bind a cache
 *   mount DIR OPTIONS, umount DIR OPTIONS
 *   cold-mount DIR OPTIONS CACHE-FILE   with the image not there yet
 *   list DIR NAMES               a directory that has so many names
 *   hit, miss, ahead FILE TRUTH  read what is there; what is not; many blocks of it
 *   see PATH...                  read files that show the state of the kernel
 *   take, done, fail, restore, unbind, close, takeover ROOT TAG FILE TRUTH CACHE-FILE BLOB
 *                                what a daemon does while a reader waits
 *   cull, inuse ROOT TAG CACHE-FILE     of a file that is not in use
 *   storm FILE TRUTH SECONDS [FILTERED]  only read, while allocations fail at random; in
 *                                a task that is marked as one that may fail, if FILTERED
 *
 * The last line that it writes tells how many allocations failed, and how many of
 * these failures made the operation fail. SECONDS is how long one may take (60);
 * bytes of FILE behind OFFSET (0) have not been read before, where that matters. With
 * --none there must be no allocation that could fail, else there must be some. With
 * --harmless none of them may make the operation fail.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <linux/cachefiles_demand.h>

#define BLOCK CACHEFILES_DEMAND_BLOCK
#define MARK "user.CacheFiles.cache"
#define READ_MAX (256 * 1024)
/* More allocations than anything here makes. */
#define TOO_MANY 20000

typedef struct cachefiles_demand_req record_t;

static unsigned int limit = 60;
static bool none, harmless;
static char **argument;
/* Seen by the process that watches: which allocation is to fail. */
static struct {
	int nth;
	const char *doing;
} *progress;

__attribute__((noreturn)) static void die(const char *what)
{
	printf("allocation %d, %s: %s: %s\n", progress->nth, progress->doing, what, strerror(errno));
	exit(1);
}

__attribute__((noreturn)) static void wrong(const char *what)
{
	errno = 0;
	printf("allocation %d, %s: %s\n", progress->nth, progress->doing, what);
	exit(1);
}

/* What follows may take no longer than the limit: else this process is killed. */
static void doing(const char *what)
{
	progress->doing = what;
	alarm(limit);
}

static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

/* --- failures ------------------------------------------------------------- */

static int fail_nth;

static void arm(int nth)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", nth);

	if (write(fail_nth, text, n) != n)
		die("cannot inject a failure");
}

/* Whether an allocation has failed. */
static bool disarm(void)
{
	char text[16] = "";

	if (pread(fail_nth, text, sizeof(text) - 1, 0) <= 0)
		die("cannot tell if a failure was injected");
	arm(0);
	return atoi(text) == 0;
}

/* --- modules -------------------------------------------------------------- */

static long insmod(void)
{
	int fd = open(argument[0], O_RDONLY | O_CLOEXEC);
	long result = fd < 0 ? -1 : syscall(SYS_finit_module, fd, "", 0);
	int error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return result;
}

static long rmmod(void)
{
	char name[256];

	snprintf(name, sizeof(name), "%s", basename(argument[0]));
	name[strcspn(name, ".")] = 0;
	return syscall(SYS_delete_module, name, O_NONBLOCK);
}

/* --- mounts --------------------------------------------------------------- */

static long do_mount(void)
{
	return mount("none", argument[0], "erofs", MS_RDONLY, argument[1]);
}

static long do_umount(void)
{
	return umount2(argument[0], 0);
}

/* Puts an empty cache file in the place of one that is not in use. */
static void renew(const char *path)
{
	char mark[64];
	ssize_t size = getxattr(path, MARK, mark, sizeof(mark));
	struct stat old;
	int fd;

	if (size < 0 || stat(path, &old) || unlink(path))
		die(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, old.st_size) || fsetxattr(fd, MARK, mark, size, 0))
		die(path);
	close(fd);
}

static void renew_image(void)
{
	renew(argument[2]);
}

/* --- reading -------------------------------------------------------------- */

static int file = -1, truth;
static off_t next_offset;
static size_t length;

static void open_files(const char *path, const char *truth_path)
{
	file = open(path, O_RDONLY | O_CLOEXEC);
	truth = open(truth_path, O_RDONLY | O_CLOEXEC);
	if (file < 0 || truth < 0)
		die("cannot open the files");
}

static void begin_hit(void)
{
	if (file < 0)
		open_files(argument[0], argument[1]);
	length = READ_MAX;
	/* Out of the page cache, into which the last read has put it. */
	posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
}

/* Bytes that are missing: `stride` is further than what was read with those before. */
static void begin_fresh(size_t size, off_t stride, int advice)
{
	struct stat stat;

	if (file < 0)
		open_files(argument[0], argument[1]);
	posix_fadvise(file, 0, 0, advice);
	length = size;
	next_offset += stride;
	if (fstat(file, &stat) || next_offset + (off_t)length > stat.st_size)
		wrong("the file is too small");
}

static void begin_miss(void)
{
	begin_fresh(BLOCK, 16 * BLOCK, POSIX_FADV_RANDOM);
}

static void begin_ahead(void)
{
	begin_fresh(8 * BLOCK, 128 * BLOCK, POSIX_FADV_NORMAL);
}

/* Reads a range, and compares what it gets. */
static long read_range(off_t offset, size_t size)
{
	static char got[READ_MAX], wanted[READ_MAX];
	ssize_t n = pread(file, got, size, offset);

	if (n < 0)
		return -1;
	if (n == 0 || pread(truth, wanted, n, offset) != n || memcmp(got, wanted, n))
		wrong("wrong bytes were read");
	/* What comes behind a part that was read gave an error. */
	return (size_t)n == size ? 0 : -1;
}

static long do_read(void)
{
	return read_range(next_offset, length);
}

/* Whether allocations of this task may fail, where only those of marked tasks do. */
static void mark(const char *value)
{
	static int fd = -1;

	/* Kept open: while the task is marked, opening it may fail. */
	if (fd < 0)
		fd = open("/proc/self/make-it-fail", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, 1) != 1)
		die("cannot mark the task");
}

/* Reads as other things do, for so long: errors are expected, wrong bytes are not. */
static int storm(void)
{
	time_t end = time(NULL) + atoi(argument[2]);
	bool filtered = argument[3];
	unsigned long reads = 0, errors = 0;
	struct stat stat;

	open_files(argument[0], argument[1]);
	srandom(getpid());
	fstat(file, &stat);
	read_range(0, READ_MAX);
	if (filtered) {
		/* What this process itself needs is there. */
		if (mlockall(MCL_CURRENT))
			die("cannot lock memory");
		mark("1");
	}
	while (time(NULL) < end) {
		doing("storm");
		if (random() % 8 == 0)
			posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
		posix_fadvise(file, 0, 0, random() % 2 ? POSIX_FADV_RANDOM : POSIX_FADV_NORMAL);
		if (read_range(random() % (stat.st_size - READ_MAX), 1 + random() % (READ_MAX - 1)))
			errors++;
		else
			reads++;
	}
	if (filtered)
		mark("0");
	printf("%lu reads were right, %lu failed\n", reads, errors);
	return reads + errors ? 0 : 1;
}

static void drop_inodes(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "2", 1) != 1)
		die("cannot drop caches");
	close(fd);
}

static long list(void)
{
	static char names[READ_MAX];
	int fd = open(argument[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC), error;
	long n = -1, at, count = 0;

	while (fd >= 0 && (n = syscall(SYS_getdents64, fd, names, sizeof(names))) > 0)
		/* The size of an entry is behind two numbers of 8 bytes. */
		for (at = 0; at < n; at += *(unsigned short *)(names + at + 16))
			count++;
	error = errno;
	if (fd >= 0)
		close(fd);
	errno = error;
	if (n == 0 && count != atoi(argument[1]) + 2)
		wrong("names are missing");
	return n;
}

static long see(void)
{
	static char text[READ_MAX];
	char **path;
	long n = 0;
	int fd;

	for (path = argument; *path && n >= 0; path++) {
		fd = open(*path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return -1;
		while ((n = read(fd, text, sizeof(text))) > 0)
			;
		close(fd);
	}
	return n;
}

/* --- a daemon ------------------------------------------------------------- */

static int device = -1;
static pid_t reader;
static record_t record;

static long tell(const char *word, const char *rest)
{
	char text[CACHEFILES_DEMAND_COMMAND_MAX + 1];
	int n = snprintf(text, sizeof(text), *rest ? "%s %s" : "%s", word, rest);

	return write(device, text, n) == n ? 0 : -1;
}

static long answer(const char *format)
{
	char text[64];

	snprintf(text, sizeof(text), format, (unsigned long long)record.id);
	return tell(text, "");
}

static long bind_cache(void)
{
	device = open(CACHEFILES_DEMAND_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0 || tell("dir", argument[0]) || tell("tag", argument[1]))
		return -1;
	return tell("bind", "");
}

static void close_device(void)
{
	if (device >= 0)
		close(device);
	device = -1;
}

static void need(const char *what, long result)
{
	if (result)
		die(what);
}

static bool take_within(int ms)
{
	struct pollfd pfd = { .fd = device, .events = POLLIN };

	return poll(&pfd, 1, ms) > 0 && read(device, &record, sizeof(record)) == sizeof(record);
}

/* Does what the record asks for. */
static void fill(void)
{
	static char bytes[READ_MAX];
	int from = open(argument[5], O_RDONLY | O_CLOEXEC), to = open(argument[4], O_WRONLY | O_CLOEXEC);

	if (from < 0 || to < 0 || record.len > sizeof(bytes) ||
	    pread(from, bytes, record.len, record.off) != (ssize_t)record.len ||
	    pwrite(to, bytes, record.len, record.off) != (ssize_t)record.len)
		die("cannot fill");
	close(from);
	close(to);
}

/* A reader asks for what is not there. */
static void start_reader(void)
{
	pid_t parent = getpid();

	if (device < 0)
		need("bind", bind_cache());
	if (file < 0)
		open_files(argument[2], argument[3]);
	posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
	next_offset += 16 * BLOCK;
	reader = fork();
	if (reader < 0)
		die("cannot fork");
	if (reader == 0) {
		die_with(parent);
		close(device);
		/* Nothing fails here by force; 2 is an error, 1 wrong bytes. */
		exit(read_range(next_offset, BLOCK) ? 2 : 0);
	}
}

static void begin_waiting(void)
{
	struct pollfd pfd = { .events = POLLIN };

	start_reader();
	pfd.fd = device;
	if (poll(&pfd, 1, limit * 1000) <= 0)
		wrong("no request came");
}

static void begin_taken(void)
{
	start_reader();
	if (!take_within(limit * 1000))
		wrong("no request came");
}

static void begin_lingering(void)
{
	begin_taken();
	need("linger", tell("linger", "604800"));
	close_device();
}

static void begin_closing(void)
{
	begin_taken();
	need("linger", tell("linger", "0"));
}

static long take(void)
{
	return read(device, &record, sizeof(record)) == sizeof(record) ? 0 : -1;
}

static long say_done(void)
{
	fill();
	return answer("done %llu");
}

static long say_fail(void)
{
	return answer("fail %llu 5");
}

static long restore(void)
{
	return tell("restore", "");
}

static long unbind(void)
{
	return tell("unbind", "");
}

static long do_close(void)
{
	close_device();
	return 0;
}

/* A new daemon, up to the request that the last one has left. */
static long take_over(void)
{
	return bind_cache() ? -1 : take();
}

/* Serves until the reader has ended. */
static void let_reader_end(bool may_fail)
{
	int status;

	doing("the reader");
	while (waitpid(reader, &status, WNOHANG) == 0)
		if (device >= 0 && take_within(10)) {
			fill();
			need("done", answer("done %llu"));
		}
	if (!WIFEXITED(status) || WEXITSTATUS(status) == 1)
		wrong("the reader got wrong bytes");
	if (WEXITSTATUS(status) == 2 && !may_fail)
		wrong("the reader got an error");
}

/* Only what was taken again, or never, can be answered. */
static void end_taken(void)
{
	fill();
	answer("done %llu");
	let_reader_end(false);
}

static void end_restored(void)
{
	if (!take_within(limit * 1000))
		wrong("nothing was restored");
	end_taken();
}

static void end_answered(void)
{
	let_reader_end(true);
}

static void end_closed(void)
{
	let_reader_end(true);
	close_device();
}

static void end_bound(void)
{
	close_device();
}

/* --- culling -------------------------------------------------------------- */

static char cull_name[300];

/* A cache file beside another one, which nobody uses. */
static void begin_cull(void)
{
	char fan[1024], mark[64];
	ssize_t size = getxattr(argument[2], MARK, mark, sizeof(mark));
	int fd;

	if (device < 0)
		need("bind", bind_cache());
	snprintf(fan, sizeof(fan), "%s", argument[2]);
	snprintf(cull_name, sizeof(cull_name), "%s.culled", basename(argument[2]));
	if (size < 0 || chdir(dirname(fan)))
		die(fan);
	fd = open(cull_name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, BLOCK) || fsetxattr(fd, MARK, mark, size, 0))
		die(cull_name);
	close(fd);
}

static long cull(void)
{
	return tell("cull", cull_name);
}

static void end_culled(void)
{
	if (!access(cull_name, F_OK))
		wrong("the file is still there");
}

static long inuse(void)
{
	return tell("inuse", cull_name);
}

/* --- operations ----------------------------------------------------------- */

static const struct operation {
	const char *name;
	int arguments;
	void (*begin)(void);
	long (*act)(void);
	/* Takes back what half an act has done, before it is done once more. */
	void (*clear)(void);
	void (*end)(void);
	/* Takes back what a whole act has done: none, if it can be done again. */
	long (*undo)(void);
} operations[] = {
	{ "insmod", 1, NULL, insmod, NULL, NULL, rmmod },
	{ "rmmod", 1, NULL, rmmod, NULL, NULL, insmod },
	{ "bind", 2, NULL, bind_cache, close_device, end_bound, NULL },
	{ "mount", 2, NULL, do_mount, NULL, NULL, do_umount },
	{ "cold-mount", 3, renew_image, do_mount, NULL, NULL, do_umount },
	{ "umount", 2, NULL, do_umount, NULL, NULL, do_mount },
	{ "list", 2, drop_inodes, list, NULL, NULL, NULL },
	{ "hit", 2, begin_hit, do_read, NULL, NULL, NULL },
	{ "miss", 2, begin_miss, do_read, NULL, NULL, NULL },
	{ "ahead", 2, begin_ahead, do_read, NULL, NULL, NULL },
	{ "see", 1, NULL, see, NULL, NULL, NULL },
	{ "take", 6, begin_waiting, take, NULL, end_taken, NULL },
	{ "done", 6, begin_taken, say_done, NULL, end_answered, NULL },
	{ "fail", 6, begin_taken, say_fail, NULL, end_answered, NULL },
	{ "restore", 6, begin_taken, restore, NULL, end_restored, NULL },
	{ "unbind", 6, begin_taken, unbind, NULL, end_closed, NULL },
	{ "close", 6, begin_closing, do_close, NULL, end_closed, NULL },
	{ "takeover", 6, begin_lingering, take_over, close_device, end_taken, NULL },
	{ "cull", 3, begin_cull, cull, NULL, end_culled, NULL },
	{ "inuse", 3, begin_cull, inuse, NULL, NULL, NULL },
};

/* Does it once with the n-th allocation failing: whether there was one. */
static bool fail_once(const struct operation *operation, int nth, int *failures)
{
	bool injected;
	long result;
	int error;

	progress->nth = nth;
	doing("preparing");
	if (operation->begin)
		operation->begin();
	doing(operation->name);
	arm(nth);
	result = operation->act();
	error = errno;
	injected = disarm();
	errno = error;
	if (result) {
		if (!injected)
			die("it fails without a failure");
		++*failures;
		if (operation->clear)
			operation->clear();
		doing("once more, without a failure");
		need("it fails once more", operation->act());
	}
	if (operation->end)
		operation->end();
	doing("undoing");
	if (operation->undo)
		need("cannot undo", operation->undo());
	return injected;
}

static int run(const struct operation *operation)
{
	int nth = 1, failures = 0;

	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (fail_nth < 0)
		die("this kernel cannot inject failures");
	while (fail_once(operation, nth, &failures))
		if (++nth > TOO_MANY)
			wrong("there is no end");
	printf("%d allocations failed, %d of these made %s fail\n", nth - 1, failures, operation->name);
	return (nth > 1) == !none && !(harmless && failures) ? 0 : 1;
}

static const struct operation *find(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		if (!strcmp(operations[i].name, name))
			return &operations[i];
	return NULL;
}

int main(int argc, char **argv)
{
	const struct operation *operation;
	pid_t parent = getpid(), child;
	int status;

	for (; argc > 2 && !strncmp(argv[1], "--", 2); argc -= 2, argv += 2) {
		if (!strcmp(argv[1], "--limit"))
			limit = atoi(argv[2]);
		else if (!strcmp(argv[1], "--from"))
			next_offset = atoll(argv[2]);
		else if (!strcmp(argv[1], "--none"))
			none = true;
		else if (!strcmp(argv[1], "--harmless"))
			harmless = true;
	}
	argument = argv + 2;
	operation = argc > 1 ? find(argv[1]) : NULL;
	if (argc < 2 || (operation ? argc < 2 + operation->arguments : strcmp(argv[1], "storm") || argc < 5)) {
		fprintf(stderr, "usage: see the top of fault_nth.c\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (progress == MAP_FAILED)
		return 2;
	child = fork();
	if (child == 0) {
		die_with(parent);
		return operation ? run(operation) : storm();
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 2;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	printf("allocation %d, %s: killed by signal %d%s\n", progress->nth, progress->doing, WTERMSIG(status),
	       WTERMSIG(status) == SIGALRM ? ": it did not end" : "");
	return 1;
}
