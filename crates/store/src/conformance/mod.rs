//! The suite every store passes: the port's promises, one test each.
//!
//! A store's tests say how to open an empty one and which clock its leases follow:
//!
//! ```ignore
//! lethe_store::conformance!(clock: paused, open: async { (lethe_store::memory(), ()) });
//! ```
//!
//! `open` is evaluated for each case and gives the store and a guard to keep until the case is over. With the paused
//! clock, time jumps to the next deadline as soon as nothing else can happen; a store whose leases follow a real
//! clock says `clock: real` and takes a few seconds per lease case. A store that is slow to start runs all cases in one
//! test, one after another, since some count revisions and one forgets the history; `open` is then told the case's name:
//!
//! ```ignore
//! let cluster = Cluster::start(Security::Tls).await.unwrap();
//! lethe_store::conformance!(one_by_one: |case| cluster.store(case)); // in the body of an async test
//! ```
//!
//! Not here: what is particular to one store (files, servers, damage).

#![allow(
    clippy::unwrap_used,
    reason = "these are tests; a failed call should stop the case where it happened"
)]

use std::{sync::Arc, time::Duration};

use futures::StreamExt;

use crate::{Changes, Error, Revision, StateStore, Txn, Watch};

pub mod commits;
pub mod leases;
pub mod model;
pub mod watches;

/// Makes one test of each case; see the module's documentation.
#[macro_export]
macro_rules! conformance {
    (clock: paused, open: $open:expr) => {
        $crate::conformance!(@all [start_paused = true] $open);
    };
    (clock: real, open: $open:expr) => {
        $crate::conformance!(@all [] $open);
    };
    (one_by_one: $open:expr) => {
        $crate::conformance!(@all [one_by_one] $open);
    };
    (@all $clock:tt $open:expr) => {
        $crate::conformance!(@cases $clock $open;
            commits {
                an_absent_key_reads_as_nothing
                a_put_is_read_back
                versions_move_and_created_stays
                a_recreated_key_is_a_new_key
                each_precondition_holds_when_it_should
                a_conflict_names_the_key_and_what_it_found
                a_refused_transaction_writes_nothing
                one_transaction_is_one_revision
                deleting_nothing_changes_nothing
                a_folder_is_removed_in_one_commit
                a_transaction_without_writes_only_checks
                invalid_keys_are_refused
                invalid_transactions_are_refused
                a_list_is_ordered_and_ends_at_its_prefix
                a_list_is_one_moment
                one_creator_wins
                counters_lose_nothing
            }
            leases {
                keys_vanish_when_their_lease_ends
                a_lease_kept_alive_stays
                a_revoked_lease_ends_at_once
                an_ended_lease_is_unknown
                all_keys_of_a_lease_vanish_in_one_commit
                a_key_belongs_to_the_lease_of_its_last_put
                a_time_to_live_is_whole_seconds
                a_stale_leader_cannot_write
            }
            watches {
                commits_arrive_whole_and_in_order
                a_watch_waits_for_what_is_to_come
                a_watch_resumes_after_any_revision
                a_watch_from_a_listing_misses_nothing
                every_watch_sees_the_same
                a_watch_that_missed_too_much_is_told_to_list_again
                a_revision_the_store_has_not_reached_is_refused
            }
            model {
                random_transactions_agree_with_a_plain_map
            }
        );
    };
    (@cases [one_by_one] $open:expr; $($group:ident { $($case:ident)* })*) => {
        let open = $open;
        $($(
            eprintln!("{}::{}", stringify!($group), stringify!($case));
            let store = open(stringify!($case)).await;
            Box::pin($crate::conformance::$group::$case(store)).await;
        )*)*
    };
    (@cases $clock:tt $open:expr; $($group:ident { $($case:ident)* })*) => {
        $(mod $group {
            #[allow(unused_imports, reason = "what the expression names may be in scope already")]
            use super::*;
            $($crate::conformance!(@case $clock $open, $group, $case);)*
        })*
    };
    (@case [$($clock:tt)*] $open:expr, $group:ident, $case:ident) => {
        #[tokio::test($($clock)*)]
        async fn $case() {
            let (store, _guard) = $open.await;
            $crate::conformance::$group::$case(store).await;
        }
    };
}

/// The store under test.
pub type Store = Arc<dyn StateStore>;

/// Longer than anything a case waits for; reaching it is a failure.
const DEADLINE: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {DEADLINE:?}"),
    }
}

async fn next(watch: &mut Watch) -> Changes {
    within("a change", watch.next()).await.expect("the watch ended").expect("the watch failed")
}

async fn put(store: &Store, key: &str, value: &str) -> Revision {
    store.commit(Txn::new().put(key, value.to_owned())).await.unwrap()
}

async fn value(store: &Store, key: &str) -> Option<String> {
    let entry = store.get(key).await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().entries.into_iter().map(|entry| entry.key).collect()
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(result: Result<T, Error>, key: &str) {
    match result {
        Err(Error::Conflict { key: found, .. }) => assert_eq!(found, key),
        other => panic!("expected a conflict at {key}, got {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_case_is_forgotten() {
        let listed = include_str!("mod.rs");
        for cases in [
            include_str!("commits.rs"),
            include_str!("leases.rs"),
            include_str!("watches.rs"),
            include_str!("model.rs"),
        ] {
            let names: Vec<&str> = cases
                .lines()
                .filter_map(|line| line.strip_prefix("pub async fn "))
                .filter_map(|rest| rest.split_once('('))
                .map(|(name, _)| name)
                .collect();
            assert!(!names.is_empty());
            for name in names {
                assert!(listed.contains(&format!(" {name}\n")), "{name} is not in the list of cases");
            }
        }
    }
}
