// SPDX-License-Identifier: GPL-2.0
//! How one request is sent: connections, proxies, certificates, and what errors of theirs mean.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Error, Result};
use ureq::config::ConfigBuilder;
use ureq::http::{header, HeaderName, HeaderValue, Method, Request, Response, Uri};
use ureq::tls::{parse_pem, PemItem, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::Connector;
use ureq::{Agent, Body, Proxy, ProxyProtocol, SendBody};

use super::secret::{Login, SecretFile};
use crate::digest::Digest;
use crate::source::Failure;

/// Where the certificates are that this machine believes.
const CA_FILES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// How many connections are kept for the next request, at most.
const IDLE_CONNECTIONS: usize = 64;

/// How servers are talked to.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a server may say nothing.
    pub silence: Duration,
    /// A proxy that is asked instead; that of the environment if it is not given, and none if it is empty.
    pub proxy: Option<String>,
    /// A file with a line USER:PASSWORD, for the proxy.
    pub proxy_password_file: Option<PathBuf>,
    /// The certificates that are believed, instead of those of the machine.
    pub ca_file: Option<PathBuf>,
}

/// Servers, as one client talks to them: connections are kept for the next request.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    proxy_login: Option<SecretFile<Login>>,
    agent: Mutex<Agent>,
}

impl Client {
    /// Makes a client.
    pub fn new(options: &Options) -> Result<Self> {
        let file = options.proxy_password_file.as_deref();
        let proxy_login = file
            .map(|file| SecretFile::open(file, Login::parse))
            .transpose()?;
        let login = proxy_login.as_ref().map(|file| file.get().1);
        Ok(Self(Arc::new(Inner {
            agent: Mutex::new(agent(options, login)?),
            options: options.clone(),
            proxy_login,
        })))
    }

    /// Makes a client that talks through something else than sockets. It has no proxy, and believes no certificates.
    pub fn over(options: &Options, connector: impl Connector, resolver: impl Resolver) -> Self {
        let config = config(options).proxy(None).build();
        Self(Arc::new(Inner {
            agent: Mutex::new(Agent::with_parts(config, connector, resolver)),
            options: options.clone(),
            proxy_login: None,
        }))
    }

    /// Reads the password for the proxy again. Whether it is another one.
    pub fn reload(&self) -> Result<bool> {
        let Inner {
            options,
            proxy_login,
            agent: own,
        } = &*self.0;
        let Some(file) = proxy_login else {
            return Ok(false);
        };
        let changed = file.reload()?;
        if changed {
            let new = agent(options, Some(file.get().1))?;
            *own.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
        Ok(changed)
    }

    /// Sends a request to just this address. Whatever is answered is a success.
    pub fn send(
        &self,
        ask: &Ask<'_>,
        url: &Uri,
        more: &[(HeaderName, HeaderValue)],
        until: Instant,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(ask.method.clone()).uri(url);
        for (name, value) in &ask.headers {
            request = request.header(name, *value);
        }
        for (name, value) in more {
            request = request.header(name, value);
        }
        if let Some(size) = ask.payload.size() {
            request = request.header(header::CONTENT_LENGTH, size);
        }
        match ask.payload.reader().map_err(Failure::lasting)? {
            Some(mut reader) => {
                self.run(ask, request.body(SendBody::from_reader(&mut reader)), until)
            }
            None => self.run(ask, request.body(SendBody::none()), until),
        }
    }

    fn run(
        &self,
        ask: &Ask<'_>,
        request: ureq::http::Result<Request<SendBody<'_>>>,
        until: Instant,
    ) -> Result<Response<Body>, Failure> {
        let left = until.saturating_duration_since(Instant::now());
        let agent = self.0.agent.lock().unwrap_or_else(PoisonError::into_inner);
        let agent = Agent::clone(&agent);
        let mut config = agent
            .configure_request(request.map_err(Failure::lasting)?)
            .timeout_global(Some(left.max(Duration::from_millis(1))));
        if ask.is_work {
            config = config.timeout_recv_response(None);
        }
        agent.run(config.build()).map_err(failure)
    }
}

fn agent(options: &Options, login: Option<Login>) -> Result<Agent> {
    let config = config(options)
        .proxy(proxy(options.proxy.as_deref(), login)?)
        .tls_config(tls(options.ca_file.as_deref())?)
        .build();
    Ok(config.into())
}

fn config(options: &Options) -> ConfigBuilder<AgentScope> {
    let silence = Some(options.silence);
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
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
}

fn proxy(given: Option<&str>, login: Option<Login>) -> Result<Option<Proxy>> {
    let given = match given {
        None if login.is_some() => bail!("a password for a proxy, and no proxy"),
        None => return Ok(Proxy::try_from_env()),
        Some("") => return Ok(None),
        Some(given) => given,
    };
    // Options can be seen by everybody, and are in logs.
    ensure!(
        !given.contains('@'),
        "a proxy with a user name and a password in its address: put these into a file (proxy-password-file)"
    );
    let bad = |error: ureq::Error| anyhow!("the proxy {given:?}: {error}");
    let proxy = Proxy::new(given).map_err(bad)?;
    ensure!(
        matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https),
        "the proxy {given:?}: only http:// and https:// are known"
    );
    let Some(login) = login else {
        return Ok(Some(proxy));
    };
    let proxy = Proxy::builder(proxy.protocol())
        .host(proxy.host())
        .port(proxy.port())
        .username(login.user.reveal())
        .password(login.password.reveal())
        .build();
    Ok(Some(proxy.map_err(bad)?))
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

/// What is sent with a request.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Nothing, and nobody expects anything.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// A part of a file, or all of it.
    File {
        /// The file.
        file: &'a File,
        /// Where the part begins, in bytes.
        offset: u64,
        /// Its size in bytes.
        size: u64,
        /// What is sent is announced to have this digest.
        digest: Digest,
    },
}

