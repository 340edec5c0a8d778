//! Numbers on pages, where lines break: never between a number and its unit. And times, which a page shows long after it was made.

use std::time::{Duration, UNIX_EPOCH};

use lethe_domain::Unit;
pub(super) use lethe_domain::numbers::{grouped, significant};

/// The text with spaces that do not break.
fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    unbroken(&Unit::Share.show(share))
}

/// Seconds.
pub(super) fn span(seconds: f64) -> String {
    unbroken(&lethe_domain::numbers::span(seconds))
}

/// Milliseconds since 1970 as "2026-11-24 06:29:10 UTC".
pub(super) fn moment(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

/// How long ago something was, roughly.
pub(super) fn ago(ms: u64) -> String {
    match ms / 1000 {
        0..2 => "just now".to_owned(),
        seconds @ 2..60 => format!("{seconds}\u{a0}s ago"),
        seconds @ 60..3600 => format!("{}\u{a0}min ago", seconds / 60),
        seconds @ 3600..86_400 => format!("{}\u{a0}h ago", seconds / 3600),
        seconds => format!("{}\u{a0}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_stay_with_their_numbers() {
        assert_eq!(percent(0.0043), "0.43\u{a0}%");
        assert_eq!(span(125.0), "2\u{a0}min\u{a0}05\u{a0}s");
    }

    #[test]
    fn times_read_well() {
        for (ms, text) in
            [(900, "just now"), (61_000, "1 min ago"), (7_300_000, "2 h ago"), (180_000_000, "2 d ago")]
        {
            assert_eq!(ago(ms).replace('\u{a0}', " "), text);
        }
        // `date -u -d @1795501750` prints Tue Nov 24 06:29:10 UTC 2026.
        assert_eq!(moment(1_795_501_750_999), "2026-11-24 06:29:10 UTC");
    }
}
