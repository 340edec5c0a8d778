//! A reason that somebody gives, as it is kept and shown.

/// The longest reason that somebody may give, in characters.
const REASON: usize = 256;

/// A reason as it is kept and shown: one line, nothing that moves a terminal's cursor, not too long.
pub(super) fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(REASON) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line_without_control_characters() {
        assert_eq!(one_line(" the\tfan\r\n is \u{1b}[31mloud\u{7f} "), "the fan is [31mloud");
        assert_eq!(one_line("\n"), "");
        let long = one_line(&"é".repeat(1_000));
        assert_eq!(long.chars().count(), REASON + 1);
        assert!(long.ends_with("é…"));
    }
}
