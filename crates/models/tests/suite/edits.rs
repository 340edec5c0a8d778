//! A generator and a scorer whose edits can be worked out by hand: four pixels sigmoid(z), and the score logit(first pixel) = z_0.

use std::path::Path;
use std::rc::Rc;

use lethe_domain::spec::{
    Classifier, ClassifierOutput, Direction, Labeller as LabellerSpec, ModelFormat, Positive, Prior, Scorer,
    Unlearn,
};
use lethe_domain::{Cut, EditMethod};
use lethe_models::{
    Edited, Editor, Error, Generator, GeneratorFile, Guide, Labeller, Latents, Lessons, Loss, Metric,
    RawModel, Search, Stream, Student, Target, Teacher, gradient_leads,
};
use tch::{CModule, Device, Kind, Tensor};

use crate::fixture::{distance, same, spec, values};

fn traced(
    folder: &Path,
    name: &str,
    input: Tensor,
    mut forward: impl FnMut(&Tensor) -> Tensor,
) -> std::path::PathBuf {
    let module = CModule::create_by_tracing(name, "forward", &[input], &mut |inputs: &[Tensor]| {
        vec![forward(&inputs[0])]
    })
    .unwrap();
    let path = folder.join(format!("{name}.pt"));
    module.save(&path).unwrap();
    path
}

/// One who looks, in both forms.
fn guide(spec: LabellerSpec<'_>, path: &Path) -> Guide {
    let read = || RawModel::read(path).unwrap();
    Guide {
        labeller: Rc::new(Labeller::new(spec, read(), Device::Cpu).unwrap()),
        differentiable: Rc::new(Labeller::differentiable(spec, read(), Device::Cpu).unwrap()),
    }
}

