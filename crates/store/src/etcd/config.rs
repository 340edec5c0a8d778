//! Where an etcd cluster is and who we are there: from a URI and the environment.
//!
//! The environment's names are those of NVIDIA Dynamo, so that one set of secrets serves both. Not here: connections.

use std::{fmt, path::PathBuf};

use crate::{Error, Result};

/// What other programs may keep in the same cluster stays apart by this.
const DEFAULT_PREFIX: &str = "/lethe";

/// How to reach a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`, at least one.
    pub(super) endpoints: Vec<String>,
    /// What every key begins with; ends with `/`.
    pub(super) root: String,
    pub(super) user: Option<(String, String)>,
    pub(super) ca: Option<PathBuf>,
    /// Certificate and key of the client.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for EtcdConfig {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("root", &self.root)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("ca", &self.ca)
            .field("identity", &self.identity)
            .finish()
    }
}

impl EtcdConfig {
    /// Reads `etcd://host:port,host:port?prefix=/path` beside an environment:
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `ETCD_ENDPOINTS` | members, with commas between them, when the URI names none |
    /// | `ETCD_AUTH_USERNAME`, `ETCD_AUTH_PASSWORD` | a user with a password |
    /// | `ETCD_AUTH_CA` | file with the certificates that may sign the members' |
    /// | `ETCD_AUTH_CLIENT_CERT`, `ETCD_AUTH_CLIENT_KEY` | files with our certificate and its key |
    ///
    /// A member without a scheme is spoken to with TLS exactly when a certificate is given.
    ///
    /// # Errors
    /// [`Error::InvalidUri`] says what is missing or contradicts.
    pub fn from_uri(uri: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        // An address with a user may hold a password: not repeated.
        let shown = if uri.contains('@') { "etcd://..." } else { uri };
        let refuse = |reason: String| Error::InvalidUri { uri: shown.to_owned(), reason };
        let set = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let rest = uri.strip_prefix("etcd://").ok_or_else(|| refuse("it is not etcd://".to_owned()))?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let prefix = match query.split_once('=') {
            None if query.is_empty() => DEFAULT_PREFIX,
            Some(("prefix", prefix)) => prefix,
            _ => return Err(refuse(format!("unknown setting {query:?}, only prefix=/path is known"))),
        };
        let ca = set("ETCD_AUTH_CA").map(PathBuf::from);
        let identity = match (set("ETCD_AUTH_CLIENT_CERT"), set("ETCD_AUTH_CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => return Err(refuse("ETCD_AUTH_CLIENT_CERT and ETCD_AUTH_CLIENT_KEY go together".to_owned())),
        };
        let user = match (set("ETCD_AUTH_USERNAME"), set("ETCD_AUTH_PASSWORD")) {
            (Some(name), Some(password)) => Some((name, password)),
            (None, None) => None,
            _ => return Err(refuse("ETCD_AUTH_USERNAME and ETCD_AUTH_PASSWORD go together".to_owned())),
        };
        let members = match authority {
            "" => set("ETCD_ENDPOINTS").ok_or_else(|| {
                refuse("it names no member (etcd://host:2379), and ETCD_ENDPOINTS is not set".to_owned())
            })?,
            members => members.to_owned(),
        };
        let secure = ca.is_some() || identity.is_some();
        let endpoints = members
            .split(',')
            .map(|member| endpoint(member.trim(), secure).map_err(&refuse))
            .collect::<Result<_>>()?;
        Ok(Self { endpoints, root: root(prefix).map_err(refuse)?, user, ca, identity })
    }

    /// The members, for people.
    pub(super) fn names(&self) -> String {
        self.endpoints.join(", ")
    }
}

fn endpoint(member: &str, secure: bool) -> Result<String, String> {
    if member.contains('@') {
        return Err("users go into ETCD_AUTH_USERNAME, not into the address".to_owned());
    }
    let (scheme, address) = match member.split_once("://") {
        None => (if secure { "https" } else { "http" }, member),
        Some(("https", _)) if !secure => {
            return Err(format!("{member} needs certificates: set ETCD_AUTH_CA"));
        }
        Some(("http", _)) if secure => {
            return Err(format!("{member} is without TLS, but certificates are given: write https://"));
        }
        Some((scheme @ ("http" | "https"), address)) => (scheme, address),
        Some((scheme, _)) => return Err(format!("unknown scheme {scheme:?} of member {member}")),
    };
    let address = address.trim_end_matches('/');
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!("member {member:?} has no port: write host:2379"));
    };
    if host.is_empty() || port.parse::<u16>().is_err() || address.contains(['/', ' ']) {
        return Err(format!("member {member:?} is not host:port"));
    }
    Ok(format!("{scheme}://{address}"))
}

