// SPDX-License-Identifier: GPL-2.0
//! What a file as `docker login` makes it knows of registries.

use std::path::PathBuf;

use anyhow::{anyhow, ensure, Context, Result};
use base64::prelude::{Engine as _, BASE64_STANDARD};
use serde_json::Value;

use crate::source::http::secret::{Login, Secret};

/// What a file knows of registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// `auths`, by the keys as they stand in the file. An entry may be empty: then a program has the rest.
    entries: Vec<(String, Option<Known>)>,
    /// `credHelpers`: a program for each registry.
    helpers: Vec<(String, String)>,
    /// `credsStore`: the program for all others.
    store: Option<String>,
}

/// What is known of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A user and a password.
    Login(Login),
    /// A token that others are got with.
    Identity(Secret),
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the file.
    Here(Known),
    /// A program has it.
    Helper {
        /// The name of the program, without "docker-credential-".
        name: String,
        /// What to ask it for.
        server: String,
    },
}

/// The file that `docker login` writes, if there is one.
pub fn usual_file() -> Option<PathBuf> {
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
    let file = dir.or_else(home)?.join("config.json");
    file.exists().then_some(file)
}

impl Logins {
    /// Reads the parts `auths`, `credHelpers` and `credsStore` of a file. What is wrong is not quoted.
    pub fn parse(text: &str) -> Result<Self> {
        let file: Value = serde_json::from_str(text)
            .map_err(|error| anyhow!("it is not JSON: line {}", error.line()))?;
        let part = |key: &str| {
            file.get(key)
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
        };
        let mut logins = Self::default();
        for (key, value) in part("auths") {
            let known = Known::parse(value).with_context(|| format!("what it has for {key:?}"))?;
            logins.entries.push((key.clone(), known));
        }
        for (key, value) in part("credHelpers") {
            let name = helper_name(value).with_context(|| format!("the program for {key:?}"))?;
            logins.helpers.push((key.clone(), name));
        }
        let store = file.get("credsStore").map(helper_name).transpose();
        logins.store = store.context("\"credsStore\"")?;
        Ok(logins)
    }

    /// Where what is known of a repository is: what says most about it.
    pub fn of(&self, repository: &str) -> Option<Whereabouts> {
        let host = repository
            .split_once('/')
            .map_or(repository, |(host, _)| host);
        let entry = best(&self.entries, repository);
        let helper = |name: &String, server: &str| Whereabouts::Helper {
            name: name.clone(),
            server: server.to_owned(),
        };
        if let Some((key, name)) = best(&self.helpers, repository) {
            return Some(helper(name, key));
        }
        match (entry, &self.store) {
            (Some((_, Some(known))), _) => Some(Whereabouts::Here(known.clone())),
            // An entry without anything tells by which name the program knows the registry.
            (Some((key, None)), Some(name)) => Some(helper(name, key)),
            (None, Some(name)) => Some(helper(name, host)),
            (_, None) => None,
        }
    }
}

/// What says most about a repository.
fn best<'a, T>(all: &'a [(String, T)], repository: &str) -> Option<&'a (String, T)> {
    let matches = |key: &str| {
        let rest = repository.strip_prefix(normal(key));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let found = all.iter().filter(|(key, _)| matches(key));
    found.max_by_key(|(key, _)| normal(key).len())
}

/// The name of a program, which must not lead elsewhere.
fn helper_name(value: &Value) -> Result<String> {
    let name = value.as_str().unwrap_or_default();
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    ensure!(
        !name.is_empty() && name.chars().all(plain),
        "it is not the name of a program"
    );
    Ok(name.to_owned())
}

impl Known {
    /// Reads an entry.
    fn parse(value: &Value) -> Result<Option<Self>> {
        let text = |key: &str| {
            value
                .get(key)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Self::Identity(Secret::new(token))));
        }
        if let Some(auth) = text("auth") {
            let bad = "\"auth\" is not the base64 of USER:PASSWORD";
            let pair = BASE64_STANDARD.decode(auth).map_err(|_| anyhow!(bad))?;
            let pair = String::from_utf8(pair).map_err(|_| anyhow!(bad))?;
            return Ok(Some(Self::Login(Login::parse(&pair).context(bad)?)));
        }
        Ok(text("username")
            .zip(text("password"))
            .map(|(user, password)| {
                Self::Login(Login {
                    user: Secret::new(user),
                    password: Secret::new(password),
                })
            }))
    }
}

/// The name of a registry as files have it: they may have an address.
fn normal(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let key = key.trim_end_matches('/');
    let version = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2"));
    version.unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_most_about_a_repository_is_taken() {
        let text = r#"{"auths": {
            "https://host/v1/": {"auth": "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
            "host/team": {"username": "u", "password": "p"},
            "host:5000": {"identitytoken": "t"},
            "empty": {}
        }}"#;
        let logins = Logins::parse(text).unwrap();
        let basic = |repository: &str| match logins.of(repository) {
            Some(Whereabouts::Here(Known::Login(login))) => login.user.reveal().to_owned(),
            Some(Whereabouts::Here(Known::Identity(token))) => format!("({})", token.reveal()),
            Some(Whereabouts::Helper { .. }) => unreachable!(),
            None => String::new(),
        };
        assert_eq!(basic("host/other/app"), "Aladdin");
        assert_eq!(basic("host/team/app"), "u");
        assert_eq!(basic("host/teams/app"), "Aladdin");
        assert_eq!(basic("host:5000/app"), "(t)");
        assert_eq!(
            (basic("hostess/app"), basic("empty/app")),
            (String::new(), String::new())
        );
        for bad in [
            "xyzzy",
            r#"{"auths": {"h": {"auth": "xyzzy!"}}}"#,
            r#"{"auths": {"h": {"auth": "eHl6enk="}}}"#,
            r#"{"credsStore": "../xyzzy"}"#,
            r#"{"credHelpers": {"h": "xyzzy xyzzy"}}"#,
            r#"{"credHelpers": {"h": ""}}"#,
        ] {
            let error = format!("{:#}", Logins::parse(bad).unwrap_err());
            assert!(!error.contains("xyzzy"), "{error}");
        }
    }

    #[test]
    fn programs_have_what_the_file_has_not() {
        let text = r#"{"auths": {
            "https://index.example.org/v1/": {},
            "host": {"username": "u", "password": "p"},
            "other": {"username": "u", "password": "p"}
        }, "credHelpers": {"other/team": "ecr-login"}, "credsStore": "desktop"}"#;
        let logins = Logins::parse(text).unwrap();
        let helper = |repository: &str| match logins.of(repository) {
            Some(Whereabouts::Helper { name, server }) => format!("{name} {server}"),
            other => format!("{other:?}"),
        };
        assert_eq!(
            helper("index.example.org/team/app"),
            "desktop https://index.example.org/v1/"
        );
        assert_eq!(helper("unheard.of:5000/app"), "desktop unheard.of:5000");
        assert_eq!(helper("other/team/app"), "ecr-login other/team");
        for repository in ["host/app", "other/app"] {
            let here = logins.of(repository);
            assert!(matches!(here, Some(Whereabouts::Here(_))), "{here:?}");
        }
        let none = Logins::parse(r#"{"auths": {"host": {}}}"#).unwrap();
        assert_eq!(none.of("host/app"), None);
    }
}
