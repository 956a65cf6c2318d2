// SPDX-License-Identifier: GPL-2.0
//! The service manager, systemd or one like it: what it is told, and the descriptor that it keeps for us.
//!
//! The protocol is that of sd_notify(3) and sd_listen_fds(3): datagrams of lines `NAME=value` to the socket that
//! `$NOTIFY_SOCKET` names, descriptors beside them; and descriptors from 3 on that the next process is started with.
//! What cannot be told is logged: to serve matters more.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::retry_on_intr;
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{getpid, pidfd_getfd, pidfd_open, PidfdFlags, PidfdGetfdFlags};

use crate::log;

/// The first descriptor that a service manager passes.
const FIRST_FD: RawFd = 3;

/// A service manager that wants to be told.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that started this process, if there is one.
    pub fn from_env() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET")?;
        match connect(&name) {
            Ok(socket) => Some(Self {
                socket,
                watchdog: watchdog(),
            }),
            Err(error) => {
                log!("cannot tell the service manager anything: {name:?}: {error}");
                None
            }
        }
    }

    /// How often it wants to hear that all is well, at least.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells it something: lines of `NAME=value`.
    pub fn tell(&self, lines: &str) {
        if let Err(error) = self.socket.send(lines.as_bytes()) {
            log!("cannot tell the service manager {lines:?}: {error}");
        }
    }

    /// Has it keep a descriptor for the next process, under a name.
    pub fn keep(&self, fd: BorrowedFd<'_>, name: &str) {
        // There is nothing to watch for: a device does not end.
        let lines = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let text = [IoSlice::new(lines.as_bytes())];
        let sent =
            retry_on_intr(|| sendmsg(&self.socket, &text, &mut control, SendFlags::NOSIGNAL));
        if let Err(errno) = sent {
            let error = io::Error::from(errno);
            log!("the service manager does not keep the device: {error}");
        }
    }

    /// Has it give up what it keeps under a name.
    pub fn forget(&self, name: &str) {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

fn watchdog() -> Option<Duration> {
    let ours = |pid: u32| pid == process::id();
    if !number("WATCHDOG_PID").is_none_or(ours) {
        return None;
    }
    let micros: u64 = number("WATCHDOG_USEC")?;
    (micros > 0).then_some(Duration::from_micros(micros))
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    env::var(variable).ok()?.parse().ok()
}

/// The descriptor that was kept under a name, if this process was started with one.
pub fn kept(name: &str) -> Result<Option<OwnedFd>> {
    if number::<u32>("LISTEN_PID") != Some(process::id()) {
        return Ok(None);
    }
    let count: usize = number("LISTEN_FDS").unwrap_or(0);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = (FIRST_FD..).zip(names.split(':')).take(count);
    let Some((fd, _)) = passed.find(|(_, passed)| *passed == name) else {
        return Ok(None);
    };
    // A copy is taken, as of another process: the number alone does not make the descriptor ours. What was passed stays
    // open until this process ends; the copy is not its last one anyway, since the service manager has another.
    pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, fd, PidfdGetfdFlags::empty()))
        .map(Some)
        .map_err(io::Error::from)
        .with_context(|| format!("cannot take descriptor {fd}, which the service manager kept"))
}
