// SPDX-License-Identifier: GPL-2.0
//! A web server as a source: every file is read with `GET`, ranges of blobs with a `Range` header.
//!
//! A server can say what it likes; what it answers is only taken if it is exactly what was asked for. A server that does
//! not keep to the protocol will not do so the next time either, so that is a lasting failure. One that does not answer, or
//! stops in the middle, may do better later.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{anyhow, bail, ensure, Context, Error, Result};
use ureq::http::{header, Response, StatusCode, Uri};
use ureq::tls::{parse_pem, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, BodyReader, Proxy};

use super::{Failure, How, Kind, Ranges, Source, Stream};

/// Where the certificates are that this machine believes.
const CA_FILES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// How many connections are kept for the next request, at most.
const IDLE_CONNECTIONS: usize = 64;

const REDIRECTS: u32 = 5;

/// How servers are talked to.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a server may say nothing.
    pub silence: Duration,
    /// A proxy that is asked instead; that of the environment if it is not given, and none if it is empty.
    pub proxy: Option<String>,
    /// The certificates that are believed, instead of those of the machine.
    pub ca_file: Option<PathBuf>,
}

/// Servers, as one client talks to them: connections are kept for the next request.
#[derive(Clone, Debug)]
pub struct Client(Agent);

impl Client {
    /// Makes a client.
    pub fn new(options: &Options) -> Result<Self> {
        let silence = Some(options.silence);
        let proxy = match options.proxy.as_deref() {
            None => Proxy::try_from_env(),
            Some("") => None,
            Some(proxy) => {
                Some(Proxy::new(proxy).map_err(|error| anyhow!("the proxy {proxy:?}: {error}"))?)
            }
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(REDIRECTS)
            .user_agent(concat!("demandd/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(silence)
            .timeout_connect(silence)
            .timeout_send_request(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence)
            .timeout_per_write(silence)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .proxy(proxy)
            .tls_config(tls(options.ca_file.as_deref())?)
            .build();
        Ok(Self(config.into()))
    }
}

fn tls(ca_file: Option<&Path>) -> Result<TlsConfig> {
    let mut certificates = Vec::new();
    let file = ca_file.or_else(|| {
        CA_FILES
            .map(Path::new)
            .into_iter()
            .find(|file| file.exists())
    });
    if let Some(file) = file {
        let pem = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        for item in parse_pem(&pem) {
            if let PemItem::Certificate(certificate) =
                item.map_err(|error| anyhow!("{}: {error}", file.display()))?
            {
                certificates.push(certificate);
            }
        }
        ensure!(
            !certificates.is_empty(),
            "{} has no certificate",
            file.display()
        );
    }
    let provider = rustls::crypto::ring::default_provider();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .build())
}

/// A directory of a web server.
#[derive(Debug)]
pub struct Http {
    /// Ends with a slash.
    base: String,
    client: Client,
}

/// Whether a source is meant to be a web server.
pub fn is_url(place: &OsStr) -> bool {
    let has = |scheme: &[u8]| {
        let start = place.as_bytes().get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    has(b"http://") || has(b"https://")
}

impl Http {
    /// Names a directory of a web server. Nobody is asked yet.
    pub fn new(url: &str, client: Client) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("the source {url}"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            // Not with the address: it would be in every log.
            bail!("a source with a user name and a password in its address is not supported");
        }
        ensure!(
            uri.host().is_some_and(|host| !host.is_empty()) && !url.contains(['?', '#']),
            "the source {url} is not the address of a directory"
        );
        Ok(Self {
            base: format!("{}/", url.trim_end_matches('/')),
            client,
        })
    }

    fn url(&self, name: &OsStr) -> String {
        format!("{}{}", self.base, escape(name))
    }

    /// One request. Whatever is answered is a success here.
    fn get(
        &self,
        url: &str,
        until: Instant,
        headers: &[(header::HeaderName, &str)],
    ) -> Result<Response<Body>, Failure> {
        let left = until.saturating_duration_since(Instant::now());
        let mut request = self.client.0.get(url);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request
            .config()
            .timeout_global(Some(left.max(Duration::from_millis(1))))
            .build()
            .call()
            .map_err(|error| failure(error).context(url))
    }
}

impl Source for Http {
    fn label(&self) -> &str {
        &self.base
    }

    fn file(&self, name: &str, most: u64, until: Instant) -> Result<Vec<u8>, Failure> {
        let url = self.url(OsStr::new(name));
        let mut response = self.get(&url, until, &[])?;
        check_status(&response, StatusCode::OK).map_err(|failure| failure.context(&url))?;
        let mut bytes = Vec::new();
        response
            .body_mut()
            .as_reader()
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| io_failure(error).context(&url))?;
        if bytes.len() as u64 > most {
            return Err(Failure::lasting(anyhow!(
                "{url} is too large: more than {most} bytes are not believed"
            )));
        }
        Ok(bytes)
    }

    fn blob(&self, name: &OsStr, size: u64) -> Result<Box<dyn Ranges>, Failure> {
        Ok(Box::new(HttpBlob {
            source: Self {
                base: self.base.clone(),
                client: self.client.clone(),
            },
            url: self.url(name),
            size,
        }))
    }

    fn probe(&self, until: Instant) -> Result<(), Failure> {
        let response = self.get(&self.base, until, &[])?;
        // A directory need not have a page of its own: any answer shows that somebody is there.
        match overload(&response) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

/// A blob on a web server.
#[derive(Debug)]
struct HttpBlob {
    source: Http,
    url: String,
    size: u64,
}

impl Ranges for HttpBlob {
    fn range(&self, range: Range<u64>, how: &How) -> Result<Box<dyn Stream + '_>, Failure> {
        let last = range.end.saturating_sub(1);
        let wanted = format!("bytes={}-{last}", range.start);
        let mut headers = vec![(header::RANGE, &wanted[..])];
        if how.fresh {
            headers.push((header::CACHE_CONTROL, "no-cache"));
        }
        let response = self.source.get(&self.url, how.until, &headers)?;
        let length = self
            .check(&response, &range)
            .map_err(|failure| failure.context(&self.url))?;
        Ok(Box::new(HttpStream {
            url: &self.url,
            body: response.into_body().into_reader(),
            left: range.end.saturating_sub(range.start),
            // Looking for the end is free then, and only then.
            ends_by_itself: length.is_some(),
        }))
    }
}

impl HttpBlob {
    /// Whether an answer is about the range that was asked for, and nothing else. Tells its length if the server does.
    fn check(&self, response: &Response<Body>, range: &Range<u64>) -> Result<Option<u64>, Failure> {
        let size = self.size;
        if response.status() == StatusCode::OK {
            // All of it, which is as good if all of it was asked for.
            if *range != (0..size) {
                return Err(Failure::lasting(anyhow!(
                    "the server does not know ranges: it answers with the whole file"
                )));
            }
            check_status(response, StatusCode::OK)?;
        } else {
            check_status(response, StatusCode::PARTIAL_CONTENT)?;
            let said = text(response, &header::CONTENT_RANGE);
            let last = range.end.saturating_sub(1);
            let right = format!("bytes {}-{last}/{size}", range.start);
            let unsure = format!("bytes {}-{last}/*", range.start);
            if said != right && said != unsure {
                return Err(Failure::lasting(anyhow!(
                    "the server answers with another range: {said:?} instead of {right:?}"
                )));
            }
        }
        let length = response.body().content_length();
        let right = range.end.saturating_sub(range.start);
        match length {
            Some(length) if length != right => Err(Failure::lasting(anyhow!(
                "the server wants to send {length} bytes instead of {right}"
            ))),
            length => Ok(length),
        }
    }
}

/// The bytes of an answer.
struct HttpStream<'a> {
    url: &'a str,
    body: BodyReader<'static>,
    left: u64,
    ends_by_itself: bool,
}

impl Stream for HttpStream<'_> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        self.body
            .read_exact(bytes)
            .map_err(|error| io_failure(error).context(self.url))?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if self.left == 0 && self.ends_by_itself {
            // A connection whose answer was read to its end is kept for the next request.
            let _ = self.body.read(&mut [0]);
        }
        Ok(())
    }
}

