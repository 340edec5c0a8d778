//! The contact sheet: what the original shows above what the copy shows, at the same latents, and in words what that is.

use std::io;

use tch::{Device, Kind, Tensor};

use crate::caption::{LINE, advance, ink, wrap};
use crate::error::{Error, Result};

/// Tiny images are scaled up to about this many pixels.
const TILE: usize = 84;
/// Between the two images of a pair; between pairs and around all.
const SEAM: usize = 2;
const GAP: usize = 10;
const PAPER: u8 = 0xf4;
const INK: u8 = 0x20;

/// What stands on a sheet besides images.
#[derive(Debug, Clone, Copy)]
pub struct Caption<'a> {
    /// Above all images, a paragraph each.
    pub lines: &'a [String],
    /// Left of the upper and of the lower image of each pair.
    pub rows: [&'a str; 2],
}

/// Which latents to show: those whose image shows the feature first, at most three quarters of the `places` unless there is nothing
/// else to show, then others, each group in the order of the index.
pub fn choose(positive: &[bool], places: usize) -> Vec<usize> {
    let of = |wanted: bool| (0..positive.len()).filter(move |place| positive[*place] == wanted);
    let (shown, others) = (of(true).count(), of(false).count());
    let first = shown.min((places * 3).div_ceil(4).max(places.saturating_sub(others)));
    of(true).take(first).chain(of(false).take(places.saturating_sub(first))).collect()
}

/// A PNG of pairs, `columns` to a row, of images [N, C, H, W] in [0, 1] with one or three channels.
///
/// # Errors
/// [`Error::Mismatch`] for other channels or for unequal shapes, [`Error::Memory`].
pub fn contact_sheet(
    before: &Tensor,
    after: &Tensor,
    columns: usize,
    caption: Caption<'_>,
) -> Result<Vec<u8>> {
    let size = before.size();
    let mismatch = |reason: String| Error::Mismatch { model: "contact sheet".to_owned(), reason };
    let &[count, channels @ (1 | 3), height, width] = size.as_slice() else {
        return Err(mismatch(format!("images of shape {size:?}, expected [N, 1 or 3, H, W]")));
    };
    if after.size() != size || count == 0 {
        return Err(mismatch(format!("images of shapes {size:?} and {:?}", after.size())));
    }
    let layout = Layout::new([count, channels, height, width].map(|n| n as usize), columns, caption);
    let mut pixels = vec![PAPER; layout.width * layout.height * layout.channels];
    for (row, images) in [before, after].into_iter().enumerate() {
        let bytes = bytes(images)?;
        for (pair, image) in bytes.chunks_exact(layout.tile[0] * layout.tile[1] * layout.channels).enumerate()
        {
            layout.paint(&mut pixels, image, pair, row);
        }
    }
    layout.label(&mut pixels, caption.rows);
    encode(&layout, &pixels).map_err(|error| Error::Torch { reason: format!("cannot encode a PNG: {error}") })
}

/// Sizes in pixels.
#[derive(Debug)]
struct Layout {
    columns: usize,
    channels: usize,
    /// Height and width of an image before scaling.
    tile: [usize; 2],
    scale: usize,
    /// Rows of pairs.
    rows: usize,
    /// Lines of the caption.
    lines: Vec<Vec<char>>,
    /// Where the images begin, from the left and from the top.
    origin: [usize; 2],
    width: usize,
    height: usize,
}

impl Layout {
    fn new([count, channels, height, width]: [usize; 4], columns: usize, caption: Caption<'_>) -> Self {
        let columns = columns.clamp(1, count);
        let scale = (TILE / height.max(width)).max(1);
        let rows = count.div_ceil(columns);
        let longest = caption.rows.iter().map(|row| row.chars().count()).max().unwrap_or(0);
        let left = GAP + longest * advance() + if longest > 0 { GAP } else { 0 };
        let whole = left + columns * (width * scale + GAP);
        let room = (whole - 2 * GAP) / advance();
        let lines: Vec<Vec<char>> = caption.lines.iter().flat_map(|text| wrap(text, room)).collect();
        let top = GAP + lines.len() * LINE + if lines.is_empty() { 0 } else { GAP };
        Self {
            columns,
            channels,
            tile: [height, width],
            scale,
            rows,
            lines,
            origin: [left, top],
            width: whole,
            height: top + rows * (2 * height * scale + SEAM + GAP),
        }
    }

    /// Where the upper (0) or lower (1) image of a pair begins, from the left and from the top.
    fn place(&self, pair: usize, row: usize) -> [usize; 2] {
        let ([left, top], [height, width]) = (self.origin, self.tile.map(|side| side * self.scale));
        let (column, line) = (pair % self.columns, pair / self.columns);
        [left + column * (width + GAP), top + line * (2 * height + SEAM + GAP) + row * (height + SEAM)]
    }

    /// Writes the caption above the images, and the names of the rows beside them.
    fn label(&self, pixels: &mut [u8], rows: [&str; 2]) {
        for (line, text) in self.lines.iter().enumerate() {
            self.write(pixels, text, [GAP, GAP + line * LINE]);
        }
        let middle = (self.tile[0] * self.scale).saturating_sub(LINE) / 2;
        for line in 0..self.rows {
            for (row, name) in rows.iter().enumerate() {
                let [_, top] = self.place(line * self.columns, row);
                self.write(pixels, &name.chars().collect::<Vec<_>>(), [GAP, top + middle]);
            }
        }
    }

    /// Writes a line of text; what lies beyond the sheet is left out.
    fn write(&self, pixels: &mut [u8], text: &[char], [left, top]: [usize; 2]) {
        let (across, down) = (text.len() * advance(), LINE);
        for y in top..(top + down).min(self.height) {
            for x in left..(left + across).min(self.width) {
                let dark = u32::from(ink(text, x - left, y - top));
                let shade = (u32::from(PAPER) * (255 - dark) + u32::from(INK) * dark) / 255;
                let at = (y * self.width + x) * self.channels;
                // Between two shades of one byte each.
                pixels[at..at + self.channels].fill(shade as u8);
            }
        }
    }

    /// Paints the upper (0) or lower (1) image of a pair, its pixels row after row.
    fn paint(&self, pixels: &mut [u8], image: &[u8], pair: usize, row: usize) {
        let [height, width] = self.tile.map(|side| side * self.scale);
        let [left, top] = self.place(pair, row);
        for y in 0..height {
            for x in 0..width {
                let from = (y / self.scale * self.tile[1] + x / self.scale) * self.channels;
                let to = ((top + y) * self.width + left + x) * self.channels;
                pixels[to..to + self.channels].copy_from_slice(&image[from..from + self.channels]);
            }
        }
    }
}

/// [N, C, H, W] in [0, 1] to bytes in the order N, H, W, C.
fn bytes(images: &Tensor) -> Result<Vec<u8>> {
    let mut scaled = images.f_detach()?.f_to_device(Device::Cpu)?.f_mul_scalar(255.0)?.f_round()?;
    let bytes = scaled.f_clamp_(0.0, 255.0)?.f_permute([0, 2, 3, 1])?.f_to_kind(Kind::Uint8)?;
    Ok(Vec::try_from(bytes.f_contiguous()?.f_view([-1])?)?)
}

fn encode(layout: &Layout, pixels: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, layout.width as u32, layout.height as u32);
    encoder.set_color(if layout.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}
