//! Numbers as people read them, the same on every screen. Spaces stand between a number and its unit: whoever breaks lines keeps them
//! together.
//!
//! Not here: values of figures, which know their unit (`figure`).

/// 12345 as "12,345".
pub fn grouped(number: u64) -> String {
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
pub fn significant(number: f64) -> String {
    if !number.is_finite() {
        return number.to_string();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    let magnitude = number.abs().log10().floor() as i32;
    let sign = if number < 0.0 { "-" } else { "" };
    match magnitude {
        ..-4 => format!("{number:.2e}"),
        -4..3 => format!("{number:.*}", (2 - magnitude) as usize),
        3.. => format!("{sign}{}", grouped(number.abs().round() as u64)),
    }
}

/// Seconds as "1 h 02 min", "2 min 05 s", "4.2 s", "30 ms".
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let whole = seconds.round() as u64;
    match seconds {
        ..0.9995 => format!("{:.0} ms", seconds * 1000.0),
        ..9.95 => format!("{seconds:.1} s"),
        ..59.5 => format!("{whole} s"),
        ..3599.5 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// 1 step, 1,200 steps.
pub fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
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
            (-12_345.6, "-12,346"),
            (1.0e-7, "1.00e-7"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(significant(number), text);
        }
        for (seconds, text) in [
            (-1.0, "0 ms"),
            (0.03, "30 ms"),
            (0.9996, "1.0 s"),
            (4.21, "4.2 s"),
            (59.6, "1 min 00 s"),
            (125.0, "2 min 05 s"),
            (3720.0, "1 h 02 min"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!([0, 1, 1_200].map(|number| counted(number, "step")), ["0 steps", "1 step", "1,200 steps"]);
    }
}
