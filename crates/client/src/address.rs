//! Addresses of coordinators as people write them: `http://host:port`, or `host:port`.

use http::Uri;

use crate::Error;

/// The address as a uri with nothing but scheme, host and port.
///
/// # Errors
/// [`Error::Address`] when it is not one: no port, another scheme, a path.
pub(crate) fn parse(text: &str) -> Result<String, Error> {
    let refuse = |problem: String| Error::Address { address: text.to_owned(), problem };
    let trimmed = text.trim();
    let full = if trimmed.contains("://") { trimmed.to_owned() } else { format!("http://{trimmed}") };
    let uri: Uri = full.parse().map_err(|error| refuse(format!("{error}; expected http://host:port")))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(refuse("https is not supported; expected http://host:port".to_owned())),
        other => {
            let scheme = other.unwrap_or_default();
            return Err(refuse(format!("found scheme '{scheme}'; expected http://host:port")));
        }
    }
    let host = uri.host().unwrap_or_default();
    let port =
        uri.port_u16().ok_or_else(|| refuse("the port is missing; expected http://host:port".to_owned()))?;
    if host.is_empty() {
        return Err(refuse("the host is missing; expected http://host:port".to_owned()));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(refuse("found something after the port; expected http://host:port".to_owned()));
    }
    Ok(format!("http://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_becomes_a_uri() {
        for (text, uri) in [
            ("127.0.0.1:7070", "http://127.0.0.1:7070"),
            (" lethe.example:7070/ ", "http://lethe.example:7070"),
            ("http://localhost:1", "http://localhost:1"),
            ("[::1]:7070", "http://[::1]:7070"),
        ] {
            assert_eq!(parse(text).unwrap(), uri);
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_what_is_expected() {
        for (text, problem) in [
            ("", "expected http://host:port"),
            ("localhost", "port is missing"),
            ("https://localhost:1", "https is not supported"),
            ("ftp://localhost:1", "found scheme 'ftp'"),
            ("localhost:1/v1", "after the port"),
            ("localhost:99999", "port is missing"),
            ("local host:1", "expected http://host:port"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
