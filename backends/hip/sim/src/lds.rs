//! A workgroup's LDS: bytes, which of them were written, and who touched them since the last barrier.
//!
//! **Races.** For each dword one word says for each of its four bytes which wave wrote it and which read it since the
//! last barrier. A wave that reads what another wrote, or writes what another read or wrote, is a race. Atomics of
//! several waves on the same byte are none. Waves of the emulator run one after the other, so a race found here depends
//! on nothing but the kernel and its data.
//!
//! **Bank conflicts.** 32 banks of 4 bytes. An instruction moves 128 bytes a cycle at most: 32 lanes of 4 bytes, 16 of 8
//! or 8 of 16 at a time, in lane order. A group of lanes takes as many cycles as the busiest bank has different dwords
//! to give; each above the first is counted.

use crate::cpu::{Stop, fault};
use crate::fault::{Cause, What};

/// What an access does, for race detection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Atomic,
}

const MANY: u64 = 63;
const ATOMIC: u64 = 32;
/// A 6-bit code for each of four bytes.
const ONES: u64 = 0o01_01_01_01;
const FIELDS: u64 = (1 << 24) - 1;

/// LDS of the running workgroup.
pub(crate) struct Lds {
    data: Vec<u32>,
    init: Vec<u8>,
    /// epoch << 48 | readers << 24 | writers.
    state: Vec<u64>,
    epoch: u64,
    pub size: u32,
    /// One wave cannot race with itself.
    pub track: bool,
}

impl Lds {
    pub(crate) fn new(size: u32) -> Lds {
        let words = size.div_ceil(4) as usize;
        Lds { data: vec![0; words], init: vec![0; words], state: vec![0; words], epoch: 1, size, track: true }
    }

    pub(crate) fn reset(&mut self) {
        self.init.fill(0);
        self.barrier();
    }

    /// Accesses before and after it don't race.
    pub(crate) fn barrier(&mut self) {
        self.epoch += 1;
        if self.epoch >> 16 != 0 {
            self.state.fill(0);
            self.epoch = 1;
        }
    }

    /// Checks an access of `bytes` at `addr`: bounds, alignment (to `align`), races.
    #[inline(always)]
    pub(crate) fn check(
        &mut self,
        lane: usize,
        addr: u32,
        bytes: u32,
        align: u32,
        wave: u32,
        access: Access,
    ) -> Result<(), Stop> {
        let stop = |what| fault(Cause { lane: Some(lane as u32), what });
        if u64::from(addr) + u64::from(bytes) > u64::from(self.size) {
            let write = access != Access::Read;
            return Err(stop(What::LdsOutOfBounds { address: addr.into(), bytes, size: self.size, write }));
        }
        if addr & (align - 1) != 0 {
            return Err(stop(What::Misaligned { address: addr.into(), bytes }));
        }
        if self.track {
            if bytes >= 4 {
                for word in 0..bytes / 4 {
                    self.touch(lane, addr / 4 + word, 0xf, wave, access)?;
                }
            } else {
                self.touch(lane, addr / 4, ((1 << bytes) - 1) << (addr & 3), wave, access)?;
            }
        }
        Ok(())
    }

