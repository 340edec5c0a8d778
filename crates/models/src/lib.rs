//! Generators, labellers, directions, edits, losses and measures on libtorch tensors.
//!
//! Pure numerics: the only IO is reading model files; nothing waits, nothing talks to anybody. Not here: gradients
//! across ranks (crate `collective`), phases and tasks (worker/executor), decisions (crate `engine`).

mod adam;
mod anchor;
mod architecture;
mod average;
mod caption;
mod classes;
mod cut;
mod direction;
mod edit;
mod error;
mod features;
mod ffi;
mod file;
mod frechet;
mod function;
mod generator;
mod image_model;
mod labeller;
mod labels;
mod latents;
mod losses;
mod moments;
mod native;
mod outputs;
mod pool;
mod precision;
mod rate;
mod reference;
mod repeatable;
mod script;
mod sheet;
mod ssim;
mod student;
mod weights;

pub use adam::Adam;
pub use anchor::Anchor;
pub use average::Average;
pub use classes::Classes;
pub use cut::top_cut;
pub use direction::{Located, Target, locate, roc_auc};
pub use edit::{EDIT_VERSION, Edited, Editor, Guide, Search, gradient_leads};
pub use error::{Error, Result};
pub use features::Features;
pub use ffi::torch_version;
pub use file::{ModelFile, RawModel, sha256};
pub use frechet::frechet_distance;
pub use generator::{Exported, Generator, GeneratorFile};
pub use labeller::Labeller;
pub use labels::parse_labels;
pub use latents::{Latents, Stream};
pub use losses::{Loss, Teacher, l1};
pub use moments::Moments;
pub use pool::{Drawn, HeldOut, Pool, PoolShard};
pub use rate::learning_rate;
pub use reference::Reference;
pub use repeatable::repeat_on_gpu;
pub use sheet::{Caption, choose, contact_sheet};
pub use ssim::Similarity;
pub use student::{Lessons, Student};
pub use weights::Tensors;
