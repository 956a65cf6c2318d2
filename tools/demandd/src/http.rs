// SPDX-License-Identifier: GPL-2.0
//! HTTP on a Unix socket, as much of it as questions without a body take: one request per connection, one connection at
//! a time, and none that keeps others waiting for long.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::io::retry_on_intr;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest head of a request, in bytes.
const HEAD: usize = 8192;

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status, 200 for what went well.
    pub status: u16,
    /// What the body is.
    pub kind: &'static str,
    /// The body.
    pub body: String,
}

/// Makes a socket that only its owner can use. One that nobody serves any more is replaced.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let bound = || {
        let before = rustix::process::umask(Mode::RWXG | Mode::RWXO);
        let listener = UnixListener::bind(path);
        rustix::process::umask(before);
        listener
    };
    let listener = match bound() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                bail!("another daemon has the socket {}", path.display());
            }
            std::fs::remove_file(path).and_then(|()| bound())
        }
        listener => listener,
    };
    listener.with_context(|| format!("cannot make the socket {}", path.display()))
}

/// Answers requests until `ended` can be read. The answer is made from method and path.
pub fn serve(
    listener: &UnixListener,
    ended: BorrowedFd<'_>,
    answer: impl Fn(&str, &str) -> Response,
) -> Result<()> {
    loop {
        let ended = PollFd::from_borrowed_fd(ended, PollFlags::IN);
        let next = PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN);
        let mut fds = [ended, next];
        retry_on_intr(|| poll(&mut fds, None)).context("cannot wait")?;
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        // A client that goes away, or is slow, is its own affair.
        if let Ok((stream, _)) = listener.accept() {
            let _ = converse(stream, &answer);
        }
    }
}

fn converse(mut stream: UnixStream, answer: &impl Fn(&str, &str) -> Response) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let end = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let response = loop {
        match parse(&head) {
            Ok(Some((method, path))) => break answer(&method, &path),
            Ok(None) if head.len() <= HEAD => {}
            _ => break error(400, "this is no HTTP"),
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            size => head.extend(piece.iter().take(size)),
        }
    };
    let Response { status, kind, body } = response;
    let mut text = String::new();
    let _ = write!(
        text,
        "HTTP/1.1 {status} \r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes())
}

/// Method and path, once the head is whole.
pub fn parse(head: &[u8]) -> Result<Option<(String, String)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head)?.is_partial() {
        return Ok(None);
    }
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Ok(Some((text(request.method), text(request.path))))
}

/// An answer in JSON.
pub fn json(body: &serde_json::Value) -> Response {
    Response {
        status: 200,
        kind: "application/json",
        body: format!("{body}\n"),
    }
}

/// An answer that says what is wrong.
pub fn error(status: u16, text: &str) -> Response {
    Response {
        status,
        ..json(&serde_json::json!({ "error": text }))
    }
}
