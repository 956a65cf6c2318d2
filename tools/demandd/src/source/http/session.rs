// SPDX-License-Identifier: GPL-2.0
//! What a server answers, and where that leads: redirects are followed here, since who asks is shown to the server that
//! it is meant for, and to nobody else.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{anyhow, ensure, Result};
use ureq::http::{header, HeaderName, Method, Response, StatusCode, Uri};
use ureq::Body;

use super::access::{Access, Refusal, Refused, Shown, Verdict};
use super::client::{io_failure, Ask, Client};
use crate::source::{Failure, Kind};

const REDIRECTS: u32 = 5;

/// Of an answer that nobody wants, so much is read to keep the connection, in bytes.
const DRAINED: u64 = 16 << 10;

/// An answer, of any status.
#[derive(Debug)]
pub struct Answer {
    /// What was answered.
    pub response: Response<Body>,
    /// Where it came from, if that is elsewhere. The address may be secret: who has it needs nothing else.
    pub moved: Option<Elsewhere>,
    /// Why it is a refusal, if somebody knows.
    pub refused: Option<Refused>,
}

/// An address that a server has sent us to.
#[derive(Clone, PartialEq, Eq)]
pub struct Elsewhere(String);

impl Elsewhere {
    /// The whole address, for a request.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Which server: all that may be printed.
impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri: Result<Uri, _> = self.0.parse();
        let authority = uri.as_ref().ok().and_then(Uri::authority);
        // Without a user name.
        let host = authority.map_or("", |authority| authority.as_str());
        f.write_str(host.rsplit('@').next().unwrap_or_default())
    }
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A server, as far as it is one that secrets are for: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// The server of an address.
    pub fn of(uri: &Uri) -> Self {
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let port = uri.port_u16().or(match &scheme[..] {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        Self { scheme, host, port }
    }

    /// Whether nobody on the way can read along.
    pub fn is_private(&self) -> bool {
        self.scheme == "https"
    }
}

/// A server, and who asks it.
#[derive(Debug)]
pub struct Session {
    client: Client,
    home: Origin,
    access: Box<dyn Access>,
}

impl Session {
    /// Talks to the server of an address.
    pub fn new(client: Client, url: &Uri, access: Box<dyn Access>) -> Self {
        Self {
            client,
            home: Origin::of(url),
            access,
        }
    }

    /// Reads again what shows who asks. Whether there is something else.
    pub fn reload(&self) -> Result<bool> {
        let proxy = self.client.reload()?;
        Ok(self.access.reload()? || proxy)
    }

    /// Asks, wherever that leads, and once more if a refusal is no reason to give up. Whatever is answered in the end is a
    /// success here.
    pub fn ask(&self, ask: &Ask<'_>, until: Instant) -> Result<Answer, Failure> {
        let mut last = false;
        loop {
            let (mut answer, stamp) = self.follow(ask, until)?;
            let status = answer.response.status();
            let Some(stamp) = stamp.filter(|_| is_refusal(status)) else {
                return Ok(answer);
            };
            let refusal = Refusal {
                stamp,
                last,
                response: &mut answer.response,
                client: &self.client,
                home: &self.home,
                until,
            };
            match self.access.refused(refusal)? {
                Verdict::Again if last => return Ok(answer),
                Verdict::Again => {
                    last = true;
                    drain(answer.response);
                }
                Verdict::Stays(refused) => {
                    answer.refused = refused;
                    return Ok(answer);
                }
            }
        }
    }

    /// Asks, and goes where the answers lead. Tells what was shown to the server that has the last word, if that is the
    /// one that something is shown to.
    fn follow(&self, ask: &Ask<'_>, until: Instant) -> Result<(Answer, Option<u64>), Failure> {
        let mut url: Uri = ask.url.parse().map_err(Failure::lasting)?;
        let mut moved: Option<Elsewhere> = None;
        for _ in 0..=REDIRECTS {
            let at_home = Origin::of(&url) == self.home;
            let shown = match at_home {
                true => Some(self.access.show(ask, &url)?),
                false => None,
            };
            let headers = shown.as_ref().map_or(Ok(Vec::new()), Shown::values)?;
            let response = self
                .client
                .send(ask, &url, &headers, until)
                .map_err(|failure| match &moved {
                    None => failure.context(ask.label),
                    Some(to) => failure.context(&format!("{}, which sends to {to}", ask.label)),
                })?;
            let Some(location) = location(ask, &response) else {
                let answer = Answer {
                    response,
                    moved,
                    refused: None,
                };
                return Ok((answer, shown.map(|shown| shown.stamp)));
            };
            let next = join(&url, location)
                .map_err(Failure::lasting)
                .map_err(|failure| failure.context(ask.label))?;
            drain(response);
            url = next.parse().map_err(Failure::lasting)?;
            moved = Some(Elsewhere(next));
        }
        let error = anyhow!("{}: more than {REDIRECTS} redirects", ask.label);
        Err(Failure::lasting(error))
    }
}

/// Whether a status can be about who asks.
fn is_refusal(status: StatusCode) -> bool {
    let other = [
        StatusCode::NOT_FOUND,
        StatusCode::RANGE_NOT_SATISFIABLE,
        StatusCode::PRECONDITION_FAILED,
    ];
    (status.is_client_error() && !is_busy(status) && !other.contains(&status))
        || status.is_redirection()
}

/// Reads what is left of an answer, if it is short, so that the connection can be used again.
fn drain(response: Response<Body>) {
    let reader = response.into_body().into_reader();
    let _ = io::copy(&mut reader.take(DRAINED), &mut io::sink());
}

/// Where an answer sends us.
fn location<'r>(ask: &Ask<'_>, response: &'r Response<Body>) -> Option<&'r str> {
    let sends = match response.status().as_u16() {
        301..=303 => matches!(ask.method, Method::GET | Method::HEAD),
        307 | 308 => true,
        _ => false,
    };
    let location = Some(text(response, &header::LOCATION));
    location.filter(|location| sends && !location.is_empty())
}

/// The address that a reference means where it was found (RFC 3986, as far as servers use it).
pub fn join(base: &Uri, reference: &str) -> Result<String> {
    // What follows could be secret.
    let bad = || anyhow!("the server sends to what is no address");
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().ok_or_else(bad)?;
    let authority = base.authority().ok_or_else(bad)?;
    let path = base.path();
    let url = if reference.contains("://") {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else if reference.starts_with('?') {
        format!("{scheme}://{authority}{path}{reference}")
    } else {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{scheme}://{authority}{dir}/{reference}")
    };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let new = uri.scheme_str().ok_or_else(bad)?.to_ascii_lowercase();
    ensure!(new == "http" || new == "https", bad());
    ensure!(
        new == "https" || !scheme.eq_ignore_ascii_case("https"),
        "the server sends from https:// to http://, where anybody could answer"
    );
    ensure!(uri.host().is_some_and(|host| !host.is_empty()), bad());
    Ok(url)
}

/// A header's text; empty if there is none.
pub fn text<'r>(response: &'r Response<Body>, name: &HeaderName) -> &'r str {
    let value = response.headers().get(name);
    value.and_then(|value| value.to_str().ok()).unwrap_or("")
}

