/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The wire format between cachefiles_demand.ko and the daemon that fills its
 * cache. This file is the one place where it is written down.
 */
#ifndef _UAPI_LINUX_CACHEFILES_DEMAND_H
#define _UAPI_LINUX_CACHEFILES_DEMAND_H

#include <linux/types.h>

/**
 * DOC: The cachefiles_demand device
 *
 * A cache file is sparse, and a hole in it means "not fetched yet". A read that
 * meets a hole becomes a request; the daemon reads the request from the device,
 * writes the bytes into the cache file, and answers. Data never passes through
 * the device. All integers are in the byte order of the machine.
 *
 * **open(2)**
 *
 * ====== ==============================================
 * EPERM  the caller lacks CAP_SYS_ADMIN
 * EBUSY  the device is open already: one daemon serves it
 * ====== ==============================================
 *
 * **read(2)** fills the buffer with as many whole records, each a &struct
 * cachefiles_demand_req, as fit and as are waiting, and returns their size in
 * bytes. It never blocks. Every record is delivered once to a daemon, the oldest
 * first; again only after ``restore``, or to the next daemon.
 *
 * ======== ==========================================================
 * 0        nothing is waiting, or no cache is bound yet
 * EMSGSIZE the buffer has not even room for one record
 * EFAULT   the buffer cannot be written; the record is delivered again
 * ======== ==========================================================
 *
 * **poll(2)** reports EPOLLIN exactly when a read would return more than 0, and
 * EPOLLOUT while files should be culled. Whatever makes one of them true wakes,
 * so that edge-triggered epoll works.
 *
 * **write(2)** takes one command of ASCII text: a word, then, after white space,
 * its arguments. A command has at most %CACHEFILES_DEMAND_COMMAND_MAX bytes; one
 * trailing newline is allowed and ignored. Numbers are decimal, or hexadecimal
 * after "0x". Success returns the size of the command.
 *
 * Setting up, before ``bind``:
 *
 * ================= ========================================================
 * ``dir PATH``      the root of the cache: an absolute path
 * ``tag NAME``      the name of the cache, by which a mount can choose it;
 *                   without this command it is "CacheFiles"
 * ``secctx CTX``    the security context that cache files are accessed with;
 *                   without this command it is the daemon's
 * ``brun N%``       limits on free blocks (b) and free files (f) of the file
 * ``bcull N%``      system below, in per cent of what it has. Below cull,
 * ``bstop N%``      EPOLLOUT is reported until there is more than run. Below
 * ``frun N%``       stop, missing data gives ENOSPC at once.
 * ``fcull N%``      0 <= stop < cull < run < 100; without these commands they
 * ``fstop N%``      are 7, 5 and 1
 * ``bind``          put the cache into service, or take over one that has lost
 *                   its daemon: that with the same ``dir`` and ``tag``, with
 *                   all requests that have no answer
 * ================= ========================================================
 *
 * At any time:
 *
 * ==================== =====================================================
 * ``linger SECONDS``   how long requests wait for the next daemon when this
 *                      one is gone: 0 to 604800, at first 30
 * ``timeout SECONDS``  a request without an answer fails with ETIMEDOUT after
 *                      so long: 0 (never, as at first) to 604800
 * ``granule BYTES``    the unit of requests: a power of two from 4096 (as at
 *                      first) to 16777216. Requests grow to multiples of it,
 *                      not beyond the blob's end, to save round trips
 * ``io MODE``          how cache files are read: "auto" (as at first) from the
 *                      page cache what is there, and past it the rest;
 *                      "direct", "buffered": always past it, or through it
 * ==================== =====================================================
 *
 * After ``bind``:
 *
 * ================= ========================================================
 * ``done ID``       the request's bytes are in the cache file. The kernel looks
 *                   once: if a hole is left there, the reader gets EIO
 * ``fail ID ERRNO`` the bytes cannot be had; the reader gets ERRNO, which is
 *                   positive, 1 to 511
 * ``restore``       deliver all requests again that have no answer
 * ``cull NAME``     remove the cache file NAME of the working directory of the
 *                   caller, which must be a directory of the cache
 * ``inuse NAME``    success if that file is not in use, EBUSY if it is
 * ``unbind``        end the service: what has no answer fails with EIO. The
 *                   descriptor is then as after open(2)
 * ================= ========================================================
 *
 * A command that fails changes nothing:
 *
 * ========== ================================================================
 * EOPNOTSUPP the word is no command
 * EINVAL     the command is empty or too long, holds a NUL byte, or an argument
 *            is missing, malformed or out of range
 * EEXIST     ``dir``, ``tag`` or ``secctx`` was given before
 * EBUSY      a command to set up, or ``bind``, after the cache was bound
 * EINVAL     ``bind`` without ``dir``, with limits that are not in order, or on
 *            an idmapped mount; a command for after ``bind`` before it; ``done``
 *            or ``fail`` with an id that is unknown, answered already, given up
 *            by an unmount, or not delivered
 * EBUSY      ``bind``: a cache with that tag is bound
 * ENOENT     ``bind``: there is nothing at PATH
 * ENOTDIR    ``bind``: PATH is not a directory
 * EROFS      ``bind``: PATH is on a read-only file system
 * EOPNOTSUPP ``bind``: the file system at PATH cannot hold a cache; it must be
 *            ext4, XFS or btrfs, with extended attributes and blocks of at most
 *            4096 bytes
 * EBUSY      ``cull``, ``inuse``: the file is in use
 * ENOENT     ``cull``, ``inuse``: there is no such file
 * EISDIR     ``cull``: it is not a regular file
 * EINVAL     ``cull``, ``inuse``: the working directory is not in the cache
 * EFAULT     the command cannot be read from memory
 * ========== ================================================================
 *
 * **close(2)** leaves the cache bound while mounts use it: what is present can be
 * read. What is missing waits for the time to linger, with all requests that have
 * no answer; a later opener that gives the same ``dir`` and ``tag`` takes them
 * over, with the same ids. After that time it gives EIO, until somebody binds the
 * cache again. A cache without a mount goes at once.
 *
 * Cache files
 * -----------
 *
 * A cache file is PATH/cache/I<volume>/@<fan>/<name>: the fan is two
 * hexadecimal digits, the low eight bits of the hash of the volume's and the
 * blob's key, and the name is "D" and the key when all of the key's bytes are
 * printable and none is a slash. The daemon makes the file, sparse and with its
 * final size, before anything mounts it; the kernel never changes the size. The
 * file and the volume's directory carry the attribute "user.CacheFiles.cache".
 *
 * The daemon fills a file with pwrite(2), in whole blocks of
 * %CACHEFILES_DEMAND_BLOCK bytes; only a blob's last block may be shorter.
 * It must use neither mmap(2) nor fallocate(2): both can make a range count as
 * present before its bytes have arrived.
 */

