// SPDX-License-Identifier: GPL-2.0
//! How a server is shown who asks.

use std::fmt;
use std::time::Instant;

use anyhow::{anyhow, Result};
use ureq::http::{header, HeaderName, HeaderValue, Response, StatusCode, Uri};
use ureq::Body;

use super::client::{Ask, Client};
use super::secret::{Secret, SecretFile};
use super::session::Origin;
use crate::source::Failure;

/// Shows a server who asks.
pub trait Access: fmt::Debug + Send + Sync {
    /// What a request to this address is shown with.
    fn show(&self, ask: &Ask<'_>, url: &Uri) -> Result<Shown, Failure>;

    /// The server has refused: whether something can be done about that.
    fn refused(&self, refusal: Refusal<'_>) -> Result<Verdict, Failure>;

    /// Reads again what was read from files. Whether there is something else.
    fn reload(&self) -> Result<bool>;
}

/// What a request is shown with.
#[derive(Debug, Default)]
pub struct Shown {
    /// Stands for what the headers were made from.
    pub stamp: u64,
    /// More headers.
    pub headers: Vec<(HeaderName, Secret)>,
}

impl Shown {
    /// The headers as they are sent.
    pub fn values(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        let value = |(name, secret): &(HeaderName, Secret)| {
            let mut value = HeaderValue::from_bytes(secret.reveal().as_bytes())
                .map_err(|_| Failure::lasting(anyhow!("a secret that no header can have")))?;
            value.set_sensitive(true);
            Ok((name.clone(), value))
        };
        self.headers.iter().map(value).collect()
    }
}

/// A server that has refused.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// What it was shown.
    pub stamp: u64,
    /// Whether it has refused something else just before.
    pub last: bool,
    /// What it has answered.
    pub response: &'a mut Response<Body>,
    /// To ask somebody else.
    pub client: &'a Client,
    /// The server.
    pub home: &'a Origin,
    /// When all has to be over.
    pub until: Instant,
}

/// What a refusal means.
#[derive(Debug)]
pub enum Verdict {
    /// There is something else to show now.
    Again,
    /// It would be refused again, for this reason if one is known.
    Stays(Option<Refused>),
}

/// Why a server refuses.
#[derive(Debug)]
pub struct Refused {
    /// For people.
    pub why: String,
    /// Whether it would refuse everything else, too.
    pub everything: bool,
}

impl Verdict {
    /// It would be refused again.
    pub fn stays(status: StatusCode, why: impl Into<String>) -> Self {
        Self::Stays(Some(Refused {
            why: why.into(),
            everything: status == StatusCode::UNAUTHORIZED,
        }))
    }
}

/// Nothing is shown.
#[derive(Debug)]
pub struct Anybody {
    /// What would be needed to show something.
    pub advice: &'static str,
}

impl Access for Anybody {
    fn show(&self, _ask: &Ask<'_>, _url: &Uri) -> Result<Shown, Failure> {
        Ok(Shown::default())
    }

    fn refused(&self, refusal: Refusal<'_>) -> Result<Verdict, Failure> {
        Ok(match refusal.response.status() {
            status @ StatusCode::UNAUTHORIZED => Verdict::stays(
                status,
                format!("it wants to know who asks ({})", self.advice),
            ),
            _ => Verdict::Stays(None),
        })
    }

    fn reload(&self) -> Result<bool> {
        Ok(false)
    }
}

/// The same header with every request, from a file.
#[derive(Debug)]
pub struct Header(pub SecretFile<Secret>);

impl Access for Header {
    fn show(&self, _ask: &Ask<'_>, _url: &Uri) -> Result<Shown, Failure> {
        let (stamp, value) = self.0.get();
        Ok(Shown {
            stamp,
            headers: vec![(header::AUTHORIZATION, value)],
        })
    }

    fn refused(&self, refusal: Refusal<'_>) -> Result<Verdict, Failure> {
        let status = refusal.response.status();
        if status == StatusCode::UNAUTHORIZED && !refusal.last && self.0.newer(refusal.stamp) {
            return Ok(Verdict::Again);
        }
        let path = self.0.path().display();
        Ok(match status {
            StatusCode::UNAUTHORIZED => {
                Verdict::stays(status, format!("it does not take what is in {path}"))
            }
            StatusCode::FORBIDDEN => {
                Verdict::stays(status, format!("who is in {path} may not have it"))
            }
            _ => Verdict::Stays(None),
        })
    }

    fn reload(&self) -> Result<bool> {
        self.0.reload()
    }
}
