//! Packed codes: the two interleavings that the formats build on, each with its inverse.

/// Two 4-bit codes a byte: the low nibbles are the first half of `codes`, the high nibbles the second.
pub(super) fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((&byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// The inverse of [`nibbles`]; higher bits of a code are dropped.
pub(super) fn put_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(bytes.len());
    for ((byte, &low), &high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = (low & 15) | (high << 4);
    }
}

/// Adds bit planes to codes: byte `j` of `bytes` holds `bits` bits of each of the codes `j`, `j + n`, `j + 2n` …
/// (`n` bytes), lowest bits first. They are moved up by `shift` and joined to what the code holds already.
pub(super) fn planes(bytes: &[u8], bits: usize, shift: usize, codes: &mut [u8]) {
    let mask = (1u8 << bits) - 1;
    for (k, plane) in codes.chunks_exact_mut(bytes.len()).enumerate() {
        for (code, &byte) in plane.iter_mut().zip(bytes) {
            *code |= ((byte >> (k * bits)) & mask) << shift;
        }
    }
}

/// The inverse of [`planes`]; the bytes are overwritten.
pub(super) fn put_planes(codes: &[u8], bits: usize, shift: usize, bytes: &mut [u8]) {
    let mask = (1u8 << bits) - 1;
    bytes.fill(0);
    for (k, plane) in codes.chunks_exact(bytes.len()).enumerate() {
        for (&code, byte) in plane.iter().zip(bytes.iter_mut()) {
            *byte |= ((code >> shift) & mask) << (k * bits);
        }
    }
}
