//! The byte-level alphabet of GPT-2: one printable character for each of the 256 bytes.
//!
//! Printable Latin-1 characters stand for themselves; the 68 others (controls, space, 0x7F–0xA0, soft hyphen) are
//! moved, in order, to U+0100 and up. Source: Radford et al., "Language Models are Unsupervised Multitask Learners"
//! (2019), whose published vocabulary is written in it.

/// Where the bytes that are not printable start.
const MOVED: u32 = 0x100;

/// Whether a byte stands for itself.
const fn printable(b: u8) -> bool {
    matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// `TO_CHAR[b]` is the code point of byte `b`.
const TO_CHAR: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut moved = MOVED;
    let mut b = 0;
    while b < 256 {
        table[b] = if printable(b as u8) {
            b as u32
        } else {
            moved += 1;
            moved - 1
        };
        b += 1;
    }
    table
};

/// `TO_BYTE[c]` is the byte of code point `c`, or -1 where `c` is not in the alphabet.
const TO_BYTE: [i16; 0x144] = {
    let mut table = [-1i16; 0x144];
    let mut b = 0;
    while b < 256 {
        table[TO_CHAR[b] as usize] = b as i16;
        b += 1;
    }
    table
};

/// Appends `text`, byte by byte, written in the alphabet.
pub(super) fn push_encoded(text: &str, out: &mut String) {
    out.extend(text.bytes().filter_map(|b| char::from_u32(TO_CHAR[usize::from(b)])));
}

/// The bytes that a token's text stands for. A character outside the alphabet keeps its own UTF-8 bytes: a file whose
/// added tokens were marked as normal still prints readably.
pub(super) fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match TO_BYTE.get(c as usize).copied().map(u8::try_from) {
            Some(Ok(byte)) => out.push(byte),
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}
