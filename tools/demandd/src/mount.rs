// SPDX-License-Identifier: GPL-2.0
//! Mounting an image in one step: everything that mount(2) needs is seen to, or what is missing is named.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{anyhow, bail, ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::{unmount, MountFlags, UnmountFlags};

use crate::cache::Volume;
use crate::image::device_names;
use crate::kernel::{Kernel, DIR};
use crate::machine::{Machine, Origin};

/// What is to be mounted, and where.
#[derive(Debug)]
pub struct Wish {
    /// The name of the primary blob.
    pub image: String,
    /// The names of the other blobs, in order; none if the image has them.
    pub devices: Vec<String>,
    /// The cache's name.
    pub tag: String,
    /// More options for mount(2), separated by commas.
    pub options: Option<String>,
    /// The mount point.
    pub dir: PathBuf,
    /// Directories that may have the blobs.
    pub sources: Vec<PathBuf>,
}

/// Mounts an image. Blobs that have no cache file yet get one if a directory has them.
pub fn mount(machine: &Machine, volume: &Volume, wish: &Wish) -> Result<()> {
    let dir = &wish.dir;
    ensure!(
        dir.is_dir(),
        "the mount point {} is not a directory",
        dir.display()
    );
    let data = data(wish)?;
    prepare(volume, wish)?;
    served(machine, &wish.tag)?;
    load(machine)?;
    rustix::mount::mount("none", dir, "erofs", MountFlags::RDONLY, data.as_c_str()).map_err(
        |errno| {
            let error = anyhow!(io::Error::from(errno)).context(advice(errno));
            error.context(format!("cannot mount {} on {}", wish.image, dir.display()))
        },
    )
}

/// The options as mount(2) takes them.
fn data(wish: &Wish) -> Result<CString> {
    let mut data = format!("uuid={},tag={}", wish.image, wish.tag);
    for device in &wish.devices {
        data += &format!(",device={device}");
    }
    let names = [&wish.image, &wish.tag].into_iter().chain(&wish.devices);
    for name in names {
        ensure!(
            !name.contains(','),
            "{name:?}: mount takes no name with a comma"
        );
    }
    if let Some(options) = &wish.options {
        data += &format!(",{options}");
    }
    CString::new(data).context("the options")
}

fn prepare(volume: &Volume, wish: &Wish) -> Result<()> {
    let image = OsStr::new(&wish.image);
    prepare_one(volume, image, &wish.sources)?;
    let devices = match in_directory(image, &wish.sources) {
        Some((path, _)) if wish.devices.is_empty() => device_names(&path)?,
        _ => wish
            .devices
            .iter()
            .map(|name| name.clone().into_bytes())
            .collect(),
    };
    let named = devices.iter().filter(|name| !name.is_empty());
    named
        .map(|name| OsStr::from_bytes(name))
        .try_for_each(|name| prepare_one(volume, name, &wish.sources))
}

fn prepare_one(volume: &Volume, blob: &OsStr, sources: &[PathBuf]) -> Result<()> {
    if volume.path(blob)?.exists() {
        return Ok(());
    }
    let (_, size) = in_directory(blob, sources)
        .with_context(|| format!("{blob:?} is not prepared: run `demandd prepare`"))?;
    volume.prepare(blob, size)?;
    Ok(())
}

/// The file of a blob, and its size, if a directory has it.
fn in_directory(blob: &OsStr, sources: &[PathBuf]) -> Option<(PathBuf, u64)> {
    sources.iter().find_map(|dir| {
        let path = dir.join(blob);
        // The name must not lead elsewhere.
        let meta = (path.file_name() == Some(blob)).then(|| fs::metadata(&path).ok())??;
        meta.is_file().then_some((path, meta.len()))
    })
}

