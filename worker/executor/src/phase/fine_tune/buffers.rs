//! Memory for snapshots, used again and again: the kernel clears fresh pages when they are first touched, which takes longer than
//! copying into pages that are there.

use std::mem;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use lethe_models::Tensors;

use crate::error::Result;

/// As many as can be at work: one is written, one waits.
const MOST: usize = 2;

/// Copies that nobody needs any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Tensors>>>);

impl Buffers {
    /// A copy on the cpu, in the memory of an earlier one where there is one.
    ///
    /// # Errors
    /// Lack of memory.
    pub(super) fn copy(&self, tensors: &Tensors) -> Result<PooledTensors> {
        let earlier = self.free().pop();
        let copy = match earlier {
            Some(earlier) => tensors.snapshot_into(earlier)?,
            None => tensors.snapshot()?,
        };
        Ok(PooledTensors { tensors: copy, home: self.clone() })
    }

    /// Has memory for such copies at hand, so that the first of them are as quick as the later ones.
    ///
    /// # Errors
    /// Lack of memory.
    pub(super) fn prepare(&self, tensors: &Tensors) -> Result<()> {
        let copies = (0..MOST).map(|_| self.copy(tensors)).collect::<Result<Vec<PooledTensors>>>()?;
        drop(copies);
        Ok(())
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Tensors>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy; its memory goes back when it is dropped, on whichever thread.
#[derive(Debug)]
pub(super) struct PooledTensors {
    tensors: Tensors,
    home: Buffers,
}

impl Deref for PooledTensors {
    type Target = Tensors;

    fn deref(&self) -> &Tensors {
        &self.tensors
    }
}

impl Drop for PooledTensors {
    fn drop(&mut self) {
        let tensors = mem::replace(&mut self.tensors, Tensors::new(""));
        let mut free = self.home.free();
        if free.len() < MOST {
            free.push(tensors);
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    #[test]
    fn memory_comes_back_from_another_thread_and_is_used_again() {
        let (buffers, mut tensors) = (Buffers::default(), Tensors::new("x"));
        tensors.insert("a", &Tensor::from_slice(&[1.0_f32, 2.0]));
        let place = |copy: &PooledTensors| copy.get("a").unwrap().data_ptr() as usize;
        let (first, second) = (buffers.copy(&tensors).unwrap(), buffers.copy(&tensors).unwrap());
        let places = (place(&first), place(&second));
        assert_ne!(places.0, places.1, "both are in use");
        std::thread::spawn(move || drop(first)).join().unwrap();
        let third = buffers.copy(&tensors).unwrap();
        assert_eq!(place(&third), places.0);
        assert_eq!(third.to_bytes().unwrap(), tensors.to_bytes().unwrap());
        drop((second, third));
        assert_eq!(buffers.free().len(), 2);
    }

    #[test]
    fn what_is_prepared_is_used() {
        let (buffers, mut tensors) = (Buffers::default(), Tensors::new("x"));
        tensors.insert("a", &Tensor::from_slice(&[1.0_f32, 2.0]));
        buffers.prepare(&tensors).unwrap();
        assert_eq!(buffers.free().len(), MOST);
        let copies = [buffers.copy(&tensors).unwrap(), buffers.copy(&tensors).unwrap()];
        assert_eq!(buffers.free().len(), 0);
        drop(copies);
    }
}
