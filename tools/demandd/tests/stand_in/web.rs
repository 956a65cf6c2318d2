// SPDX-License-Identifier: GPL-2.0
//! A web server that does wrong what a test tells it to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// A status without a body, and headers.
    Status(u16, &'static str),
    /// The whole file, with a status of 200.
    IgnoresRange,
    /// A range of the same length that begins so many bytes later.
    OtherRange(u64),
    /// The size of the file is given wrong.
    OtherSize,
    /// A status of 206 that does not say which range it is.
    NoContentRange,
    /// So many bytes less are announced, and sent.
    Shorter(u64),
    /// So many bytes more are announced, and sent.
    Longer(u64),
    /// The connection is closed after so many bytes of the body.
    Closes(u64),
    /// It is reset after so many bytes of the body.
    Resets(u64),
    /// Nothing comes any more after so many bytes of the body.
    Stalls(u64),
    /// Nothing comes at all.
    Silent,
    /// The connection is closed at once.
    HangsUp,
    /// It is not HTTP.
    Garbage,
    /// A header without an end.
    EndlessHeader,
    /// A byte of the body is changed: the one at this place of the file.
    Flips(u64),
    /// All bytes of the body are those of another file.
    OtherBytes,
    /// In pieces, without telling the length before, and with so many bytes too many.
    Chunked(u64),
    /// Until the connection is closed, without telling the length before, and with so many bytes too many.
    UntilClosed(u64),
    /// It is called compressed.
    Encoded,
    /// It is somewhere else.
    MovedTo(String),
    /// It is somewhere else, which is here.
    MovedHere,
    /// One byte at a time, with a pause before each.
    Drips(Duration),
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The first line.
    pub line: String,
    /// The other lines, in lower case.
    pub headers: Vec<String>,
    /// The other lines as they came.
    pub lines: Vec<String>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|have| have == header)
    }

    pub fn method(&self) -> &str {
        self.line.split(' ').next().unwrap()
    }

    /// What stands in the first line: path and query.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    /// The value of a header; empty if there is none.
    pub fn value(&self, name: &str) -> &str {
        let mut pairs = self.lines.iter().filter_map(|line| line.split_once(": "));
        let found = pairs.find(|(have, _)| have.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }
}

/// An answer without a body.
pub fn empty(status: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n").into_bytes()
}

/// An answer with a body.
pub fn full(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let size = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {size}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Answers before anything else is looked at.
pub type Guard = dyn Fn(&Asked) -> Option<Vec<u8>> + Send + Sync;

/// A server of the files of a directory, on this machine. Its threads end with the test's process.
pub struct Web {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    dir: PathBuf,
    faults: Mutex<VecDeque<Fault>>,
    then: Mutex<Fault>,
    guard: Mutex<Option<Arc<Guard>>>,
    asked: Mutex<Vec<Asked>>,
    connections: Mutex<usize>,
}

/// A connection: to a client, perhaps through TLS.
pub trait Connection: Read + Write {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Web {
    /// Serves a directory, with these faults one after the other; and then with the last one for ever.
    pub fn new(dir: &Path, faults: Vec<Fault>, then: Fault) -> Self {
        Self::with_tls(dir, faults, then, Some)
    }

    pub fn with_tls<C: Connection>(
        dir: &Path,
        faults: Vec<Fault>,
        then: Fault,
        accept: impl Fn(TcpStream) -> Option<C> + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            dir: dir.to_owned(),
            faults: Mutex::new(faults.into()),
            then: Mutex::new(then),
            guard: Mutex::default(),
            asked: Mutex::default(),
            connections: Mutex::default(),
        });
        let server = Arc::clone(&state);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (server, accept) = (Arc::clone(&server), accept.clone());
                *server.connections.lock().unwrap() += 1;
                thread::spawn(move || {
                    let connection = accept(socket.unwrap());
                    connection.and_then(|connection| server.serve(connection))
                });
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }

    /// Who answers first from now on.
    pub fn guard(&self, guard: impl Fn(&Asked) -> Option<Vec<u8>> + Send + Sync + 'static) {
        *self.state.guard.lock().unwrap() = Some(Arc::new(guard));
    }

    /// What is wrong from now on.
    pub fn now(&self, fault: Fault) {
        *self.state.then.lock().unwrap() = fault;
    }
}

impl State {
    /// Answers requests of one connection until it ends, or a fault ends it.
    fn serve(&self, connection: impl Connection) -> Option<()> {
        let mut connection = BufReader::new(connection);
        loop {
            let asked = read_request(&mut connection)?;
            self.asked.lock().unwrap().push(asked.clone());
            let guard = self.guard.lock().unwrap().clone();
            if let Some(answer) = guard.and_then(|guard| guard(&asked)) {
                connection.get_mut().write_all(&answer).ok()?;
                continue;
            }
            let fault = self.faults.lock().unwrap().pop_front();
            let fault = fault.unwrap_or_else(|| self.then.lock().unwrap().clone());
            self.answer(connection.get_mut(), &asked, fault)?;
        }
    }

