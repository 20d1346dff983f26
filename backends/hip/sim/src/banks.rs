//! Bank conflicts of LDS: 32 banks of 4 bytes.
//!
//! An instruction moves 128 bytes a cycle at most: 32 lanes of 4 bytes, 16 of 8 or 8 of 12 or 16 at a time, in lane order.
//! A group of lanes takes as many cycles as the busiest bank has different addresses to give; each above the first is
//! counted.

/// How lanes lay to each other when an instruction was last executed, and what that cost.
#[derive(Clone)]
struct Pattern {
    addr: [u32; 64],
    exec: u64,
    unit: u32,
    extra: u64,
}

/// Conflicts of instructions, remembered: those of a loop mostly access the same pattern again, elsewhere.
pub(crate) struct Banks {
    last: Vec<Pattern>,
}

/// Instructions that are remembered.
const PLACES: usize = 128;

impl Banks {
    pub(crate) fn new() -> Banks {
        Banks { last: vec![Pattern { addr: [0; 64], exec: 0, unit: 0, extra: 0 }; PLACES] }
    }

    /// Extra cycles of an access of `words` dwords a lane by the lanes of `exec`. `key` tells instructions apart.
    #[inline(always)]
    pub(crate) fn conflicts(&mut self, key: u64, addr: &[u32; 64], exec: u64, words: u32) -> u64 {
        let unit = 4 * words.next_power_of_two();
        let known = &mut self.last[(key % PLACES as u64) as usize];
        // Moved by whole banks, a pattern conflicts as before.
        let by = addr[0].wrapping_sub(known.addr[0]);
        let mut off = by & (unit - 1) | unit ^ known.unit;
        for l in 0..64 {
            off |= addr[l].wrapping_sub(known.addr[l]) ^ by;
        }
        if off != 0 || exec != known.exec {
            *known = Pattern { addr: *addr, exec, unit, extra: count(addr, exec, unit) };
        }
        known.extra
    }
}

#[inline(never)]
fn count(addr: &[u32; 64], exec: u64, unit: u32) -> u64 {
    const NONE: u8 = 0xff;
    let lanes = (128 / unit) as usize;
    let shift = unit.trailing_zeros();
    let mut extra = 0;
    for first in (0..64).step_by(lanes) {
        // For each bank (of `unit` bytes) a chain of the lanes with different addresses in it.
        let mut head = [NONE; 32];
        let mut next = [NONE; 64];
        let mut count = [0u8; 32];
        let mut most = 1;
        for l in (first..first + lanes).filter(|l| exec >> l & 1 != 0) {
            let place = addr[l] >> shift;
            let bank = place as usize & (lanes - 1);
            let mut at = head[bank];
            while at != NONE && addr[at as usize & 63] >> shift != place {
                at = next[at as usize & 63];
            }
            if at == NONE {
                next[l] = head[bank];
                head[bank] = l as u8;
                count[bank] += 1;
                most = most.max(count[bank]);
            }
        }
        extra += u64::from(most - 1);
    }
    extra
}
