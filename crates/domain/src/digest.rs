//! A SHA-256 as bytes and as text, where many of them are to take little room.
//!
//! Not here: computing one (crate `artifacts`).

/// The 32 bytes of a digest in lower-case hexadecimal; none for any other text.
pub fn sha256_bytes(text: &str) -> Option<[u8; 32]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (pair, byte) in text.as_bytes().chunks_exact(2).zip(&mut bytes) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A digest in lower-case hexadecimal.
pub fn sha256_text(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_one_to_one() {
        let text = "00ff1a".repeat(10) + "beef";
        assert_eq!(sha256_text(&sha256_bytes(&text).unwrap()), text);
        for bad in ["", "00", &text.to_uppercase(), &text[1..], &text.replace("beef", "beeg")] {
            assert_eq!(sha256_bytes(bad), None, "{bad}");
        }
    }
}
