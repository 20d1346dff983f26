//! A workgroup's LDS: bytes, which of them were written, and who touched them since the last barrier.
//!
//! **Races.** For each wave it is known which bytes it read, wrote and changed atomically since the last barrier. A wave
//! that reads what another wrote, or writes what another read or wrote, is a race. Atomics of several waves on the same
//! byte are none. Waves of the emulator run one after the other, so a race found here depends on nothing but the kernel
//! and its data.
//!
//! A byte was touched if its mark is the number of the epoch, which every barrier counts up. Beside the marks a wave has
//! a bit for each of 64 blocks of LDS; only where the blocks of two waves meet are marks compared.

use crate::banks::Banks;
use crate::cpu::{Stop, fault};
use crate::fault::{Cause, What};

/// What an access does, for race detection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Atomic,
}

/// The kinds of access that race with one.
const RIVALS: [&[Access]; 3] =
    [&[Access::Write, Access::Atomic], &[Access::Read, Access::Write, Access::Atomic], &[Access::Read, Access::Write]];

/// The addresses of an access: inactive lanes have that of the first active one.
pub(crate) struct Span {
    pub addr: [u32; 64],
    pub exec: u64,
    pub bytes: u32,
    /// 1 if all lanes have the same address, otherwise 64.
    pub distinct: usize,
}

impl Span {
    #[inline(always)]
    pub(crate) fn new(addr: [u32; 64], exec: u64, bytes: u32) -> Span {
        let mut other = 0;
        for l in 0..64 {
            other |= addr[l] ^ addr[0];
        }
        Span { addr, exec, bytes, distinct: if other == 0 { 1 } else { 64 } }
    }

    #[inline(always)]
    fn places(&self) -> &[u32] {
        &self.addr[..self.distinct]
    }
}

/// LDS of the running workgroup.
pub(crate) struct Lds {
    data: Vec<u32>,
    /// All ones for each byte that was written.
    init: Vec<u8>,
    /// For reads, writes and atomics: marks of all bytes, one wave after the other. Those of atomics are made when needed.
    marks: [Vec<u8>; 3],
    /// Blocks of LDS that each wave touched.
    blocks: [Vec<u64>; 3],
    block_shift: u32,
    epoch: u8,
    waves: usize,
    pub size: u32,
    pub banks: Banks,
}

/// Runs a body with the constant `N` for a number of bytes.
macro_rules! sized {
    ($bytes:expr, |$n:ident| $body:expr) => {
        match $bytes {
            1 => {
                const $n: usize = 1;
                $body
            }
            2 => {
                const $n: usize = 2;
                $body
            }
            4 => {
                const $n: usize = 4;
                $body
            }
            8 => {
                const $n: usize = 8;
                $body
            }
            12 => {
                const $n: usize = 12;
                $body
            }
            _ => {
                const $n: usize = 16;
                $body
            }
        }
    };
}

/// `N` bytes of a map.
#[inline(always)]
fn part<const N: usize>(map: &[u8], at: u32) -> [u8; N] {
    let mut x = [0; N];
    x.copy_from_slice(&map[at as usize..at as usize + N]);
    x
}

