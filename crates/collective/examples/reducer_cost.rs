//! What the all-reduce of a training step costs: two processes of one thread each, a model of 5 MB.
//!
//! `cargo run --release -p lethe-collective --example reducer_cost` prints the median time of a step (forward,
//! backward, optimiser) with the reducer, and with the same two processes training side by side without it.

use std::env;
use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lethe_collective::{Abort, Backend, Group, GroupOptions, Place, Reducer, ReducerOptions, Store};
use tch::{Device, Kind, Tensor};

const WORLD: usize = 2;
const LAYERS: usize = 3;
const WIDTH: i64 = 645; // three square layers: 1.25 million parameters, 5 MB
const BATCH: i64 = 64;
const ROUNDS: usize = 12;
const STEPS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    match (env::var("RANK"), env::var("LETHE_STORE")) {
        (Ok(rank), Ok(address)) => {
            measure(rank.parse()?, &Store::connect(&address, Duration::from_secs(60), &Abort::new())?)
        }
        _ => start_ranks(),
    }
}

fn start_ranks() -> Result<(), Box<dyn Error>> {
    let store = Store::serve("127.0.0.1", Duration::from_secs(60))?;
    let start = |rank: usize| {
        Command::new(env::current_exe()?)
            .env("RANK", rank.to_string())
            .env("LETHE_STORE", store.address())
            .stdin(Stdio::null())
            .spawn()
    };
    let ranks = (0..WORLD).map(start).collect::<Result<Vec<_>, _>>()?;
    for mut rank in ranks {
        let status = rank.wait()?;
        if !status.success() {
            return Err(format!("a rank ended with {status}").into());
        }
    }
    Ok(())
}

/// One rank: rounds with and without all-reduce by turns, so that both see the same disturbances.
fn measure(rank: usize, store: &Store) -> Result<(), Box<dyn Error>> {
    tch::set_num_threads(1);
    let place = Place { rank, world: WORLD, generation: 1 };
    let group = Group::join(store, Backend::Gloo, place, GroupOptions::default())?;
    let mut params: Vec<Tensor> = (0..LAYERS)
        .map(|_| (Tensor::randn([WIDTH, WIDTH], (Kind::Float, Device::Cpu)) * 0.03).set_requires_grad(true))
        .collect();
    group.broadcast(&mut params, 0)?;
    // The reducers take turns, since both would hang hooks on the same parameters.
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for (reduced, times) in [(true, &mut with), (false, &mut without)] {
            let alone = Group::loopback();
            let mut reducer =
                Reducer::new(if reduced { &group } else { &alone }, &params, ReducerOptions::default())?;
            group.barrier()?;
            for step in 0..STEPS {
                let begun = Instant::now();
                train_step(&mut reducer, &mut params)?;
                // The first round warms up, and so do a round's first steps: buckets are rebuilt in the second.
                if round > 0 && step >= 3 {
                    times.push(begun.elapsed());
                }
            }
        }
    }
    group.barrier()?;
    if rank == 0 {
        let (with, without) = (median(with), median(without));
        let megabytes = params.iter().map(Tensor::numel).sum::<usize>() as f64 * 4e-6;
        writeln!(
            std::io::stdout(),
            "{megabytes:.1} MB, {WORLD} ranks x 1 thread: {:.2} ms a step with all-reduce, {:.2} ms without: {:+.2} ms",
            with * 1e3,
            without * 1e3,
            (with - without) * 1e3,
        )?;
    }
    Ok(())
}

fn train_step(reducer: &mut Reducer, params: &mut [Tensor]) -> Result<(), lethe_collective::Error> {
    let mut x = Tensor::randn([BATCH, WIDTH], (Kind::Float, Device::Cpu));
    for weight in &*params {
        x = x.matmul(weight).tanh();
    }
    reducer.finish(&x.square().mean(Kind::Float))?;
    tch::no_grad(|| params.iter_mut().for_each(|p| *p -= 0.01 * p.grad()));
    Ok(())
}

/// In seconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}