/* The device node, mode 0600. */
#define CACHEFILES_DEMAND_DEVICE	"/dev/cachefiles_demand"

/* Room for a cache file's name in a record, with the NUL byte that ends it. */
#define CACHEFILES_DEMAND_PATH_LEN	256

/* The longest command in bytes. */
#define CACHEFILES_DEMAND_COMMAND_MAX	4095

/* The unit, in bytes, in which data is missing, asked for and written. */
#define CACHEFILES_DEMAND_BLOCK		4096

/**
 * struct cachefiles_demand_req - a range of a cache file that a reader waits for
 * @id: names the request in the answer; never used twice while the module is loaded
 * @off: where the range starts, in bytes from the start of the cache file; a
 *	multiple of %CACHEFILES_DEMAND_BLOCK
 * @len: size of the range in bytes, never 0; a multiple of
 *	%CACHEFILES_DEMAND_BLOCK unless the range ends where the file ends
 * @path: the cache file's name without any directory, e.g. "Dtest.img", padded
 *	with NUL bytes, of which there is at least one
 *
 * 280 bytes, without padding on any architecture.
 */
struct cachefiles_demand_req {
	__u64 id;
	__u64 off;
	__u64 len;
	char path[CACHEFILES_DEMAND_PATH_LEN];
};

#endif /* _UAPI_LINUX_CACHEFILES_DEMAND_H */
