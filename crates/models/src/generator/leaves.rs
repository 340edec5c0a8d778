//! The tensors of a TorchScript module as they are trained: each memory once, without gaps, in f32.
//!
//! A module may hold one tensor under several names, views with gaps into larger ones, and other precisions than f32; an
//! optimiser that took them as they come would step twice along one gradient, or skip what it does not know. Not here:
//! training, states.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::precision::{dtype, is_floating};
use crate::script::{Named, Script};
use crate::weights;

/// What gradients in f16 are multiplied by on their way back, lest small ones become 0: a sum over a batch of images
/// leaves room for this much.
const F16_SCALE: f64 = 1024.0;

/// A tensor of a module, under all its names.
#[derive(Debug)]
struct View {
    /// The first is the one it is known by.
    names: Vec<String>,
    tensor: Tensor,
    parameter: bool,
    memory: (usize, usize),
}

/// What a module is made of.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    /// Trained, f32, contiguous.
    pub(super) parameters: Vec<(String, Tensor)>,
    /// Everything else.
    pub(super) buffers: Vec<(String, Tensor)>,
    /// Names of floating parameters that are not trained, since the file says so.
    pub(super) untrained: Vec<String>,
    /// The way from what is trained to what the module computes with.
    pub(super) casts: Casts,
}

/// How the module holds its parameters.
#[derive(Debug, Default)]
pub(super) struct Casts {
    held: Vec<Held>,
    /// Whether any is f16, so that all gradients are scaled.
    scaled: bool,
}

/// A parameter as it is trained, and as the module holds it.
#[derive(Debug)]
struct Held {
    places: Vec<String>,
    master: Tensor,
    kind: Kind,
}

impl Leaves {
    /// Looks at a module that was just loaded, and makes it hold its tensors in this form.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when two parameters are different views of one memory, or for a kind of number that no state
    /// can hold.
    pub(super) fn of(script: &Script, file: &str) -> Result<Self> {
        let views = views(script.tensors()?);
        for view in &views {
            let kind = view.tensor.f_kind()?;
            if !weights::is_stored(kind) {
                let reason =
                    format!("{} has the dtype {}, which Lethe does not use", view.names[0], dtype(kind));
                return Err(Error::Unreadable { file: file.to_owned(), reason });
            }
        }
        refuse_overlaps(&views, file)?;
        // Where nothing asks for gradients the flag says how the module was used, not what may be trained.
        let chosen = views.iter().any(|view| view.parameter && view.tensor.requires_grad());
        let mut leaves = Self::default();
        for view in views {
            leaves.add(view, chosen, script)?;
        }
        leaves.casts.scaled = leaves.casts.held.iter().any(|held| held.kind == Kind::Half);
        Ok(leaves)
    }

    fn add(&mut self, view: View, chosen: bool, script: &Script) -> Result<()> {
        let View { names, tensor, parameter, .. } = view;
        let (name, asks, kind) = (names[0].clone(), tensor.requires_grad(), tensor.f_kind()?);
        let whole = tensor.f_detach()?.f_contiguous()?;
        if parameter && is_floating(kind) && (asks || !chosen) {
            let master = whole.f_to_kind(Kind::Float)?.f_set_requires_grad(true)?;
            // Of f64 the original keeps all digits.
            place(script, &names, if kind == Kind::Float { &master } else { &whole })?;
            self.parameters.push((name, master.shallow_clone()));
            self.casts.held.push(Held { places: names, master, kind });
            return Ok(());
        }
        if parameter && is_floating(kind) {
            self.untrained.push(name.clone());
        }
        place(script, &names, &whole)?;
        self.buffers.push((name, whole));
        Ok(())
    }
}

impl Casts {
    /// Makes the module compute with what its parameters are now, so that gradients flow back to them.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Torch`].
    pub(super) fn lay(&self, script: &Script) -> Result<()> {
        for held in self.held.iter().filter(|held| self.scaled || held.kind != Kind::Float) {
            let weight = self.rescaled(&held.master, 1.0 / F16_SCALE)?;
            place(script, &held.places, &weight.f_to_kind(held.kind)?)?;
        }
        Ok(())
    }

    /// The same for good, without a way back for gradients. `trained` is written into a file made of the module.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Torch`].
    pub(super) fn settle(&self, script: &Script, trained: bool) -> Result<()> {
        for held in self.held.iter().filter(|held| held.kind != Kind::Float) {
            let weight = held.master.f_detach()?.f_to_kind(held.kind)?.f_set_requires_grad(trained)?;
            place(script, &held.places, &weight)?;
        }
        Ok(())
    }

