//! The pool: what a step draws from it, and what it counts.

use std::collections::BTreeMap;

use lethe_domain::Cut;
use lethe_domain::spec::ModelFormat;
use lethe_models::{Edited, Latents, Pool, PoolShard, Stream};
use tch::{Device, Kind, Tensor};

use crate::fixture::{same, spec, values};

const DEVICE: Device = Device::Cpu;

fn latents() -> Latents {
    Latents::new(3, &spec(ModelFormat::TorchScript, 2, [1, 2, 2], [0.0, 1.0]))
}

/// Shards of 60 latents: score i % 60, the ten highest of each edited to 100 + score, of which the last finds nothing.
fn shards(count: u64) -> Vec<PoolShard> {
    let of = |start: u64| {
        let mut shard = PoolShard::new(start, true);
        for half in [0, 30] {
            let z = latents().batch(Stream::Train, start + half, 30, DEVICE).unwrap();
            let scores = Tensor::arange(30, (Kind::Double, DEVICE)) + half as f64;
            let places = scores.ge(50.0).nonzero().view(-1);
            let reached = (scores.index_select(0, &places) + 100.0).to_kind(Kind::Float).view([-1, 1]);
            let unresolved = reached.eq(159.0).view(-1);
            let latents = z.index_copy(0, &places, &reached.expand([-1, 2], true));
            // An image is its latent's first entry, four times.
            let images = latents.narrow(1, 0, 1).view([-1, 1, 1, 1]).expand([-1, 1, 2, 2], true);
            shard.add(&z, &Edited { latents, scores, places, unresolved, images }, 1.0).unwrap();
        }
        shard
    };
    (0..count).map(|shard| of(60 * shard)).collect()
}

#[test]
fn a_draw_depends_on_step_and_place_alone() {
    let pool = Pool::new(latents(), shards(2), 0.5).unwrap();
    let whole = pool.draw(7, 25, 0..25, DEVICE).unwrap();
    let parts = [0..3, 3..11, 11..25].map(|range| pool.draw(7, 25, range, DEVICE).unwrap());
    let all =
        |of: fn(&lethe_models::Drawn) -> &Tensor| Tensor::cat(&parts.iter().map(of).collect::<Vec<_>>(), 0);
    assert!(same(&all(|drawn| &drawn.z), &whole.z) && same(&all(|drawn| &drawn.edited), &whole.edited));
    assert!(same(&all(|drawn| &drawn.weights), &whole.weights));
    let next = pool.draw(8, 25, 0..25, DEVICE).unwrap();
    assert!(!same(&next.z, &whole.z), "another step draws others");
}

#[test]
fn targets_are_those_of_the_edited_latents_where_every_shard_has_them() {
    let drawn = Pool::new(latents(), shards(2), 0.5).unwrap().draw(3, 25, 0..25, DEVICE).unwrap();
    let targets = drawn.targets.unwrap();
    assert_eq!(targets.size(), [25, 1, 2, 2]);
    let expected = drawn.edited.narrow(1, 0, 1).view([-1, 1, 1, 1]).expand([-1, 1, 2, 2], true);
    assert!(same(&targets, &expected.to_kind(Kind::Half).to_kind(Kind::Float)));

    let mut mixed = shards(1);
    mixed.push(PoolShard::new(60, false));
    let drawn = Pool::new(latents(), mixed, 0.5).unwrap().draw(3, 25, 0..25, DEVICE).unwrap();
    assert!(drawn.targets.is_none(), "one shard came without");
}

#[test]
fn weights_make_up_for_drawing_near_the_feature_more_often() {
    let pool = Pool::new(latents(), shards(2), 0.5).unwrap();
    let (mut counted, mut drawn) = (BTreeMap::<u64, f64>::new(), 0.0);
    for step in 0..2_000 {
        let batch = pool.draw(step, 16, 0..16, DEVICE).unwrap();
        let edited = values(&batch.edited);
        drawn += batch.places.size()[0] as f64;
        for (place, weight) in values(&batch.weights).into_iter().enumerate() {
            // An edited latent says its score; all others are one kind here.
            let kind = if edited[2 * place] > 100.0 { edited[2 * place] as u64 } else { 0 };
            *counted.entry(kind).or_default() += weight / 32_000.0;
        }
    }
    // Of 105 latents that can be drawn 16 are edited, two for each of seven scores and one for each of two: neither a failed edit is ever
    // drawn nor one that is kept, as 53 and 116 are.
    assert_eq!(counted.keys().copied().collect::<Vec<_>>(), [vec![0], (150..159).collect()].concat());
    for (kind, share) in counted {
        let count = match kind {
            0 => 89.0,
            153 | 156 => 1.0,
            _ => 2.0,
        };
        let expected = count / 105.0;
        assert!((share - expected).abs() < 0.1 * expected, "{kind}: {share}, expected {expected}");
    }
    // Near are these 16 and the 10 highest of the 100 others, but for one that is kept; they take half of every batch.
    let share = drawn / 32_000.0;
    assert!((share - 0.5 * 16.0 / 25.0).abs() < 0.02, "{share}");
}