/// Several who look as one, in both forms.
fn together(members: &[(&Classifier, &Path)]) -> Guide {
    type Load = fn(LabellerSpec<'_>, RawModel, Device) -> lethe_models::Result<Labeller>;
    let of = |load: Load| {
        let member = |(spec, path): &(&Classifier, &Path)| {
            let raw = RawModel::read(path).unwrap();
            let labeller = load(LabellerSpec::Classifier(spec), raw, Device::Cpu).unwrap();
            (labeller, spec.cut().threshold)
        };
        Rc::new(Labeller::together(members.iter().map(member)))
    };
    Guide { labeller: of(Labeller::new), differentiable: of(Labeller::differentiable) }
}

fn classifier(class: Option<i64>, threshold: f64) -> Classifier {
    Classifier { uri: String::new(), output: ClassifierOutput::Logits, class, threshold }
}

struct Setting {
    original: Generator,
    folder: tempfile::TempDir,
    target: Target,
    prior: Prior,
}

fn setting() -> Setting {
    let folder = tempfile::tempdir().unwrap();
    let example = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
    let path = traced(folder.path(), "generator", example, |z| z.sigmoid());
    let file = GeneratorFile::open(&path, &spec(ModelFormat::TorchScript, 4, [1, 2, 2], [0.0, 1.0])).unwrap();
    let target = Target {
        unit: vec![0.8, 0.6, 0.0, 0.0],
        shape: vec![4],
        raw_norm: 2.5,
        threshold: 0.5,
        cut: Cut { sign: 1.0, threshold: 1.0 },
        select: 1.0,
        goal: 1.0,
        method: EditMethod::Line,
        student: None,
        surrogate: None,
        metric: None,
        score_deviation: 0.4,
        latent_deviation: 1.0,
        lr: 1e-3,
        samples: 100,
        positives: 10,
        edited_share: 0.1,
        heldout_auc: 0.9,
    };
    Setting { original: file.frozen(Device::Cpu).unwrap(), folder, target, prior: Prior::Normal }
}

impl Setting {
    /// A scorer of the first pixel: its logit times `slope`.
    fn scorer(&self, slope: f64, positive: Positive) -> Guide {
        let example = Tensor::full([3, 1, 2, 2], 0.5, (Kind::Float, Device::Cpu));
        let path = traced(self.folder.path(), "scorer", example, |x| {
            x.flatten(1, -1).select(1, 0).logit(1e-6) * slope
        });
        let scorer = Scorer { uri: String::new(), positive };
        guide(LabellerSpec::Scorer(&scorer), &path)
    }

    fn projection(&self, raw: bool) -> Editor {
        let target = Target { method: EditMethod::Projection, ..self.target.clone() };
        Editor::new(&target, &Direction { raw, ..Direction::default() }, self.prior, None, Device::Cpu)
            .unwrap()
    }

    fn guided(&self, margin: f64) -> Editor {
        self.guided_at(1.0, margin)
    }

    fn guided_at(&self, cut: f64, margin: f64) -> Editor {
        self.to(EditMethod::Line, cut, cut, cut - margin * 0.4)
    }

    /// Edits what scores beyond `select` to `goal`.
    fn to(&self, method: EditMethod, cut: f64, select: f64, goal: f64) -> Editor {
        let scorer = self.scorer(1.0, Positive::Above(cut));
        let target =
            Target { cut: Cut { sign: 1.0, threshold: cut }, select, goal, method, ..self.target.clone() };
        Editor::new(&target, &Direction::default(), self.prior, Some(scorer), Device::Cpu).unwrap()
    }

    fn edit(&self, editor: &Editor, z: &Tensor) -> Edited {
        let edited = editor.edit(&self.original, z).unwrap();
        assert_eq!(edited.scores.size(), [z.size()[0]]);
        assert_eq!(edited.unresolved.size(), [edited.count() as i64]);
        edited
    }
}

/// 1 for each latent that was to be edited.
fn to_edit(edited: &Edited) -> Vec<f64> {
    let none = edited.scores.zeros_like();
    values(&none.index_fill(0, &edited.places, 1.0))
}

/// Which of the latents that were to be edited no edit takes the feature from.
fn unresolved(edited: &Edited) -> Vec<f64> {
    values(&edited.unresolved)
}

fn latents(rows: &[[f32; 4]]) -> Tensor {
    Tensor::from_slice(&rows.concat()).view([-1, 4])
}

#[test]
fn the_projection_edit_ends_on_the_threshold_and_leaves_the_rest() {
    let setting = setting();
    let z = latents(&[
        [1.0, 1.0, 2.0, -1.0],
        [0.0, 0.5, 1.0, 1.0],
        [3.0, -4.0, 0.0, 0.0],
        [0.625, 0.0, 0.0, 9.0],
    ]);
    // p = 1.4, 0.3, 0.0, 0.5; t = 0.5 exactly is beyond.
    let edited = setting.edit(&setting.projection(false), &z);
    assert_eq!(to_edit(&edited), [1.0, 0.0, 0.0, 1.0]);
    let expected = latents(&[
        [1.0 - 0.9 * 0.8, 1.0 - 0.9 * 0.6, 2.0, -1.0],
        [0.0, 0.5, 1.0, 1.0],
        [3.0, -4.0, 0.0, 0.0],
        [0.625, 0.0, 0.0, 9.0],
    ]);
    assert!(distance(&edited.latents, &expected) < 1e-6);
    assert!(same(&edited.latents.narrow(0, 1, 2), &z.narrow(0, 1, 2)), "bit by bit");

    // As the paper prints it: the excess times the raw vector, 2.5 times as long.
    let raw = setting.edit(&setting.projection(true), &z).latents;
    assert!(
        distance(&raw.narrow(0, 0, 1), &latents(&[[1.0 - 2.25 * 0.8, 1.0 - 2.25 * 0.6, 2.0, -1.0]])) < 1e-6
    );
}

#[test]
fn the_guided_edit_takes_the_smallest_step_that_is_enough() {
    let setting = setting();
    let z =
        latents(&[[1.5, 3.0, 0.0, 0.0], [0.99, 5.0, 1.0, 1.0], [1.01, 0.0, 0.0, 0.0], [3.5, 0.0, 0.0, 1.0]]);
    let edited = setting.edit(&setting.guided(0.5), &z);
    assert_eq!((to_edit(&edited), unresolved(&edited)), (vec![1.0, 0.0, 1.0, 1.0], vec![0.0; 3]));
    // Goal: z_0 - 0.8 s <= 1 - 0.5 * 0.4, so s = (z_0 - 0.8) / 0.8, rounded up by less than the resolution.
    let resolution = 4.0 / 8.0 / 16.0;
    for (row, start) in [(0, 1.5), (2, 1.01), (3, 3.5)] {
        let moved = (&z - &edited.latents).select(0, row);
        let step = moved.double_value(&[0]) / 0.8;
        let least = (start - 0.8) / 0.8;
        assert!(
            step > least - 1e-3 && step < least + resolution + 1e-3,
            "row {row}: {step}, at least {least}"
        );
        assert!(distance(&moved, &(Tensor::from_slice(&[0.8, 0.6, 0.0, 0.0]) * step)) < 1e-5, "row {row}");
    }
    assert!(same(&edited.latents.select(0, 1), &z.select(0, 1)));
}

#[test]
fn low_scores_can_be_the_positive_ones() {
    let mut setting = setting();
    setting.target.cut = Cut { sign: -1.0, threshold: -1.0 };
    (setting.target.select, setting.target.goal) = (-1.0, -1.0);
    let scorer = setting.scorer(-1.0, Positive::Below(-1.0));
    let editor =
        Editor::new(&setting.target, &Direction::default(), Prior::Normal, Some(scorer), Device::Cpu)
            .unwrap();
    let edited = setting.edit(&editor, &latents(&[[1.4, 0.0, 0.0, 0.0], [0.9, 0.0, 0.0, 0.0]]));
    assert_eq!(to_edit(&edited), [1.0, 0.0]);
    let reached = edited.latents.double_value(&[0, 0]);
    assert!(reached <= 1.0 && reached > 1.0 - 0.8 / 32.0 - 1e-4, "{reached}");
}

#[test]
fn what_no_step_takes_the_feature_from_is_no_edit() {
    let mut setting = setting();
    let z = latents(&[[5.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]);
    // The longest step reaches 5 - 0.8 * 4 = 1.8, above the cut.
    let far = setting.edit(&setting.guided(0.0), &z);
    assert_eq!((to_edit(&far), unresolved(&far)), (vec![1.0, 1.0, 0.0], vec![1.0, 0.0]));
    assert!(same(&far.latents.select(0, 0), &z.select(0, 0)));
    assert!(far.latents.double_value(&[1, 0]) <= 1.0);
    // A vector that leads the wrong way.
    setting.target.unit = vec![-1.0, 0.0, 0.0, 0.0];
    let put = setting.edit(&setting.guided(0.0), &z);
    assert_eq!(unresolved(&put), [1.0, 1.0]);
    assert!(same(&put.latents, &z));
}

#[test]
fn an_image_without_the_feature_is_one_to_teach_though_the_margin_is_out_of_reach() {
    let setting = setting();
    // From 3.9 the longest step reaches 0.7: below the cut of 1, not below 1 - 2 * 0.4.
    let edited = setting.edit(&setting.guided(2.0), &latents(&[[3.9, 0.0, 0.0, 0.0]]));
    assert_eq!(unresolved(&edited), [0.0]);
    assert!((edited.latents.double_value(&[0, 0]) - 0.7).abs() < 1e-5);
}

#[test]
fn edits_stay_where_a_uniform_prior_has_support() {
    let mut setting = setting();
    setting.prior = Prior::Uniform(-1.0, 2.0);
    setting.target.latent_deviation = 3.0 / 12_f64.sqrt();
    tch::manual_seed(5);
    let z = Tensor::rand([200, 4], (Kind::Float, Device::Cpu)) * 3.0 - 1.0;
    let guided = setting.guided_at(0.0, 0.5);
    for editor in [&guided, &setting.projection(true)] {
        let edited = setting.edit(editor, &z);
        assert!(edited.count() > 50, "{}", edited.count());
        let (low, high) = (edited.latents.min().double_value(&[]), edited.latents.max().double_value(&[]));
        assert!(low >= -1.0 && high <= 2.0, "{low} {high}");
        let others = Tensor::from_slice(&to_edit(&edited)).eq(0.0).nonzero().view(-1);
        assert!(same(&edited.latents.index_select(0, &others), &z.index_select(0, &others)));
    }
    // Where the second entry meets the border, the first goes on: the feature is gone all the same.
    let edited = setting.edit(&guided, &latents(&[[1.5, -0.9, 0.0, 0.0]]));
    assert_eq!(unresolved(&edited), [0.0]);
    let moved = values(&edited.latents);
    assert!(moved[1] == -1.0 && (-1.0..=0.0).contains(&moved[0]), "{moved:?}");
}

#[test]
fn an_edit_depends_on_its_latent_alone() {
    let setting = setting();
    tch::manual_seed(11);
    let z = Tensor::randn([40, 4], (Kind::Float, Device::Cpu)) * 1.5;
    let order = Tensor::randperm(40, (Kind::Int64, Device::Cpu));
    for editor in [setting.guided(0.3), setting.projection(false)] {
        let whole = setting.edit(&editor, &z);
        assert!(whole.count() > 3 && whole.count() < 37, "{}", whole.count());
        let shuffled = setting.edit(&editor, &z.index_select(0, &order));
        assert!(same(&shuffled.latents, &whole.latents.index_select(0, &order)));
        let halves: Vec<Tensor> = [(0, 13), (13, 27)]
            .map(|(start, size)| setting.edit(&editor, &z.narrow(0, start, size)).latents)
            .into();
        assert!(same(&Tensor::cat(&halves, 0), &whole.latents));
        let small = setting.guided(0.3).with_search(Search { batch: 3, ..Search::new(&setting.target) });
        assert!(same(&setting.edit(&small, &z).latents, &setting.edit(&setting.guided(0.3), &z).latents));
    }
}

/// What a GPU does, done on the cpu. The models only multiply and add entry by entry: there the size of a batch changes no bit.
#[test]
fn searches_that_live_on_the_device_end_where_the_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let cpu = (Kind::Float, Device::Cpu);
    let path = traced(folder.path(), "generator", Tensor::zeros([3, 4], cpu), |z| z * 1.0);
    let file =
        GeneratorFile::open(&path, &spec(ModelFormat::TorchScript, 4, [1, 2, 2], [-8.0, 8.0])).unwrap();
    let original = file.frozen(Device::Cpu).unwrap();
    let cubic = |x: &Tensor| {
        let first = x.flatten(1, -1).select(1, 0);
        &first * &first * &first * 64.0
    };
    let path = traced(folder.path(), "scorer", Tensor::zeros([3, 1, 2, 2], cpu), cubic);
    let scorer = Scorer { uri: String::new(), positive: Positive::Above(11.0) };
    let guide = guide(LabellerSpec::Scorer(&scorer), &path);
    let cut = Cut { sign: 1.0, threshold: 11.0 };
    let target = Target { cut, select: 11.0, goal: 10.1, score_deviation: 9.0, ..setting().target };
    let edit = |looks_per_sync, batch, z: &Tensor| {
        let search = Search { looks_per_sync, batch, ..Search::new(&target) };
        let editor =
            Editor::new(&target, &Direction::default(), Prior::Normal, Some(guide.clone()), Device::Cpu);
        editor.unwrap().with_search(search).edit(&original, z).unwrap()
    };
    tch::manual_seed(12);
    // Some start so far out that no step is enough.
    let z = Tensor::randn([400, 4], cpu) * 2.5;
    let here = edit(1, 256, &z);
    let lost: f64 = unresolved(&here).iter().sum();
    assert!(here.count() > 40 && lost > 3.0, "{} {lost}", here.count());
    for (looks_per_sync, batch) in [(2, 256), (4, 256), (4, 7), (100, 256)] {
        let there = edit(looks_per_sync, batch, &z);
        assert!(same(&there.latents, &here.latents) && same(&there.scores, &here.scores), "{looks_per_sync}");
        assert!(same(&there.places, &here.places) && same(&there.unresolved, &here.unresolved));
    }
    let none = edit(4, 256, &z.zeros_like());
    assert_eq!((none.count(), unresolved(&none)), (0, vec![]));
}

#[test]
fn nothing_positive_means_nothing_moved() {
    let setting = setting();
    let z = latents(&[[0.0, 1.0, 2.0, 3.0], [-2.0, 0.0, 0.0, 0.0]]);
    let edited = setting.edit(&setting.guided(0.3), &z);
    assert_eq!((edited.count(), unresolved(&edited)), (0, vec![]));
    assert!(same(&edited.latents, &z));
}

#[test]
fn a_guided_edit_needs_somebody_who_looks() {
    let error =
        Editor::new(&setting().target, &Direction::default(), Prior::Normal, None, Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("needs a classifier or scorer"), "{error}");
}

#[test]
fn more_are_edited_than_are_positive_where_the_target_selects_them() {
    let setting = setting();
    let z = latents(&[[1.5, 0.0, 0.0, 1.0], [0.6, 0.0, 0.0, 1.0], [0.4, 0.0, 0.0, 1.0]]);
    // A descent goes by degrees: 0.6 is a fifth of the way to the threshold, and goes a fifth of the way to the goal.
    for (method, goals) in [(EditMethod::Line, [0.2, 0.2]), (EditMethod::Gradient, [0.2, 0.44])] {
        let edited = setting.edit(&setting.to(method, 1.0, 0.5, 0.2), &z);
        assert_eq!(
            (to_edit(&edited), unresolved(&edited)),
            (vec![1.0, 1.0, 0.0], vec![0.0; 2]),
            "{method:?}"
        );
        let reached = values(&edited.latents.select(1, 0));
        assert!(reached.iter().zip(goals).all(|(z, goal)| *z <= goal + 1e-6), "{method:?}: {reached:?}");
        assert!(same(&edited.latents.select(0, 2), &z.select(0, 2)));
    }
}

#[test]
fn a_descent_makes_the_smallest_move_and_keeps_the_length_of_a_latent() {
    let setting = setting();
    tch::manual_seed(3);
    let z = Tensor::randn([300, 4], (Kind::Float, Device::Cpu)) * 1.2;
    let edited = setting.edit(&setting.to(EditMethod::Gradient, 1.0, 1.0, 0.6), &z);
    assert!(edited.count() > 30 && unresolved(&edited).iter().sum::<f64>() == 0.0, "{}", edited.count());
    let length = |z: &Tensor| z.norm_scalaropt_dim(2, [1_i64], false);
    assert!(distance(&length(&edited.latents), &length(&z)) < 1e-5);
    let reached = values(&edited.latents.index_select(0, &edited.places).select(1, 0));
    let slack = 0.4 / 20.0;
    // Three halvings of a step of at most a quarter.
    let near = |score: &&f64| **score <= 0.6 + 1e-6 && **score > 0.6 - slack - 0.25 / 8.0 - 1e-6;
    let short = reached.iter().filter(near).count();
    assert!(short * 100 >= reached.len() * 95, "the smallest move: {reached:?}");
}

#[test]
fn a_descent_goes_by_degrees_less_far_below_the_labellers_threshold() {
    let setting = setting();
    tch::manual_seed(6);
    let z = Tensor::randn([400, 4], (Kind::Float, Device::Cpu)) * 1.2;
    // Selected from 0.5 on, positive from 1.0 on, to go down to 0.2.
    let edited = setting.edit(&setting.to(EditMethod::Gradient, 1.0, 0.5, 0.2), &z);
    let ends = |z: &Tensor| values(&z.index_select(0, &edited.places).select(1, 0));
    let (before, after) = (ends(&z), ends(&edited.latents));
    let goal = |score: f64| if score >= 1.0 { 0.2 } else { 0.5 - 0.6 * (score - 0.5) };
    let slack = 0.4 / 20.0 + 0.25 / 8.0 + 1e-5;
    let near = |(before, after): &(&f64, &f64)| {
        let left = goal(**before) - **after;
        (-1e-5..slack).contains(&left)
    };
    let count = before.iter().zip(&after).filter(near).count();
    assert!(before.iter().any(|score| *score < 0.6) && count * 100 >= before.len() * 95, "{after:?}");
}

#[test]
fn a_descent_stays_where_a_uniform_prior_has_support_and_no_further_away_than_it_may() {
    let mut setting = setting();
    setting.prior = Prior::Uniform(-1.0, 2.0);
    setting.target.latent_deviation = 3.0 / 12_f64.sqrt();
    tch::manual_seed(5);
    let z = Tensor::rand([200, 4], (Kind::Float, Device::Cpu)) * 3.0 - 1.0;
    let edited = setting.edit(&setting.to(EditMethod::Gradient, 0.0, 0.0, -0.5), &z);
    assert!(edited.count() > 50 && unresolved(&edited).iter().sum::<f64>() == 0.0);
    let (low, high) = (edited.latents.min().double_value(&[]), edited.latents.max().double_value(&[]));
    assert!(low >= -1.0 && high <= 2.0, "{low} {high}");

    // Out of reach in 25 looks of a quarter, and beyond the ball of four deviations.
    setting.prior = Prior::Normal;
    setting.target.latent_deviation = 1.0;
    let far = latents(&[[9.0, 9.0, 0.0, 0.0]]);
    let edited = setting.edit(&setting.to(EditMethod::Gradient, 0.0, 0.0, -0.5), &far);
    assert_eq!(unresolved(&edited), [1.0]);
    assert!(same(&edited.latents, &far), "what stays positive stays put");
}

#[test]
fn a_move_that_changes_the_whole_image_is_made_less_than_one_that_changes_what_counts() {
    let setting = setting();
    let example = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
    // The first entry is in every pixel, the second in the first one alone, which the scorer looks at. The others are in none.
    let path = traced(setting.folder.path(), "wide", example, |z| {
        let rest = z.narrow(1, 0, 1).repeat([1, 3]);
        Tensor::cat(&[z.narrow(1, 0, 1) + z.narrow(1, 1, 1), rest], 1).sigmoid()
    });
    let spec = spec(ModelFormat::TorchScript, 4, [1, 2, 2], [0.0, 1.0]);
    let wide = GeneratorFile::open(&path, &spec).unwrap().frozen(Device::Cpu).unwrap();
    let metric = |locality| {
        Metric::of(&wide, &Latents::new(1, &spec), locality, |_, _| Ok::<_, Error>(())).unwrap().unwrap()
    };
    assert!(metric(2.0) == metric(2.0) && metric(2.0) != metric(1.0));
    tch::manual_seed(3);
    let z = Tensor::randn([300, 4], (Kind::Float, Device::Cpu));
    let scorer = || setting.scorer(1.0, Positive::Above(1.0));
    let edit = |metric: Option<Metric>| {
        let metric = metric.map(Rc::new);
        let target = Target { goal: 0.4, method: EditMethod::Gradient, metric, ..setting.target.clone() };
        let kept = Target::from_bytes(&target.to_bytes().unwrap(), "target").unwrap();
        assert_eq!(kept, target);
        let direction = Direction::default();
        let editor = Editor::new(&kept, &direction, Prior::Normal, Some(scorer()), Device::Cpu).unwrap();
        let edited = editor.edit(&wide, &z).unwrap();
        assert!(edited.count() > 30 && unresolved(&edited).iter().sum::<f64>() == 0.0);
        let moved = (&edited.latents - &z).index_select(0, &edited.places).abs();
        values(&moved.mean_dim([0_i64].as_slice(), false, Kind::Float))
    };
    let (blind, seeing) = (edit(None), edit(Some(metric(2.0))));
    assert!((blind[0] / blind[1] - 1.0).abs() < 0.3, "{blind:?}");
    assert!(seeing[1] > 1.5 * seeing[0], "{seeing:?}");
    let still =
        traced(setting.folder.path(), "still", Tensor::zeros([3, 4], (Kind::Float, Device::Cpu)), |z| {
            z * 0.0
        });
    let still = GeneratorFile::open(&still, &spec).unwrap().frozen(Device::Cpu).unwrap();
    let none = Metric::of(&still, &Latents::new(1, &spec), 1.0, |_, _| Ok::<_, Error>(())).unwrap();
    assert!(none.is_none(), "images that nothing changes");
}

/// Three logits: -z_1, z_0 and z_2. Class 1 is the feature.
#[test]
fn a_classifiers_score_falls_in_favour_of_what_else_the_image_shows() {
    let setting = setting();
    let example = Tensor::full([3, 1, 2, 2], 0.5, (Kind::Float, Device::Cpu));
    let path = traced(setting.folder.path(), "classifier", example, |x| {
        let z = x.flatten(1, -1).logit(1e-6) * 4.0;
        Tensor::stack(&[-z.select(1, 1), z.select(1, 0), z.select(1, 2)], 1)
    });
    let guide = guide(LabellerSpec::Classifier(&classifier(Some(1), 0.5)), &path);
    let target = Target {
        cut: Cut { sign: 1.0, threshold: 0.0 },
        select: 0.0,
        goal: -1.0,
        method: EditMethod::Gradient,
        score_deviation: 4.0,
        ..setting.target.clone()
    };
    let editor =
        Editor::new(&target, &Direction::default(), Prior::Normal, Some(guide), Device::Cpu).unwrap();
    // The second class of the first is the third, of the other the first.
    let z = latents(&[[1.0, 0.5, 0.8, 0.3], [1.0, -0.8, 0.5, 0.3]]);
    let edited = setting.edit(&editor, &z);
    let moved = values(&(&edited.latents - &z));
    assert!(moved[2] > 0.05 && moved[1].abs() < moved[2], "towards the third: {moved:?}");
    assert!(moved[5] < -0.05 && moved[6].abs() < -moved[5], "towards the first: {moved:?}");
}

/// A classifier of one logit, the entry of the latent times `slope`.
fn entry(setting: &Setting, place: i64, slope: f64) -> std::path::PathBuf {
    let example = Tensor::full([3, 1, 2, 2], 0.5, (Kind::Float, Device::Cpu));
    traced(setting.folder.path(), &format!("entry{place}"), example, |x| {
        x.flatten(1, -1).narrow(1, place, 1).logit(1e-6) * slope
    })
}

#[test]
fn several_classifiers_lead_down_the_mean_of_their_scores() {
    let mut setting = setting();
    setting.prior = Prior::Uniform(-9.0, 9.0);
    let (one, other) = (classifier(None, 0.5), classifier(None, 0.75));
    let guide = together(&[(&one, &entry(&setting, 0, 1.0)), (&other, &entry(&setting, 1, 3.0))]);
    let target = Target {
        cut: Cut { sign: 1.0, threshold: 0.0 },
        select: 0.0,
        goal: -0.5,
        method: EditMethod::Gradient,
        ..setting.target.clone()
    };
    // By (z_0 + 3 z_1 - ln 3) / 2: the second sees nothing in the first image, which shows the feature all the same.
    let score = |z: &[f64]| (z[0] + 3.0 * z[1] - 3f64.ln()) / 2.0;
    let z = latents(&[[2.0, 0.2, 1.0, 1.0], [0.5, 0.1, 1.0, 1.0]]);
    for method in [EditMethod::Gradient, EditMethod::Line] {
        let target = Target { method, ..target.clone() };
        let editor =
            Editor::new(&target, &Direction::default(), setting.prior, Some(guide.clone()), Device::Cpu)
                .unwrap();
        let edited = setting.edit(&editor, &z);
        assert_eq!((to_edit(&edited), unresolved(&edited)), (vec![1.0, 0.0], vec![0.0]), "{method:?}");
        let (scores, ended) = (values(&edited.scores), values(&edited.latents));
        assert!((scores[0] - score(&[2.0, 0.2])).abs() < 1e-4, "{scores:?}");
        assert!(score(&ended[..2]) <= -0.5 + 1e-4, "{method:?}: {ended:?}");
        if method == EditMethod::Gradient {
            let moved = values(&(&edited.latents - &z));
            assert!((moved[1] / moved[0] - 3.0).abs() < 1e-3 && moved[0] < -0.05, "{moved:?}");
            assert!(moved[2].abs() < 1e-5 && moved[3].abs() < 1e-5, "{moved:?}");
        }
    }
    assert!(gradient_leads(&target, &setting.original, &guide, setting.prior, &z).unwrap());
}

#[test]
fn each_of_several_classifiers_has_a_rival_of_its_own_or_none() {
    let mut setting = setting();
    setting.prior = Prior::Uniform(-9.0, 9.0);
    let example = Tensor::full([3, 1, 2, 2], 0.5, (Kind::Float, Device::Cpu));
    let path = traced(setting.folder.path(), "classifier", example, |x| {
        let z = x.flatten(1, -1).logit(1e-6) * 4.0;
        Tensor::stack(&[-z.select(1, 1), z.select(1, 0), z.select(1, 2)], 1)
    });
    let (many, one) = (classifier(Some(1), 0.5), classifier(None, 0.5));
    let target = Target {
        cut: Cut { sign: 1.0, threshold: 0.0 },
        select: 0.0,
        goal: -1.0,
        method: EditMethod::Gradient,
        ..setting.target.clone()
    };
    let entry = entry(&setting, 3, 4.0);
    let z = latents(&[[1.0, 0.5, 0.8, 0.3]]);
    for members in [[(&many, path.as_path()), (&one, &entry)], [(&one, &entry), (&many, &path)]] {
        let editor =
            Editor::new(&target, &Direction::default(), setting.prior, Some(together(&members)), Device::Cpu);
        let edited = setting.edit(&editor.unwrap(), &z);
        let moved = values(&(&edited.latents - &z));
        assert!(moved[0] < -0.05 && moved[3] < -0.05, "away from the feature by both: {moved:?}");
        assert!(moved[2] > 0.05 && moved[1].abs() < 1e-5, "towards the likeliest class: {moved:?}");
    }
}

#[test]
fn the_gradient_is_followed_where_it_leads_further_than_the_direction() {
    let mut setting = setting();
    setting.target.unit = vec![0.6, 0.8, 0.0, 0.0];
    tch::manual_seed(4);
    let z = Tensor::randn([40, 4], (Kind::Float, Device::Cpu)) + 1.0;
    let leads = |guide: &Guide, target: &Target| {
        gradient_leads(target, &setting.original, guide, Prior::Normal, &z).unwrap()
    };
    let scorer = setting.scorer(1.0, Positive::Above(1.0));
    assert!(leads(&scorer, &setting.target), "the vector points past the feature");
    // Behind a threshold there is no gradient.
    let example = Tensor::full([3, 1, 2, 2], 0.5, (Kind::Float, Device::Cpu));
    let path = traced(setting.folder.path(), "counter", example, |x| {
        x.flatten(1, -1).gt(0.6).to_kind(Kind::Float).sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)
    });
    let spec = Scorer { uri: String::new(), positive: Positive::Above(1.0) };
    assert!(!leads(&guide(LabellerSpec::Scorer(&spec), &path), &setting.target));
}