    /// Images whose gradients are multiplied by what [`Casts::lay`] divides them by again.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(super) fn scaled(&self, images: &Tensor) -> Result<Tensor> {
        self.rescaled(images, F16_SCALE)
    }

    /// The same numbers, whose gradient is multiplied where gradients are scaled.
    fn rescaled(&self, tensor: &Tensor, scale: f64) -> Result<Tensor> {
        if !(self.scaled && tensor.requires_grad()) {
            return Ok(tensor.shallow_clone());
        }
        let value = tensor.f_detach()?;
        Ok(tensor.f_sub(&value)?.f_mul_scalar(scale)?.f_add(&value)?)
    }
}

fn place(script: &Script, names: &[String], tensor: &Tensor) -> Result<()> {
    names.iter().try_for_each(|name| script.assign(name, tensor))
}

/// The same memory seen in the same way is one tensor.
fn views(named: Vec<Named>) -> Vec<View> {
    let mut views: Vec<View> = Vec::new();
    let mut known = BTreeMap::new();
    for Named { name, tensor, parameter, memory } in named {
        // An empty tensor lies nowhere.
        let place = if tensor.numel() == 0 { views.len() } else { 0 };
        let key = (tensor.data_ptr().addr(), tensor.size(), tensor.stride(), place);
        match known.get(&key) {
            Some(at) => {
                let view: &mut View = &mut views[*at];
                view.names.push(name);
                view.parameter |= parameter;
            }
            None => {
                known.insert(key, views.len());
                views.push(View { names: vec![name], tensor, parameter, memory });
            }
        }
    }
    views
}

/// Refuses two views, at least one of them a parameter, that hold the same number: training one would change the other.
fn refuse_overlaps(views: &[View], file: &str) -> Result<()> {
    let mut memories: BTreeMap<(usize, usize), Vec<&View>> = BTreeMap::new();
    for view in views.iter().filter(|view| view.tensor.numel() > 0) {
        memories.entry(view.memory).or_default().push(view);
    }
    for ((start, bytes), views) in memories {
        if !views.iter().any(|view| view.parameter) || !any_meet(&views) {
            continue;
        }
        // Whose each byte is, as the view's place plus one.
        let owner = Tensor::f_zeros([bytes as i64], (Kind::Int, Device::Cpu))?;
        for (mine, view) in (1_i64..).zip(&views) {
            let mut part = bytes_of(&owner, &view.tensor, start)?;
            let other = part.f_max()?.f_int64_value(&[])?;
            if other > 0 {
                let other = views[other as usize - 1];
                if other.parameter || view.parameter {
                    return Err(shared(other, view, file));
                }
            }
            let _ = part.f_fill_(mine as f64)?;
        }
    }
    Ok(())
}

fn shared(one: &View, other: &View, file: &str) -> Error {
    let reason = format!(
        "{} and {} are different views of the same memory, so that one cannot be trained without the other: give one of \
         them memory of its own (`.clone()`) before exporting",
        one.names[0], other.names[0]
    );
    Error::Unreadable { file: file.to_owned(), reason }
}

/// Whether the first byte of a view lies before the last of another one that begins before it.
fn any_meet(views: &[&View]) -> bool {
    let extent = |view: &&View| {
        let steps = view.tensor.size().into_iter().zip(view.tensor.stride());
        let last: i64 = steps.map(|(size, step)| (size - 1) * step).sum();
        let width = view.tensor.kind().elt_size_in_bytes();
        let start = view.tensor.data_ptr().addr();
        (start, start + (last as usize + 1) * width)
    };
    let mut extents: Vec<(usize, usize)> = views.iter().map(extent).collect();
    extents.sort_unstable();
    extents.windows(2).any(|pair| pair[1].0 < pair[0].1)
}

/// The entries of a map of the memory that starts at `start` which the bytes of a tensor are.
fn bytes_of(map: &Tensor, tensor: &Tensor, start: usize) -> Result<Tensor> {
    let width = tensor.f_kind()?.elt_size_in_bytes() as i64;
    // Along an axis of step 0 all entries are one.
    let steps = tensor.size().into_iter().zip(tensor.stride());
    let (mut size, mut stride): (Vec<i64>, Vec<i64>) =
        steps.map(|(size, step)| (if step == 0 { 1 } else { size }, step * width)).unzip();
    size.push(width);
    stride.push(1);
    let offset = (tensor.data_ptr().addr() - start) as i64;
    Ok(map.f_as_strided(size.as_slice(), stride.as_slice(), offset)?)
}
