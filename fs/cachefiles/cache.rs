// SPDX-License-Identifier: GPL-2.0

//! Caches: a directory bound to fscache under a tag.
//!
//! A cache outlives the daemon that bound it for as long as mounts use it, so that what is present
//! stays readable; the next daemon that names the same directory and tag takes it over. For a while
//! requests wait for that daemon, then they fail. A cache that nobody uses goes when its daemon
//! does.
//!
//! Lock order: a session's setup, [`State::caches`], [`Cache::names`], then the others, of which no
//! two are held at a time unless they say so.

use crate::{
    behind::DropBehind,
    device::Settings,
    io,
    object::Object,
    presence::BLOCK,
    request::{Requests, WATCH_MS},
    space::FreeSpace,
};
use cache_key::{NameBuf, FILE_XATTR_NAME};
use fscache::backend::{self, Backend, CacheRead, Preparing};
use kernel::{
    c_str,
    cred::Credential,
    impl_has_work, new_mutex, new_work,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    str::{BStr, CString},
    sync::{
        aref::ARef,
        atomic::{ordering, Atomic, AtomicFlag},
        Arc, ArcBorrow, Mutex,
    },
    workqueue::{Work, WorkItem},
};
use vfs::{
    c_string, cred,
    kfile::KFile,
    path::Path,
    poll::{self, Events},
    workqueue::Ticker,
};

/// The volume that EROFS mounts use. One whose key is neither this nor begins with it and a comma is
/// that of a client of another kind of cache.
const VOLUME: &[u8] = b"erofs";

/// Most bytes of a page-sized block: reads go to and from whole pages.
const BLOCK_SIZE_MAX: u64 = 4096;

/// What all opens of the device share.
#[pin_data]
pub(crate) struct State {
    #[pin]
    caches: Mutex<KVec<Arc<Bound>>>,
    /// Where the daemon waits.
    #[pin]
    pub(crate) polled: poll::Queue,
    next_id: Atomic<u64>,
    #[pin]
    reap: Work<State>,
    /// Whether a daemon has the device open.
    pub(crate) open: AtomicFlag,
}

/// A cache that fscache knows. Fields are dropped in order: first the cache is withdrawn, then
/// what runs from time to time is stopped, by somebody who still has a reference.
pub(crate) struct Bound {
    fscache: backend::Cache<Cache>,
    _stop: StopTicks,
}

struct StopTicks(Arc<Cache>);

impl Bound {
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        self.fscache.backend()
    }

    fn in_use(&self) -> bool {
        self.fscache.in_use()
    }

    /// Whether it has neither a daemon nor a mount, and from now on cannot get either.
    fn close_if_unused(&self) -> bool {
        !self.cache().requests.connected() && self.fscache.close_if_unused()
    }

    /// How many volumes clients have in the cache.
    pub(crate) fn volumes(&self) -> usize {
        self.fscache.volumes()
    }
}

impl Drop for StopTicks {
    fn drop(&mut self) {
        self.0.requests.stop();
        self.0.behind.stop();
    }
}

