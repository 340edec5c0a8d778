//! The job spec: every valid one survives; absence means what it means in YAML; faults are named by path.

use lethe_domain::spec::{
    BatchNorm, Calibration, Checkpoint, Classes, Classifier, ClassifierOutput, Device, Direction,
    DirectionMethod, EditChoice, Effort, Evaluate, Feature, Generator, ImageOutput, Judge, Labels, Latent,
    LossReduction, LrSchedule, ModelFormat, Plateau, Pool, Positive, Prior, Publish, Queue, Reference,
    Resources, Sample, Scorer, Selection, Size, SlotRange, Threshold, Unlearn, Until,
};
use lethe_domain::{JobSpec, SpecError};
use lethe_proto::v1;
use proptest::option::of;
use proptest::prelude::*;

use crate::{round_trip, samples};

fn uri() -> impl Strategy<Value = String> {
    "[a-z/:.A-Z é-]{1,40}"
}

/// Strictly between 0 and 1.
fn share() -> impl Strategy<Value = f64> {
    (1e-9..1.0_f64).prop_filter("below 1", |x| *x < 1.0)
}

fn number() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::ZERO
}

fn generator() -> impl Strategy<Value = Generator> {
    let format = prop_oneof![Just(ModelFormat::TorchScript), Just(ModelFormat::Safetensors)];
    // The wire knows one form of a plain vector and of a square; see the module.
    let latent = prop_oneof![
        (1..i64::MAX).prop_map(Latent::Dimension),
        prop::collection::vec(1..1000_i64, 2..5).prop_map(Latent::Shape),
    ];
    let interval = || (number(), number()).prop_filter("low < high", |(low, high)| low < high);
    let prior =
        prop_oneof![Just(Prior::Normal), interval().prop_map(|(low, high)| Prior::Uniform(low, high))];
    let size = prop_oneof![
        (4..5000_i64).prop_map(Size::Square),
        (4..5000_i64, 4..5000_i64)
            .prop_filter("not a square", |(height, width)| height != width)
            .prop_map(|(height, width)| Size::Rectangle([height, width])),
    ];
    let output = (interval(), prop_oneof![Just(1), Just(3)], size, any::<bool>()).prop_map(
        |((low, high), channels, size, clamp)| ImageOutput { range: [low, high], channels, size, clamp },
    );
    (uri(), format, latent, prior, output).prop_map(|(uri, format, latent, prior, output)| Generator {
        uri,
        format,
        latent,
        prior,
        output,
    })
}

fn output() -> impl Strategy<Value = ClassifierOutput> {
    prop_oneof![Just(ClassifierOutput::Logits), Just(ClassifierOutput::Probability)]
}

fn classifier() -> impl Strategy<Value = Classifier> {
    (uri(), output(), of(0..i64::MAX), share()).prop_map(|(uri, output, class, threshold)| Classifier {
        uri,
        output,
        class,
        threshold,
    })
}

fn scorer() -> impl Strategy<Value = Scorer> {
    let positive = prop_oneof![
        number().prop_map(Positive::Above),
        number().prop_map(Positive::Below),
        share().prop_map(Positive::Top),
    ];
    (uri(), positive).prop_map(|(uri, positive)| Scorer { uri, positive })
}

fn judge() -> impl Strategy<Value = Judge> {
    prop_oneof![
        classifier().prop_map(|classifier| Judge { classifier: Some(classifier), scorer: None }),
        scorer().prop_map(|scorer| Judge { classifier: None, scorer: Some(scorer) }),
    ]
}

fn sample() -> impl Strategy<Value = Sample> {
    let until = prop_oneof![
        (1..1_000_000_u64, of(0..1_000_000_u64))
            .prop_map(|(count, more)| (Until::Positives(count), more.map(|more| count + more))),
        (2..u64::MAX).prop_map(|count| (Until::Total(count), None)),
    ];
    (any::<u64>(), 1..10_000_u64, 0..u64::MAX / 2, until).prop_map(|(seed, batch, more, (until, at_most))| {
        Sample { seed, shard_size: batch + more, batch, until, at_most }
    })
}

