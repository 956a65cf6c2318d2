// SPDX-License-Identifier: GPL-2.0

//! Caches: a directory bound to fscache under a tag.
//!
//! A cache outlives the daemon that bound it for as long as mounts use it, so that what is present
//! stays readable; the next daemon that names the same directory and tag takes it over. A cache
//! that nobody uses goes when its daemon does.
//!
//! Lock order: a session's setup, [`State::caches`], then a request table's lock.

use crate::{device::Session, io, object::Object, request::Requests};
use cache_key::{NameBuf, FILE_XATTR_NAME};
use fscache::backend::{self, Backend, CacheRead, Preparing};
use kernel::{
    c_str, impl_has_work, new_mutex, new_work,
    prelude::*,
    str::{BStr, CString},
    sync::{
        aref::ARef,
        atomic::{ordering, Atomic},
        poll::PollCondVar,
        Arc, ArcBorrow, Mutex,
    },
    workqueue::{Work, WorkItem},
};
use vfs::{c_string, cred, kfile::KFile, path::Path};

/// The volume that EROFS mounts use. One whose key is neither this nor begins with it and a comma is
/// that of a client of another kind of cache.
const VOLUME: &[u8] = b"erofs";

/// Most bytes of a page-sized block: reads go to and from whole pages.
const BLOCK_SIZE_MAX: u64 = 4096;

/// What all opens of the device share.
#[pin_data]
pub(crate) struct State {
    #[pin]
    caches: Mutex<KVec<Arc<backend::Cache<Cache>>>>,
    /// Where the daemon waits for requests.
    #[pin]
    pub(crate) readable: PollCondVar,
    next_id: Atomic<u64>,
    #[pin]
    reap: Work<State>,
    /// Whether a daemon has the device open.
    pub(crate) open: kernel::sync::atomic::AtomicFlag,
}

impl State {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            caches <- new_mutex!(KVec::new()),
            readable <- kernel::new_poll_condvar!(),
            next_id: Atomic::new(1),
            reap <- new_work!("cachefiles_demand::reap"),
            open: kernel::sync::atomic::AtomicFlag::new(false),
        })
    }

    /// A request id that was never used before.
    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, ordering::Relaxed)
    }

    /// Binds the directory `dir` under `tag`, or takes over the cache that is bound there and has
    /// lost its daemon. May sleep.
    pub(crate) fn bind(
        self: ArcBorrow<'_, Self>,
        dir: &CStr,
        tag: &CStr,
        session: &Session,
    ) -> Result<Arc<backend::Cache<Cache>>> {
        let root = Path::directory(dir).inspect_err(|e| {
            pr_err!("bind: cannot open the directory {dir:?}: {e:?}\n");
        })?;
        let mut caches = self.caches.lock();
        let orphan = caches.iter().find(|cache| {
            cache.backend().root.same(&root) && cache.backend().tag.to_bytes() == tag.to_bytes()
        });
        if let Some(cache) = orphan {
            cache.backend().requests.connect();
            pr_info!("cache {tag:?} on {dir:?}: taken over by a new daemon\n");
            return Ok(cache.clone());
        }

        // Reserves the room first: once it is added the cache must get into the list.
        caches.reserve(1, GFP_KERNEL)?;
        let preparing = Preparing::new(tag).inspect_err(|e| {
            if *e == EBUSY {
                pr_err!("bind: a cache with the tag {tag:?} is bound already\n");
            }
        })?;
        let cache = Cache::open(root, dir, tag, self.into(), session)?;
        let cache = Arc::new(preparing.activate(cache)?, GFP_KERNEL)?;
        caches.push(cache.clone(), GFP_KERNEL)?;
        pr_info!("cache {tag:?} on {dir:?}: bound\n");
        Ok(cache)
    }

    /// The daemon of `cache` is gone: what it owes fails, and the cache with it if no mount uses
    /// it. May sleep.
    pub(crate) fn release(&self, cache: &Arc<backend::Cache<Cache>>) {
        cache.backend().requests.disconnect(EIO);
        if cache.in_use() {
            pr_info!(
                "cache {:?}: its daemon is gone; data that is missing gives EIO until another one \
                 binds it\n",
                cache.backend().tag()
            );
        }
        self.reap();
    }

    /// Withdraws the caches that have neither a daemon nor a mount. May sleep.
    fn reap(&self) {
        loop {
            let unused = {
                let mut caches = self.caches.lock();
                let index = caches
                    .iter()
                    .position(|cache| !cache.in_use() && !cache.backend().requests.connected());
                index.and_then(|index| caches.remove(index).ok())
            };
            // Withdrawn here, unless the session that is being closed still has it.
            if unused.is_none() {
                return;
            }
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
    /// The daemon's credentials at the time of the bind.
    pub(crate) cred: ARef<kernel::cred::Credential>,
    #[pin]
    pub(crate) requests: Requests,
}

impl Cache {
    /// Checks that the directory can hold a cache and opens it.
    fn open(
        root: Path,
        dir: &CStr,
        tag: &CStr,
        state: Arc<State>,
        session: &Session,
    ) -> Result<Arc<Self>> {
        let refuse = |reason: &str, e: Error| {
            pr_err!("bind: {dir:?} cannot hold a cache: {reason}\n");
            e
        };
        let cred = session.cred();
        let _as_daemon = cred::Override::new(&cred);

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
        check_holes(&root, &cred)
            .map_err(|e| refuse("a new sparse file there does not read as a hole", e))?;
        let volumes = root
            .make_directory(c"cache")
            .map_err(|e| refuse("the directory \"cache\" in it cannot be opened or made", e))?;

        Arc::pin_init(
            try_pin_init!(Self {
                state,
                root,
                volumes,
                tag: CString::try_from(tag)?,
                cred: cred.clone(),
                requests <- Requests::new(state.clone()),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Tag of the cache.
    pub(crate) fn tag(&self) -> &CStr {
        &self.tag
    }
}

/// A hole is what "missing" looks like: on a file system where a new sparse file has data, reads
/// would return zeros for what was never fetched.
fn check_holes(root: &Path, cred: &ARef<kernel::cred::Credential>) -> Result {
    const SIZE: u64 = 1 << 20;
    let file = KFile::temporary(root, cred).map_err(|_| EOPNOTSUPP)?;
    file.set_size(SIZE)?;
    match file.seek_data(0)? {
        None if file.seek_hole(0)? == 0 => Ok(()),
        _ => Err(EOPNOTSUPP),
    }
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
        let object = Object::open(cache, key, volume.directory(key))?;
        let size = object.size();
        Ok((object, size))
    }

    fn withdraw(_object: Arc<Object>) {
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
