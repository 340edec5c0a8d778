//! Gangs of real processes on loopback: this test binary starts itself once per rank.
//!
//! Each module holds tests and, below them, the scenarios that the ranks of those tests run.

mod collectives;
mod failures;
mod nccl;
mod reducer;
mod spawn;

/// Not a test: what a rank's process runs. See `spawn`.
#[test]
#[ignore = "started by the other tests, once per rank"]
fn rank_process() {
    let Some(seat) = spawn::Seat::from_environment() else { return };
    match seat.scenario.as_str() {
        "sums" => collectives::sums(&seat),
        "generations" => collectives::generations(&seat),
        "train" => reducer::train_rank(&seat),
        "no_gradient" => reducer::no_gradient(&seat),
        "lost_in_all_reduce" => failures::lost_in_all_reduce(&seat),
        "lost_in_backward" => failures::lost_in_backward(&seat),
        "stuck_then_aborted" => failures::stuck_then_aborted(&seat),
        "silent_peer" => failures::silent_peer(&seat),
        "joins_nobody" => nccl::joins_nobody(&seat),
        other => panic!("no scenario {other}"),
    }
}
