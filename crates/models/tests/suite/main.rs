//! Tests of the public API, against numbers made by PyTorch, scipy and scikit-image (`tests/reference/make.py`,
//! `tools/export/fixtures.py`).

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod adam;
mod average;
mod calibration;
mod classes;
mod edits;
mod fixture;
mod frechet;
mod generators;
mod labellers;
mod latents;
mod located;
mod pool;
mod rate;
mod refusals;
mod scripts;
mod sheets;
mod similarity;
mod surrogates;
