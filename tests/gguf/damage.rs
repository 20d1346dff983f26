//! Damage without a plan: every truncation, and ten thousand seeded mutations.
//!
//! Whatever the bytes, the parser returns, asks for no more memory than a small multiple of them, and
//! calls a header good only if every tensor of it lies in the file.

use std::panic::{AssertUnwindSafe, catch_unwind};

use greta_models::gguf::{Header, parse_header};
use libtest_mimic::Failed;

use super::{report, sample, variant};
use crate::alloc;

/// Bytes that one request may take, for each byte of the header.
///
/// The worst is a list of metadata entries: 56 bytes in memory, and 13 at least in the file.
const LARGEST: usize = 6;

/// Bytes that all requests together may take, for each byte of the header.
const TOTAL: usize = 16;

/// What any parse may take besides: an error's message and its place.
const SLACK: usize = 4096;

/// Parses, and says what no input may bring about.
fn fault(bytes: &[u8], file_len: u64) -> Option<String> {
    let parse = || catch_unwind(AssertUnwindSafe(|| parse_header(bytes, file_len)));
    let (result, asked) = alloc::measured(parse);
    if asked.largest > LARGEST * bytes.len() + SLACK || asked.total > TOTAL * bytes.len() + SLACK {
        return Some(format!("{asked:?} for {} bytes", bytes.len()));
    }
    match result {
        Err(_) => Some("panic".to_owned()),
        Ok(Err(_)) => None,
        Ok(Ok(header)) => unsound(&header, file_len),
    }
}

/// What a header that was called good must not say.
fn unsound(header: &Header, file_len: u64) -> Option<String> {
    let mut tensors: Vec<_> = header.tensors().iter().collect();
    tensors.sort_by_key(|t| t.offset);
    let mut free = header.data_offset();
    for t in tensors {
        if t.offset < free || t.bytes == 0 || t.offset % header.alignment() != 0 {
            return Some(format!("{t:?} is misplaced; free from {free}"));
        }
        if t.rows().checked_mul(t.cols()).is_none() || header.tensor(&t.name) != Some(t) {
            return Some(format!("{t:?} has no size or no name"));
        }
        free = t.offset.checked_add(t.bytes)?;
        if free > file_len {
            return Some(format!("{t:?} ends after {file_len} bytes"));
        }
    }
    let mut entries = header.metadata().iter();
    let lost = entries.find(|(key, _)| header.metadata().get(key).is_none());
    lost.map(|(key, _)| format!("{key:?} is lost"))
}

pub fn truncated() -> Result<(), Failed> {
    let (file, data_offset) = sample()?;
    let header = parse_header(&file, file.len() as u64)?;
    let ends = header.tensors().iter().map(|t| t.offset + t.bytes);
    let needed = ends.max().ok_or("the sample has no tensors")?;
    let mut wrong = Vec::new();
    for len in 0..file.len() {
        wrong.extend(fault(&file[..len], len as u64).map(|f| format!("{len} bytes: {f}")));
        let found = parse_header(&file[..len], len as u64).map_err(|e| variant(e.kind()));
        let expected: &[&str] = match len {
            0 => &["Empty"],
            _ if len < data_offset => &["Truncated", "Count", "TensorPastEnd"],
            _ => &["TensorPastEnd"],
        };
        match found {
            Err(v) if expected.contains(&v.as_str()) => {}
            Ok(_) if len as u64 >= needed => {}
            other => wrong.push(format!("{len} of {} bytes: {:?}", file.len(), other.err())),
        }
    }
    report(wrong)
}

pub fn damaged() -> Result<(), Failed> {
    let (file, data_offset) = sample()?;
    let good = &file[..data_offset];
    // Wherever a small number stands in eight bytes: the lengths and the counts, and a little else.
    let small = |at: &usize| (1..4096).contains(&word(good, *at));
    let lengths: Vec<usize> = (8..good.len() - 8).filter(small).collect();
    let mut wrong = Vec::new();
    let mut refused = 0;
    for seed in 0..10_000 {
        let mut rng = Rng(seed);
        let mut bytes = good.to_vec();
        for _ in 0..=rng.below(3) {
            mutate(&mut bytes, &lengths, &mut rng);
        }
        let lens = [file.len() as u64, bytes.len() as u64, u64::MAX, 0];
        let file_len = lens[rng.below(8).saturating_sub(4)];
        wrong.extend(fault(&bytes, file_len).map(|f| format!("seed {seed}: {f}")));
        refused += usize::from(parse_header(&bytes, file_len).is_err());
    }
    // Much less, and the mutations would not be damage; all, and no good path would be walked.
    if !(5_000..10_000).contains(&refused) {
        wrong.push(format!("{refused} of 10000 were refused"));
    }
    report(wrong)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

/// One damage of a random kind.
fn mutate(bytes: &mut Vec<u8>, lengths: &[usize], rng: &mut Rng) {
    if bytes.len() < 16 {
        return;
    }
    match rng.below(6) {
        0 => {
            for _ in 0..=rng.below(8) {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }
        }
        1 => {
            let at = rng.below(bytes.len());
            bytes[at] = rng.next() as u8;
        }
        2 => {
            // A piece put in a second time, elsewhere.
            let from = rng.below(bytes.len());
            let piece = bytes[from..bytes.len().min(from + 1 + rng.below(64))].to_vec();
            let at = rng.below(bytes.len());
            bytes.splice(at..at, piece);
        }
        3 => {
            let from = rng.below(bytes.len());
            let to = bytes.len().min(from + 1 + rng.below(64));
            bytes.drain(from..to);
        }
        4 => bytes.truncate(rng.below(bytes.len())),
        _ => {
            let at = lengths[rng.below(lengths.len())].min(bytes.len() - 8);
            let near = word(bytes, at).wrapping_add(rng.below(5) as u64).wrapping_sub(2);
            let huge = [1 << 60, 1 << 61, 1 << 63, u64::MAX, 1 << 32, near, near];
            bytes[at..at + 8].copy_from_slice(&huge[rng.below(huge.len())].to_le_bytes());
        }
    }
}

/// SplitMix64: any seed is a good one.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is small enough for the remainder to be fair.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