impl State {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            caches <- new_mutex!(KVec::new()),
            polled <- poll::Queue::new(),
            next_id: Atomic::new(1),
            reap <- new_work!("cachefiles_demand::reap"),
            open: AtomicFlag::new(false),
        })
    }

    /// Wakes the daemon: a request can be read.
    pub(crate) fn tell_readable(&self) {
        self.polled.wake(Events {
            readable: true,
            writable: false,
        });
    }

    /// Wakes the daemon: files have to be culled.
    fn tell_writable(&self) {
        self.polled.wake(Events {
            readable: false,
            writable: true,
        });
    }

    /// A number, for a request or an object, that was never used before.
    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, ordering::Relaxed)
    }

    /// The bound caches. May sleep.
    pub(crate) fn caches(&self) -> Result<KVec<Arc<Bound>>> {
        let caches = self.caches.lock();
        let mut copy = KVec::with_capacity(caches.len(), GFP_KERNEL)?;
        for cache in &*caches {
            copy.push(cache.clone(), GFP_KERNEL)?;
        }
        Ok(copy)
    }

    /// Binds the directory `dir` under `tag`, or takes over the cache that is bound there and has
    /// lost its daemon. May sleep.
    pub(crate) fn bind(
        self: ArcBorrow<'_, Self>,
        dir: &CStr,
        tag: &CStr,
        settings: &Settings,
        cred: &ARef<Credential>,
    ) -> Result<Arc<Bound>> {
        let root = Path::directory(dir).inspect_err(|e| {
            pr_err!("bind: cannot open the directory {dir:?}: {e:?}\n");
        })?;
        let mut caches = self.caches.lock();
        let orphan = caches.iter().find(|bound| {
            let cache = bound.cache();
            cache.root.same(&root) && cache.tag.to_bytes() == tag.to_bytes()
        });
        if let Some(bound) = orphan {
            let cache = bound.cache();
            cache.requests.connect()?;
            cache.set(settings);
            pr_info!("cache {tag:?} on {dir:?}: taken over by a new daemon\n");
            return Ok(bound.clone());
        }

        // Reserves the room first: once it is added the cache must get into the list.
        caches.reserve(1, GFP_KERNEL)?;
        let preparing = Preparing::new(tag).inspect_err(|e| {
            if *e == EBUSY {
                pr_err!("bind: a cache with the tag {tag:?} is bound already\n");
            }
        })?;
        let cache = Cache::open(root, dir, tag, self.into(), cred)?;
        cache.set(settings);
        let bound = Bound {
            _stop: StopTicks(cache.clone()),
            fscache: preparing.activate(cache)?,
        };
        let bound = Arc::new(bound, GFP_KERNEL)?;
        caches.push(bound.clone(), GFP_KERNEL)?;
        pr_info!("cache {tag:?} on {dir:?}: bound\n");
        Ok(bound)
    }

    /// The daemon of `bound` is gone. If it did not say that it would go, what it owes waits for
    /// the next one for a while; else it fails. Without a mount the cache goes, too. May sleep.
    pub(crate) fn release(&self, bound: &Arc<Bound>, expected: bool) {
        let cache = bound.cache();
        let linger = match expected {
            true => 0,
            false => cache.linger.load(ordering::Relaxed),
        };
        if linger > 0 && bound.in_use() {
            cache.requests.linger(linger);
            cache
                .requests
                .start(WATCH_MS.min(linger.saturating_mul(1000)));
            pr_info!(
                "cache {:?}: its daemon is gone; what is missing waits up to {linger} s for another\n",
                cache.tag()
            );
        } else {
            cache.requests.disconnect();
            if bound.in_use() {
                pr_info!(
                    "cache {:?}: its daemon is gone; data that is missing gives EIO until another \
                     one binds it\n",
                    cache.tag()
                );
            }
        }
        self.reap();
    }

    /// Withdraws the caches that have neither a daemon nor a mount. May sleep.
    ///
    /// Under the lock, so that a daemon that comes right behind can bind the tag again.
    fn reap(&self) {
        let mut caches = self.caches.lock();
        while let Some(index) = caches.iter().position(|bound| bound.close_if_unused()) {
            // Withdrawn here, unless somebody still looks at it.
            drop(caches.remove(index));
        }
    }
}

impl_has_work! {
    impl HasWork<Self> for State { self.reap }
}

impl WorkItem for State {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.reap();
    }
}

/// Withdraws all caches when the module goes.
pub(crate) struct Withdraw(Arc<State>);

impl Withdraw {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self(state)
    }
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        let caches = core::mem::take(&mut *self.0.caches.lock());
        drop(caches);
    }
}

/// A bound directory.
#[pin_data]
pub(crate) struct Cache {
    state: Arc<State>,
    /// The directory that the daemon named.
    root: Path,
    /// `<root>/cache`, where the volumes are.
    volumes: Path,
    tag: CString,
    /// The credentials that files are accessed with: the daemon's at the time of the bind.
    cred: ARef<Credential>,
    #[pin]
    pub(crate) requests: Ticker<Requests>,
    #[pin]
    pub(crate) behind: Ticker<DropBehind>,
    #[pin]
    pub(crate) space: FreeSpace,
    /// Held from when a name is looked up until its file is marked as used, and while a file is
    /// culled, so that nobody marks a file that is being removed.
    #[pin]
    names: Mutex<()>,
    #[pin]
    objects: Mutex<RBTree<u64, Arc<Object>>>,
    /// Seconds that requests wait for a new daemon.
    linger: Atomic<u32>,
    /// Unit of requests in bytes, a power of two.
    granule: Atomic<u64>,
    /// An [`io::Mode`].
    io_mode: Atomic<u32>,
}

