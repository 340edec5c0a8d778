//! A file of labels made elsewhere: CSV rows `index,label`, one for each sample.

use crate::error::{Error, Result};

/// Reads labels of the samples 0 .. total, in any order, label 0 or 1. A first row of names is allowed, empty lines are.
///
/// # Errors
/// [`Error::Labels`] with the line: a malformed row, an index twice or out of range, or (at the last line) a missing one.
pub fn parse_labels(text: &str, file: &str, total: u64) -> Result<Vec<bool>> {
    let refuse =
        |line: usize, reason: String| Error::Labels { file: file.to_owned(), line: line + 1, reason };
    let mut labels: Vec<Option<bool>> = vec![None; total as usize];
    let mut lines = 0;
    for (line, row) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        lines = line;
        let row = row.trim();
        if row.is_empty() || (line == 0 && row.replace(' ', "").eq_ignore_ascii_case("index,label")) {
            continue;
        }
        let found = || format!("found '{}', expected index,label with label 0 or 1", shorten(row));
        let (index, label) = row.split_once(',').ok_or_else(|| refuse(line, found()))?;
        let index: u64 = index.trim().parse().map_err(|_| refuse(line, found()))?;
        let label = match label.trim() {
            "0" => false,
            "1" => true,
            _ => return Err(refuse(line, found())),
        };
        let place = labels.get_mut(index as usize).ok_or_else(|| {
            refuse(line, format!("found index {index}, expected 0 to {}", total.saturating_sub(1)))
        })?;
        if place.replace(label).is_some() {
            return Err(refuse(line, format!("index {index} appears a second time")));
        }
    }
    let missing = labels.iter().filter(|label| label.is_none()).count();
    labels.iter().position(Option::is_none).map_or(Ok(()), |first| {
        let reason = format!("{missing} of {total} samples have no label, the first is {first}");
        Err(refuse(lines, reason))
    })?;
    Ok(labels.into_iter().flatten().collect())
}

fn shorten(row: &str) -> String {
    row.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_any_order_with_or_without_a_header() {
        let expected = [true, false, true];
        for text in [
            "index,label\n2,1\n0,1\n\n1,0\n",
            "0,1\n1,0\n2,1",
            "\u{feff}Index, Label\r\n0, 1\r\n1,0\r\n2,1\r\n",
        ] {
            assert_eq!(parse_labels(text, "labels.csv", 3).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn faults_name_the_line() {
        for (text, message) in [
            ("0,1\n1\n", "labels.csv, line 2: found '1', expected index,label with label 0 or 1"),
            ("0,1\n1,yes\n", "labels.csv, line 2: found '1,yes', expected index,label with label 0 or 1"),
            ("0,1\n-1,1\n", "labels.csv, line 2: found '-1,1', expected index,label with label 0 or 1"),
            ("0,1\n3,1\n", "labels.csv, line 2: found index 3, expected 0 to 2"),
            ("0,1\n1,1\n0,0\n", "labels.csv, line 3: index 0 appears a second time"),
            ("index,label\n0,1\n", "labels.csv, line 2: 2 of 3 samples have no label, the first is 1"),
            ("", "labels.csv, line 1: 3 of 3 samples have no label, the first is 0"),
        ] {
            assert_eq!(parse_labels(text, "labels.csv", 3).unwrap_err().to_string(), message);
        }
    }
}
