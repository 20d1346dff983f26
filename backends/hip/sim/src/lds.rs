//! A workgroup's LDS: bytes, which of them were written, and who touched them since the last barrier.
//!
//! **Races.** Three sets of bytes for each wave say what it read, wrote and changed atomically since the last barrier. A
//! wave that reads what another wrote, or writes what another read or wrote, is a race. Atomics of several waves on the
//! same byte are none. Waves of the emulator run one after the other, so a race found here depends on nothing but the
//! kernel and its data.
//!
//! **Bank conflicts.** 32 banks of 4 bytes. An instruction moves 128 bytes a cycle at most: 32 lanes of 4 bytes, 16 of 8
//! or 8 of 12 or 16 at a time, in lane order. A group of lanes takes as many cycles as the busiest bank has different
//! addresses to give; each above the first is counted.

use crate::cpu::{Stop, fault};
use crate::fault::{Cause, What};

/// What an access does, for race detection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Atomic,
}

/// LDS of the running workgroup.
pub(crate) struct Lds {
    data: Vec<u32>,
    /// A bit for each byte: it was written.
    init: Vec<u64>,
    /// Sets of bytes, a word for 64 of them: read, written, changed atomically; each for every wave.
    sets: [Vec<u64>; 3],
    /// The same for all waves together, which answers most questions.
    all: [Vec<u64>; 3],
    /// Words of a set.
    words: usize,
    waves: usize,
    /// Words of the sets that may not be empty.
    touched: (usize, usize),
    atomics: bool,
    pub size: u32,
}

