// SPDX-License-Identifier: GPL-2.0
//! What web servers answer, and what is asked on the daemon's own socket.
//!
//! An input is what it is about (a small file, a range of a blob, or a question), the range, how many bytes come at a
//! time, and what comes. Every connection goes on where the one before it ended.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use demandd::http::parse;
use demandd::source::http::{Client, Http, Options};
use demandd::source::{How, Kind, Source};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::Error;

use crate::input::Input;

/// The largest file that is believed, in bytes.
const MOST: u64 = 100;

/// The size of the blob in bytes.
const SIZE: u64 = 1000;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let [about, start, len, piece] = input.bytes();
    let answers = input.rest();
    match about % 3 {
        0 => file(answers, piece),
        1 => range(answers, piece, u64::from(start) * 2, u64::from(len)),
        _ => question(answers),
    }
}

fn file(answers: &[u8], piece: u8) {
    let result = source(answers, piece).file("x", MOST, until());
    if let Ok(bytes) = result {
        assert!(bytes.len() as u64 <= MOST);
        assert!(has(answers, b" 200"), "a file without a status of 200");
    }
}

fn range(answers: &[u8], piece: u8, start: u64, len: u64) {
    let end = SIZE.min(start + len.max(1));
    let how = How {
        until: until(),
        fresh: false,
    };
    let blob = source(answers, piece).blob(OsStr::new("x"), SIZE);
    let blob = blob.expect("nobody is asked yet");
    let mut stream = match blob.range(start..end, &how) {
        Ok(stream) => stream,
        Err(failure) => {
            if let Kind::Overload(wish) = failure.kind {
                // Whoever waits for so long has to be able to count it.
                let _ = wish.map(|wish| Instant::now().checked_add(wish).expect("a time"));
            }
            return;
        }
    };
    let last = end - 1;
    let told = format!("bytes {start}-{last}/");
    if !(has(answers, b" 206") && has(answers, told.as_bytes())) {
        assert!(start == 0 && end == SIZE && has(answers, b" 200"));
    }
    let mut bytes = vec![0; (end - start) as usize];
    let (head, tail) = bytes.split_at_mut(((end - start) / 2) as usize);
    if stream.read_exact(head).is_ok() && stream.read_exact(tail).is_ok() {
        // What comes in pieces has something between them.
        let chunked = has(&answers.to_ascii_lowercase(), b"chunked");
        assert!(chunked || has(answers, &bytes), "bytes that nobody sent");
    }
}

/// A question is understood once its head is whole; what follows changes nothing.
fn question(head: &[u8]) {
    let Ok(Some((method, path))) = parse(head) else {
        return;
    };
    assert!(
        head.starts_with(method.as_bytes()) || head.starts_with(b"\r") || head.starts_with(b"\n")
    );
    assert!(has(head, path.as_bytes()));
    let longer = [head, b"\0 HTTP/1.1\r\n\r\n"].concat();
    let again = parse(&longer).expect("it was understood");
    assert_eq!(again, Some((method, path)));
}

fn has(all: &[u8], part: &[u8]) -> bool {
    part.is_empty() || all.windows(part.len()).any(|window| window == part)
}

fn until() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn source(answers: &[u8], piece: u8) -> Http {
    let options = Options {
        silence: Duration::from_secs(60),
        proxy: Some(String::new()),
        proxy_password_file: None,
        ca_file: None,
    };
    let server = Server(
        Arc::new(Mutex::new(answers.to_vec())),
        usize::from(piece) + 1,
    );
    let client = Client::over(&options, server, Nowhere);
    Http::new("http://a.example/dir", client).expect("an address")
}

/// Answers what it was given, so many bytes at a time, whatever it is asked.
#[derive(Clone, Debug)]
struct Server(Arc<Mutex<Vec<u8>>>, usize);

impl Connector for Server {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let config = details.config;
        Ok(Some(Connection {
            server: self.clone(),
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
        }))
    }
}

#[derive(Debug)]
struct Connection {
    server: Server,
    buffers: LazyBuffers,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, _amount: usize, _timeout: NextTimeout) -> Result<(), Error> {
        Ok(())
    }

    fn await_input(&mut self, _timeout: NextTimeout) -> Result<bool, Error> {
        let Server(left, piece) = &self.server;
        let mut left = left.lock().expect("nobody panicked");
        let room = self.buffers.input_append_buf();
        let count = room.len().min(*piece).min(left.len());
        for (to, from) in room.iter_mut().zip(left.drain(..count)) {
            *to = from;
        }
        self.buffers.input_appended(count);
        // Else this is the end.
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}

/// Where everything is.
#[derive(Debug)]
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
        Ok(addresses)
    }
}