fn direction() -> impl Strategy<Value = Direction> {
    let method = prop_oneof![Just(DirectionMethod::MeanDifference), Just(DirectionMethod::Logistic)];
    let threshold = prop_oneof![
        Just(Threshold::Pooled),
        Just(Threshold::Midpoint),
        share().prop_map(Threshold::Quantile)
    ];
    let selection = prop_oneof![
        Just((Selection::Projection, false)),
        Just((Selection::Projection, true)),
        Just((Selection::Classifier, false))
    ];
    let edit = prop_oneof![Just(EditChoice::Auto), Just(EditChoice::Line), Just(EditChoice::Student)];
    let recall = prop_oneof![
        of(0.0..100.0_f64).prop_map(|recall| (recall, None)),
        uri().prop_map(|uri| (None, Some(Calibration { uri })))
    ];
    (method, threshold, selection, of(0.0..100.0_f64), recall, (edit, 0.0..1.0_f64, 0.0..9.0_f64)).prop_map(
        |(
            method,
            threshold,
            (selection, raw),
            margin,
            (recall, calibration),
            (edit, surrogate, locality),
        )| {
            let direction = Direction {
                method,
                threshold,
                selection,
                recall,
                calibration,
                edit,
                surrogate,
                locality,
                margin,
                raw,
            };
            if selection == Selection::Projection { projecting(direction) } else { direction }
        },
    )
}

/// The same by projection, without what that does not heed.
fn projecting(direction: Direction) -> Direction {
    Direction {
        selection: Selection::Projection,
        recall: None,
        calibration: None,
        edit: EditChoice::Auto,
        margin: None,
        ..direction
    }
}

fn pool() -> impl Strategy<Value = Pool> {
    let numbers = (1..1_000_000_u64, 1..10_000_u64, 0..u64::MAX / 2);
    (numbers, any::<bool>()).prop_map(|((latents, batch, more), reuse)| Pool {
        latents,
        shard_size: batch + more,
        batch,
        reuse,
    })
}

fn unlearn() -> impl Strategy<Value = Unlearn> {
    let reduction = prop_oneof![Just(LossReduction::Mean), Just(LossReduction::Sum)];
    let schedule =
        prop_oneof![Just(LrSchedule::Constant), Just(LrSchedule::Linear), Just(LrSchedule::Cosine)];
    let norm = prop_oneof![Just(BatchNorm::Eval), Just(BatchNorm::Train)];
    let effort = prop_oneof![Just(Effort::Quick), Just(Effort::Normal), Just(Effort::Thorough)];
    let plateau =
        (1..u64::MAX, 0.0..1.0_f64).prop_map(|(patience, min_delta)| Plateau { patience, min_delta });
    (
        1..u64::MAX,
        64..u64::MAX,
        64..u32::MAX,
        of(1e-9..10.0_f64),
        schedule,
        (
            of(1e-9..100.0_f64),
            of(0.0..9.0_f64),
            0.0..1.0_f64,
            of(1e-9..2.0_f64),
            0.0..1.0_f64,
            0.0..1.0_f64,
            0.0..99.0_f64,
            0.0..9.0_f64,
        ),
        reduction,
        norm,
        (of(plateau), effort, of(0.0..1e6_f64), 0.0..1.0_f64, prop_oneof![Just(0), 2..9_u32]),
    )
        .prop_map(
            |(
                steps,
                global_batch,
                micro_batches,
                lr,
                lr_schedule,
                (alpha, labeller_term, average, strength, near, anchor, squares, contrast),
                loss_reduction,
                batch_norm,
                (plateau, effort, slot_minutes, drift, trials),
            )| {
                Unlearn {
                    effort,
                    slot_minutes,
                    steps,
                    global_batch,
                    micro_batches,
                    lr,
                    lr_schedule,
                    alpha,
                    labeller_term,
                    average,
                    strength,
                    anchor,
                    drift,
                    squares,
                    contrast,
                    near,
                    loss_reduction,
                    batch_norm,
                    trials,
                    plateau,
                }
            },
        )
}

fn evaluate() -> impl Strategy<Value = Evaluate> {
    let measured = of((uri(), of(uri().prop_map(|uri| Reference { uri }))));
    let cut = (1..10_000_u64, 0..u64::MAX / 2);
    let classes = of((uri(), output()).prop_map(|(uri, output)| Classes { uri, output }));
    (2..u64::MAX, cut, of(judge()), classes, measured, "[a-zé]{1,20} of [A-Zé]{1,20}").prop_map(
        |(samples, (batch, more), judge, classifier, measured, space)| {
            let (features, reference) = measured.unzip();
            let reference = reference.flatten();
            let shard_size = batch + more;
            Evaluate { samples, shard_size, batch, judge, classifier, features, space, reference }
        },
    )
}

fn resources() -> impl Strategy<Value = Resources> {
    let device = prop_oneof![Just(Device::Auto), Just(Device::Cpu), Just(Device::Cuda)];
    (1..=64_u32, 0..1000_u32, 0..=64_u32, device, 0..=1024_u32).prop_map(
        |(min, more, spares, device, threads)| Resources {
            slots: SlotRange { min, max: min + more, spares },
            device,
            threads,
        },
    )
}

