//! What a group does when something goes wrong: killed peers, silent peers, absent peers, aborts, bad addresses.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use lethe_collective::{Abort, Backend, Error, Group, GroupOptions, Place, Reducer, ReducerOptions, Store};
use tch::{Kind, Tensor};

use crate::spawn::{Gang, Seat, device, serve};

/// Far above what the tests allow: nothing here may be the timeout's doing.
const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);

fn patient() -> GroupOptions {
    GroupOptions { timeout: LONG, ..GroupOptions::default() }
}

/// Kills the last rank while the others wait for it; every one of them must hear of it soon.
fn kill_last_of(world: usize, scenario: &str) {
    let mut gang = Gang::start(scenario, world);
    let victim = world - 1;
    assert_eq!(gang.report(victim), "idle");
    (0..victim).for_each(|rank| assert_eq!(gang.report(rank), "waiting"));
    gang.kill(victim);
    let killed = Instant::now();
    for rank in 0..victim {
        let heard = gang.report(rank);
        assert!(killed.elapsed() < SOON, "rank {rank} heard after {:?}", killed.elapsed());
        assert!(heard.starts_with("PeerLost"), "rank {rank}: {heard}");
        assert!(heard.contains(&format!("rank {rank} of {world}, generation 7")), "rank {rank}: {heard}");
    }
    gang.finish(Some(victim));
}

#[test]
fn a_killed_peer_ends_an_all_reduce_of_two() {
    kill_last_of(2, "lost_in_all_reduce");
}

#[test]
fn a_killed_peer_ends_an_all_reduce_of_three() {
    kill_last_of(3, "lost_in_all_reduce");
}

/// Of four ranks, one never talks to the killed one: it hears of it through the others.
#[test]
fn a_killed_peer_ends_an_all_reduce_of_four_also_where_it_is_no_neighbour() {
    kill_last_of(4, "lost_in_all_reduce");
}

#[test]
fn a_killed_peer_ends_a_backward_pass() {
    kill_last_of(3, "lost_in_backward");
}

#[test]
fn abort_from_another_thread_frees_a_stuck_collective() {
    let mut gang = Gang::start("stuck_then_aborted", 2);
    let took: f64 = gang.report(0).parse().expect("seconds");
    assert!(took < 2.0, "abort took {took} s");
    gang.go(1);
    let heard = gang.report(1);
    assert!(heard.starts_with("PeerLost"), "the peer of an aborted rank: {heard}");
    gang.finish(None);
}

#[test]
fn a_silent_peer_is_a_timeout() {
    let gang = Gang::start("silent_peer", 2);
    let heard = gang.report(0);
    assert!(heard.starts_with("Timeout") && heard.contains("within 1.5s"), "{heard}");
    gang.finish(None);
}

/// Rank 0 of a gang whose other ranks do not exist.
fn join_alone(store: &Store, world: usize, options: GroupOptions) -> Error {
    let place = Place { rank: 0, world, generation: 1 };
    Group::join(store, Backend::Gloo, place, options).expect_err("the others are not there")
}

#[test]
fn absent_ranks_are_named() {
    let options = GroupOptions { join_timeout: Duration::from_millis(300), ..GroupOptions::default() };
    let error = join_alone(&serve(), 3, options);
    let Error::Absent { missing, .. } = &error else { panic!("{error}") };
    assert_eq!(missing, &[1, 2]);
    assert!(error.retryable());
}

#[test]
fn abort_ends_the_waiting_for_absent_ranks() {
    let abort = Abort::new();
    let options = GroupOptions { abort: abort.clone(), join_timeout: LONG, ..GroupOptions::default() };
    let store = serve();
    let (done, joined) = sync_channel(1);
    let waiting = thread::spawn(move || done.send(join_alone(&store, 2, options)));
    assert!(joined.recv_timeout(Duration::from_millis(300)).is_err(), "it waits");
    abort.abort();
    let error = joined.recv_timeout(Duration::from_secs(2)).expect("within two seconds");
    assert!(matches!(error, Error::Aborted { .. }) && !error.retryable(), "{error}");
    waiting.join().expect("no panic").expect("received");
}

#[test]
fn an_abort_before_joining_counts() {
    let options = patient();
    options.abort.abort();
    assert!(matches!(join_alone(&serve(), 2, options), Error::Aborted { .. }));
}

#[test]
fn an_aborted_loopback_is_aborted() {
    let group = Group::loopback();
    let abort = group.abort_handle();
    abort.abort();
    abort.abort();
    assert!(abort.is_aborted());
    assert!(matches!(group.barrier(), Err(Error::Aborted { .. })));
}

#[test]
fn a_store_that_is_not_there_is_a_clear_timeout() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let begun = Instant::now();
    let error = Store::connect(&free.to_string(), Duration::from_secs(1), &Abort::new())
        .expect_err("nobody is there");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let text = error.to_string();
    assert!(matches!(error, Error::Store { .. }) && error.retryable(), "{text}");
    assert!(text.contains(&free.to_string()) && text.contains("1s"), "{text}");
}

