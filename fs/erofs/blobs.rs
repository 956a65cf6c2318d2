// SPDX-License-Identifier: GPL-2.0

//! Blobs: the objects in the cache that images consist of.
//!
//! fscache accepts a volume once and a cookie once. So that several mounts can use the same cache,
//! and the same blob in it, both are kept in a registry and shared.

use fscache::client::{Cookie, Provider, Volume};
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{ordering, Atomic, AtomicFlag},
        Arc, Mutex,
    },
};

/// Key of the one volume that all mounts of a cache share.
const VOLUME: &CStr = c"erofs";

/// The kind of cache that can fetch on demand.
const PROVIDER: &CStr = c"cachefiles_demand";

/// The next [`Blob::id`].
static NEXT_ID: Atomic<u64> = Atomic::new(0);

/// What the mounts share: volumes, and the blobs in them.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    volumes: Mutex<KVec<Open>>,
}

/// A volume that at least one blob is open in.
struct Open {
    volume: Arc<Volume>,
    blobs: KVec<OpenBlob>,
}

struct OpenBlob {
    id: u64,
    name: CString,
    cookie: Arc<Cookie>,
    users: usize,
    /// Those of them that still want what they have asked for.
    readers: usize,
}

/// A blob that a mount uses.
pub(crate) struct Blob {
    registry: Arc<Registry>,
    id: u64,
    cookie: Arc<Cookie>,
    size: u64,
    /// Whether the mount does not want what it has asked for any more.
    given_up: AtomicFlag,
}

impl Registry {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            volumes <- new_mutex!(KVec::new()),
        })
    }

    /// Opens the blob `name` in the cache with the given tag. Says in the log what is wrong, for
    /// the mount `mount`. May sleep.
    ///
    /// [`ENOTCONN`] without a cache that can fetch; [`ENOENT`], [`ESTALE`] for a backing file that
    /// is missing or does not fit.
    pub(crate) fn open(
        self: &Arc<Self>,
        mount: &CStr,
        tag: Option<&CStr>,
        name: &CStr,
    ) -> Result<Blob> {
        let (id, cookie) = self.cookie(mount, tag, name)?;
        // From here on dropping the blob undoes what was done.
        let mut blob = Blob {
            registry: self.clone(),
            id,
            cookie,
            size: 0,
            given_up: AtomicFlag::new(false),
        };
        blob.size = blob.cookie.size().map_err(|e| match e {
            e if e == ENOBUFS => {
                pr_err!("({mount:?}): blob {name:?}: the cache went away\n");
                ENOTCONN
            }
            e => {
                pr_err!("({mount:?}): blob {name:?} cannot be opened: {e:?}\n");
                e
            }
        })?;
        Ok(blob)
    }

    fn cookie(&self, mount: &CStr, tag: Option<&CStr>, name: &CStr) -> Result<(u64, Arc<Cookie>)> {
        let mut volumes = self.volumes.lock();
        // Volumes without blobs do not stay: what an earlier mount was refused, or a cache that
        // has gone, must not be in the way of this one.
        let found = volumes.iter().position(|open| open.serves(tag));
        let mut fresh = match found {
            Some(_) => None,
            None => Some(Open {
                volume: Arc::new(acquire_volume(mount, tag)?, GFP_KERNEL)?,
                blobs: KVec::new(),
            }),
        };
        let open = match found {
            Some(index) => volumes.get_mut(index).ok_or(EINVAL)?,
            None => fresh.as_mut().ok_or(EINVAL)?,
        };
        check_provider(mount, &open.volume)?;

        if let Some(blob) = open.blobs.iter_mut().find(|blob| *blob.name == *name) {
            blob.users = blob.users.checked_add(1).ok_or(EMFILE)?;
            blob.readers = blob.readers.saturating_add(1);
            return Ok((blob.id, blob.cookie.clone()));
        }
        let cookie = Cookie::acquire(open.volume.clone(), name.to_bytes()).inspect_err(|e| {
            pr_err!("({mount:?}): blob name {name:?} is not accepted: {e:?}\n");
        })?;
        let cookie = Arc::new(cookie, GFP_KERNEL)?;
        let id = NEXT_ID.fetch_add(1, ordering::Relaxed);
        open.blobs.push(
            OpenBlob {
                id,
                name: CString::try_from(name)?,
                cookie: cookie.clone(),
                users: 1,
                readers: 1,
            },
            GFP_KERNEL,
        )?;
        if let Some(fresh) = fresh {
            volumes.push(fresh, GFP_KERNEL)?;
        }
        Ok((id, cookie))
    }
}