/// Several that differ.
fn classifiers() -> impl Strategy<Value = Vec<Classifier>> {
    prop::collection::vec(classifier(), 2..=4).prop_map(|mut several| {
        several.iter_mut().enumerate().for_each(|(place, one)| one.uri += &format!("-{place}"));
        several
    })
}

/// How a job can be labelled decides what else it may say: labels from a file need a judge, a projection and a total.
fn labelled() -> impl Strategy<Value = (Feature, Sample, Direction, Evaluate)> {
    let by_model = (
        prop_oneof![
            classifier().prop_map(|one| (Some(one), vec![], None)),
            classifiers().prop_map(|several| (None, several, None)),
            scorer().prop_map(|scorer| (None, vec![], Some(scorer)))
        ],
        (sample(), direction(), evaluate()),
    )
        .prop_map(|((classifier, classifiers, scorer), rest)| {
            ((classifier, classifiers, scorer, None), rest)
        });
    let by_file = (uri(), sample(), direction(), evaluate(), judge(), 2..u64::MAX).prop_map(
        |(uri, sample, direction, evaluate, judge, total)| {
            let sample = Sample { until: Until::Total(total), at_most: None, ..sample };
            let direction = projecting(direction);
            let evaluate = Evaluate { judge: Some(judge), ..evaluate };
            ((None, vec![], None, Some(Labels { uri })), (sample, direction, evaluate))
        },
    );
    ("\\PC{1,20}", prop_oneof![2 => by_model, 1 => by_file]).prop_map(
        |(name, ((classifier, classifiers, scorer, labels), (sample, direction, evaluate)))| {
            (Feature { name, classifier, classifiers, scorer, labels }, sample, direction, evaluate)
        },
    )
}

fn job_spec() -> impl Strategy<Value = JobSpec> {
    let checkpoint =
        (any::<u64>(), 1..u32::MAX, any::<u32>(), 0..9_u64).prop_map(|(every, keep, best, times)| {
            Checkpoint { every, keep, best, keep_every: every.saturating_mul(times) / every.max(1) * every }
        });
    let publish = of(uri().prop_map(|uri| Publish { uri }));
    let queue =
        ("[a-z0-9][a-z0-9-]{0,62}", -100..=100_i32).prop_map(|(owner, priority)| Queue { owner, priority });
    (
        "[a-z0-9][a-z0-9-]{0,39}",
        generator(),
        labelled(),
        (pool(), unlearn()),
        resources(),
        (queue, checkpoint),
        publish,
    )
        .prop_map(
            |(
                name,
                generator,
                (feature, sample, direction, evaluate),
                (pool, unlearn),
                resources,
                (queue, checkpoint),
                publish,
            )| JobSpec {
                name,
                generator,
                feature,
                sample,
                direction,
                pool,
                unlearn,
                evaluate,
                resources,
                queue,
                checkpoint,
                publish,
            },
        )
}

proptest! {
    #[test]
    fn every_valid_spec_survives_the_wire(spec in job_spec()) {
        prop_assert_eq!(spec.check(), Ok(()));
        prop_assert_eq!(round_trip::<v1::JobSpec, _>(spec.clone()), Ok(spec));
    }
}

/// The shortest spec on the wire, with everything left out that may be.
fn short() -> v1::JobSpec {
    v1::JobSpec {
        name: "thick-vae".to_owned(),
        generator: Some(v1::Generator {
            uri: "/m/vae.safetensors".to_owned(),
            format: v1::ModelFormat::Safetensors.into(),
            latent_shape: vec![20],
            output_high: 1.0,
            channels: 1,
            height: 28,
            width: 28,
            ..Default::default()
        }),
        feature: Some(v1::Feature {
            name: "thick".to_owned(),
            labeller: Some(v1::feature::Labeller::Scorer(v1::Scorer {
                uri: "/m/thickness.pt".to_owned(),
                positive: Some(v1::scorer::Positive::Top(0.1)),
            })),
        }),
        ..Default::default()
    }
}