#[test]
fn an_abort_ends_the_search_for_a_store() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let abort = Abort::new();
    let switch = abort.clone();
    let begun = Instant::now();
    let searching = thread::spawn(move || Store::connect(&free.to_string(), LONG, &abort));
    switch.abort();
    let error = searching.join().expect("no panic").expect_err("nobody is there");
    assert!(matches!(error, Error::Store { .. }), "{error}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
fn an_address_without_a_port_is_refused() {
    let refused = Store::connect("nowhere", LONG, &Abort::new());
    assert!(matches!(&refused, Err(Error::Invalid { .. })), "{refused:?}");
}

#[test]
fn a_rank_beyond_the_world_is_refused() {
    let place = Place { rank: 2, world: 2, generation: 1 };
    let refused = Group::join(&serve(), Backend::Gloo, place, patient());
    assert!(matches!(&refused, Err(Error::Invalid { .. })), "{refused:?}");
}

/// The variant's name, then the sentence.
fn describe(error: &Error) -> String {
    let debug = format!("{error:?}");
    format!("{}: {error}", debug.split([' ', '{']).next().unwrap_or_default())
}

pub(crate) fn lost_in_all_reduce(seat: &Seat) {
    let group = seat.join(7, patient());
    let mut tensor = Tensor::ones([100_000], (Kind::Float, device()));
    group.all_reduce_sum(&mut tensor).expect("all are alive");
    if seat.rank == seat.world - 1 {
        seat.report("idle");
        return seat.stay();
    }
    seat.report("waiting");
    let first = group.all_reduce_sum(&mut tensor).expect_err("a peer was killed");
    seat.report(&describe(&first));
    let second = group.barrier().expect_err("the group is over");
    assert_eq!(describe(&first), describe(&second), "the first cause is kept");
    assert!(first.retryable());
    // Alive and with its sockets as they are, so that nobody hears of anything by the end of this process.
    seat.stay();
}

pub(crate) fn lost_in_backward(seat: &Seat) {
    let group = seat.join(7, patient());
    let params: Vec<Tensor> =
        (0..4).map(|_| Tensor::ones([1000], (Kind::Float, device())).set_requires_grad(true)).collect();
    let options = ReducerOptions { first_bucket_bytes: 4000, bucket_bytes: 4000 };
    let mut reducer = Reducer::new(&group, &params, options).expect("a reducer");
    let loss = || params.iter().map(|p| p.square().sum(Kind::Float)).sum::<Tensor>();
    reducer.finish(&loss()).expect("all are alive");
    if seat.rank == seat.world - 1 {
        seat.report("idle");
        return seat.stay();
    }
    seat.report("waiting");
    let error = reducer.finish(&loss()).expect_err("a peer was killed");
    seat.report(&describe(&error));
    // The parameters are the survivor's own again: a plain backward pass must not touch the broken group.
    loss().backward();
    assert!(reducer.finish(&loss()).is_err());
    seat.stay();
}

pub(crate) fn stuck_then_aborted(seat: &Seat) {
    let group = seat.join(1, patient());
    let mut tensor = Tensor::ones([1000], (Kind::Float, device()));
    group.all_reduce_sum(&mut tensor).expect("both are alive");
    if seat.rank == 1 {
        // Comes late: only when the test has heard from rank 0.
        seat.wait_for_go();
        return seat.report(&describe(&group.all_reduce_sum(&mut tensor).expect_err("rank 0 is gone")));
    }
    let abort = group.abort_handle();
    let (done, result) = sync_channel(1);
    let stuck = thread::spawn(move || {
        let first = group.all_reduce_sum(&mut tensor).map(|()| tensor);
        done.send(first).map(|()| group)
    });
    assert!(result.recv_timeout(Duration::from_millis(500)).is_err(), "it is stuck");
    let begun = Instant::now();
    abort.abort();
    let error = result.recv_timeout(LONG).expect("it returns").expect_err("it was aborted");
    let took = begun.elapsed();
    assert!(matches!(error, Error::Aborted { .. }) && !error.retryable(), "{error}");
    abort.abort();
    let group = stuck.join().expect("no panic").expect("received");
    assert!(matches!(group.barrier(), Err(Error::Aborted { .. })), "it stays aborted");
    drop(group);
    abort.abort();
    assert!(begun.elapsed() < Duration::from_secs(2), "dropping an aborted group does not wait");
    seat.report(&took.as_secs_f64().to_string());
}

pub(crate) fn silent_peer(seat: &Seat) {
    let timeout = Duration::from_millis(1500);
    let group = seat.join(1, GroupOptions { timeout, ..GroupOptions::default() });
    group.barrier().expect("both are alive");
    if seat.rank == 1 {
        return seat.stay();
    }
    let begun = Instant::now();
    let error = group.barrier().expect_err("rank 1 never comes");
    assert!(begun.elapsed() >= timeout && begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(error.retryable());
    seat.report(&describe(&error));
}
