//! Why a request is refused, as a gRPC status and back.
//!
//! Every refusal carries a `google.rpc.ErrorInfo` with domain [`DOMAIN`] and a reason a program can act on; what is wrong
//! with a spec travels as `google.rpc.BadRequest` field violations. A status without our ErrorInfo was not made here but
//! by the transport, a proxy or another service: [`Refusal::from_status`] gives none for it.

use std::collections::HashMap;

use lethe_domain::{ErrorCode, Failure, SpecError, SpecProblem};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::ConversionError;

/// The domain of our reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "lethe.dev";

/// A status travels in HTTP/2 trailers, which peers cut off at 16 KiB by default: more text than this is left out.
const TEXT_BUDGET: usize = 6 * 1024;

const MALFORMED: &str = "MALFORMED_REQUEST";
const NOT_FOUND: &str = "NOT_FOUND";
const CONFLICT: &str = "CONFLICT";
const DENIED: &str = "DENIED";
const UNAVAILABLE: &str = "UNAVAILABLE";
const NOT_LEADER: &str = "NOT_LEADER";

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The job spec is wrong; with everything that was found. INVALID_ARGUMENT.
    #[error("{0}")]
    Spec(SpecError),
    /// The request cannot be understood. INVALID_ARGUMENT.
    #[error("malformed request: {0}")]
    Malformed(ConversionError),
    /// There is no such thing. NOT_FOUND.
    #[error("there is no {kind} '{id}'")]
    NotFound {
        /// What was looked for: job, artifact.
        kind: String,
        /// Its name.
        id: String,
    },
    /// It contradicts how things stand: a request_id used for another spec, a job that is already final.
    /// FAILED_PRECONDITION.
    #[error("{message}")]
    Conflict {
        /// What contradicts what, and what to do.
        message: String,
    },
    /// It is not theirs to ask. PERMISSION_DENIED.
    #[error("{message}")]
    Denied {
        /// Who may not do what for whom, and what to do.
        message: String,
    },
    /// Not here: only the leader does this. UNAVAILABLE.
    #[error("{}", describe_leader(.leader))]
    NotLeader {
        /// Where the leader is reached, `host:port`; none while nobody leads, which takes seconds.
        leader: Option<String>,
    },
    /// Not now: the state store is gone, or the coordinator ends; the same request may succeed later. UNAVAILABLE.
    #[error("{message}")]
    Unavailable {
        /// Why not now.
        message: String,
    },
    /// Something failed, with a cause from the closed list. The code depends on the cause.
    #[error("{0}")]
    Failure(Failure),
}

fn describe_leader(leader: &Option<String>) -> String {
    match leader {
        Some(leader) => format!("this coordinator does not lead, the one at {leader} does"),
        None => "no coordinator leads at the moment: try again in a few seconds".to_owned(),
    }
}

impl From<SpecError> for Refusal {
    fn from(error: SpecError) -> Self {
        Refusal::Spec(error)
    }
}

impl From<ConversionError> for Refusal {
    fn from(error: ConversionError) -> Self {
        Refusal::Malformed(error)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Refusal::Failure(failure)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = shortened(&refusal.to_string(), TEXT_BUDGET / 4);
        let status = |code, reason: &str, metadata| {
            let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
            Status::with_error_details(code, message.clone(), details)
        };
        match refusal {
            Refusal::Spec(error) => spec_status(error, &message),
            Refusal::Malformed(error) => {
                let mut details = ErrorDetails::with_error_info(MALFORMED, DOMAIN, HashMap::new());
                details.add_bad_request_violation(error.path, error.fault.to_string());
                Status::with_error_details(Code::InvalidArgument, message, details)
            }
            Refusal::NotFound { kind, id } => {
                status(Code::NotFound, NOT_FOUND, metadata([("kind", kind), ("id", id)]))
            }
            Refusal::Conflict { .. } => status(Code::FailedPrecondition, CONFLICT, HashMap::new()),
            Refusal::Denied { .. } => status(Code::PermissionDenied, DENIED, HashMap::new()),
            Refusal::Unavailable { .. } => status(Code::Unavailable, UNAVAILABLE, HashMap::new()),
            Refusal::NotLeader { leader } => {
                let leader = leader.map(|leader| ("leader".to_owned(), leader));
                status(Code::Unavailable, NOT_LEADER, leader.into_iter().collect())
            }
            Refusal::Failure(failure) => status(
                code_of(failure.code),
                failure.code.name(),
                metadata([
                    ("message", shortened(&failure.message, TEXT_BUDGET / 4)),
                    ("hint", shortened(&failure.hint, TEXT_BUDGET / 4)),
                    ("at_unix_ms", failure.at_unix_ms.to_string()),
                ]),
            ),
        }
    }
}

