//! What must hold between the parts of a header: unique names, a usable alignment, and tensors that
//! lie inside the file, apart from each other.

use super::error::{GgufError, GgufErrorKind};
use super::metadata::Metadata;
use super::tensor::TensorInfo;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT};

/// The largest alignment believed. Real files use 32; more than a large page is damage.
const MAX_ALIGNMENT: u64 = 1 << 21;

/// The numbers of `items` in the order of their names, or an item whose name stands twice.
///
/// Sorting needs no copy of the names and no hash table that a hostile file could overfill.
pub(super) fn sorted_unique<T>(items: &[T], name: fn(&T) -> &String) -> Result<Vec<usize>, &T> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_unstable_by(|&a, &b| name(&items[a]).cmp(name(&items[b])));
    match order.windows(2).find(|w| name(&items[w[0]]) == name(&items[w[1]])) {
        Some(twice) => Err(&items[twice[0]]),
        None => Ok(order),
    }
}

/// The alignment of the data section.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let Some(value) = metadata.u64(ALIGNMENT_KEY)? else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    // The format asks for a multiple of 8, which also makes every plain type readable in place.
    if value.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&value) {
        Ok(value)
    } else {
        Err(GgufErrorKind::Alignment { value, most: MAX_ALIGNMENT }.into())
    }
}

/// Turns offsets into the data section into offsets into the file, each inside it and aligned.
pub(super) fn place(
    tensors: &mut [TensorInfo],
    data_offset: u64,
    alignment: u64,
    file_len: u64,
) -> Result<(), GgufError> {
    for t in tensors.iter_mut() {
        let relative = t.offset;
        if !relative.is_multiple_of(alignment) {
            let tensor = t.name.clone();
            return Err(GgufErrorKind::TensorMisaligned { tensor, relative, alignment }.into());
        }
        let start = data_offset.checked_add(relative);
        match start.and_then(|s| s.checked_add(t.bytes)) {
            Some(end) if end <= file_len => t.offset = data_offset + relative,
            _ => {
                return Err(GgufErrorKind::TensorPastEnd {
                    tensor: t.name.clone(),
                    bytes: t.bytes,
                    relative,
                    data_offset,
                    file_len,
                }
                .into());
            }
        }
    }
    apart(tensors)
}

/// That no two tensors, already placed, share a byte.
fn apart(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_unstable_by_key(|&i| tensors[i].offset);
    for pair in order.windows(2) {
        let (first, second) = (&tensors[pair[0]], &tensors[pair[1]]);
        if first.offset + first.bytes > second.offset {
            return Err(GgufErrorKind::TensorOverlap {
                first: first.name.clone(),
                second: second.name.clone(),
                offset: second.offset,
            }
            .into());
        }
    }
    Ok(())
}

/// Between the header and the data lie zeros. Anything else is a rest of the header that its counts left out, and the
/// data would be read from the wrong place.
pub(super) fn padding(bytes: &[u8], from: u64, to: u64) -> Result<(), GgufError> {
    let end = to.min(bytes.len() as u64) as usize;
    match bytes.get(from as usize..end).and_then(|gap| gap.iter().position(|&b| b != 0)) {
        Some(at) => Err(GgufErrorKind::Padding { offset: from + at as u64 }.into()),
        None => Ok(()),
    }
}
