//! The artifact store from outside: one suite for every kind of store, with real servers, real kills and real faults.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where it fails, and says what it skipped"
)]

mod cache;
mod checkpoints;
mod faults;
mod file_only;
mod place;
mod proxy;
mod publications;
mod remote;
mod signing;
mod store;
mod torn;

use std::{future::Future, pin::Pin, time::Instant};

use lethe_testkit::{Moto, moto};
use place::{BUCKET, Place};
use proxy::Proxy;

/// One test of the suite, by name.
type Case = (&'static str, fn(Place) -> Pin<Box<dyn Future<Output = ()>>>);

/// Makes tests of these functions: each alone on a folder, and all of them as cases for a server.
macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod file {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() {
                    super::$case(crate::place::Place::file()).await;
                }
            )*
        }

        pub(crate) fn cases() -> Vec<crate::Case> {
            vec![$((concat!(module_path!(), "::", stringify!($case)), |place| Box::pin($case(place)))),*]
        }
    };
}
pub(crate) use conformance;

/// Starting a server takes longer than most cases, so they share one, each below a prefix of its own.
async fn all_on(server: &str, address: &str) {
    let proxy = Proxy::before(address).await;
    let cases: Vec<Case> = [store::cases(), checkpoints::cases(), publications::cases()].concat();
    for (number, (name, case)) in cases.into_iter().enumerate() {
        let begun = Instant::now();
        eprint!("{server}: {name} ");
        case(Place::s3(&format!("case {number}/x"), moto::variables(&proxy.address))).await;
        eprintln!("{:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_on_moto() {
    let Some(moto) = Moto::start() else { return };
    moto.bucket(BUCKET);
    all_on("moto", moto.address()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_on_s3s_fs() {
    let server = signing::Server::start(BUCKET).await;
    all_on("s3s-fs", &server.address).await;
}
