//! What an S3-compatible store answered, out of `object_store`'s words for it.
//!
//! Its own type for a refusal is private, so status and body are read from its text; the tests with real servers hold
//! it to that. Of a body only code and message are kept: the rest may hold signatures. Not here: what to do about it.

use std::error::Error as StdError;

use object_store::client::{HttpError, HttpErrorKind};

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The store said no.
    Refused {
        /// Of HTTP.
        status: u16,
        /// Of S3, such as `NoSuchBucket`; empty when there is no body.
        code: String,
        /// For people.
        message: String,
        /// Whether there is a body that is not one of S3.
        foreign: bool,
    },
    /// There was none, or half of one. It may have been done.
    Lost {
        /// Scheme and host that were asked.
        endpoint: String,
        /// For people.
        reason: String,
    },
    /// Of a server that says somebody else is to be asked.
    Elsewhere,
    /// Nothing was sent: the endpoint has no TLS, and nobody allowed that.
    Plain,
}

/// Where a machine of a cloud is asked for the credentials of its role, when the environment has none.
pub(crate) const INSTANCE_METADATA: &str = "169.254.169.254";

const STATUS: &str = "Server returned non-2xx status code: ";

impl Answer {
    /// None for an error that is not one of HTTP.
    pub(crate) fn of(error: &object_store::Error) -> Option<Self> {
        let text = error.to_string();
        if text.contains("Received redirect without LOCATION") {
            return Some(Self::Elsewhere);
        }
        let endpoint = endpoint(&text);
        if let Some((_, rest)) = text.split_once(STATUS) {
            if endpoint.contains(INSTANCE_METADATA) {
                // Whatever is there, it has no credentials to give.
                return Some(Self::Lost { endpoint, reason: "it refuses".to_owned() });
            }
            let (status, body) = rest.split_once(": ").unwrap_or((rest, ""));
            let status = status.split(' ').next()?.parse().ok()?;
            let code = element(body, "Code").unwrap_or_default();
            let foreign = code.is_empty() && !body.trim().is_empty();
            let message = element(body, "Message").unwrap_or_default();
            return Some(Self::Refused { status, code, message, foreign });
        }
        if let Some((_, body)) = text.split_once("Server returned error response: ") {
            let code = element(body, "Code").unwrap_or_default();
            let message = element(body, "Message").unwrap_or_default();
            // It said 200 before it knew better.
            return Some(Self::Refused { status: 500, code, message, foreign: false });
        }
        let lost = http_error(error)?;
        if reason(lost) == "URL scheme is not allowed" {
            return Some(Self::Plain);
        }
        Some(Self::Lost { endpoint, reason: reason(lost) })
    }

    /// Whether the same request may succeed later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 409 | 429 | 500..),
            Self::Lost { .. } => true,
            Self::Elsewhere | Self::Plain => false,
        }
    }

    /// Whether the request may have been done all the same.
    pub(crate) fn may_be_done(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status >= 500 || *status == 408,
            Self::Lost { .. } => true,
            Self::Elsewhere | Self::Plain => false,
        }
    }

    /// Whether S3 said this code.
    pub(crate) fn says(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }
}

/// The text of the first such element, of a length that people can read.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.chars().take(300).collect())
}

fn http_error(error: &object_store::Error) -> Option<&HttpError> {
    let mut layer = Some(error as &(dyn StdError + 'static));
    while let Some(current) = layer {
        if let Some(found) = current.downcast_ref::<HttpError>() {
            return Some(found);
        }
        layer = current.source();
    }
    None
}

/// Scheme and host out of "Error performing PUT http://host:port/bucket/key in 3ms ...".
fn endpoint(text: &str) -> String {
    let uri = text.split_once("Error performing ").and_then(|(_, rest)| rest.split(' ').nth(1));
    let parsed = uri.and_then(|uri| url::Url::parse(uri).ok());
    parsed.map_or_else(|| "the store".to_owned(), |url| url.origin().ascii_serialization())
}

/// The innermost cause, which is the one that says something.
fn reason(error: &HttpError) -> String {
    if error.kind() == HttpErrorKind::Timeout {
        return "it took too long".to_owned();
    }
    let mut last: &dyn StdError = error;
    while let Some(deeper) = last.source() {
        last = deeper;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Answer {
        let source = text.to_owned().into();
        Answer::of(&object_store::Error::Generic { store: "S3", source }).unwrap()
    }

    #[test]
    fn code_and_message_are_kept_and_nothing_else() {
        let answer = refused(
            "Error performing PUT http://127.0.0.1:1/b/x in 2ms - Server returned non-2xx status code: 403 Forbidden: \
             <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>Check your key: it is wrong</Message>\
             <StringToSign>AWS4-HMAC-SHA256 20261124</StringToSign><SignatureProvided>abcdef</SignatureProvided></Error>",
        );
        let expected = Answer::Refused {
            status: 403,
            code: "SignatureDoesNotMatch".to_owned(),
            message: "Check your key: it is wrong".to_owned(),
            foreign: false,
        };
        assert_eq!(answer, expected);
        assert!(!answer.may_pass() && answer.says("SignatureDoesNotMatch"));
    }

    #[test]
    fn what_may_pass_and_what_may_be_done_are_told_apart() {
        for (status, passes, done) in [
            ("503 Service Unavailable", true, true),
            ("500 Internal Server Error", true, true),
            ("409 Conflict", true, false),
            ("429 Too Many Requests", true, false),
            ("412 Precondition Failed", false, false),
            ("404 Not Found", false, false),
        ] {
            let answer = refused(&format!("x - {STATUS}{status}: "));
            assert_eq!((answer.may_pass(), answer.may_be_done()), (passes, done), "{status}");
        }
        assert!(matches!(
            refused(&format!("x - {STATUS}404 Not Found: <html>")),
            Answer::Refused { foreign: true, .. }
        ));
    }

    #[test]
    fn whoever_answers_for_a_cloud_that_is_not_there_gives_no_credentials() {
        let text = format!(
            "Error performing PUT http://{INSTANCE_METADATA}/latest/api/token in 9ms - {STATUS}403 Forbidden: <html>"
        );
        assert!(
            matches!(refused(&text), Answer::Lost { endpoint, .. } if endpoint.contains(INSTANCE_METADATA))
        );
    }

    #[test]
    fn the_endpoint_is_named_without_its_path() {
        let text =
            "Generic S3 error: Error performing GET http://127.0.0.1:9000/bucket/key?list in 3ms, after";
        assert_eq!(endpoint(text), "http://127.0.0.1:9000");
        assert_eq!(endpoint("something else"), "the store");
    }
}