/// A header's text; empty if there is none.
fn text<'r>(response: &'r Response<Body>, name: &header::HeaderName) -> &'r str {
    let value = response.headers().get(name);
    value.and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Checks that an answer is what was asked for, as the bytes that the server has.
fn check_status(response: &Response<Body>, right: StatusCode) -> Result<(), Failure> {
    if let Some(failure) = overload(response) {
        return Err(failure);
    }
    let status = response.status();
    if status != right {
        return Err(Failure::lasting(anyhow!("the server answers {status}")));
    }
    let encoding = text(response, &header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(Failure::lasting(anyhow!(
            "the server has encoded it ({encoding:?}), though it was asked not to"
        )));
    }
    Ok(())
}

/// Whether a server says that it cannot answer now.
fn overload(response: &Response<Body>) -> Option<Failure> {
    let status = response.status();
    let busy = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
    ];
    (status.is_server_error() || busy.contains(&status)).then(|| Failure {
        error: anyhow!("the server answers {status}"),
        kind: Kind::Overload(retry_after(text(response, &header::RETRY_AFTER))),
    })
}

/// Reads the value of `Retry-After`: seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // A date that is over means: now.
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn failure(error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Io(error) => io_failure(error),
        ureq::Error::TooManyRedirects
        | ureq::Error::RedirectFailed
        | ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::LargeResponseHeader(..) => Failure::lasting(error),
        ureq::Error::Rustls(ref inner) if is_distrust(inner) => Failure::lasting(error),
        error => Failure::passing(error),
    }
}

fn io_failure(error: io::Error) -> Failure {
    let inner = error.get_ref();
    let distrust = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match error.kind() {
        _ if distrust.is_some_and(is_distrust) => Failure::lasting(error),
        io::ErrorKind::UnexpectedEof => Failure::passing(anyhow!("the answer is cut off")),
        _ => Failure::passing(error),
    }
}

/// Whether a server is not the one that it should be.
fn is_distrust(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_))
}

impl Failure {
    fn context(self, url: &str) -> Self {
        Self {
            error: Error::context(self.error, url.to_owned()),
            kind: self.kind,
        }
    }
}

/// A name as it stands in an address.
fn escape(name: &OsStr) -> Cow<'_, str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    match name.to_str() {
        Some(name) if name.as_bytes().iter().all(plain) => Cow::Borrowed(name),
        _ => name
            .as_bytes()
            .iter()
            .map(|byte| match plain(byte) {
                true => char::from(*byte).to_string(),
                false => format!("%{byte:02X}"),
            })
            .collect::<Vec<_>>()
            .concat()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        for (name, escaped) in [
            ("app-1.0_x~.img", "app-1.0_x~.img"),
            ("a b", "a%20b"),
            ("a%2f?#", "a%252f%3F%23"),
            ("\u{e9}", "%C3%A9"),
        ] {
            assert_eq!(escape(OsStr::new(name)), escaped);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        for text in ["", "-1", "soon", "99999999999999999999"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
        let past = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after(past), Some(Duration::ZERO));
        let soon = SystemTime::now() + Duration::from_secs(100);
        let left = retry_after(&httpdate::fmt_http_date(soon)).unwrap();
        assert!((98..=100).contains(&left.as_secs()), "{left:?}");
    }
}