/// A student of the scorer of the first pixel, and how much of its scores it explains.
fn student(setting: &Setting) -> (Student, f64) {
    let latents = Latents::new(6, &spec(ModelFormat::TorchScript, 4, [1, 2, 2], [0.0, 1.0]));
    let z = latents.batch(Stream::Sample, 0, 2000, Device::Cpu).unwrap();
    let images = (setting.original.forward(&z).unwrap() * 255.0).round().to_kind(Kind::Uint8);
    let mut lessons = Lessons::new(latents, images, &values(&z.select(1, 0))).unwrap();
    for _ in 0..lessons.steps() {
        lessons.step().unwrap();
    }
    lessons.end().unwrap()
}

#[test]
fn a_student_learns_the_scores_and_leads_edits_where_the_labeller_has_no_gradient() {
    let mut setting = setting();
    let (taught, explained) = student(&setting);
    assert!(explained > 0.95, "{explained}");
    assert_eq!(taught, student(&setting).0, "the same lessons, the same student");
    setting.target = Target {
        student: Some(Rc::new(taught)),
        method: EditMethod::Student,
        select: 1.0,
        goal: 0.4,
        ..setting.target
    };
    let file = setting.target.to_bytes().unwrap();
    assert_eq!(Target::from_bytes(&file, "target").unwrap(), setting.target);

    // The scorer counts in tenths: its gradient is nothing.
    let example = Tensor::full([3, 1, 2, 2], 0.5, (Kind::Float, Device::Cpu));
    let path = traced(setting.folder.path(), "steps", example, |x| {
        (x.flatten(1, -1).select(1, 0).logit(1e-6) * 10.0).round() / 10.0
    });
    let scorer = Scorer { uri: String::new(), positive: Positive::Above(1.0) };
    let own = guide(LabellerSpec::Scorer(&scorer), &path);
    tch::manual_seed(8);
    let z = Tensor::randn([200, 4], (Kind::Float, Device::Cpu)) * 1.2;
    assert!(!gradient_leads(&setting.target, &setting.original, &own, Prior::Normal, &z).unwrap());
    let led = Guide {
        labeller: Rc::clone(&own.labeller),
        differentiable: Rc::new(Labeller::taught(
            setting.target.student.as_ref().unwrap().on(Device::Cpu).unwrap(),
        )),
    };
    let editor =
        Editor::new(&setting.target, &Direction::default(), Prior::Normal, Some(led), Device::Cpu).unwrap();
    let edited = setting.edit(&editor, &z);
    assert!(edited.count() > 30 && unresolved(&edited).iter().sum::<f64>() == 0.0, "{}", edited.count());
    let reached = values(&edited.latents.index_select(0, &edited.places).select(1, 0));
    assert!(reached.iter().all(|score| *score < 0.45 + 1e-6 && *score > -0.2), "{reached:?}");
}

