//! Refusals as statuses and back.

use lethe_domain::{ErrorCode, Failure, SpecError, SpecProblem};
use lethe_proto::ConversionError;
use lethe_proto::status::{DOMAIN, Refusal};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::samples;

fn refusals() -> Vec<(Refusal, Code)> {
    let problem =
        |path: &str, message: &str| SpecProblem { path: path.to_owned(), message: message.to_owned() };
    let problems =
        vec![problem("unlearn.lr", "found -1, expected above 0"), problem("", "not YAML or JSON: é\n\"x\"")];
    vec![
        (Refusal::Spec(SpecError { problems }), Code::InvalidArgument),
        (Refusal::Malformed(ConversionError::missing("spec")), Code::InvalidArgument),
        (Refusal::Malformed(ConversionError::bad("job_id", "found ''")), Code::InvalidArgument),
        (Refusal::NotFound { kind: "job".to_owned(), id: "x-1".to_owned() }, Code::NotFound),
        (Refusal::Conflict { message: "job x-1 is already final".to_owned() }, Code::FailedPrecondition),
        (Refusal::Denied { message: "bob may not act for ann".to_owned() }, Code::PermissionDenied),
        (Refusal::NotLeader { leader: Some("10.0.0.2:7400".to_owned()) }, Code::Unavailable),
        (Refusal::NotLeader { leader: None }, Code::Unavailable),
        (Refusal::Unavailable { message: "no leader; 2 of 3 are up".to_owned() }, Code::Unavailable),
    ]
}

#[test]
fn every_refusal_is_recovered_from_its_status() {
    for (refusal, code) in refusals() {
        let status = Status::from(refusal.clone());
        assert_eq!(status.code(), code);
        assert_eq!(status.message(), refusal.to_string());
        assert_eq!(Refusal::from_status(&status), Some(refusal));
    }
    for code in ErrorCode::ALL {
        let refusal = Refusal::Failure(Failure { code, ..samples::failure() });
        let status = Status::from(refusal.clone());
        assert_ne!(status.code(), Code::Ok);
        assert_eq!(Refusal::from_status(&status), Some(refusal));
    }
}

#[test]
fn other_programs_find_reason_domain_and_field_violations() {
    let (refusal, _) = refusals().remove(0);
    let details = Status::from(refusal).get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_SPEC", DOMAIN));
    let fields: Vec<_> = details
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(fields, ["unlearn.lr", ""]);
}

#[test]
fn a_status_made_elsewhere_is_not_taken_for_ours() {
    assert_eq!(Refusal::from_status(&Status::not_found("no route")), None);
    let details = tonic_types::ErrorDetails::with_error_info(
        "NOT_FOUND",
        "elsewhere.example",
        [("id".to_owned(), "x".to_owned())],
    );
    let status = Status::with_error_details(Code::NotFound, "no such bucket", details);
    assert_eq!(Refusal::from_status(&status), None);
    let newer = tonic_types::ErrorDetails::with_error_info("OF_A_LATER_VERSION", DOMAIN, []);
    let status = Status::with_error_details(Code::Internal, "?", newer);
    assert_eq!(Refusal::from_status(&status), None);
}

#[test]
fn a_long_refusal_is_shortened_to_what_trailers_hold() {
    let problem = |place: usize| SpecProblem { path: format!("feature.p{place}"), message: "é".repeat(100) };
    let many = SpecError { problems: (0..1000).map(problem).collect() };
    let long = Failure::new(ErrorCode::Internal, "é".repeat(50_000), "h".repeat(50_000));
    for refusal in [Refusal::Spec(many), Refusal::Failure(long)] {
        let status = Status::from(refusal);
        // Percent-encoding makes three bytes of each of the message's, base64 four of three of the details'.
        let trailers = status.message().len() * 3 + status.details().len() * 4 / 3;
        assert!(trailers < 15 * 1024, "{trailers} bytes");
        match Refusal::from_status(&status).unwrap() {
            Refusal::Spec(error) => {
                let (last, told) = error.problems.split_last().unwrap();
                assert!(told.len() > 10);
                assert_eq!(last.message, format!("and {} more problems", 1000 - told.len()));
            }
            other => assert!(other.to_string().ends_with("é..."), "cut at a character"),
        }
    }
}
