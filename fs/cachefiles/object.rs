// SPDX-License-Identifier: GPL-2.0

//! Objects: one backing file each.

use crate::{
    behind::Behind,
    cache::{Cache, XATTR},
    io::Mode,
    presence::Known,
};
use cache_key::NameBuf;
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{ordering, Atomic},
        Arc, Mutex,
    },
};
use netfs_split::Run;
use vfs::{
    c_string,
    in_use::InUse,
    kfile::{KFile, WriteErrors},
    path::Path,
};

/// A blob in the cache.
#[pin_data]
pub(crate) struct Object {
    pub(crate) cache: Arc<Cache>,
    /// Number of the object, never used again while the module lives.
    serial: u64,
    /// Name of the backing file, which the daemon knows the blob by; empty if the blob's own is too
    /// long for one.
    name: CString,
    // A file that cannot be used makes an object that fails, so that the mount that asked for it
    // learns the reason.
    file: Result<KFile>,
    /// Keeps the file from being culled.
    #[pin]
    in_use: Mutex<Option<InUse>>,
    size: u64,
    #[pin]
    known: Known,
    /// What is to leave the file's page cache.
    #[pin]
    pub(crate) behind: Behind,
    hits: Atomic<u64>,
    misses: Atomic<u64>,
}

impl Object {
    /// Opens the backing file of `key` in `directory`, and checks that it is what it should be.
    /// Called with the credentials of the daemon, and with [`Cache::names`] locked. May sleep.
    pub(crate) fn open(
        cache: &Arc<Cache>,
        key: &[u8],
        directory: Result<Path>,
    ) -> Result<Arc<Self>> {
        let mut buf: NameBuf = [0; _];
        let (name, directory) = match cache_key::file_name(key, &mut buf) {
            Ok(name) => (c_string(name)?, directory),
            // No file has such a name.
            Err(_) => (CString::try_from(c"")?, Err(ENAMETOOLONG)),
        };
        let opened = directory.and_then(|directory| open_file(cache, &directory, &name));
        let (file, in_use, size) = match opened {
            Ok((file, in_use, size)) => (Ok(file), Some(in_use), size),
            Err(e) => {
                log_refused(cache, &name, e);
                (Err(e), None, 0)
            }
        };
        let known = Known::new(size);
        Arc::pin_init(
            pin_init!(Self {
                cache: cache.clone(),
                serial: cache.new_id(),
                name,
                file,
                in_use <- new_mutex!(in_use),
                size,
                known <- known,
                behind <- Behind::new(),
                hits: Atomic::new(0),
                misses: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Looks whether all of it is present. May sleep.
    pub(crate) fn look(&self) -> Result {
        match &self.file {
            Ok(file) => self.known.look(file),
            Err(_) => Ok(()),
        }
    }

    /// The object is not used any more: its file may go. May sleep.
    pub(crate) fn release(&self) {
        self.cache.behind.forget(self);
        let in_use = self.in_use.lock().take();
        drop(in_use);
    }

    /// Number of the object.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Name of the backing file.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// Size in bytes; zero if the file cannot be used.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What is known to be present.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// The backing file, or why there is none.
    pub(crate) fn file(&self) -> Result<&KFile> {
        self.file.as_ref().map_err(|e| *e)
    }

    /// Counts a read, as one that found everything or one that did not.
    pub(crate) fn count(&self, hit: bool) {
        let count = if hit { &self.hits } else { &self.misses };
        count.fetch_add(1, ordering::Relaxed);
    }

    /// How many reads found everything, and how many did not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.hits.load(ordering::Relaxed),
            self.misses.load(ordering::Relaxed),
        )
    }

    /// See [`fscache::backend::Backend::occupancy`]. [`EAGAIN`] when that is not known and the file
    /// cannot be asked without waiting for somebody's write.
    pub(crate) fn occupancy(&self, start: u64, len: u64) -> Result<(u64, u64)> {
        self.confirm()?;
        let len = len.min(self.size.saturating_sub(start));
        if self.covers(start, len) {
            return Ok((start, len));
        }
        if self.file()?.busy() {
            return Err(EAGAIN);
        }
        let run = self.known.first_present(self.file()?, start, len)?;
        run.map(|run| (run.start, run.len)).ok_or(ENODATA)
    }

    /// Whether the range is known to be present. Does not sleep.
    pub(crate) fn covers(&self, start: u64, len: u64) -> bool {
        self.file()
            .is_ok_and(|file| self.known.covers(file, start, len))
    }

    /// The daemon says that it has filled the range: looks once whether it has. May sleep.
    pub(crate) fn filled(&self, start: u64, len: u64) -> Result {
        self.confirm()?;
        // Nothing is to be read from memory: what is not on disk is brought there first.
        if self.cache.io_mode() == Mode::Direct {
            return Ok(());
        }
        self.known.filled(self.file()?, start, len)
    }

    /// Calls `missing` for each run of the range that is not present, in order. May sleep.
    pub(crate) fn for_each_missing(
        &self,
        start: u64,
        len: u64,
        missing: impl FnMut(Run) -> Result,
    ) -> Result {
        self.known
            .for_each_missing(self.file()?, start, len, missing)
    }

    /// See [`Known::confirm`]; says so when something was forgotten.
    pub(crate) fn confirm(&self) -> Result<WriteErrors> {
        let before = self.known.errors();
        let now = self.known.confirm(self.file()?)?;
        if now != before {
            pr_warn!(
                "cache {:?}: file {:?}: bytes could not be written to the disk; what it does not \
                 have is fetched again\n",
                self.cache.tag(),
                &*self.name
            );
        }
        Ok(now)
    }
}

fn log_refused(cache: &Cache, name: &CStr, e: Error) {
    if e == ENOENT {
        pr_err!(
            "cache {:?}: there is no file {name:?}; the daemon has to prepare it\n",
            cache.tag()
        );
    } else if e == EBUSY {
        pr_err!(
            "cache {:?}: file {name:?} is in use by another cache\n",
            cache.tag()
        );
    } else if e == ENAMETOOLONG {
        pr_err!(
            "cache {:?}: the name of a blob is too long for a file name\n",
            cache.tag()
        );
    } else if e != ESTALE {
        pr_err!(
            "cache {:?}: file {name:?} cannot be used: {e:?}\n",
            cache.tag()
        );
    }
}

fn open_file(cache: &Cache, directory: &Path, name: &CStr) -> Result<(KFile, InUse, u64)> {
    let stale = |reason: core::fmt::Arguments<'_>| {
        pr_err!(
            "cache {:?}: file {name:?} is stale: {reason}\n",
            cache.tag()
        );
        ESTALE
    };
    let path = directory.lookup(name)?;
    if !path.is_regular() {
        return Err(stale(format_args!("it is not a regular file")));
    }
    let file = KFile::open(&path, cache.cred())?;
    let size = file.size();
    if size == 0 {
        return Err(stale(format_args!(
            "it is empty; it must have the blob's size"
        )));
    }
    // Room for one byte more than there should be, so that one too many is seen.
    let mut xattr = [0; 19];
    let len = match path.xattr(XATTR, &mut xattr) {
        Ok(len) => len,
        Err(e) if e == ENODATA => {
            return Err(stale(format_args!(
                "it has no user.CacheFiles.cache attribute"
            )))
        }
        Err(e) if e == ERANGE => return Err(stale(format_args!("its attribute is too long"))),
        Err(e) => return Err(e),
    };
    cache_key::check_file_xattr(xattr.get(..len).unwrap_or(&[]), size)
        .map_err(|e| stale(format_args!("{e}")))?;
    let in_use = file.mark_in_use()?;
    Ok((file, in_use, size))
}
