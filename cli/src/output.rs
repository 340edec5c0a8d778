//! Data on stdout, in the form asked for.

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use crate::error::Error;

/// The form of what is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide screens.
    Wide,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// `-o`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct OutputOption {
    /// The form of what is printed
    #[arg(short = 'o', long = "output", value_enum, default_value_t, env = "LETHE_OUTPUT")]
    pub(crate) format: Format,
}

/// Prints `value` as data, or the text that `table` makes of it (given whether it may be wide).
/// A reader that has gone is no error: it has seen enough.
pub(crate) fn print<T: Serialize>(
    value: &T,
    format: Format,
    table: impl FnOnce(bool) -> String,
) -> Result<(), Error> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?,
        Format::Yaml => serde_saphyr::to_string(value).map_err(anyhow::Error::from)?,
        Format::Table | Format::Wide => table(format == Format::Wide),
    };
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to", Path::new("standard output"), error))
        }
        _ => Ok(()),
    }
}

/// Text for people, beside the data.
pub(crate) fn remark(text: &str) {
    lethe_process::say(text);
}

/// Rows under a head, columns as wide as their widest entry, two spaces between.
pub(crate) fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let lines: Vec<Vec<String>> = std::iter::once(head.iter().map(|text| (*text).to_owned()).collect())
        .chain(rows.iter().cloned())
        .collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let text = |line: &Vec<String>| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "ready".to_owned()], vec!["long-name".to_owned(), "x".to_owned()]];
        assert_eq!(columns(&["NAME", "STATE"], &rows), "NAME       STATE\na          ready\nlong-name  x");
    }
}