fn root(prefix: &str) -> Result<String, String> {
    let parts = prefix.strip_prefix('/').ok_or_else(|| format!("prefix {prefix:?} must begin with '/'"))?;
    let parts = parts.strip_suffix('/').unwrap_or(parts);
    if parts.split('/').any(str::is_empty) || parts.len() > 256 || parts.chars().any(char::is_control) {
        return Err(format!("prefix {prefix:?} is not a path such as /lethe, of 256 bytes at most"));
    }
    Ok(format!("/{parts}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str, environment: &[(&str, &str)]) -> Result<EtcdConfig> {
        EtcdConfig::from_uri(uri, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_uri_and_the_environment_name_a_cluster() {
        let plain = read("etcd://a:2379,b:2379", &[]).unwrap();
        assert_eq!(plain.endpoints, ["http://a:2379", "http://b:2379"]);
        assert_eq!((plain.root.as_str(), &plain.user), ("/lethe/", &None));
        let ca = ("ETCD_AUTH_CA", "/ca.pem");
        let secure = read("etcd://a:1,[::1]:2/?prefix=/x/y/", &[ca]).unwrap();
        assert_eq!(secure.endpoints, ["https://a:1", "https://[::1]:2"]);
        assert_eq!(secure.root, "/x/y/");
        let named = read("etcd://", &[ca, ("ETCD_ENDPOINTS", "https://a:1, https://b:2/")]).unwrap();
        assert_eq!(named.endpoints, ["https://a:1", "https://b:2"]);
    }

    #[test]
    fn a_password_is_never_shown() {
        let user = [("ETCD_AUTH_USERNAME", "lethe"), ("ETCD_AUTH_PASSWORD", "s3cret")];
        let text = format!("{:?}", read("etcd://a:1", &user).unwrap());
        assert!(text.contains("lethe") && !text.contains("s3cret"), "{text}");
        let endpoints = [("ETCD_ENDPOINTS", "https://u:s3cret@a:1")];
        for refused in [read("etcd://u:s3cret@a", &[]), read("etcd://", &endpoints)] {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("ETCD_AUTH_USERNAME") && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_contradicts_is_said() {
        for (uri, environment, wanted) in [
            ("etcd://", &[][..], "ETCD_ENDPOINTS"),
            ("etcd://a", &[], "host:2379"),
            ("etcd://a:x", &[], "not host:port"),
            ("etcd://a:1?perfix=/x", &[], "only prefix=/path"),
            ("etcd://a:1?prefix=x", &[], "must begin with '/'"),
            ("etcd://a:1?prefix=/", &[], "not a path"),
            ("etcd://a:1", &[("ETCD_AUTH_CLIENT_CERT", "/c")], "go together"),
            ("etcd://a:1", &[("ETCD_AUTH_USERNAME", "u")], "go together"),
            ("etcd://", &[("ETCD_ENDPOINTS", "https://a:1")], "set ETCD_AUTH_CA"),
            ("etcd://", &[("ETCD_ENDPOINTS", "http://a:1"), ("ETCD_AUTH_CA", "/ca")], "without TLS"),
            ("etcd://", &[("ETCD_ENDPOINTS", "ftp://a:1")], "unknown scheme"),
            ("etcd://u@a:1", &[], "ETCD_AUTH_USERNAME"),
        ] {
            let error = read(uri, environment).unwrap_err().to_string();
            assert!(error.contains(wanted), "{uri}: {error}");
        }
    }
}
