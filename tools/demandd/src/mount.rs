// SPDX-License-Identifier: GPL-2.0
//! Mounting an image in one step: everything that mount(2) needs is seen to, or what is missing is named.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{anyhow, bail, ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::{unmount, MountFlags, UnmountFlags};

use crate::cache::Volume;
use crate::image::device_names;
use crate::image::prepare::prepare as prepare_image;
use crate::kernel::{Kernel, DIR};
use crate::machine::{Machine, Origin};
use crate::manifest::{manifest_file, Wanted};
use crate::source::mirror::Mirrors;
use crate::source::place::Address;

/// What is to be mounted, and where.
#[derive(Debug)]
pub struct Wish {
    /// The image, with a place if one was named. Its name is that of the primary blob, or one that has a manifest.
    pub image: Address,
    /// The names of the other blobs, in order; none if the image has them.
    pub devices: Vec<String>,
    /// The cache's name.
    pub tag: String,
    /// More options for mount(2), separated by commas.
    pub options: Option<String>,
    /// The mount point.
    pub dir: PathBuf,
    /// What may have the image: the place, or else all sources.
    pub mirrors: Option<Arc<Mirrors>>,
    /// Those of them that are directories.
    pub directories: Vec<PathBuf>,
    /// How to start a daemon, if that can be done.
    pub daemon: Option<Daemon>,
}

/// How to start a daemon.
#[derive(Debug)]
pub struct Daemon {
    /// The service of the system is this one.
    pub service: bool,
    /// What `demandd` is given otherwise.
    pub options: Vec<OsString>,
    /// Where it writes to then.
    pub log: PathBuf,
}

/// The service that `make install` brings.
const SERVICE: &str = "demandd.service";

/// What a daemon prints once it serves.
pub const READY: &str = "demandd: ready";

/// Mounts an image. Blobs that have no cache file yet get one if a source has them, and a daemon is started if none
/// serves the cache.
pub fn mount(machine: &Machine, volume: &Volume, wish: &Wish) -> Result<()> {
    let dir = &wish.dir;
    ensure!(
        dir.is_dir(),
        "the mount point {} is not a directory",
        dir.display()
    );
    // What mount(2) cannot take is told before anything is made.
    let (name, place) = wish.image.look_up(wish.mirrors.as_deref())?;
    data(wish, &name)?;
    let primary = prepare(volume, wish, &name, place.as_deref())?;
    let data = data(wish, &primary)?;
    serve(machine, wish)?;
    load(machine, "erofs")?;
    ensure!(
        machine.loaded("erofs") != Origin::Kernel,
        "the kernel's own erofs is loaded, which knows no caches: see `demandd doctor`"
    );
    rustix::mount::mount("none", dir, "erofs", MountFlags::RDONLY, data.as_c_str()).map_err(
        |errno| {
            let error = anyhow!(io::Error::from(errno)).context(advice(errno));
            error.context(format!("cannot mount {} on {}", wish.image, dir.display()))
        },
    )
}

