//! The contact sheet, read back from its PNG.

use lethe_models::{Caption, Error, Reference, Tensors, choose, contact_sheet};
use tch::{Device, Kind, Tensor};

use crate::fixture::distance;

/// No words.
const BARE: Caption<'static> = Caption { lines: &[], rows: ["", ""] };

/// Width, height, channels and pixels.
fn decode(png: &[u8]) -> (usize, usize, usize, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info.width as usize, info.height as usize, info.color_type.samples(), pixels)
}

#[test]
fn before_stands_above_after_and_pixels_are_exact() {
    // Pair n is n/7 before and 1 - n/7 after.
    let shades = Tensor::arange(5, (Kind::Float, Device::Cpu)).view([5, 1, 1, 1]) / 7.0;
    for channels in [1, 3] {
        let before = shades.expand([5, channels, 14, 28], false);
        let png = contact_sheet(&before, &(1.0 - &before), 3, BARE).unwrap();
        let (width, height, samples, pixels) = decode(&png);
        assert_eq!(samples, channels as usize);
        // Scaled by 3: images of 84 x 42, three columns and two rows of pairs.
        assert_eq!((width, height), (10 + 3 * (84 + 10), 10 + 2 * (2 * 42 + 2 + 10)));
        let at = |x: usize, y: usize| pixels[(y * width + x) * samples];
        for pair in 0..5 {
            let (left, top) = (10 + pair % 3 * 94, 10 + pair / 3 * 96);
            let shade = (255.0 * pair as f64 / 7.0).round() as u8;
            for (x, y) in [(0, 0), (83, 41)] {
                assert_eq!(at(left + x, top + y), shade);
                assert_eq!(at(left + x, top + 44 + y), (255.0 * (1.0 - pair as f64 / 7.0)).round() as u8);
            }
            assert_eq!(at(left, top + 42), 0xf4, "the seam");
        }
        assert_eq!(at(10 + 2 * 94 + 40, 10 + 96 + 20), 0xf4, "no sixth pair");
    }
}

/// Words stand above the images and left of them, and move them by what they need.
#[test]
fn a_caption_makes_room_for_itself() {
    let images = Tensor::full([4, 1, 84, 84], 0.5, (Kind::Float, Device::Cpu));
    let bare = decode(&contact_sheet(&images, &images, 2, BARE).unwrap());
    let lines = ["feature 'thick': 10.1 % before, 0.5 % after".to_owned(), "judge: thickness.pt".to_owned()];
    let caption = Caption { lines: &lines, rows: ["before", "after"] };
    let (width, height, _, pixels) = decode(&contact_sheet(&images, &images, 2, caption).unwrap());
    let grey = |pixels: &[u8]| pixels.iter().filter(|pixel| **pixel == 128).count();
    assert!(width > bare.0 && height > bare.1, "{width} {height}");
    assert!(grey(&pixels) >= grey(&bare.3) && grey(&bare.3) == 8 * 84 * 84, "every image is whole");
    let dark = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
        let found = rows.flat_map(|y| columns.clone().map(move |x| (x, y)));
        found.filter(|(x, y)| pixels[y * width + x] < 80).count()
    };
    let top = height - bare.1;
    assert!(dark(10..top, 0..width) > 200, "the caption");
    assert!(dark(top..height, 0..width - bare.0) > 50, "the rows' names");
    assert_eq!(dark(top..height, width - bare.0..width), 0, "nothing is written over an image");
}

#[test]
fn colours_keep_their_order() {
    let red = Tensor::from_slice(&[1.0_f32, 0.5, 0.0]).view([1, 3, 1, 1]).expand([1, 3, 90, 90], false);
    let (width, _, _, pixels) = decode(&contact_sheet(&red, &red, 8, BARE).unwrap());
    let at = (10 * width + 10) * 3;
    assert_eq!(pixels[at..at + 3], [255, 128, 0]);
}

#[test]
fn feature_bearing_ones_come_first_and_leave_room_for_others() {
    let positive = [false, true, false, true, true, false, true, true];
    assert_eq!(choose(&positive, 4), [1, 3, 4, 0]);
    assert_eq!(choose(&positive, 100), [1, 3, 4, 6, 7, 0, 2, 5]);
    assert_eq!(choose(&[true; 9], 4), [0, 1, 2, 3]);
    assert_eq!(choose(&[false; 9], 4), [0, 1, 2, 3]);
    assert_eq!(choose(&[false, true, false], 3), [1, 0, 2]);
    assert!(choose(&[], 4).is_empty());
}

#[test]
fn other_shapes_are_refused() {
    let images = |shape: [i64; 4]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    for (before, after) in
        [([2, 2, 4, 4], [2, 2, 4, 4]), ([2, 1, 4, 4], [3, 1, 4, 4]), ([0, 1, 4, 4], [0, 1, 4, 4])]
    {
        assert!(matches!(
            contact_sheet(&images(before), &images(after), 3, BARE),
            Err(Error::Mismatch { .. })
        ));
    }
}

fn reference(images: &Tensor) -> lethe_models::Result<Reference> {
    let mut file = Tensors::new("r");
    file.insert("images", images);
    Reference::from_bytes(&file.to_bytes().unwrap(), "reference.safetensors", [1, 3, 4])
}

#[test]
fn reference_images_come_in_zero_to_one() {
    let bytes = Tensor::arange(60, (Kind::Int64, Device::Cpu)).view([5, 1, 3, 4]).to_kind(Kind::Uint8) * 4;
    let floats = bytes.to_kind(Kind::Float) / 255.0;
    for images in [&bytes, &floats] {
        let reference = reference(images).unwrap();
        assert_eq!(reference.len(), 5);
        assert!(distance(&reference.batch(1, 3, Device::Cpu).unwrap(), &floats.narrow(0, 1, 3)) < 1e-7);
        assert_eq!(reference.batch(4, 3, Device::Cpu).unwrap().size(), [1, 1, 3, 4]);
        assert_eq!(reference.batch(9, 3, Device::Cpu).unwrap().size(), [0, 1, 3, 4]);
    }
}

#[test]
fn reference_files_that_do_not_fit_are_refused() {
    let floats = |shape: [i64; 4]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    for (images, part) in [
        (floats([5, 1, 4, 3]), "[5, 1, 4, 3], expected [N, 1, 3, 4]"),
        (floats([1, 1, 3, 4]), "N at least 2"),
        (floats([2, 1, 3, 4]) + 1.5, "pixels from 1.500 to 1.500"),
        (floats([2, 1, 3, 4]).to_kind(Kind::Double), "holds pixels of the dtype float64"),
        (floats([2, 1, 3, 4]) + f64::NAN, "NaN"),
    ] {
        let error = reference(&images).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = Reference::from_bytes(&Tensors::new("r").to_bytes().unwrap(), "r", [1, 3, 4]).unwrap_err();
    assert!(error.to_string().contains("images is missing"), "{error}");
}