    /// One answer. Nothing if the connection has to end.
    fn answer(&self, to: &mut impl Connection, asked: &Asked, fault: Fault) -> Option<()> {
        let path = asked.line.split(' ').nth(1)?;
        let early = match &fault {
            Fault::Status(status, headers) => Some(empty(&format!("{status} Told"), headers)),
            Fault::MovedTo(url) => Some(empty("302 Found", &format!("Location: {url}\r\n"))),
            Fault::MovedHere => Some(empty("307 Here", &format!("Location: {path}\r\n"))),
            Fault::Garbage => Some(b"SSH-2.0-OpenSSH_10.0\r\n\r\n\r\n".to_vec()),
            Fault::EndlessHeader => {
                Some(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20)).into_bytes())
            }
            Fault::HangsUp => return None,
            Fault::Silent => {
                thread::sleep(Duration::from_secs(3600));
                return None;
            }
            _ => None,
        };
        if let Some(answer) = early {
            return to.write_all(&answer).ok();
        }
        let Ok(bytes) = std::fs::read(self.dir.join(path.trim_start_matches('/'))) else {
            return to.write_all(&empty("404 Not Found", "")).ok();
        };
        let wanted = asked.headers.iter().find_map(|header| parse_range(header));
        answer_with(to, bytes, wanted, fault)
    }
}

fn read_request(from: &mut impl BufRead) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let line = lines.remove(0);
    let headers: Vec<_> = lines.iter().map(|line| line.to_lowercase()).collect();
    let size = headers
        .iter()
        .find_map(|header| header.strip_prefix("content-length: "));
    let mut body = vec![0; size.map_or(0, |size| size.parse().unwrap())];
    from.read_exact(&mut body).ok()?;
    Some(Asked {
        line,
        headers,
        lines,
        body,
    })
}

fn parse_range(header: &str) -> Option<Range<u64>> {
    let (first, last) = header.strip_prefix("range: bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
}

fn answer_with(
    to: &mut impl Connection,
    mut bytes: Vec<u8>,
    wanted: Option<Range<u64>>,
    fault: Fault,
) -> Option<()> {
    let mut size = bytes.len() as u64;
    match fault {
        Fault::Flips(at) => bytes[at as usize] ^= 1,
        Fault::OtherBytes => bytes.fill(b'?'),
        _ => {}
    }
    let mut range = wanted.clone().unwrap_or(0..size);
    let mut status = "206 Partial Content";
    match fault {
        Fault::OtherRange(by) => range = range.start + by..range.end + by,
        Fault::Shorter(by) => range.end -= by,
        Fault::OtherSize => size += 1,
        Fault::IgnoresRange => range = 0..size,
        _ => {}
    }
    if wanted.is_none() || fault == Fault::IgnoresRange {
        status = "200 OK";
    }
    let mut body = bytes[range.start as usize..range.end as usize].to_vec();
    if let Fault::Longer(by) | Fault::Chunked(by) | Fault::UntilClosed(by) = fault {
        body.resize(body.len() + by as usize, b'+');
    }
    let mut head = format!("HTTP/1.1 {status}\r\n");
    if status.starts_with("206") && fault != Fault::NoContentRange {
        let last = range.end - 1;
        head += &format!("Content-Range: bytes {}-{last}/{size}\r\n", range.start);
    }
    head += &match fault {
        Fault::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
        Fault::UntilClosed(_) => "Connection: close\r\n".to_owned(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    if fault == Fault::Encoded {
        head += "Content-Encoding: gzip\r\n";
    }
    to.write_all((head + "\r\n").as_bytes()).ok()?;
    match fault {
        Fault::Closes(after) => {
            to.write_all(&body[..after as usize]).ok()?;
            None
        }
        Fault::Resets(after) => {
            to.write_all(&body[..after as usize]).ok()?;
            to.flush().ok()?;
            // Once it has arrived, so that it is not thrown away with the rest.
            thread::sleep(Duration::from_millis(50));
            set_socket_linger(to.socket(), Some(Duration::ZERO)).ok()?;
            None
        }
        Fault::Stalls(after) => {
            to.write_all(&body[..after as usize]).ok()?;
            thread::sleep(Duration::from_secs(3600));
            None
        }
        Fault::Drips(pause) => body.iter().try_for_each(|byte| {
            thread::sleep(pause);
            to.write_all(&[*byte]).ok()
        }),
        Fault::Chunked(_) => {
            for piece in body.chunks(10_000) {
                let head = format!("{:x}\r\n", piece.len());
                to.write_all(&[head.as_bytes(), piece, b"\r\n"].concat())
                    .ok()?;
            }
            to.write_all(b"0\r\n\r\n").ok()
        }
        Fault::UntilClosed(_) => {
            to.write_all(&body).ok()?;
            None
        }
        _ => to.write_all(&body).ok(),
    }
}