    /// Notes an access of the bytes in `mask` of a dword.
    #[inline(always)]
    fn touch(&mut self, lane: usize, word: u32, mask: u32, wave: u32, access: Access) -> Result<(), Stop> {
        let state = self.state[word as usize];
        let (mut readers, mut writers) =
            if state >> 48 == self.epoch { (state >> 24 & FIELDS, state & FIELDS) } else { (0, 0) };
        let own = u64::from(wave + 1);
        let all = own * ONES;
        if mask == 0xf && access == Access::Read && (writers == 0 || writers == all) && (readers == 0 || readers == all)
        {
            readers = all;
        } else if mask == 0xf
            && access == Access::Write
            && (writers == 0 || writers == all)
            && (readers == 0 || readers == all)
        {
            writers = all;
        } else {
            for b in (0..4).filter(|b| mask >> b & 1 != 0) {
                let (r, w) = (readers >> (6 * b) & 63, writers >> (6 * b) & 63);
                let race = |code: u64, other_write| {
                    let other = if code == MANY { "other".into() } else { ((code & 31) - 1).to_string() };
                    let address = u64::from(word) * 4 + b;
                    Err(fault(Cause { lane: Some(lane as u32), what: What::Race { address, other, other_write } }))
                };
                let mine = |code: u64| code == 0 || code == own || code == own | ATOMIC;
                let (mut nr, mut nw) = (r, w);
                match access {
                    Access::Read if !mine(w) => return race(w, true),
                    Access::Read => nr = if mine(r) { own } else { MANY },
                    Access::Write if !mine(w) => return race(w, true),
                    Access::Write if !mine(r) => return race(r, false),
                    Access::Write => nw = own,
                    Access::Atomic if !mine(w) && w & ATOMIC == 0 => return race(w, true),
                    Access::Atomic if !mine(r) => return race(r, false),
                    Access::Atomic => {
                        nw = match w {
                            0 => own | ATOMIC,
                            w if mine(w) => w,
                            _ => MANY,
                        }
                    }
                }
                readers = readers & !(63 << (6 * b)) | nr << (6 * b);
                writers = writers & !(63 << (6 * b)) | nw << (6 * b);
            }
        }
        self.state[word as usize] = self.epoch << 48 | readers << 24 | writers;
        Ok(())
    }

    /// A dword at an aligned, checked address, and whether all of it was written.
    #[inline(always)]
    pub(crate) fn dword(&self, addr: u32) -> (u32, bool) {
        let at = addr as usize / 4;
        (self.data[at], self.init[at] == 0xf)
    }

    #[inline(always)]
    pub(crate) fn set_dword(&mut self, addr: u32, x: u32) {
        let at = addr as usize / 4;
        self.data[at] = x;
        self.init[at] = 0xf;
    }

    /// One or two bytes that don't straddle a dword.
    pub(crate) fn part(&self, addr: u32, bytes: u32) -> (u32, bool) {
        let (at, b) = (addr as usize / 4, addr & 3);
        let m = ((1u8 << bytes) - 1) << b;
        (self.data[at] >> (8 * b) & ((1 << (8 * bytes)) - 1), self.init[at] & m == m)
    }

    pub(crate) fn set_part(&mut self, addr: u32, bytes: u32, x: u32) {
        let (at, b) = (addr as usize / 4, addr & 3);
        let m = ((1u32 << (8 * bytes)) - 1) << (8 * b);
        self.data[at] = self.data[at] & !m | x << (8 * b) & m;
        self.init[at] |= ((1u8 << bytes) - 1) << b;
    }
}

/// Extra cycles of an access of `words` dwords a lane by the lanes of `exec`.
pub(crate) fn conflicts(addr: &[u32; 64], exec: u64, words: u32) -> u64 {
    let in_row = |l: usize| addr[l] == addr[0].wrapping_add(4 * words * l as u32);
    if exec == !0 && (0..64).all(in_row) || exec.count_ones() < 2 {
        return 0;
    }
    let lanes = (32 / words.next_power_of_two()).max(8) as usize;
    let mut extra = 0;
    for first in (0..64).step_by(lanes) {
        let mut seen = [[0u32; 64]; 32];
        let mut count = [0usize; 32];
        for l in (first..first + lanes).filter(|l| exec >> l & 1 != 0) {
            for w in 0..words {
                let dword = addr[l] / 4 + w;
                let bank = (dword & 31) as usize;
                let n = count[bank];
                if n < 64 && !seen[bank][..n].contains(&dword) {
                    seen[bank][n] = dword;
                    count[bank] += 1;
                }
            }
        }
        extra += count.iter().max().map_or(0, |c| c.saturating_sub(1) as u64);
    }
    extra
}