#[test]
fn what_is_left_out_means_what_it_means_in_yaml() {
    assert_eq!(JobSpec::try_from(short()).unwrap(), samples::spec());
    let empty_parts = v1::JobSpec {
        sample: Some(v1::Sample::default()),
        direction: Some(v1::Direction::default()),
        pool: Some(v1::Pool::default()),
        unlearn: Some(v1::Unlearn::default()),
        evaluate: Some(v1::Evaluate::default()),
        resources: Some(v1::Resources::default()),
        checkpoint: Some(v1::Checkpoint::default()),
        ..short()
    };
    assert_eq!(JobSpec::try_from(empty_parts).unwrap(), samples::spec());

    let unlearn = v1::Unlearn { effort: v1::Effort::Quick.into(), ..Default::default() };
    let quick = JobSpec::try_from(v1::JobSpec { unlearn: Some(unlearn), ..short() }).unwrap();
    assert_eq!((quick.pool, quick.unlearn), (Pool::of(Effort::Quick), Unlearn::of(Effort::Quick)));

    let classifier = v1::Classifier { output: v1::ClassifierOutput::Logits.into(), ..Default::default() };
    let yaml: Classifier =
        serde_json::from_value(serde_json::json!({"uri": "", "output": "logits"})).unwrap();
    assert_eq!(Classifier::try_from(classifier).unwrap(), yaml);
}

#[test]
fn a_latent_of_one_entry_is_a_dimension_and_equal_sides_are_a_square() {
    let mut spec = samples::spec();
    spec.generator.latent = Latent::Shape(vec![20]);
    spec.generator.output.size = Size::Rectangle([28, 28]);
    assert_eq!(round_trip::<v1::JobSpec, _>(spec).unwrap(), samples::spec());
}

#[test]
fn a_field_that_makes_no_sense_is_named_by_its_path() {
    type Spoil = fn(&mut v1::JobSpec);
    let cases: [(Spoil, &str); 14] = [
        (|s| s.generator = None, "generator: missing"),
        (|s| s.feature = None, "feature: missing"),
        (|s| s.generator.as_mut().unwrap().format = 0, "generator.format: missing"),
        (
            |s| s.generator.as_mut().unwrap().format = 9,
            "generator.format: found 9, which has no meaning here",
        ),
        (
            |s| {
                let labeller = v1::feature::Labeller::Classifier(v1::Classifier::default());
                s.feature.as_mut().unwrap().labeller = Some(labeller);
            },
            "feature.classifier.output: missing",
        ),
        (
            |s| {
                let good = v1::Classifier { output: 1, ..Default::default() };
                let members = vec![good, v1::Classifier::default()];
                let labeller = v1::feature::Labeller::Classifiers(v1::Classifiers { members });
                s.feature.as_mut().unwrap().labeller = Some(labeller);
            },
            "feature.classifiers.1.output: missing",
        ),
        (
            |s| {
                let labeller = v1::feature::Labeller::Scorer(v1::Scorer::default());
                s.feature.as_mut().unwrap().labeller = Some(labeller);
            },
            "feature.scorer.positive: missing",
        ),
        (
            |s| {
                let judge =
                    v1::evaluate::Judge::Classifier(v1::Classifier { output: -1, ..Default::default() });
                s.evaluate = Some(v1::Evaluate { judge: Some(judge), ..Default::default() });
            },
            "evaluate.judge.classifier.output: found -1, which has no meaning here",
        ),
        (
            |s| {
                let classes = Some(v1::Classes::default());
                s.evaluate = Some(v1::Evaluate { classes, ..Default::default() });
            },
            "evaluate.classifier.output: missing",
        ),
        (
            |s| s.direction = Some(v1::Direction { method: 5, ..Default::default() }),
            "direction.method: found 5, which has no meaning here",
        ),
        (
            |s| {
                let threshold = Some(v1::direction::Threshold::Rule(3));
                s.direction = Some(v1::Direction { threshold, ..Default::default() });
            },
            "direction.threshold: found 3, which has no meaning here",
        ),
        (
            |s| s.unlearn = Some(v1::Unlearn { batch_norm: 7, ..Default::default() }),
            "unlearn.batch_norm: found 7, which has no meaning here",
        ),
        (
            |s| s.unlearn = Some(v1::Unlearn { loss_reduction: 7, ..Default::default() }),
            "unlearn.loss_reduction: found 7, which has no meaning here",
        ),
        (
            |s| s.resources = Some(v1::Resources { device: 8, ..Default::default() }),
            "resources.device: found 8, which has no meaning here",
        ),
    ];
    for (spoil, message) in cases {
        let mut wire = short();
        spoil(&mut wire);
        let error = JobSpec::try_from(wire).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(SpecError::from(error).to_string(), message);
    }
}

#[test]
fn a_spec_without_a_labeller_is_left_to_the_check() {
    let mut wire = short();
    wire.feature.as_mut().unwrap().labeller = None;
    let error = JobSpec::try_from(wire).unwrap().check().unwrap_err();
    assert_eq!(error.problems[0].path, "feature");
}
