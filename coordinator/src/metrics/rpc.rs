//! Times every rpc by method and code: a tower layer around the gRPC services.
//!
//! A gRPC code stands in the headers when there is no body, and otherwise in the trailers behind it: an rpc is over when
//! its body is.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::Metrics;

/// Paths of the methods that have a label of their own. Anything else (health, reflection, what does not exist) is "other".
static METHODS: LazyLock<BTreeMap<String, String>> =
    LazyLock::new(|| lethe_proto::rpcs().into_iter().collect());

fn method(path: &str) -> &'static str {
    METHODS.get(path).map_or("other", String::as_str)
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The layer.
#[derive(Debug, Clone)]
pub(crate) struct RpcTimes {
    metrics: Arc<Metrics>,
}

impl RpcTimes {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for RpcTimes {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner, metrics: self.metrics.clone() }
    }
}

/// A service whose rpcs are timed.
#[derive(Debug, Clone)]
pub(crate) struct Timed<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Service<Request<Body>> for Timed<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut watch = Watch {
            metrics: self.metrics.clone(),
            method: method(request.uri().path()),
            begin: Some(Instant::now()),
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            if let Some(code) = code_in(response.headers()) {
                watch.end(code);
            }
            Ok(response.map(|body| Body::new(TimedBody { body, watch })))
        })
    }
}

/// The code in headers or trailers, if they have one.
fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// An rpc that is not over yet. Dropped before its end, it was cancelled by the caller.
struct Watch {
    metrics: Arc<Metrics>,
    method: &'static str,
    begin: Option<Instant>,
}

impl Watch {
    fn end(&mut self, code: Code) {
        if let Some(begin) = self.begin.take() {
            self.metrics.rpc(self.method, code_name(code), begin.elapsed());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

struct TimedBody {
    body: Body,
    watch: Watch,
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(code) = frame.trailers_ref().and_then(code_in) {
                    self.watch.end(code);
                }
            }
            Some(Err(status)) => self.watch.end(status.code()),
            None => self.watch.end(Code::Ok),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_of_the_proto_files_has_a_label_of_its_own() {
        let files = [
            ("JobService", include_str!("../../../proto/lethe/v1/job.proto")),
            ("FleetService", include_str!("../../../proto/lethe/v1/fleet.proto")),
            ("WorkerService", include_str!("../../../proto/lethe/v1/worker.proto")),
        ];
        let mut found = 0;
        for (service, text) in files {
            let rpcs = text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split_once('('));
            for (name, _) in rpcs {
                assert_eq!(method(&format!("/lethe.v1.{service}/{name}")), name);
                found += 1;
            }
        }
        assert_eq!(found, METHODS.len());
        assert!(found >= 14, "{found}");
        assert_eq!(method("/grpc.health.v1.Health/Check"), "other");
    }
}