impl Lds {
    pub(crate) fn new(size: u32, waves: usize) -> Lds {
        let words = size.div_ceil(64) as usize + 1;
        Lds {
            data: vec![0; words * 16],
            init: vec![0; words],
            sets: [(); 3].map(|()| vec![0; words * waves]),
            all: [(); 3].map(|()| vec![0; words]),
            words,
            waves,
            touched: (words, 0),
            atomics: false,
            size,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.init.fill(0);
        self.barrier();
    }

    /// Accesses before and after it don't race.
    pub(crate) fn barrier(&mut self) {
        let (first, last) = self.touched;
        if first <= last {
            self.all.iter_mut().for_each(|set| set[first..=last].fill(0));
            for w in 0..self.waves {
                let range = w * self.words + first..=w * self.words + last;
                self.sets[0][range.clone()].fill(0);
                self.sets[1][range.clone()].fill(0);
                if self.atomics {
                    self.sets[2][range].fill(0);
                }
            }
        }
        self.touched = (self.words, 0);
        self.atomics = false;
    }

    /// Checks bounds and alignment of an instruction's access by the lanes of `exec`.
    #[inline(always)]
    pub(crate) fn check(
        &self,
        addr: &[u32; 64],
        exec: u64,
        bytes: u32,
        align: u32,
        access: Access,
    ) -> Result<(), Stop> {
        let (mut top, mut low) = (0, 0);
        for l in 0..64 {
            let a = if exec >> l & 1 != 0 { addr[l] } else { 0 };
            top = top.max(a);
            low |= a;
        }
        if exec == 0 || u64::from(top) + u64::from(bytes) <= u64::from(self.size) && low & (align - 1) == 0 {
            return Ok(());
        }
        Err(self.refuse(addr, exec, bytes, align, access))
    }

    #[cold]
    fn refuse(&self, addr: &[u32; 64], exec: u64, bytes: u32, align: u32, access: Access) -> Stop {
        let outside = |a: u32| u64::from(a) + u64::from(bytes) > u64::from(self.size);
        let bad = |l: &usize| exec >> l & 1 != 0 && (outside(addr[*l]) || addr[*l] & (align - 1) != 0);
        let lane = (0..64).find(bad).unwrap_or(0);
        let address = addr[lane];
        let what = if outside(address) {
            What::LdsOutOfBounds { address: address.into(), bytes, size: self.size, write: access != Access::Read }
        } else {
            What::Misaligned { address: address.into(), bytes }
        };
        fault(Cause { lane: Some(lane as u32), what })
    }

    /// Notes an access of `bytes` ≤ 16 that don't straddle 64, unless it races.
    #[inline(always)]
    pub(crate) fn touch(&mut self, lane: usize, addr: u32, bytes: u32, wave: u32, access: Access) -> Result<(), Stop> {
        if self.waves == 1 {
            return Ok(());
        }
        let (word, mask) = (addr as usize / 64, ((1u64 << bytes) - 1) << (addr & 63));
        let of_all = |kind: usize| self.all[kind][word];
        let asked = match access {
            Access::Read => of_all(1) | of_all(2),
            Access::Write => of_all(0) | of_all(1) | of_all(2),
            Access::Atomic => of_all(0) | of_all(1),
        };
        if asked & mask != 0 {
            self.compare(lane, addr, mask, wave, access)?;
        }
        let kind = match access {
            Access::Read => 0,
            Access::Write => 1,
            Access::Atomic => 2,
        };
        self.atomics |= kind == 2;
        self.touched = (self.touched.0.min(word), self.touched.1.max(word));
        self.all[kind][word] |= mask;
        self.sets[kind][wave as usize * self.words + word] |= mask;
        Ok(())
    }

    /// Somebody touched these bytes before; was it another wave?
    fn compare(&self, lane: usize, addr: u32, mask: u64, wave: u32, access: Access) -> Result<(), Stop> {
        let (mut reads, mut writes) = (0, 0);
        for w in (0..self.waves).filter(|w| *w != wave as usize) {
            let at = w * self.words + addr as usize / 64;
            writes |= self.sets[1][at];
            if access != Access::Read {
                reads |= self.sets[0][at];
            }
            if access != Access::Atomic {
                writes |= self.sets[2][at];
            }
        }
        if (reads | writes) & mask != 0 {
            return Err(self.race(lane, addr, mask, wave, writes & mask != 0));
        }
        Ok(())
    }

    #[cold]
    fn race(&self, lane: usize, addr: u32, mask: u64, wave: u32, other_write: bool) -> Stop {
        let word = addr as usize / 64;
        let bits = |w: usize| {
            let at = w * self.words + word;
            mask & if other_write { self.sets[1][at] | self.sets[2][at] } else { self.sets[0][at] }
        };
        let other = (0..self.waves).find(|w| *w != wave as usize && bits(*w) != 0).unwrap_or(0);
        let address = word as u64 * 64 + u64::from(bits(other).trailing_zeros());
        fault(Cause { lane: Some(lane as u32), what: What::Race { address, other: other as u32, other_write } })
    }

    /// A dword at an aligned, checked address.
    #[inline(always)]
    pub(crate) fn dword(&self, addr: u32) -> u32 {
        self.data[addr as usize / 4]
    }

    /// Whether `bytes` ≤ 16 were written.
    #[inline(always)]
    pub(crate) fn known(&self, addr: u32, bytes: u32) -> bool {
        let mask = (1u64 << bytes) - 1;
        self.init[addr as usize / 64] >> (addr & 63) & mask == mask
    }

    #[inline(always)]
    pub(crate) fn mark(&mut self, addr: u32, bytes: u32) {
        self.init[addr as usize / 64] |= ((1u64 << bytes) - 1) << (addr & 63);
    }

    #[inline(always)]
    pub(crate) fn set_dword(&mut self, addr: u32, x: u32) {
        self.data[addr as usize / 4] = x;
    }

    /// One or two bytes that don't straddle a dword.
    pub(crate) fn part(&self, addr: u32, bytes: u32) -> u32 {
        self.data[addr as usize / 4] >> (8 * (addr & 3)) & ((1 << (8 * bytes)) - 1)
    }

    pub(crate) fn set_part(&mut self, addr: u32, bytes: u32, x: u32) {
        let (at, b) = (addr as usize / 4, addr & 3);
        let m = ((1u32 << (8 * bytes)) - 1) << (8 * b);
        self.data[at] = self.data[at] & !m | x << (8 * b) & m;
    }
}

/// Extra cycles of an access of `words` dwords a lane by the lanes of `exec`.
#[inline(always)]
pub(crate) fn conflicts(addr: &[u32; 64], exec: u64, words: u32) -> u64 {
    let unit = 4 * words.next_power_of_two();
    let mut off = 0;
    for l in 0..64 {
        off |= addr[l] ^ addr[0].wrapping_add(unit * l as u32);
    }
    if exec == !0 && off == 0 { 0 } else { scattered(addr, exec, unit) }
}

fn scattered(addr: &[u32; 64], exec: u64, unit: u32) -> u64 {
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