/// Everything wrong with a spec, as far as it fits.
fn spec_status(error: SpecError, message: &str) -> Status {
    let mut violations = Vec::new();
    let (total, mut room) = (error.problems.len(), TEXT_BUDGET);
    for SpecProblem { path, message } in error.problems {
        let message = shortened(&message, TEXT_BUDGET / 4);
        let length = path.len() + message.len();
        if length > room {
            break;
        }
        room -= length;
        violations.push(FieldViolation::new(path, message));
    }
    if violations.len() < total {
        let more = format!("and {} more problems", total - violations.len());
        violations.push(FieldViolation::new("", more));
    }
    let reason = ErrorCode::InvalidSpec.name();
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_bad_request(violations);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn metadata<const N: usize>(pairs: [(&str, String); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// At most `limit` bytes of a text, cut at a character.
fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        text.to_owned()
    } else {
        format!("{}...", &text[..text.floor_char_boundary(limit)])
    }
}

/// The gRPC code of a cause.
fn code_of(cause: ErrorCode) -> Code {
    match cause {
        ErrorCode::InvalidSpec => Code::InvalidArgument,
        ErrorCode::BadModel
        | ErrorCode::InputChanged
        | ErrorCode::SpecMismatch
        | ErrorCode::NotFinite
        | ErrorCode::NoPositives
        | ErrorCode::NoNegatives
        | ErrorCode::NoEdits => Code::FailedPrecondition,
        ErrorCode::OutOfMemory | ErrorCode::DiskFull => Code::ResourceExhausted,
        ErrorCode::Damaged => Code::DataLoss,
        ErrorCode::StateDiffers | ErrorCode::GangAborted | ErrorCode::Yielded | ErrorCode::LeaseExpired => {
            Code::Aborted
        }
        ErrorCode::Storage | ErrorCode::ExecutorDied | ErrorCode::WorkerLost => Code::Unavailable,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::Internal => Code::Internal,
    }
}

impl Refusal {
    /// The refusal in a status; none when the status was not made from one.
    pub fn from_status(status: &Status) -> Option<Refusal> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
        let field = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
        let message = status.message().to_owned();
        Some(match info.reason.as_str() {
            MALFORMED => {
                let violation = violations.first()?;
                let (path, found) = (violation.field.as_str(), &violation.description);
                let missing = ConversionError::missing(path);
                let is_missing = *found == missing.fault.to_string();
                Refusal::Malformed(if is_missing { missing } else { ConversionError::bad(path, found) })
            }
            NOT_FOUND => Refusal::NotFound { kind: field("kind"), id: field("id") },
            CONFLICT => Refusal::Conflict { message },
            DENIED => Refusal::Denied { message },
            UNAVAILABLE => Refusal::Unavailable { message },
            NOT_LEADER => Refusal::NotLeader { leader: info.metadata.get("leader").cloned() },
            reason => {
                let code = ErrorCode::from_name(reason)?;
                if code == ErrorCode::InvalidSpec && !violations.is_empty() {
                    let problem = |violation: &FieldViolation| SpecProblem {
                        path: violation.field.clone(),
                        message: violation.description.clone(),
                    };
                    return Some(Refusal::Spec(SpecError {
                        problems: violations.iter().map(problem).collect(),
                    }));
                }
                let at_unix_ms = field("at_unix_ms").parse().unwrap_or_default();
                Refusal::Failure(Failure { code, message: field("message"), hint: field("hint"), at_unix_ms })
            }
        })
    }
}
