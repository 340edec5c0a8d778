//! What an error of the etcd client means: somebody else may answer, or nobody will say otherwise.
//!
//! etcd's own words for its errors are in `api/v3rpc/rpctypes/error.go`; codes alone do not tell them apart.

use std::error::Error as StdError;

use etcd_client::Error as Raw;
use tonic::{Code, ConnectError, Status};

/// What an error means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This member does not serve: ask another. `arrived`: the request may have been carried out all the same.
    Elsewhere { reason: String, arrived: bool },
    /// The user, the password, a certificate or the role is not what it should be.
    Denied(String),
    /// The revision is compacted.
    Compacted,
    /// The revision has not been reached.
    Future,
    /// There is no such lease.
    NoLease,
    /// The quota is used up.
    Full,
    /// The request is more than this cluster takes.
    TooLarge(String),
}

/// What `error` means.
pub(super) fn verdict(error: &Raw) -> Verdict {
    match error {
        Raw::GRpcStatus(status) => of_status(status),
        Raw::LeaseKeepAliveError(text) if text.contains("not found") => Verdict::NoLease,
        other => of_transport(other, other.to_string()),
    }
}

fn of_status(status: &Status) -> Verdict {
    let said = status.message();
    let not_done = || Verdict::Elsewhere { reason: said.to_owned(), arrived: false };
    if status.source().is_some() {
        return of_transport(status, root_cause(status));
    }
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Verdict::Denied(said.to_owned()),
        Code::NotFound if said.contains("lease not found") => Verdict::NoLease,
        Code::OutOfRange if said.contains("compacted") => Verdict::Compacted,
        Code::OutOfRange if said.contains("future revision") => Verdict::Future,
        Code::ResourceExhausted if said.contains("space exceeded") => Verdict::Full,
        Code::InvalidArgument if said.contains("too many operations") || said.contains("too large") => {
            Verdict::TooLarge(said.to_owned())
        }
        // The users changed a moment ago: a new connection knows.
        Code::InvalidArgument if said.contains("revision of auth store is old") => not_done(),
        // "authentication failed", "user name is empty", "user name not found", "password was given but ..."
        Code::InvalidArgument | Code::FailedPrecondition
            if said.contains("auth") || said.contains("user") || said.contains("password") =>
        {
            Verdict::Denied(said.to_owned())
        }
        // Turned away before it was proposed.
        Code::Unavailable if said.contains("no leader") => not_done(),
        Code::ResourceExhausted if said.contains("too many requests") => not_done(),
        code => Verdict::Elsewhere { reason: format!("{said} ({code:?})"), arrived: true },
    }
}

/// A failure on the way.
fn of_transport(error: &(dyn StdError + 'static), reason: String) -> Verdict {
    let mut arrived = true;
    let mut cause = Some(error);
    while let Some(error) = cause {
        // What TLS finds wrong with the other side comes as invalid data.
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData)
        {
            return Verdict::Denied(root_cause(error));
        }
        arrived &= !error.is::<ConnectError>();
        cause = error.source();
    }
    Verdict::Elsewhere { reason, arrived }
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => innermost.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(code: Code, message: &str) -> Verdict {
        verdict(&Raw::GRpcStatus(Status::new(code, message)))
    }

    #[test]
    fn what_etcd_says_is_understood() {
        assert_eq!(
            judge(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Verdict::Compacted
        );
        assert_eq!(
            judge(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            Verdict::Future
        );
        assert_eq!(judge(Code::NotFound, "etcdserver: requested lease not found"), Verdict::NoLease);
        assert_eq!(
            judge(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Verdict::Full
        );
        for denied in [
            "etcdserver: authentication failed, invalid user ID or password",
            "etcdserver: user name is empty",
            "etcdserver: authentication is not enabled",
        ] {
            assert!(matches!(judge(Code::InvalidArgument, denied), Verdict::Denied(_)), "{denied}");
        }
        assert!(matches!(judge(Code::PermissionDenied, "etcdserver: permission denied"), Verdict::Denied(_)));
        assert!(matches!(
            judge(Code::Unavailable, "etcdserver: no leader"),
            Verdict::Elsewhere { arrived: false, .. }
        ));
        assert!(matches!(
            judge(Code::Unavailable, "etcdserver: request timed out"),
            Verdict::Elsewhere { arrived: true, .. }
        ));
    }
}
