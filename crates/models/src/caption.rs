//! Words on a picture: lines of text in a fixed-width font, on a grey ground.
//!
//! Not here: where they stand (`sheet`).

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

const WEIGHT: FontWeight = FontWeight::Regular;
const SIZE: RasterHeight = RasterHeight::Size16;
/// Height of a line in pixels.
pub(crate) const LINE: usize = 20;

/// Width of a character in pixels.
pub(crate) fn advance() -> usize {
    get_raster_width(WEIGHT, SIZE)
}

/// How dark the pixel (x, y) of a line is, 0 to 255; `x` from the start of the line, `y` from its top. Characters that the font lacks are
/// shown as question marks.
pub(crate) fn ink(text: &[char], x: usize, y: usize) -> u8 {
    let glyph = text
        .get(x / advance())
        .and_then(|letter| get_raster(*letter, WEIGHT, SIZE).or_else(|| get_raster('?', WEIGHT, SIZE)));
    let row = y.checked_sub((LINE - SIZE.val()) / 2);
    glyph.zip(row).and_then(|(glyph, row)| glyph.pixel(x % advance(), row)).unwrap_or(0)
}

/// The text in lines of at most `width` characters, broken between words where that can be.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<Vec<char>> {
    let width = width.max(1);
    let mut lines: Vec<Vec<char>> = Vec::new();
    for word in text.split_whitespace() {
        let word: Vec<char> = word.chars().collect();
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.extend(word);
            }
            _ => lines.extend(word.chunks(width).map(<[char]>::to_vec)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, width: usize) -> Vec<String> {
        wrap(text, width).into_iter().map(|line| line.into_iter().collect()).collect()
    }

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(lines("the original  above the copy", 12), ["the original", "above the", "copy"]);
        assert_eq!(lines("thickness.pt", 5), ["thick", "ness.", "pt"]);
        assert_eq!(lines("a", 0), ["a"]);
        assert!(lines("", 10).is_empty());
    }

    #[test]
    fn letters_have_ink_and_blanks_have_none() {
        let of = |letter: char| {
            let text = [letter];
            let pixels = (0..LINE).flat_map(|y| (0..advance()).map(move |x| (x, y)));
            pixels.map(|(x, y)| u64::from(ink(&text, x, y))).sum::<u64>()
        };
        assert_eq!((of(' '), ink(&[], 3, 3)), (0, 0));
        assert!(of('.') > 0 && of('M') > 3 * of('.'));
        assert_eq!(of('\u{1F600}'), of('?'), "what the font lacks");
    }
}
