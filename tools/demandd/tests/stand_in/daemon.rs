// SPDX-License-Identifier: GPL-2.0
//! A daemon in a thread of the test, with the kernel's end of its device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use demandd::abi::RECORD_SIZE;
use demandd::blobs::Blobs;
use demandd::counts::Summary;
use demandd::device::{Device, Node, BATCH};
use demandd::serve::{serve, Options, Plan};
use rustix::io::{ioctl_fionbio, Errno};

use super::{record, Kernel, Site};

/// Longer than any test takes.
pub const NEVER: Duration = Duration::from_secs(3600);

pub struct Daemon {
    pub kernel: Kernel,
    pub stop: UnixStream,
    pub thread: JoinHandle<Result<Summary>>,
}

pub fn options() -> Options {
    Options {
        workers: 4,
        delay: Duration::ZERO,
        trace: None,
        cull: None,
        prefetch: Plan::default(),
        counts: Arc::default(),
    }
}

impl Daemon {
    pub fn start(site: &Site, options: Options) -> Self {
        Self::with_device(site, options, |node| node)
    }

    /// Serves a device that is made from the daemon's end of the socket.
    pub fn with_device<D: Device + Send + 'static>(
        site: &Site,
        options: Options,
        device: impl FnOnce(Socket) -> D,
    ) -> Self {
        Self::with_blobs(blobs(site, NEVER), options, device)
    }

    pub fn with_blobs<D: Device + Send + 'static>(
        blobs: Blobs,
        options: Options,
        device: impl FnOnce(Socket) -> D,
    ) -> Self {
        let (kernel, fd) = Kernel::pair();
        let device = device(Socket::from(fd));
        let (stop, stopped) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || serve(&device, &blobs, options, stopped.as_fd()));
        Self {
            kernel,
            stop,
            thread,
        }
    }

    pub fn ask(&self, id: u64, off: u64, len: u64, path: &str) -> String {
        self.kernel.send(&record(id, off, len, path.as_bytes()));
        self.kernel.command()
    }

    pub fn end(self) -> Summary {
        self.told_to_end().1.join().unwrap().unwrap()
    }

    /// Tells it to end. What it still answers comes to the kernel's end.
    pub fn told_to_end(self) -> (Kernel, JoinHandle<Result<Summary>>) {
        drop(self.stop);
        (self.kernel, self.thread)
    }

    /// Waits for the daemon to end by itself; returns why it did.
    pub fn failure(self) -> String {
        let error = self.thread.join().unwrap().unwrap_err();
        drop(self.stop);
        format!("{error:#}")
    }
}

/// Blobs of which none stays open for longer than `idle` without being used.
pub fn blobs(site: &Site, idle: Duration) -> Blobs {
    Blobs::new(site.volume(), site.mirrors(), 8, idle)
}

/// The daemon's end of the socket, where a packet is a batch of records. As with the kernel's device, a read takes all
/// records that wait and there is room for, and never blocks.
pub struct Socket {
    node: Node,
    /// What came in a packet that there was no room for. A read with too little room would throw it away.
    rest: Mutex<Vec<u8>>,
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        ioctl_fionbio(&fd, true).unwrap();
        Self {
            node: Node::from(fd),
            rest: Mutex::default(),
        }
    }
}

impl Device for Socket {
    fn fd(&self) -> BorrowedFd<'_> {
        self.node.fd()
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len() - buffer.len() % RECORD_SIZE;
        let mut rest = self.rest.lock().unwrap();
        while rest.len() < room {
            let mut packet = [0; BATCH * RECORD_SIZE];
            match self.node.read(&mut packet) {
                Ok(0) => break,
                Ok(n) => rest.extend(&packet[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let size = rest.len().min(room);
        buffer[..size].copy_from_slice(&rest[..size]);
        rest.drain(..size);
        Ok(size)
    }

    fn write(&self, command: &[u8]) -> io::Result<()> {
        self.node.write(command)
    }
}

/// A device that refuses one command, a number of times.
pub struct Refusing {
    node: Socket,
    command: &'static str,
    errno: Errno,
    times: std::sync::atomic::AtomicU32,
}

impl Refusing {
    /// Refuses commands that begin with `command`.
    pub fn new(node: Socket, command: &'static str, errno: Errno, times: u32) -> Self {
        Self {
            node,
            command,
            errno,
            times: times.into(),
        }
    }
}

impl Device for Refusing {
    fn fd(&self) -> BorrowedFd<'_> {
        self.node.fd()
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.node.read(buffer)
    }

    fn write(&self, command: &[u8]) -> io::Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        let one_less = |times: u32| times.checked_sub(1);
        if command.starts_with(self.command.as_bytes())
            && self.times.fetch_update(Relaxed, Relaxed, one_less).is_ok()
        {
            return Err(self.errno.into());
        }
        self.node.write(command)
    }
}
