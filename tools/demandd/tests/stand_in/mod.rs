// SPDX-License-Identifier: GPL-2.0
//! What the tests share: a cache and a source on a real file system, and stand-ins for the kernel's device.
#![allow(dead_code)] // every test file uses its part

pub mod daemon;
pub mod fake;
pub mod process;
pub mod pushed;
pub mod registry;
pub mod s3;
pub mod web;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use demandd::abi::header::cachefiles_demand_req as Raw;
use demandd::abi::RECORD_SIZE;
use demandd::blobs::Blobs;
use demandd::cache::{missing_bytes, Volume};
use demandd::counts::Counts;
use demandd::gate::Gate;
use demandd::prefetch::{Prefetch, Queue, Target};
use demandd::source::directory::Directory;
use demandd::source::mirror::Mirrors;
use demandd::source::Source;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tempfile::TempDir;

/// Longer than any answer takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cache root and a source directory, on a file system with holes and extended attributes.
pub struct Site {
    dir: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub fn source_dir(&self) -> PathBuf {
        self.path("source")
    }

    pub fn volume(&self) -> Volume {
        Volume::new(&self.root(), "erofs").unwrap()
    }

    /// The directory as the only source.
    pub fn mirrors(&self) -> Arc<Mirrors> {
        mirrors(vec![Box::new(Directory::new(&self.source_dir()).unwrap())])
    }

    /// Prefetches a blob, or a range of it, from the directory.
    pub fn prefetch(&self, target: &str) -> anyhow::Result<u64> {
        let blobs = Blobs::new(self.volume(), self.mirrors(), 8, PATIENCE);
        let result = Mutex::new(None);
        let queue = Queue::new(vec![Target::parse(OsStr::new(target))]);
        queue.close();
        let prefetch = Prefetch {
            blobs: &blobs,
            gate: &Gate::new(None),
            patience: Some(PATIENCE),
            counts: &Counts::default(),
            report: &|_, told| *result.lock().unwrap() = Some(told),
            queue: &queue,
        };
        prefetch.work()?;
        result.into_inner().unwrap().expect("a report")
    }

    /// Makes a blob of bytes that tell where they are, and prepares it.
    pub fn blob(&self, name: &str, size: u64) -> Vec<u8> {
        let bytes = pattern(name, size);
        fs::write(self.source_dir().join(name), &bytes).unwrap();
        self.volume().prepare(OsStr::new(name), size).unwrap();
        bytes
    }

    pub fn cache_file(&self, name: &str) -> File {
        self.volume().open(OsStr::new(name)).unwrap().0
    }

    /// Whether this process has the cache file open, or had it open when it was removed.
    pub fn is_open(&self, name: &str) -> bool {
        let path = self.volume().path(OsStr::new(name)).unwrap();
        let path = self
            .root()
            .canonicalize()
            .unwrap()
            .join(path.strip_prefix(self.root()).unwrap());
        let deleted = format!("{} (deleted)", path.display());
        let mut open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
            // Files of other tests come and go.
            fs::read_link(entry.unwrap().path()).ok()
        });
        open.any(|target| target == path || target == Path::new(&deleted))
    }

    /// The bytes of a range of the cache file.
    pub fn cached(&self, name: &str, off: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.cache_file(name)
            .read_exact_at(&mut bytes, off)
            .unwrap();
        bytes
    }

    pub fn missing(&self, name: &str) -> u64 {
        let file = self.cache_file(name);
        let size = file.metadata().unwrap().len();
        missing_bytes(&file, size).unwrap()
    }
}

/// Sources that have the same.
pub fn mirrors(sources: Vec<Box<dyn Source>>) -> Arc<Mirrors> {
    Arc::new(Mirrors::new(sources, PATIENCE))
}

/// Bytes that differ from one block to the next and from one name to the other, and are never all zero.
fn pattern(name: &str, size: u64) -> Vec<u8> {
    let salt = name
        .bytes()
        .fold(1_u64, |sum, byte| sum * 31 + u64::from(byte))
        % 1000;
    (0..size)
        .map(|pos| ((pos * 7 + pos / 4096 + salt) % 251 + 1) as u8)
        .collect()
}

