//! Who makes a request.
//!
//! Not here: finding out. Nobody has to say who they are yet; what checks that one day puts the principal into the request's
//! extensions, in front of the services.

use lethe_domain::Principal;
use tonic::Request;

pub(super) fn caller<T>(request: &Request<T>) -> Principal {
    request.extensions().get::<Principal>().cloned().unwrap_or_default()
}