/// Of two classifiers one says the same of every image, in three logits; the other counts half all the same.
#[test]
fn a_teacher_hears_each_of_several_classifiers_alike() {
    let setting = setting();
    let example = Tensor::full([3, 1, 2, 2], 0.5, (Kind::Float, Device::Cpu));
    let path = traced(setting.folder.path(), "constant", example, |x| {
        x.flatten(1, -1).narrow(1, 0, 1).repeat([1, 3]) * 0.0
    });
    let (seeing, constant) = (classifier(None, 0.5), classifier(Some(0), 1.0 / 3.0));
    let guide = together(&[(&seeing, &entry(&setting, 0, 1.0)), (&constant, &path)]);
    let target = Target { goal: 0.4, score_deviation: 0.5, ..setting.target.clone() };
    let sum = |teacher: Option<Teacher>, images: &Tensor, targets: &Tensor| {
        let loss = Loss::new(&Unlearn::default(), EditMethod::Gradient, [1, 2, 2], Device::Cpu)
            .unwrap()
            .with(teacher);
        let (places, weights) = (Tensor::from_slice(&[1_i64]), Tensor::from_slice(&[1.0_f32, 1.0]));
        f64::try_from(loss.sum(images, targets, &places, &weights).unwrap()).unwrap()
    };
    let images =
        |scores: [f32; 2]| Tensor::from_slice(&scores).sigmoid().view([2, 1, 1, 1]).repeat([1, 1, 2, 2]);
    let (copy, wanted) = (images([0.75, 2.2]), images([0.7, 0.6]));
    // The score of the second is (2.2 + 0) / 2 = 1.1, a deviation above the bar of 0.6.
    let (small, large, above) = (0.1 * 0.1 / (2.0 * 0.2), 3.2 - 0.2 / 2.0, 1.0);
    let expected = 2.0 * ((small + large) / 2.0 + above);
    let teacher = Teacher::new(&target, guide.differentiable, 2.0);
    let found = sum(Some(teacher), &copy, &wanted) - sum(None, &copy, &wanted);
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
}

