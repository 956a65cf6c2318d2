// SPDX-License-Identifier: GPL-2.0

//! Objects: one backing file each.

use crate::{
    cache::{Cache, XATTR},
    presence::Known,
};
use cache_key::NameBuf;
use kernel::{prelude::*, str::CString, sync::Arc};
use netfs_split::Run;
use vfs::{c_string, kfile::KFile, path::Path};

/// A blob in the cache.
#[pin_data]
pub(crate) struct Object {
    pub(crate) cache: Arc<Cache>,
    /// Name of the backing file, which the daemon knows the blob by.
    name: CString,
    // A file that cannot be used makes an object that fails, so that the mount that asked for it
    // learns the reason.
    file: Result<KFile>,
    size: u64,
    #[pin]
    known: Known,
}

impl Object {
    /// Opens the backing file of `key` in `directory`, and checks that it is what it should be.
    /// Called with the credentials of the daemon. May sleep.
    pub(crate) fn open(
        cache: &Arc<Cache>,
        key: &[u8],
        directory: Result<Path>,
    ) -> Result<Arc<Self>> {
        let mut buf: NameBuf = [0; _];
        let name = cache_key::file_name(key, &mut buf).map_err(|_| ENAMETOOLONG)?;
        let name = c_string(name)?;
        let opened = directory.and_then(|directory| open_file(cache, &directory, &name));
        let (file, size) = match opened {
            Ok((file, size)) => (Ok(file), size),
            Err(e) => {
                if e == ENOENT {
                    pr_err!(
                        "cache {:?}: there is no file {name:?}; the daemon has to prepare it\n",
                        cache.tag()
                    );
                } else {
                    pr_err!(
                        "cache {:?}: file {name:?} cannot be used: {e:?}\n",
                        cache.tag()
                    );
                }
                (Err(e), 0)
            }
        };
        Arc::pin_init(
            pin_init!(Self {
                cache: cache.clone(),
                name,
                file,
                size,
                known <- Known::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Name of the backing file.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// Size in bytes; zero if the file cannot be used.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The backing file, or why there is none.
    pub(crate) fn file(&self) -> Result<&KFile> {
        self.file.as_ref().map_err(|e| *e)
    }

    /// See [`fscache::backend::Backend::occupancy`].
    pub(crate) fn occupancy(&self, start: u64, len: u64) -> Result<(u64, u64)> {
        let len = len.min(self.size.saturating_sub(start));
        let run = self.known.first_present(self.file()?, start, len)?;
        run.map(|run| (run.start, run.len)).ok_or(ENODATA)
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
}

fn open_file(cache: &Cache, directory: &Path, name: &CStr) -> Result<(KFile, u64)> {
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
    let file = KFile::open(&path, &cache.cred)?;
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
    Ok((file, size))
}