impl Cache {
    /// Checks that the directory can hold a cache and opens it.
    fn open(
        root: Path,
        dir: &CStr,
        tag: &CStr,
        state: Arc<State>,
        cred: &ARef<Credential>,
    ) -> Result<Arc<Self>> {
        let refuse = |reason: &str, e: Error| {
            pr_err!("bind: {dir:?} cannot hold a cache: {reason}\n");
            e
        };
        let _as_daemon = cred::Override::new(cred);

        let features = root.features()?;
        if features.idmapped {
            return Err(refuse("it is on an idmapped mount", EINVAL));
        }
        if features.read_only {
            return Err(refuse("the file system is read-only", EROFS));
        }
        if !features.xattr {
            return Err(refuse(
                "the file system has no extended attributes",
                EOPNOTSUPP,
            ));
        }
        if !features.block_size.is_power_of_two() || features.block_size > BLOCK_SIZE_MAX {
            return Err(refuse("its block size is larger than a page", EOPNOTSUPP));
        }
        match shows_holes(&root, cred) {
            Ok(true) => {}
            Ok(false) => {
                return Err(refuse(
                    "holes tell what is missing only on ext4, XFS and btrfs",
                    EOPNOTSUPP,
                ))
            }
            Err(e) => {
                return Err(refuse(
                    "a file without a name cannot be made there (O_TMPFILE)",
                    e,
                ))
            }
        }
        let volumes = root
            .make_directory(c"cache")
            .map_err(|e| refuse("the directory \"cache\" in it cannot be opened or made", e))?;

        let tag = CString::try_from(tag)?;
        let requests = Requests::new(state.clone(), CString::try_from(&*tag)?);
        Arc::pin_init(
            try_pin_init!(Self {
                state,
                root,
                volumes,
                tag,
                cred: cred.clone(),
                requests <- Ticker::new(backend::queue(), requests),
                behind <- Ticker::new(backend::queue(), DropBehind::new()),
                space <- FreeSpace::new(),
                names <- new_mutex!(()),
                objects <- new_mutex!(RBTree::new()),
                linger: Atomic::new(0),
                granule: Atomic::new(BLOCK),
                io_mode: Atomic::new(0),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Tag of the cache.
    pub(crate) fn tag(&self) -> &CStr {
        &self.tag
    }

    /// The credentials that files are accessed with.
    pub(crate) fn cred(&self) -> &ARef<Credential> {
        &self.cred
    }

    /// See [`State::new_id`].
    pub(crate) fn new_id(&self) -> u64 {
        self.state.new_id()
    }

    /// Takes over all settings. May sleep.
    pub(crate) fn set(&self, settings: &Settings) {
        self.linger.store(settings.linger, ordering::Relaxed);
        self.granule.store(settings.granule, ordering::Relaxed);
        self.io_mode
            .store(settings.io_mode as u32, ordering::Relaxed);
        self.requests.set_timeout(settings.timeout);
        if self.space.set_limits(&self.root, settings.limits) {
            self.state.tell_writable();
        }
    }

    /// Seconds that requests wait for a new daemon.
    pub(crate) fn linger(&self) -> u32 {
        self.linger.load(ordering::Relaxed)
    }

    /// Unit of requests in bytes.
    pub(crate) fn granule(&self) -> u64 {
        self.granule.load(ordering::Relaxed)
    }

    /// How backing files are read.
    pub(crate) fn io_mode(&self) -> io::Mode {
        match self.io_mode.load(ordering::Relaxed) {
            mode if mode == io::Mode::Direct as u32 => io::Mode::Direct,
            mode if mode == io::Mode::Buffered as u32 => io::Mode::Buffered,
            _ => io::Mode::Auto,
        }
    }

    /// Looks whether files have to be culled, and says so to the daemon if that is new. May sleep.
    pub(crate) fn check_space(&self) {
        if self.space.check(&self.root) {
            self.state.tell_writable();
        }
    }

    /// Whether nothing more can be fetched; looks again when that was so. May sleep.
    pub(crate) fn out_of_space(&self) -> bool {
        if self.space.stopped() {
            self.check_space();
        }
        self.space.stopped()
    }

    /// Removes the file `name` of the directory `dir` from the cache. May sleep.
    ///
    /// [`EBUSY`] when it is in use, [`EINVAL`] when the directory is not one of the cache, and what
    /// unlink(2) gives.
    pub(crate) fn cull(&self, dir: &Path, name: &CStr) -> Result {
        let _as_daemon = cred::Override::new(&self.cred);
        {
            let _names = self.names.lock();
            self.check_below(dir)?;
            dir.remove_file(name)?;
        }
        if self.space.look(&self.root) {
            self.state.tell_writable();
        }
        Ok(())
    }

    /// Whether the file `name` of the directory `dir` is in use. May sleep.
    pub(crate) fn is_used(&self, dir: &Path, name: &CStr) -> Result<bool> {
        let _as_daemon = cred::Override::new(&self.cred);
        let _names = self.names.lock();
        self.check_below(dir)?;
        dir.in_use(name)
    }

    fn check_below(&self, dir: &Path) -> Result {
        match dir.is_below(&self.volumes) {
            true => Ok(()),
            false => Err(EINVAL),
        }
    }

    /// The first object with a number of at least `serial`.
    pub(crate) fn object_from(&self, serial: u64) -> Option<Arc<Object>> {
        let objects = self.objects.lock();
        let cursor = objects.cursor_lower_bound(&serial)?;
        Some(cursor.current().1.clone())
    }

    /// How many objects there are.
    pub(crate) fn count_objects(&self) -> usize {
        self.objects.lock().iter().count()
    }
}

/// A hole is what "missing" looks like. On a file system where a new sparse file has data, or where
/// a write that dies leaves zeros behind, as on tmpfs, reads would return zeros for what was never
/// fetched. So only those count of which it is known what they do.
fn shows_holes(root: &Path, cred: &ARef<Credential>) -> Result<bool> {
    const SIZE: u64 = 1 << 20;
    let file = KFile::temporary(root, cred)?;
    if file.file_system().is_none() {
        return Ok(false);
    }
    file.set_size(SIZE)?;
    Ok(file.seek_data(0)?.is_none() && file.seek_hole(0)? == 0)
}

/// A volume: the name space of the cookies of all mounts.
pub(crate) struct Volume {
    cache: Arc<Cache>,
    key: KVec<u8>,
}

impl Volume {
    /// Opens the directory that the file of the cookie `key` is in, making what is not there.
    fn directory(&self, key: &[u8]) -> Result<Path> {
        let mut buf: NameBuf = [0; _];
        let name = cache_key::volume_name(&self.key, &mut buf).map_err(|_| EINVAL)?;
        let name = c_string(name)?;
        let volume = self.cache.volumes.make_directory(&name)?;
        // A directory that the daemon made is adopted as it is; ours gets what cachefiles expects.
        match volume.xattr(XATTR, &mut [0; 8]) {
            Err(e) if e == ENODATA => volume.set_xattr(XATTR, &cache_key::VOLUME_XATTR)?,
            _ => {}
        }
        let hash = cache_key::cookie_hash(cache_key::volume_hash(&self.key), key);
        let fan = cache_key::fan(hash);
        let fan = c_string(&fan)?;
        volume.make_directory(&fan)
    }
}

/// The attribute that vouches for a file or directory of the cache.
pub(crate) const XATTR: &CStr = c_str!("user.CacheFiles.cache");
const _: () = assert!(XATTR.to_bytes().len() == FILE_XATTR_NAME.len());

#[vtable]
impl Backend for Cache {
    const NAME: &'static CStr = c"cachefiles_demand";
    type Volume = Volume;
    type Object = Object;

    fn acquire_volume(self: ArcBorrow<'_, Self>, key: &[u8]) -> Option<Volume> {
        if !matches!(key.strip_prefix(VOLUME), Some([] | [b',', ..])) {
            pr_info!(
                "cache {:?}: not for the volume \"{}\", which is not on demand: its client runs \
                 without a cache\n",
                self.tag(),
                BStr::from_bytes(key)
            );
            return None;
        }
        let mut copy = KVec::new();
        copy.extend_from_slice(key, GFP_KERNEL).ok()?;
        Some(Volume {
            cache: self.into(),
            key: copy,
        })
    }

    fn unused(self: ArcBorrow<'_, Self>) {
        if !self.requests.connected() {
            // Not from here: the volume is still being freed.
            let _ = backend::queue().enqueue(self.state.clone());
        }
    }

    fn lookup(volume: &Volume, key: &[u8]) -> Result<(Arc<Object>, u64)> {
        let cache = &volume.cache;
        let _as_daemon = cred::Override::new(&cache.cred);
        let object = {
            let _names = cache.names.lock();
            Object::open(cache, key, volume.directory(key))?
        };
        // Not under the lock: a write of the daemon may be waited for.
        object.look()?;
        let node = RBTreeNode::new(object.serial(), object.clone(), GFP_KERNEL)?;
        cache.objects.lock().insert(node);
        let size = object.size();
        Ok((object, size))
    }

    fn withdraw(object: Arc<Object>) {
        let cache = &object.cache;
        let node = cache.objects.lock().remove_node(&object.serial());
        drop(node);
        object.release();
        // The last reference closes the file. Nobody waits for the object, see `Requests::add`.
    }

    fn abort(object: &Arc<Object>) {
        object.cache.requests.abort(object);
    }

    fn occupancy(object: &Object, start: u64, len: u64) -> Result<(u64, u64)> {
        object.occupancy(start, len)
    }

    fn read(object: Arc<Object>, start: u64, read: CacheRead) {
        io::read(object, start, read);
    }
}