impl Open {
    /// Whether this is the volume for a mount with that tag: one without a tag takes any cache that
    /// can fetch, and preferably one that is in use.
    fn serves(&self, tag: Option<&CStr>) -> bool {
        match tag {
            None => self.volume.provider(PROVIDER) == Provider::Wanted,
            Some(tag) => self.volume.tag().is_ok_and(|own| *own == *tag),
        }
    }
}

fn acquire_volume(mount: &CStr, tag: Option<&CStr>) -> Result<Volume> {
    Volume::acquire(VOLUME, tag).inspect_err(|e| {
        pr_err!("({mount:?}): the volume {VOLUME:?} cannot be had from the cache: {e:?}\n");
    })
}

/// Refuses a volume that is not in a cache on demand.
fn check_provider(mount: &CStr, volume: &Volume) -> Result {
    let tag = volume.tag();
    match (volume.provider(PROVIDER), tag) {
        (Provider::Wanted, _) => return Ok(()),
        (Provider::Other, Ok(tag)) => pr_err!(
            "({mount:?}): the cache {tag:?} cannot fetch on demand; is the daemon running? \
             tag= chooses a cache by its tag\n"
        ),
        (_, Ok(tag)) => pr_err!("({mount:?}): no cache {tag:?} is bound; is the daemon running?\n"),
        (_, Err(_)) => {
            pr_err!("({mount:?}): no cache is bound; is the daemon running?\n")
        }
    }
    Err(ENOTCONN)
}

impl Blob {
    /// The same for all that use the blob, and never that of another one.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The mount does not want what it has asked for any more: fails the reads of the blob that wait
    /// for the daemon, unless another mount may be waiting. The last one to give up frees them all.
    /// May sleep.
    pub(crate) fn abort_reads(&self) {
        if self.given_up.xchg(true, ordering::Relaxed) {
            return;
        }
        let mut volumes = self.registry.volumes.lock();
        let wanted = volumes
            .iter_mut()
            .flat_map(|open| &mut open.blobs)
            .find(|blob| Arc::ptr_eq(&blob.cookie, &self.cookie))
            .is_some_and(|blob| {
                blob.readers = blob.readers.saturating_sub(1);
                blob.readers > 0
            });
        if !wanted {
            self.cookie.abort_reads();
        }
    }

    /// The object in the cache.
    pub(crate) fn cookie(&self) -> &Cookie {
        &self.cookie
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        // Cookie and volume are given up under the lock: a mount that comes right behind must not
        // find them half gone.
        let mut volumes = self.registry.volumes.lock();
        for index in 0..volumes.len() {
            let Some(open) = volumes.get_mut(index) else {
                return;
            };
            let Some(at) = open
                .blobs
                .iter()
                .position(|blob| Arc::ptr_eq(&blob.cookie, &self.cookie))
            else {
                continue;
            };
            let unused = match open.blobs.get_mut(at) {
                Some(blob) => {
                    blob.users = blob.users.saturating_sub(1);
                    if !self.given_up.load(ordering::Relaxed) {
                        blob.readers = blob.readers.saturating_sub(1);
                    }
                    blob.users == 0
                }
                None => false,
            };
            if unused {
                let _ = open.blobs.remove(at);
            }
            if open.blobs.is_empty() {
                let _ = volumes.remove(index);
            }
            return;
        }
    }
}