/// A record as the kernel makes it.
pub fn record(id: u64, off: u64, len: u64, path: &[u8]) -> [u8; RECORD_SIZE] {
    let mut bytes = [0; RECORD_SIZE];
    let mut put =
        |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    put(offset_of!(Raw, id), &id.to_ne_bytes());
    put(offset_of!(Raw, off), &off.to_ne_bytes());
    put(offset_of!(Raw, len), &len.to_ne_bytes());
    put(offset_of!(Raw, path), path);
    bytes
}

/// The kernel's end of a socket that keeps the borders of reads and writes, as the device does.
pub struct Kernel(OwnedFd);

impl Kernel {
    /// The kernel's and the daemon's end.
    pub fn pair() -> (Self, OwnedFd) {
        let (kernel, daemon) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        // No wait of a test is for ever.
        let receive = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&kernel, receive, Some(PATIENCE)).unwrap();
        (Self(kernel), daemon)
    }

    /// Ends the connection: the device is gone.
    pub fn close(&self) {
        rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both).unwrap();
    }

    /// Throws away what the daemon has written, so that it can write again.
    pub fn drain(&self) {
        let mut buffer = [0; 8192];
        while rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
    }

    /// Gives the daemon's next read these bytes.
    pub fn send(&self, bytes: &[u8]) {
        rustix::net::send(&self.0, bytes, SendFlags::empty()).unwrap();
    }

    /// What the daemon had said when the connection came to its end, if there is something that was not taken.
    pub fn last_command(&self) -> Option<String> {
        let mut buffer = [0; 8192];
        let (size, _) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT).unwrap();
        (size > 0).then(|| String::from_utf8(buffer[..size].to_vec()).unwrap())
    }

    /// The daemon's next command.
    pub fn command(&self) -> String {
        let mut buffer = [0; 8192];
        let (size, _) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())
            .expect("the daemon gives a command in time");
        String::from_utf8(buffer[..size].to_vec()).unwrap()
    }
}

/// A terminal as a device that can be opened by path, for daemons in a process of their own. Borders of writes are lost,
/// so commands are read as lines.
pub struct Terminal {
    master: File,
    slave: File,
    commands: Receiver<String>,
    pub path: PathBuf,
}

impl Terminal {
    pub fn new() -> Self {
        use rustix::pty::{grantpt, openpt, ptsname, unlockpt, OpenptFlags};
        use rustix::termios::{tcgetattr, tcsetattr, OptionalActions};

        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let path = PathBuf::from(path.into_string().unwrap());
        // Held open: without a slave the master reads EIO before the daemon comes and between two daemons.
        let slave = File::options().read(true).write(true).open(&path).unwrap();
        let mut mode = tcgetattr(&slave).unwrap();
        mode.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &mode).unwrap();

        let master = File::from(master);
        let mut reader = master.try_clone().unwrap();
        let (sender, commands) = channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            let mut byte = [0];
            while matches!(reader.read(&mut byte), Ok(1)) {
                if byte == *b"\n" {
                    let text = String::from_utf8(std::mem::take(&mut line)).unwrap();
                    if sender.send(text).is_err() {
                        return;
                    }
                } else {
                    line.extend(byte);
                }
            }
        });
        Self {
            master,
            slave,
            commands,
            path,
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    pub fn command(&self) -> String {
        self.commands
            .recv_timeout(PATIENCE)
            .expect("the daemon gives a command in time")
    }

    /// Takes the three commands that every daemon begins with.
    pub fn expect_bind(&self, root: &Path, tag: &str) {
        let root = root.canonicalize().unwrap();
        assert_eq!(self.command(), format!("dir {}", root.display()));
        assert_eq!(self.command(), format!("tag {tag}"));
        assert_eq!(self.command(), "bind");
    }

    /// Throws away what a dead daemon left unread, as the device does on close.
    pub fn reset(&self) {
        rustix::termios::tcflush(self.slave.as_fd(), rustix::termios::QueueSelector::IOFlush)
            .unwrap();
    }
}