/// Checks that a daemon serves the cache: without one, mount(2) would wait, or fail with less of a reason.
fn served(machine: &Machine, tag: &str) -> Result<()> {
    let tables = Kernel::read(&machine.path(DIR)).json();
    let Some(caches) = tables["caches"].as_array() else {
        ensure!(
            machine.loaded("cachefiles_demand") != Origin::Absent,
            "the kernel module cachefiles_demand is not loaded: start the daemon (`systemctl start demandd`, or `modprobe cachefiles_demand` and `demandd serve`)"
        );
        // The kernel does not let us look; mount(2) will tell.
        return Ok(());
    };
    let mine = caches.iter().find(|row| row["tag"] == tag);
    match mine.and_then(|row| row["daemon"].as_str()) {
        Some("connected") => Ok(()),
        Some(state) => bail!("the daemon of the cache {tag:?} is {state}: start it again (`systemctl start demandd`, or `demandd serve`)"),
        None => {
            let others = caches.iter().filter_map(|row| row["tag"].as_str());
            let others: Vec<&str> = others.collect();
            match others.is_empty() {
                true => bail!("no daemon serves a cache: start it (`systemctl start demandd`, or `demandd serve`)"),
                false => bail!("no daemon serves a cache {tag:?}; there is: {}", others.join(", ")),
            }
        }
    }
}

/// Takes care that our file system is there.
fn load(machine: &Machine) -> Result<()> {
    if machine.loaded("erofs") == Origin::Absent {
        let status = Command::new("modprobe").arg("erofs").status();
        let status = status.context("cannot run modprobe")?;
        ensure!(
            status.success(),
            "`modprobe erofs` has failed: see `demandd doctor`"
        );
    }
    ensure!(
        machine.loaded("erofs") != Origin::Kernel,
        "the kernel's own erofs is loaded, which knows no caches: see `demandd doctor`"
    );
    Ok(())
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::NOTCONN => "the cache cannot be had: is the daemon running?",
        Errno::NOENT => "a blob has no cache file: it was culled, or a device is not prepared; run `demandd prepare`",
        Errno::STALE => "a cache file is stale: remove it, and prepare the blob again",
        Errno::INVAL => "the options, or the image, make no sense; the kernel's log says what",
        Errno::UCLEAN => "the image is corrupted; the kernel's log says where",
        Errno::OPNOTSUPP => "the image has a feature that is not supported; the kernel's log names it",
        Errno::IO | Errno::NOSPC | Errno::TIMEDOUT => "the super block could not be fetched; the daemon's log says why",
        Errno::PERM | Errno::ACCESS => "this takes root",
        _ => "the kernel's log may say more",
    }
}

/// Unmounts an image, and nothing else.
pub fn umount(machine: &Machine, dir: &Path) -> Result<()> {
    let shown = dir.display();
    let dir = dir
        .canonicalize()
        .with_context(|| format!("no directory {shown}"))?;
    let mounts = machine
        .read("/proc/self/mounts")
        .context("cannot read /proc/self/mounts")?;
    // The last one is on top.
    let top = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (unescaped(fields.next()?) == dir.as_os_str().as_bytes()).then(|| fields.next())?
    });
    match top {
        Some("erofs") => {}
        Some(other) => bail!("on {shown} is {other}, not an image"),
        None => bail!("nothing is mounted on {shown}"),
    }
    unmount(&dir, UnmountFlags::NOFOLLOW).map_err(|errno| {
        let error = anyhow!(io::Error::from(errno));
        let error = match errno {
            Errno::BUSY => {
                error.context("something is in use there: `fuser -vm DIRECTORY` names it")
            }
            Errno::PERM => error.context("this takes root"),
            _ => error,
        };
        error.context(format!("cannot unmount {shown}"))
    })
}

/// A path of /proc/self/mounts, where blanks, tabs, line breaks and backslashes are octal numbers.
fn unescaped(text: &str) -> Vec<u8> {
    let mut path = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| byte == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(octal.unwrap_or(byte));
        rest = match octal {
            Some(_) => behind.get(3..).unwrap_or_default(),
            None => behind,
        };
    }
    path
}
