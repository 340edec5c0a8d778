//! Numbers as people read them. A number and its unit are never torn apart: the space between them does not break.

use std::time::{Duration, UNIX_EPOCH};

/// 12345 as "12,345".
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits.
pub(super) fn figure(number: f64) -> String {
    if !number.is_finite() {
        return number.to_string();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    let magnitude = number.abs().log10().floor() as i32;
    match magnitude {
        ..-4 => format!("{number:.2e}"),
        -4..3 => format!("{number:.*}", (2 - magnitude) as usize),
        3.. => grouped_figure(number),
    }
}

fn grouped_figure(number: f64) -> String {
    let sign = if number < 0.0 { "-" } else { "" };
    format!("{sign}{}", grouped(number.abs().round() as u64))
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    match share.abs() {
        0.0 => "0\u{a0}%".to_owned(),
        small if small < 0.1 => format!("{:.2}\u{a0}%", share * 100.0),
        _ => format!("{:.1}\u{a0}%", share * 100.0),
    }
}

/// Seconds as "1 h 02 min", "2 min 05 s", "4.2 s", "30 ms".
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        ..0.9995 => format!("{:.0}\u{a0}ms", seconds * 1000.0),
        ..9.95 => format!("{seconds:.1}\u{a0}s"),
        ..59.5 => format!("{whole}\u{a0}s"),
        ..3599.5 => format!("{}\u{a0}min\u{a0}{:02}\u{a0}s", whole / 60, whole % 60),
        _ => format!("{}\u{a0}h\u{a0}{:02}\u{a0}min", whole / 3600, whole % 3600 / 60),
    }
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
    fn numbers_read_well() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [
            (0.0, "0"),
            (0.001_234, "0.00123"),
            (0.5, "0.500"),
            (12.345, "12.3"),
            (-7.0, "-7.00"),
            (12_345.6, "12,346"),
            (1.0e-7, "1.00e-7"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(figure(number), text);
        }
        for (share, text) in [(0.0, "0 %"), (0.004_3, "0.43 %"), (0.1, "10.0 %"), (1.0, "100.0 %")] {
            assert_eq!(percent(share).replace('\u{a0}', " "), text);
        }
        for (seconds, text) in [
            (0.03, "30 ms"),
            (0.9996, "1.0 s"),
            (4.21, "4.2 s"),
            (59.6, "1 min 00 s"),
            (125.0, "2 min 05 s"),
            (3720.0, "1 h 02 min"),
        ] {
            assert_eq!(span(seconds).replace('\u{a0}', " "), text);
        }
        for (ms, text) in
            [(900, "just now"), (61_000, "1 min ago"), (7_300_000, "2 h ago"), (180_000_000, "2 d ago")]
        {
            assert_eq!(ago(ms).replace('\u{a0}', " "), text);
        }
        // `date -u -d @1795501750` prints Tue Nov 24 06:29:10 UTC 2026.
        assert_eq!(moment(1_795_501_750_999), "2026-11-24 06:29:10 UTC");
    }
}
