// SPDX-License-Identifier: GPL-2.0
//! Web servers with certificates.

mod stand_in;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use demandd::source::http::{Client, Http, Options};
use demandd::source::{Kind, Source};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use stand_in::web::{Connection, Fault, Web};
use stand_in::Site;

/// A certificate for an address, and its key, in files.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Identity {
    fn new(dir: &Path, name: &str, address: &str) -> Self {
        let [certificate, key] = ["crt", "key"].map(|end| dir.join(format!("{name}.{end}")));
        let status = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=test"])
            .args(["-addext", &format!("subjectAltName=IP:{address}")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-out")
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .stderr(Stdio::null())
            .status()
            .expect("install openssl");
        assert!(status.success());
        Self { certificate, key }
    }

    fn server(&self, dir: &Path) -> Web {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from_pem_file(&self.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        Web::with_tls(dir, vec![], Fault::None, move |socket| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            Some(Tls(StreamOwned::new(connection, socket)))
        })
    }
}

struct Tls(StreamOwned<ServerConnection, TcpStream>);

impl std::io::Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::io::Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Connection for Tls {
    fn socket(&self) -> &TcpStream {
        &self.0.sock
    }
}

fn get(server: &Web, ca_file: &Path) -> Result<Vec<u8>, demandd::source::Failure> {
    let options = Options {
        silence: Duration::from_secs(10),
        proxy: Some(String::new()),
        proxy_password_file: None,
        ca_file: Some(ca_file.to_owned()),
    };
    let url = format!("https://{}", server.address);
    let source = Http::new(&url, Client::new(&options).unwrap()).unwrap();
    source.file("file", 100_000, Instant::now() + Duration::from_secs(30))
}

#[test]
fn a_server_is_believed_if_its_certificate_is() {
    let site = Site::new();
    let bytes = site.blob("file", 50_000);
    let known = Identity::new(&site.path(""), "known", "127.0.0.1");
    let server = known.server(&site.source_dir());
    assert_eq!(get(&server, &known.certificate).unwrap(), bytes);
}

#[test]
fn a_server_that_is_not_believed_is_not_asked_again() {
    let site = Site::new();
    site.blob("file", 50_000);
    let dir = site.path("");
    let known = Identity::new(&dir, "known", "127.0.0.1");
    let stranger = Identity::new(&dir, "stranger", "127.0.0.1");
    let elsewhere = Identity::new(&dir, "elsewhere", "127.0.0.2");
    for (identity, believed) in [(&stranger, &known), (&elsewhere, &elsewhere)] {
        let server = identity.server(&site.source_dir());
        let failure = get(&server, &believed.certificate).unwrap_err();
        assert_eq!(failure.kind, Kind::Lasting, "{:#}", failure.error);
        assert!(
            server.asked().is_empty(),
            "it has not learned what was wanted"
        );
    }
}

#[test]
fn a_file_without_certificates_is_refused() {
    let site = Site::new();
    for (name, text) in [("empty", ""), ("text", "hello")] {
        let file = site.path(name);
        std::fs::write(&file, text).unwrap();
        let options = Options {
            silence: Duration::from_secs(10),
            proxy: None,
            proxy_password_file: None,
            ca_file: Some(file),
        };
        let error = Client::new(&options).unwrap_err();
        assert!(
            error.to_string().contains("has no certificate"),
            "{error:#}"
        );
    }
}

#[test]
fn a_password_for_a_registry_does_not_go_over_http() {
    let site = Site::new();
    let known = Identity::new(&site.path(""), "known", "127.0.0.1");
    let server = known.server(&site.source_dir());
    let tokens = Web::new(&site.source_dir(), vec![], Fault::None);
    let realm = format!("{}token", tokens.url());
    server.guard(move |_| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n");
        Some(stand_in::web::empty("401 Unauthorized", &challenge))
    });
    let certificate = known.certificate.display();
    let place = format!(
        "oci://{}/app proxy=none ca-file={certificate}",
        server.address
    );
    let failure = stand_in::pushed::failure(&place);
    assert!(
        format!("{:#}", failure.error).contains("over http://"),
        "{:#}",
        failure.error
    );
    assert_eq!(failure.kind, Kind::Lasting);
    assert!(tokens.asked().is_empty());
}
