//! Whether an HTTP proxy stands between this machine and a store, as the environment says: http_proxy, https_proxy,
//! all_proxy (or in capitals), and no_proxy for what is reached directly. A store of this very machine always is.
//!
//! Decided here and not by the HTTP client, so that an error can name the proxy. `AWS_PROXY_URL` and `AWS_PROXY_EXCLUDES` are for
//! stores alone and count first. Not here: talking to it.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use object_store::{
    ClientConfigKey,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
};

use crate::Environment;

/// The variables of `AmazonS3Builder` itself.
const OWN: &str = "AWS_PROXY_URL";
const OWN_EXCLUDES: &str = "AWS_PROXY_EXCLUDES";

/// How a store is reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// What the HTTP client is told, where the environment speaks of a proxy for such a store: a proxy, and the hosts to
    /// which it is not to be used.
    settings: Option<(String, String)>,
    /// The proxy that stands between, for people: without user and password, and with the variable that names it.
    pub(crate) proxy: Option<String>,
}

impl Route {
    /// The way to the store at `endpoint`.
    pub(crate) fn to(endpoint: &str, environment: &Environment) -> Self {
        if let Some(url) = environment.get(OWN) {
            let matcher = Matcher::builder().all(url).no(environment.get(OWN_EXCLUDES).unwrap_or("")).build();
            return Self { settings: None, proxy: between(&matcher, endpoint, OWN) };
        }
        let scheme = if endpoint.starts_with("http://") { "http_proxy" } else { "https_proxy" };
        let Some((variable, url)) = [scheme, "all_proxy"].iter().find_map(|name| either(name, environment))
        else {
            return Self { settings: None, proxy: None };
        };
        let mut excludes = either("no_proxy", environment).map(|(_, hosts)| hosts).unwrap_or_default();
        let host = host(endpoint);
        if is_this_machine(&host) || excludes.split(',').any(|entry| entry.trim() == "*") {
            // The client does not take "*" to mean addresses too.
            excludes = format!("{excludes},{host}");
        }
        let matcher = Matcher::builder().all(url.as_str()).no(excludes.as_str()).build();
        let proxy = between(&matcher, endpoint, &variable);
        Self { settings: Some((url, excludes)), proxy }
    }

    /// Tells the client of the store.
    pub(crate) fn apply(&self, builder: AmazonS3Builder) -> AmazonS3Builder {
        let Some((url, excludes)) = &self.settings else { return builder };
        builder
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ProxyUrl), url)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ProxyExcludes), excludes)
    }
}

/// A variable in small letters or in capitals, and its value.
fn either(name: &str, environment: &Environment) -> Option<(String, String)> {
    let found = |name: String| environment.get(&name).map(|value| (name.clone(), value.to_owned()));
    found(name.to_owned()).or_else(|| found(name.to_ascii_uppercase()))
}

fn between(matcher: &Matcher, endpoint: &str, variable: &str) -> Option<String> {
    let proxy = matcher.intercept(&endpoint.parse().ok()?)?;
    let (scheme, host) = (proxy.uri().scheme_str()?, proxy.uri().host()?);
    let port = proxy.uri().port_u16().map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{scheme}://{host}{port} ({variable})"))
}

/// Without the brackets of an address.
fn host(endpoint: &str) -> String {
    let host = endpoint.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(endpoint: &str, variables: &[(&str, &str)]) -> Option<String> {
        Route::to(endpoint, &Environment::new(variables.iter().copied())).proxy
    }

    #[test]
    fn a_store_beyond_this_machine_is_asked_through_the_proxy_of_its_scheme() {
        const HTTP: (&str, &str) = ("http_proxy", "http://user:secret@proxy:3128");
        const ALL: (&str, &str) = ("ALL_PROXY", "http://all:1");
        let named = Some("http://proxy:3128 (http_proxy)".to_owned());
        assert_eq!(proxy("http://store:9000", &[HTTP, ALL]), named);
        assert_eq!(proxy("https://store", &[HTTP]), None);
        assert_eq!(proxy("https://store", &[HTTP, ALL]), Some("http://all:1 (ALL_PROXY)".to_owned()));
        assert_eq!(proxy("http://store", &[("http_proxy", "")]), None, "empty is unset");
        assert_eq!(
            proxy("http://store", &[("AWS_PROXY_URL", "http://own:1"), HTTP]),
            Some("http://own:1 (AWS_PROXY_URL)".to_owned())
        );
    }

    #[test]
    fn loopback_and_what_no_proxy_names_are_reached_directly() {
        const HTTP: (&str, &str) = ("http_proxy", "http://proxy:3128");
        for endpoint in [
            "http://127.0.0.1:7607",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://localhost:1",
            "http://s3.localhost",
        ] {
            assert_eq!(proxy(endpoint, &[HTTP]), None, "{endpoint}");
        }
        for (endpoint, no_proxy, direct) in [
            ("http://store.example:1", "*", true),
            ("http://10.1.2.3:1", "*", true),
            ("http://store.example", "other, .example", true),
            ("http://10.1.2.3", "10.0.0.0/8", true),
            ("http://10.1.2.3", "11.0.0.0/8", false),
            ("http://store.example", "stor", false),
        ] {
            let found = proxy(endpoint, &[HTTP, ("NO_PROXY", no_proxy)]);
            assert_eq!(found.is_none(), direct, "{endpoint} {no_proxy}");
        }
    }
}
