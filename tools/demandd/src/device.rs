// SPDX-License-Identifier: GPL-2.0
//! The device: opening it, binding a cache, reading requests, giving answers.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

use anyhow::{anyhow, Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::{retry_on_intr, Errno};

use crate::abi::{Command, Io, Limit, Request, RECORD_SIZE};
use crate::{log, working_directory};

/// How many records one read asks for.
pub const BATCH: usize = 64;

/// What speaks the wire format: the kernel's device, or a stand-in of a test.
pub trait Device: Sync {
    /// What to poll for requests.
    fn fd(&self) -> BorrowedFd<'_>;

    /// One `read(2)`: whole records, or 0 when nothing waits.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// One `write(2)`: one command.
    fn write(&self, command: &[u8]) -> io::Result<()>;
}

/// The kernel's device.
#[derive(Debug)]
pub struct Node(OwnedFd);

impl Node {
    /// Opens the device. Fails with a message that says what to do.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
            .map(Self)
            .map_err(|errno| {
                let advice = match errno {
                    Errno::NOENT | Errno::NODEV | Errno::NXIO => {
                        "the kernel module is not loaded: run `modprobe cachefiles_demand`"
                    }
                    Errno::BUSY => "another daemon serves the cache: only one can",
                    Errno::PERM | Errno::ACCESS => "this takes CAP_SYS_ADMIN: run demandd as root",
                    _ => return anyhow!(io::Error::from(errno)),
                };
                anyhow!(io::Error::from(errno)).context(advice)
            })
            .with_context(|| format!("cannot open {}", path.display()))
    }
}

impl From<OwnedFd> for Node {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Device for Node {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::read(&self.0, &mut *buffer))?)
    }

    fn write(&self, command: &[u8]) -> io::Result<()> {
        // A command that is taken at all is taken whole.
        match retry_on_intr(|| rustix::io::write(&self.0, command))? {
            n if n == command.len() => Ok(()),
            n => Err(io::Error::other(format!(
                "the device took {n} of {} bytes",
                command.len()
            ))),
        }
    }
}

/// Gives one command.
pub fn command(device: &dyn Device, command: Command<'_>) -> Result<()> {
    let text = command.to_bytes()?;
    Ok(device.write(&text)?)
}

/// What the kernel is told besides directory and tag. What is not given stays as the kernel has it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Free space, in per cent.
    pub limits: Vec<(Limit, u8)>,
    /// See [`Command::Linger`].
    pub linger: Option<u32>,
    /// See [`Command::Timeout`].
    pub timeout: Option<u32>,
    /// See [`Command::Granule`].
    pub granule: Option<u64>,
    /// See [`Command::Io`].
    pub io: Option<Io>,
}

impl Settings {
    /// Those that can be given at any time.
    fn changeable<'a>(&self) -> Vec<Command<'a>> {
        let Self {
            limits: _,
            linger,
            timeout,
            granule,
            io,
        } = *self;
        let all = [
            linger.map(Command::Linger),
            timeout.map(Command::Timeout),
            granule.map(Command::Granule),
            io.map(Command::Io),
        ];
        all.into_iter().flatten().collect()
    }
}

/// Puts the cache below `root` into service. Fails with a message that says what to do.
pub fn bind(device: &dyn Device, root: &Path, tag: &str, settings: &Settings) -> Result<()> {
    // The kernel takes absolute paths only.
    let root = root
        .canonicalize()
        .with_context(|| format!("no cache root {}", root.display()))
        .context("run `demandd prepare` first")?;
    let limits = settings.limits.iter();
    let limits = limits.map(|&(limit, n)| Command::Limit(limit, n));
    let mut steps = [Command::Dir(&root), Command::Tag(tag)]
        .into_iter()
        .chain(limits)
        .chain([Command::Bind])
        .chain(settings.changeable());
    steps.try_for_each(|step| step_or_advice(device, step))
}

/// Goes on with a device that a daemon before this one has bound, and that was kept open: tells it those settings that
/// can change, and has it deliver once more what has no answer. If it serves another cache, that one goes.
pub fn take_back(
    device: &dyn Device,
    root: &Path,
    volume: &Path,
    tag: &str,
    settings: &Settings,
) -> Result<()> {
    if !serves(device, volume, tag)? {
        log!("the device that was kept serves another cache, which ends");
        match command(device, Command::Unbind) {
            // None is bound.
            Err(error) if errno_of(&error) == Some(Errno::INVAL) => {}
            result => result.context("cannot take the other cache out of service")?,
        }
        return bind(device, root, tag, settings);
    }
    change(device, settings)?;
    step_or_advice(device, Command::Restore)
}

