//! Who this worker is.

use lethe_domain::WorkerId;

use crate::Result;

/// Characters of a host's name that go into a worker's name.
const HOST_PART: usize = 48;

/// The machine's name; "unknown" when the system does not say.
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// A new name for a worker of this host: the host's name as far as it is allowed, and something random, so that two
/// agents on one host, or one after another, are never taken for each other.
///
/// # Errors
/// None for any host's name: the text is built from what [`WorkerId`] allows.
pub fn new_worker_id(hostname: &str) -> Result<WorkerId> {
    let random = &uuid::Uuid::new_v4().simple().to_string()[..8];
    let lowered = hostname.to_ascii_lowercase();
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let host: String = lowered.chars().map(allowed).take(HOST_PART).collect();
    let text = format!("{}-{random}", host.trim_matches('-'));
    // A name without a single letter leaves only the random part.
    Ok(WorkerId::new(text.trim_start_matches('-'))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_gives_a_valid_id() {
        let long = "a".repeat(200);
        for (host, start) in [
            ("Node-7.Example.com", "node-7-example-com-"),
            ("gpu_box", "gpu-box-"),
            ("-.-", ""),
            ("", ""),
            ("北京", ""),
            (&long, "aaaaaaaa"),
        ] {
            let id = new_worker_id(host).unwrap();
            assert!(id.as_str().starts_with(start), "{host}: {id}");
            assert_ne!(id, new_worker_id(host).unwrap());
        }
    }
}
