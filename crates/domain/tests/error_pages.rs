//! Every cause of failure has a page that says what happened and what to do, and there is no page without a cause.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

use std::collections::BTreeSet;
use std::path::Path;

use lethe_domain::ErrorCode;

#[test]
fn every_cause_has_its_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    let pages: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| format!("{code}.md")).collect();
    assert_eq!(pages, expected);
    for page in pages {
        let text = std::fs::read_to_string(folder.join(&page)).unwrap();
        let title = format!("# {}\n", page.trim_end_matches(".md"));
        assert!(
            text.starts_with(&title)
                && text.contains("**What happened.**")
                && text.contains("**What to do.**"),
            "{page}"
        );
    }
}