impl Lds {
    pub(crate) fn new(size: u32, waves: usize) -> Lds {
        let bytes = size.next_multiple_of(4) as usize;
        let tracked = if waves > 1 { bytes * waves } else { 0 };
        Lds {
            data: vec![0; bytes / 4],
            init: vec![0; bytes],
            marks: [vec![0; tracked], vec![0; tracked], Vec::new()],
            blocks: [(); 3].map(|()| vec![0; waves]),
            // At least 16 bytes, which an aligned access does not straddle.
            block_shift: size.div_ceil(64).next_power_of_two().trailing_zeros().max(4),
            epoch: 1,
            waves,
            size,
            banks: Banks::new(),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.init.fill(0);
        self.barrier();
    }

    /// Accesses before and after it don't race.
    pub(crate) fn barrier(&mut self) {
        if self.epoch == u8::MAX {
            self.marks.iter_mut().for_each(|m| m.fill(0));
            self.epoch = 0;
        }
        self.epoch += 1;
        self.blocks.iter_mut().for_each(|b| b.fill(0));
    }

    /// Checks bounds and alignment of an instruction's access and that it doesn't race, and notes it.
    #[inline(always)]
    pub(crate) fn access(&mut self, s: &Span, align: u32, wave: u32, access: Access) -> Result<(), Stop> {
        let (mut top, mut low) = (0, 0);
        for l in 0..64 {
            top = top.max(s.addr[l]);
            low |= s.addr[l];
        }
        if u64::from(top) + u64::from(s.bytes) > u64::from(self.size) || low & (align - 1) != 0 {
            return Err(self.refuse(s, align, access));
        }
        if self.waves > 1 { self.track(s, align, wave, access) } else { Ok(()) }
    }

    #[cold]
    fn refuse(&self, s: &Span, align: u32, access: Access) -> Stop {
        let outside = |a: u32| u64::from(a) + u64::from(s.bytes) > u64::from(self.size);
        let bad = |l: &usize| s.exec >> l & 1 != 0 && (outside(s.addr[*l]) || s.addr[*l] & (align - 1) != 0);
        let lane = (0..64).find(bad).unwrap_or(0);
        let address = s.addr[lane];
        let what = if outside(address) {
            What::LdsOutOfBounds {
                address: address.into(),
                bytes: s.bytes,
                size: self.size,
                write: access != Access::Read,
            }
        } else {
            What::Misaligned { address: address.into(), bytes: s.bytes }
        };
        fault(Cause { lane: Some(lane as u32), what })
    }

    #[inline(always)]
    fn track(&mut self, s: &Span, align: u32, wave: u32, access: Access) -> Result<(), Stop> {
        let (me, kind) = (wave as usize, access as usize);
        let mut blocks = 0u64;
        for l in 0..64 {
            blocks |= 1 << (s.addr[l] >> self.block_shift & 63);
            if align < s.bytes {
                blocks |= 1 << ((s.addr[l] + s.bytes - 4) >> self.block_shift & 63);
            }
        }
        for rival in RIVALS[kind] {
            for other in 0..self.waves {
                if other != me && self.blocks[*rival as usize][other] & blocks != 0 {
                    self.compare(s, other, *rival, wave, access)?;
                }
            }
        }
        self.blocks[kind][me] |= blocks;
        let len = self.init.len();
        if self.marks[kind].is_empty() {
            self.marks[kind] = vec![0; len * self.waves];
        }
        let (marks, epoch) = (&mut self.marks[kind][me * len..(me + 1) * len], self.epoch);
        sized!(s.bytes, |N| for a in s.places() {
            marks[*a as usize..*a as usize + N].copy_from_slice(&[epoch; N]);
        });
        Ok(())
    }

    /// Both waves touched a block: did they touch the same bytes of it?
    fn compare(&self, s: &Span, other: usize, rival: Access, wave: u32, access: Access) -> Result<(), Stop> {
        let len = self.init.len();
        let marks = &self.marks[rival as usize][other * len..(other + 1) * len];
        let mut hit = false;
        sized!(s.bytes, |N| for a in &s.addr {
            hit |= part::<N>(marks, *a).iter().fold(false, |h, b| h | (*b == self.epoch));
        });
        if hit { Err(self.race(s, wave, access)) } else { Ok(()) }
    }

    /// Whether a wave touched a byte.
    fn touched(&self, wave: usize, kind: Access, at: u32) -> bool {
        self.marks[kind as usize].get(wave * self.init.len() + at as usize) == Some(&self.epoch)
    }

    /// The first lane's first race.
    #[cold]
    fn race(&self, s: &Span, wave: u32, access: Access) -> Stop {
        let piece = if s.bytes == 12 { 4 } else { s.bytes };
        let others = || (0..self.waves).filter(|w| *w != wave as usize);
        for lane in (0..64).filter(|l| s.exec >> l & 1 != 0) {
            for first in (s.addr[lane]..s.addr[lane] + s.bytes).step_by(piece as usize) {
                let find = |w: usize, kinds: &[Access]| {
                    (first..first + piece).find(|at| kinds.iter().any(|k| self.touched(w, *k, *at)))
                };
                let rivals = RIVALS[access as usize];
                if !others().any(|w| find(w, rivals).is_some()) {
                    continue;
                }
                let changes: Vec<Access> = rivals.iter().copied().filter(|k| *k != Access::Read).collect();
                let other_write = others().any(|w| find(w, &changes).is_some());
                let kinds: &[Access] = if other_write { &[Access::Write, Access::Atomic] } else { &[Access::Read] };
                let (other, address) =
                    others().find_map(|w| Some((w as u32, find(w, kinds)?.into()))).unwrap_or((0, first.into()));
                return fault(Cause { lane: Some(lane as u32), what: What::Race { address, other, other_write } });
            }
        }
        fault(Cause { lane: None, what: What::Race { address: s.addr[0].into(), other: 0, other_write: false } })
    }

    /// A dword at an aligned, checked address.
    #[inline(always)]
    pub(crate) fn dword(&self, addr: u32) -> u32 {
        self.data[addr as usize / 4]
    }

    /// `N` dwords.
    #[inline(always)]
    pub(crate) fn dwords<const N: usize>(&self, addr: u32) -> [u32; N] {
        let mut x = [0; N];
        x.copy_from_slice(&self.data[addr as usize / 4..addr as usize / 4 + N]);
        x
    }

    /// Whether `bytes` were written.
    #[inline(always)]
    pub(crate) fn known(&self, addr: u32, bytes: u32) -> bool {
        self.init[addr as usize..(addr + bytes) as usize].iter().all(|b| *b != 0)
    }

    /// Whether all bytes of an access were written.
    #[inline(always)]
    pub(crate) fn all_known(&self, s: &Span) -> bool {
        sized!(s.bytes, |N| {
            let mut all = [!0; N];
            for a in s.places() {
                let x = part::<N>(&self.init, *a);
                for b in 0..N {
                    all[b] &= x[b];
                }
            }
            all == [!0; N]
        })
    }

    /// Says that all bytes of an access are written.
    #[inline(always)]
    pub(crate) fn mark(&mut self, s: &Span) {
        sized!(s.bytes, |N| for a in s.places() {
            self.init[*a as usize..*a as usize + N].copy_from_slice(&[!0; N]);
        });
    }

    #[inline(always)]
    pub(crate) fn set_dword(&mut self, addr: u32, x: u32) {
        self.data[addr as usize / 4] = x;
    }

    /// Sets `N` dwords.
    #[inline(always)]
    pub(crate) fn set_dwords<const N: usize>(&mut self, addr: u32, x: [u32; N]) {
        self.data[addr as usize / 4..addr as usize / 4 + N].copy_from_slice(&x);
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