impl Answer {
    /// Checks that an answer is what was asked for, as the bytes that the server has.
    pub fn check(&self, right: StatusCode) -> Result<(), Failure> {
        if let Some(failure) = self.overload() {
            return Err(failure);
        }
        let status = self.response.status();
        if status != right {
            let refused = self.refused.as_ref();
            let why = refused.map_or(String::new(), |refused| format!(": {}", refused.why));
            let error = anyhow!("{} answers {status}{why}", self.who());
            return Err(Failure::lasting(error));
        }
        let encoding = text(&self.response, &header::CONTENT_ENCODING);
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            return Err(Failure::lasting(anyhow!(
                "the server has encoded it ({encoding:?}), though it was asked not to"
            )));
        }
        Ok(())
    }

    /// Whether a server says that it cannot answer now.
    pub fn overload(&self) -> Option<Failure> {
        let status = self.response.status();
        (status.is_server_error() || is_busy(status)).then(|| Failure {
            error: anyhow!("{} answers {status}", self.who()),
            kind: Kind::Overload(retry_after(text(&self.response, &header::RETRY_AFTER))),
        })
    }

    /// The whole body, which is small.
    pub fn bytes(mut self, url: &str, most: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        self.response
            .body_mut()
            .as_reader()
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| io_failure(error).context(url))?;
        if bytes.len() as u64 > most {
            return Err(Failure::lasting(anyhow!(
                "{url} is too large: more than {most} bytes are not believed"
            )));
        }
        Ok(bytes)
    }

    fn who(&self) -> String {
        match &self.moved {
            Some(moved) => format!("the server {moved}, where this one sends to,"),
            None => "the server".to_owned(),
        }
    }
}

fn is_busy(status: StatusCode) -> bool {
    [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
    ]
    .contains(&status)
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_location_is_relative_to_where_it_was_found() {
        let base: Uri = "http://host:8080/dir/file?x=1".parse().unwrap();
        for (reference, url) in [
            ("https://other/a?b#c", "https://other/a?b"),
            ("//other/a", "http://other/a"),
            ("/a/b", "http://host:8080/a/b"),
            ("b", "http://host:8080/dir/b"),
            ("?y=2", "http://host:8080/dir/file?y=2"),
        ] {
            assert_eq!(join(&base, reference).unwrap(), url);
        }
        for bad in ["ftp://host/a", "file:///etc/passwd", "http://", "a b"] {
            assert!(join(&base, bad).is_err(), "{bad}");
        }
        let private: Uri = "https://host/".parse().unwrap();
        assert!(join(&private, "http://host/").is_err());
    }

    #[test]
    fn a_server_is_scheme_host_and_port() {
        let origin = |url: &str| Origin::of(&url.parse().unwrap());
        assert_eq!(origin("http://Host/a"), origin("http://host:80/b"));
        assert_eq!(origin("https://host"), origin("https://host:443/"));
        for other in ["https://host/", "http://host:81/", "http://host.example/"] {
            assert_ne!(origin("http://host/"), origin(other));
        }
    }
}