/// The options as mount(2) takes them.
fn data(wish: &Wish, primary: &str) -> Result<CString> {
    let mut data = format!("uuid={primary},tag={}", wish.tag);
    for device in &wish.devices {
        data += &format!(",device={device}");
    }
    let devices = wish.devices.iter().map(String::as_str);
    for name in [primary, &wish.tag].into_iter().chain(devices) {
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

/// Makes the cache files; returns the name of the primary blob.
fn prepare(volume: &Volume, wish: &Wish, image: &str, place: Option<&OsStr>) -> Result<String> {
    let name = OsStr::new(image);
    let wanted = image.parse::<Wanted>();
    let has_manifest = match &wanted {
        Ok(wanted) if wanted.digest.is_some() => true,
        // Whoever names a place means the image that is there, whatever is prepared.
        _ if place.is_none() && volume.path(name)?.exists() => false,
        Ok(wanted) => {
            let file = manifest_file(&wanted.name);
            in_directory(OsStr::new(&file), &wish.directories).is_some()
                || in_directory(name, &wish.directories).is_none()
        }
        // A digest that is none.
        Err(_) if image.contains("@sha256:") => true,
        Err(_) => false,
    };
    if !has_manifest {
        prepare_plain(volume, wish, name)?;
        return Ok(image.to_owned());
    }
    let mirrors = wish.mirrors.as_deref();
    let mirrors = mirrors.with_context(|| {
        format!("{name:?} is not prepared: run `demandd prepare`, or give a --source")
    })?;
    let manifest = prepare_image(volume, mirrors, &wanted?, place, |_, _| Ok(()))
        .with_context(|| format!("{name:?} is not prepared, and cannot be"))?;
    let primary = manifest.entries().first().context("it has no blobs")?;
    Ok(primary.name.clone())
}

/// Prepares an image without a manifest, which only a directory may have.
fn prepare_plain(volume: &Volume, wish: &Wish, image: &OsStr) -> Result<()> {
    let directories = &wish.directories;
    prepare_one(volume, image, directories)?;
    let devices = match in_directory(image, directories) {
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
        .try_for_each(|name| prepare_one(volume, name, directories))
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

/// Takes care that a daemon serves the cache: without one, mount(2) would wait, or fail with less of a reason.
fn serve(machine: &Machine, wish: &Wish) -> Result<()> {
    let Some(missing) = missing_daemon(machine, &wish.tag) else {
        return Ok(());
    };
    let daemon = match &wish.daemon {
        Some(daemon) if missing.can_start => daemon,
        _ => bail!("{}", missing.reason),
    };
    load(machine, "cachefiles_demand")
        .and_then(|()| daemon.start())
        .with_context(|| format!("{}. It cannot be started from here", missing.reason))
}

/// Why no daemon serves a cache.
struct Missing {
    reason: String,
    /// Nobody else has the device.
    can_start: bool,
}

/// Whether there is no daemon that serves a cache.
fn missing_daemon(machine: &Machine, tag: &str) -> Option<Missing> {
    const START: &str = "start it (`systemctl start demandd`, or `demandd serve`)";
    let missing = |reason: String, can_start| Some(Missing { reason, can_start });
    let tables = Kernel::read(&machine.path(DIR)).json();
    let Some(caches) = tables["caches"].as_array() else {
        return match machine.loaded("cachefiles_demand") {
            Origin::Absent => missing(
                format!("no daemon serves a cache, the kernel module cachefiles_demand is not loaded: {START}"),
                true,
            ),
            // The kernel does not let us look; mount(2) will tell.
            _ => None,
        };
    };
    let free = caches.iter().all(|row| row["daemon"] != "connected");
    let mine = caches.iter().find(|row| row["tag"] == tag);
    match mine.and_then(|row| row["daemon"].as_str()) {
        Some("connected") => None,
        Some(state) => missing(
            format!("the daemon of the cache {tag:?} is {state}: {START}"),
            free,
        ),
        None if caches.is_empty() => missing(format!("no daemon serves a cache: {START}"), free),
        None => {
            let others = caches.iter().filter_map(|row| row["tag"].as_str());
            let others = others.collect::<Vec<_>>().join(", ");
            missing(
                format!("no daemon serves a cache {tag:?}; there is: {others}"),
                free,
            )
        }
    }
}

impl Daemon {
    /// Returns once it serves.
    fn start(&self) -> Result<()> {
        if self.service {
            let status = Command::new("systemctl").args(["start", SERVICE]).status();
            let status = status.context("cannot run systemctl")?;
            ensure!(
                status.success(),
                "`systemctl start {SERVICE}` has failed: see `systemctl status {SERVICE}`"
            );
            return Ok(());
        }
        let shown = self.log.display();
        let mut log = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o600)
            .open(&self.log)
            .with_context(|| format!("cannot open {shown}"))?;
        let before = log.seek(SeekFrom::End(0))?;
        let demandd = std::env::current_exe().context("cannot find demandd")?;
        let mut child = Command::new(demandd)
            .args(&self.options)
            // It stays when whoever started it goes, and does not hold any directory.
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .context("cannot run demandd")?;
        let stdout = child.stdout.take().context("it has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        if lines.any(|line| line.is_ok_and(|line| line == READY)) {
            return Ok(());
        }
        child.wait()?;
        bail!("{} (in {shown})", last_line(&mut log, before)?)
    }
}

/// The last line of what came into a log.
fn last_line(log: &mut File, since: u64) -> Result<String> {
    let mut text = Vec::new();
    log.seek(SeekFrom::Start(since))?;
    log.take(1 << 20).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .next_back()
        .unwrap_or("it ended without a word");
    Ok(line.strip_prefix("demandd: ").unwrap_or(line).to_owned())
}

/// Takes care that a module of ours is there.
fn load(machine: &Machine, module: &str) -> Result<()> {
    if machine.loaded(module) == Origin::Absent {
        let status = Command::new("modprobe").arg(module).status();
        let status = status.context("cannot run modprobe")?;
        ensure!(
            status.success(),
            "`modprobe {module}` has failed: see `demandd doctor`"
        );
    }
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
