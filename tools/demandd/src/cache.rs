// SPDX-License-Identifier: GPL-2.0
//! The cache on disk: where a blob's file lies, how it is made, what of it is present.
//!
//! A blob's file is sparse, with its final size; a hole is what has not been fetched. Names, fan directories and
//! attributes come from the crate that the kernel module is built from.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom, XattrFlags};
use rustix::io::{retry_on_intr, Errno};

use crate::abi::BLOCK;

/// How long a file is waited for that somebody has a lease of. After 45 seconds the kernel takes it away.
const LEASE_PATIENCE: Duration = Duration::from_secs(60);

/// How often that is looked at.
const LEASE_RETRY: Duration = Duration::from_millis(50);

/// Whether [`Volume::prepare`] had to make the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// The file was made.
    Created,
    /// The file was there, with this size.
    Existed,
}

/// The directory of one volume in a cache: `ROOT/cache/I<volume>`.
#[derive(Clone, Debug)]
pub struct Volume {
    key: Vec<u8>,
    dir: PathBuf,
    lists: PathBuf,
    places: PathBuf,
}

/// A cache file that was found in a volume.
#[derive(Debug)]
pub struct Entry {
    /// The blob's name, or the file's if that is encoded.
    pub name: OsString,
    /// Where the file lies.
    pub path: PathBuf,
}

impl Volume {
    /// Names a volume. Nothing has to exist yet.
    pub fn new(root: &Path, volume: &str) -> Result<Self> {
        let mut buffer = [0; 256];
        let name = cache_key::volume_name(volume.as_bytes(), &mut buffer)
            .map_err(|error| anyhow!("{volume:?} cannot name a volume: {error}"))?;
        let name = OsStr::from_bytes(name);
        Ok(Self {
            key: volume.as_bytes().to_vec(),
            dir: root.join("cache").join(name),
            lists: root.join("chunks").join(name),
            places: root.join("places").join(name),
        })
    }

    /// The volume's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of the lists of chunks, see [`crate::lists`].
    pub fn lists(&self) -> &Path {
        &self.lists
    }

    /// The directory of the places that have blobs, see [`crate::places`].
    pub fn places_dir(&self) -> &Path {
        &self.places
    }

    /// Where the file of a blob lies.
    pub fn path(&self, blob: &OsStr) -> Result<PathBuf> {
        let name = file_name(blob)?;
        let hash = cache_key::cookie_hash(cache_key::volume_hash(&self.key), blob.as_bytes());
        Ok(self
            .dir
            .join(OsStr::from_bytes(&cache_key::fan(hash)))
            .join(name))
    }

    /// Makes the file of a blob, sparse and with its final size, and everything above it. Does nothing if it exists.
    pub fn prepare(&self, blob: &OsStr, size: u64) -> Result<Prepared> {
        ensure!(size > 0, "a blob of 0 bytes cannot be mounted");
        let path = self.path(blob)?;
        self.prepare_dir()?;
        let fan = path.parent().unwrap_or(&self.dir);
        make_dir(fan)?;
        match File::open(&path) {
            Ok(file) => check_prepared(&file, size).map(|()| Prepared::Existed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(fan, &path, size).map(|()| Prepared::Created)
            }
            Err(error) => Err(error.into()),
        }
        .with_context(|| format!("cannot prepare {}", path.display()))
    }

    /// Makes the volume's directory. Without its attribute the kernel would not take the directory for its own.
    fn prepare_dir(&self) -> Result<()> {
        make_dir(&self.dir)?;
        let mut value = [0; 64];
        match rustix::fs::getxattr(&self.dir, cache_key::FILE_XATTR_NAME, &mut value) {
            Ok(size) if value.get(..size) == Some(&cache_key::VOLUME_XATTR[..]) => Ok(()),
            Ok(_) => bail!(
                "{} belongs to another kind of cache: its attribute differs",
                self.dir.display()
            ),
            Err(Errno::NODATA) => rustix::fs::setxattr(
                &self.dir,
                cache_key::FILE_XATTR_NAME,
                &cache_key::VOLUME_XATTR,
                XattrFlags::CREATE,
            )
            .map_err(no_xattr)
            .with_context(|| format!("cannot mark {}", self.dir.display())),
            Err(errno) => Err(no_xattr(errno))
                .with_context(|| format!("cannot examine {}", self.dir.display())),
        }
    }

    /// Opens the file of a blob for writing and tells its size.
    pub fn open(&self, blob: &OsStr) -> Result<(File, u64)> {
        let path = self.path(blob)?;
        open_file(&path, OFlags::RDWR)
            .map_err(anyhow::Error::from)
            .and_then(regular)
            .with_context(|| format!("cannot open the cache file {}", path.display()))
    }