#[test]
fn edits_are_counted_once_and_those_that_failed_apart() {
    let summary = Pool::new(latents(), shards(3), 0.5).unwrap().summary();
    assert_eq!((summary.tried, summary.unresolved), (30, 3));
    assert!(summary.median_step > 200.0 && summary.p99_step < 230.0, "{summary:?}");
}

#[test]
fn shards_come_back_from_their_files_and_must_follow_one_another() {
    let shards = shards(2);
    let again = |shard: &PoolShard| {
        let bytes = shard.to_bytes(&latents()).unwrap();
        assert_eq!(bytes, shard.to_bytes(&latents()).unwrap());
        PoolShard::from_bytes(&bytes, "shard", &latents()).unwrap()
    };
    for shard in shards.iter().chain([&PoolShard::new(0, false)]) {
        assert_eq!(again(shard).to_bytes(&latents()).unwrap(), shard.to_bytes(&latents()).unwrap());
    }

    let error = Pool::new(latents(), shards.into_iter().rev().collect(), 0.5).unwrap_err().to_string();
    assert!(error.contains("begins at latent 60, expected 0"), "{error}");
    let wider = Latents::new(3, &spec(ModelFormat::TorchScript, 3, [1, 2, 2], [0.0, 1.0]));
    let bytes = self::shards(1)[0].to_bytes(&latents()).unwrap();
    let error = PoolShard::from_bytes(&bytes, "shard", &wider).unwrap_err().to_string();
    assert!(error.contains("shard") && error.contains("one edit for each place"), "{error}");
}

#[test]
fn a_pool_of_one_kind_and_a_batch_of_one_are_drawn_evenly() {
    let mut plain = PoolShard::new(0, false);
    let z = latents().batch(Stream::Train, 0, 8, DEVICE).unwrap();
    let none = Tensor::zeros([0], (Kind::Int64, DEVICE));
    let edited = Edited {
        latents: z.shallow_clone(),
        scores: Tensor::ones([8], (Kind::Double, DEVICE)),
        unresolved: none.to_kind(Kind::Bool),
        places: none,
        images: Tensor::zeros([8, 1, 2, 2], (Kind::Float, DEVICE)),
    };
    plain.add(&z, &edited, 1.0).unwrap();
    for (pool, size) in [(vec![plain], 6), (shards(1), 1)] {
        let drawn = Pool::new(latents(), pool, 0.5).unwrap().draw(0, size, 0..size, DEVICE).unwrap();
        assert!(values(&drawn.weights).iter().all(|weight| *weight == 1.0), "{drawn:?}");
    }
}

#[test]
fn a_third_of_the_pool_is_kept_from_trials_and_measured() {
    let pool = Pool::new(latents(), shards(2), 0.5).unwrap();
    let cut = Cut { sign: 1.0, threshold: 52.5 };
    let held_out = pool.held_out(1_000, cut);
    // Scores 53 to 58 of each shard; 59 found no edit, and 50 to 52 were edited though the labeller calls them negative. Every ninth is
    // kept for later.
    assert_eq!(held_out.positive, [56, 113]);
    assert_eq!((pool.kept(9, cut), pool.kept(1, cut)), (vec![53, 116], vec![53]));
    let spared: Vec<u64> = (0..120).filter(|index| index % 9 == 8 && index % 60 < 50).collect();
    assert_eq!((pool.spared(99), pool.spared(1)), (&spared[..], &spared[..1]));
    let unedited: Vec<u64> = (0..120).filter(|index| matches!(index % 9, 2 | 5) && index % 60 < 50).collect();
    assert_eq!(held_out.unedited, unedited);
    let few = pool.held_out(20, cut);
    assert_eq!((few.positive, few.unedited.len()), (vec![56], 18), "the first twenty: {:?}", few.unedited);

    let part = pool.to_train_on().unwrap();
    let drawn = part.draw(0, 64, 0..64, DEVICE).unwrap();
    let known: Vec<_> = (0..120)
        .filter(|index| index % 3 != 2)
        .map(|index| values(&latents().gather(Stream::Train, &[index], DEVICE).unwrap()))
        .collect();
    assert!(values(&drawn.z).chunks(2).all(|z| known.iter().any(|other| other == z)), "{drawn:?}");
    let edited = values(&drawn.edited.index_select(0, &drawn.places));
    assert!(
        !edited.is_empty() && edited.iter().all(|score| !((score - 150.0) as u64).is_multiple_of(3)),
        "{edited:?}"
    );
}