impl<'a> Payload<'a> {
    fn size(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File { size, .. } => Some(*size),
        }
    }

    /// The digest of what is sent.
    pub fn digest(&self) -> Digest {
        match self {
            Self::None => Digest::of(&[]),
            Self::Bytes(bytes) => Digest::of(bytes),
            Self::File { digest, .. } => *digest,
        }
    }

    fn reader(&self) -> io::Result<Option<Box<dyn Read + 'a>>> {
        Ok(match *self {
            Self::None => None,
            Self::Bytes(bytes) => Some(Box::new(bytes)),
            Self::File {
                mut file,
                offset,
                size,
                ..
            } => {
                file.seek(SeekFrom::Start(offset))?;
                Some(Box::new(file.take(size)))
            }
        })
    }
}

/// A request.
#[derive(Debug)]
pub struct Ask<'a> {
    /// What to do.
    pub method: Method,
    /// The address, which may be secret.
    pub url: &'a str,
    /// What is printed in its place.
    pub label: &'a str,
    /// Headers. What shows who asks is not among them.
    pub headers: Vec<(HeaderName, &'a str)>,
    /// What is sent with it.
    pub payload: Payload<'a>,
    /// Once it has all of it, the server may have to work: it may say nothing for as long as the answer may take.
    pub is_work: bool,
}

impl<'a> Ask<'a> {
    /// Asks for what is at an address.
    pub fn get(url: &'a str) -> Self {
        Self {
            method: Method::GET,
            url,
            label: url,
            headers: Vec::new(),
            payload: Payload::None,
            is_work: false,
        }
    }
}

fn failure(error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Io(error) => io_failure(error),
        // It has the address in it, which may be secret.
        ureq::Error::BadUri(_) => Failure::lasting(anyhow!("it is no address")),
        ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..) => Failure::lasting(error),
        ureq::Error::Rustls(ref inner) if is_distrust(inner) => Failure::lasting(error),
        error => Failure::passing(error),
    }
}

/// What went wrong while bytes were read.
pub fn io_failure(error: io::Error) -> Failure {
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
    /// Says what was asked for.
    pub fn context(self, url: &str) -> Self {
        Self {
            error: Error::context(self.error, url.to_owned()),
            kind: self.kind,
        }
    }
}