    /// All cache files, sorted by name.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let fans = fs::read_dir(&self.dir).with_context(|| {
            format!(
                "no volume {}: run `demandd prepare` first",
                self.dir.display()
            )
        })?;
        for fan in fans {
            let fan = fan?;
            if !fan.file_name().as_bytes().starts_with(b"@") || !fan.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(fan.path())? {
                let file = file?;
                if file.file_type()?.is_file() {
                    let name = file.file_name();
                    let name = blob_name(&name).map_or_else(|| name.clone(), OsStr::to_owned);
                    let path = file.path();
                    entries.push(Entry { name, path });
                }
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

/// The name of a blob's cache file.
pub fn file_name(blob: &OsStr) -> Result<OsString> {
    let mut buffer = [0; 256];
    let name = cache_key::file_name(blob.as_bytes(), &mut buffer)
        .map_err(|error| anyhow!("{blob:?} cannot name a blob: {error}"))?;
    Ok(OsString::from_vec(name.to_vec()))
}

/// The name of the blob whose cache file has this name, unless the name is encoded.
pub fn blob_name(file: &OsStr) -> Option<&OsStr> {
    file.as_bytes().strip_prefix(b"D").map(OsStr::from_bytes)
}

/// Opens a cache file: never a link, nor a pipe that nobody writes to.
pub fn open_file(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let end = Instant::now() + LEASE_PATIENCE;
    loop {
        match retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())) {
            // It is being repaired, see `verify`.
            Err(Errno::AGAIN) if Instant::now() < end => thread::sleep(LEASE_RETRY),
            opened => return Ok(File::from(opened?)),
        }
    }
}

/// Checks that an open file is a regular one and tells its size.
pub fn regular(file: File) -> Result<(File, u64)> {
    let meta = file.metadata()?;
    ensure!(meta.is_file(), "not a regular file");
    Ok((file, meta.len()))
}

fn make_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create the directory {}", dir.display()))
}

fn no_xattr(errno: Errno) -> anyhow::Error {
    let error = anyhow!(io::Error::from(errno));
    if errno == Errno::OPNOTSUPP {
        return error
            .context("the file system lacks extended attributes: ext4, XFS and btrfs have them");
    }
    error
}

/// Makes a cache file that has no name before it is complete: a killed `prepare` leaves nothing half made behind.
fn create(dir: &Path, path: &Path, size: u64) -> Result<()> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| {
        let error = anyhow!(io::Error::from(errno));
        match errno {
            Errno::OPNOTSUPP | Errno::ISDIR => {
                error.context("the file system lacks O_TMPFILE, which a cache needs")
            }
            _ => error,
        }
    })?;
    rustix::fs::ftruncate(&fd, size).map_err(io::Error::from)?;
    set_xattr(&fd, size)?;
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    rustix::fs::linkat(
        rustix::fs::CWD,
        name,
        rustix::fs::CWD,
        path,
        AtFlags::SYMLINK_FOLLOW,
    )
    .map_err(io::Error::from)?;
    Ok(())
}

fn set_xattr(file: impl AsFd, size: u64) -> Result<()> {
    let value = cache_key::file_xattr(size);
    rustix::fs::fsetxattr(file, cache_key::FILE_XATTR_NAME, &value, XattrFlags::CREATE)
        .map_err(no_xattr)
}

fn check_prepared(file: &File, size: u64) -> Result<()> {
    let meta = file.metadata()?;
    ensure!(meta.is_file(), "it is not a regular file");
    ensure!(
        meta.len() == size,
        "it has {} bytes, not {size}: it belongs to another blob of that name; remove it, or choose another name",
        meta.len()
    );
    let mut value = [0; 256];
    match rustix::fs::fgetxattr(file, cache_key::FILE_XATTR_NAME, &mut value) {
        Ok(have) => cache_key::check_file_xattr(value.get(..have).unwrap_or_default(), size)
            .map_err(|stale| {
                anyhow!("the kernel would refuse its attribute: {stale}; remove the file")
            }),
        // A file that was made by hand.
        Err(Errno::NODATA) => set_xattr(file, size),
        Err(errno) => Err(no_xattr(errno)),
    }
}

/// The first range at or after `from`, in whole blocks, that a file of `size` bytes does not have; `None` when the rest
/// is present.
pub fn next_missing(file: &File, from: u64, size: u64) -> io::Result<Option<Range<u64>>> {
    if from >= size {
        return Ok(None);
    }
    let hole = retry_on_intr(|| rustix::fs::seek(file, SeekFrom::Hole(from)))?;
    // The end of a file counts as a hole.
    if hole >= size {
        return Ok(None);
    }
    // The file system's blocks may be smaller than ours: a block of which a part is missing is missing.
    let start = hole - hole % BLOCK;
    let end = match retry_on_intr(|| rustix::fs::seek(file, SeekFrom::Data(hole))) {
        Ok(data) => data.checked_next_multiple_of(BLOCK).unwrap_or(size),
        // No data behind the hole.
        Err(Errno::NXIO) => size,
        Err(errno) => return Err(errno.into()),
    };
    Ok(Some(start.max(from)..end.min(size)))
}

/// How many bytes of a file of `size` bytes are missing.
pub fn missing_bytes(file: &File, size: u64) -> io::Result<u64> {
    let mut missing = 0;
    let mut pos = 0;
    while let Some(range) = next_missing(file, pos, size)? {
        missing += range.end - range.start;
        pos = range.end;
    }
    Ok(missing)
}