/// Whether the cache that is bound is the one below which a directory lies, and has this tag.
fn serves(device: &dyn Device, dir: &Path, tag: &str) -> Result<bool> {
    let number = device.fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let told = info.lines().find_map(|line| line.strip_prefix("cache:\t"));
    // How the kernel shows an unusual tag is its own affair.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if tag.bytes().all(plain) && told.is_some_and(|told| told.trim_matches('"') != tag) {
        return Ok(false);
    }
    // Names are looked up in the working directory, and only if that is in the cache.
    let asked = thread::scope(|scope| {
        let asked = scope.spawn(|| {
            working_directory::own()?;
            working_directory::enter(dir)?;
            command(device, Command::InUse(OsStr::new("demandd")))
        });
        asked.join()
    });
    match asked.map_err(|_| anyhow!("a thread panicked"))? {
        Err(error) if errno_of(&error) == Some(Errno::INVAL) => Ok(false),
        // No file has that name.
        Err(error) if errno_of(&error) == Some(Errno::NOENT) => Ok(true),
        result => result
            .map(|()| true)
            .context("cannot ask which cache the device serves"),
    }
}

/// Changes settings of a cache that is in service: those that can be given at any time.
pub fn change(device: &dyn Device, settings: &Settings) -> Result<()> {
    let mut steps = settings.changeable().into_iter();
    steps.try_for_each(|step| step_or_advice(device, step))
}

/// Takes the cache out of service: what waits fails with EIO, and nothing waits for another daemon.
pub fn unbind(device: &dyn Device) -> Result<()> {
    step_or_advice(device, Command::Unbind)
}

/// Gives a command of setting up or ending. Fails with a message that says what to do.
fn step_or_advice(device: &dyn Device, step: Command<'_>) -> Result<()> {
    command(device, step).map_err(|error| {
        let advice = match (step, errno_of(&error)) {
            (Command::Bind, Some(Errno::OPNOTSUPP)) => {
                "the cache root must be on ext4, XFS or btrfs; the kernel log tells what is wrong with its file system"
            }
            (Command::Bind, Some(Errno::INVAL)) => {
                "the limits are not stop < cull < run, or the cache root is on an idmapped mount"
            }
            (_, Some(Errno::OPNOTSUPP)) => {
                "the kernel module does not know this command: it is older than demandd"
            }
            (_, Some(Errno::NOTDIR)) => "the cache root is not a directory",
            (_, Some(Errno::NOENT)) => "the cache root does not exist: run `demandd prepare` first",
            (_, Some(Errno::ROFS)) => "the cache root is on a read-only file system",
            (_, Some(Errno::EXIST)) => "it was given before",
            (_, Some(Errno::BUSY)) => {
                "a cache with this tag is bound already, by another daemon, by cachefilesd, or with another root"
            }
            (_, Some(Errno::INVAL)) => "the kernel does not accept the argument",
            _ => "the kernel refuses",
        };
        error.context(format!("{step}: {advice}"))
    })
}

/// The errno that lies at the bottom of an error, if there is one.
pub fn errno_of(error: &anyhow::Error) -> Option<Errno> {
    error.chain().find_map(|cause| {
        let raw = cause.downcast_ref::<io::Error>()?.raw_os_error()?;
        Some(Errno::from_raw_os_error(raw))
    })
}

/// Reads all requests that wait, a batch at a time.
#[derive(Debug)]
pub struct Requests {
    buffer: Vec<u8>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            buffer: vec![0; BATCH * RECORD_SIZE],
        }
    }
}

impl Requests {
    /// One read. Adds nothing when nothing waits. Whole records are added even if what follows them is an error: the
    /// kernel has delivered them, and somebody has to answer.
    pub fn read(&mut self, device: &dyn Device, requests: &mut VecDeque<Request>) -> Result<()> {
        let size = match device.read(&mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            size => size.context("cannot read requests from the device")?,
        };
        let records = self
            .buffer
            .get(..size)
            .ok_or_else(|| anyhow!("the device claims more bytes than there is room for"))?;
        let mut chunks = records.chunks_exact(RECORD_SIZE);
        let whole = chunks.by_ref().filter_map(|chunk| chunk.try_into().ok());
        requests.extend(whole.map(Request::parse));
        if chunks.remainder().is_empty() {
            Ok(())
        } else {
            Err(anyhow!(
                "the device gave {size} bytes, which are not whole records of {RECORD_SIZE}: daemon and kernel module do not belong together"
            ))
        }
    }
}
