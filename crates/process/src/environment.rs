//! Variables of the environment that are there and empty, as a compose file or a manifest makes them: the same as unset.
//!
//! They are taken away at the start, so that it does not matter who reads one, or by which library. Not here: what the
//! variables mean.

use std::env;

/// Which devices a program may see: here empty means none, and unset all.
const EMPTY_MEANS_NONE: &str = "_VISIBLE_DEVICES";

/// Takes them away. Only for the start of a program, while it has one thread.
pub(crate) fn drop_empty() {
    for (name, value) in env::vars_os() {
        if value.is_empty() && !name.as_encoded_bytes().ends_with(EMPTY_MEANS_NONE.as_bytes()) {
            // SAFETY: changing the environment is unsound beside a thread that reads it, and there is none yet: this is
            // called first of all by `run`, which asks its callers for that, and no library linked here starts a thread
            // while it is loaded.
            unsafe { env::remove_var(name) };
        }
    }
}