#[test]
fn a_teacher_compares_what_a_labeller_says_of_the_copy_and_of_its_target() {
    let setting = setting();
    let target = Target { goal: 0.4, score_deviation: 0.5, ..setting.target.clone() };
    let scorer = setting.scorer(1.0, Positive::Above(1.0));
    let spec = Unlearn { alpha: Some(1.0), ..Unlearn::default() };
    let sum = |weight: Option<f64>, images: &Tensor, targets: &Tensor| {
        let teacher = weight.map(|weight| Teacher::new(&target, Rc::clone(&scorer.differentiable), weight));
        let loss = Loss::new(&spec, EditMethod::Gradient, [1, 2, 2], Device::Cpu).unwrap().with(teacher);
        let (places, weights) = (Tensor::from_slice(&[1_i64]), Tensor::from_slice(&[1.0_f32, 0.5]));
        f64::try_from(loss.sum(images, targets, &places, &weights).unwrap()).unwrap()
    };
    let images =
        |scores: [f32; 2]| Tensor::from_slice(&scores).sigmoid().view([2, 1, 1, 1]).repeat([1, 1, 2, 2]);
    let (copy, wanted) = (images([0.75, 1.1]), images([0.7, 0.3]));
    // Differences of 0.1 and 1.6 deviations: squared up to 0.2, and by their size beyond. The second is edited, and 0.5 / 0.5 deviations
    // above two thirds of the way from 1.0 to 0.4.
    let (small, large) = (0.1 * 0.1 / (2.0 * 0.2), 1.6 - 0.2 / 2.0);
    let expected = 2.0 * (small + 0.5 * (large + 1.0));
    let found = sum(Some(2.0), &copy, &wanted) - sum(None, &copy, &wanted);
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    // A target that is above the bar itself is not to be passed.
    let high = images([0.7, 0.9]);
    let (large, none) = (0.4 - 0.2 / 2.0, 0.0);
    let found = sum(Some(2.0), &images([0.7, 0.7]), &high) - sum(None, &images([0.7, 0.7]), &high);
    assert!((found - 2.0 * 0.5 * (large + none)).abs() < 1e-4, "{found}");
    let same = images([0.7, 0.3]);
    assert_eq!(sum(Some(2.0), &same, &wanted), sum(None, &same, &wanted), "nothing to say");
}
