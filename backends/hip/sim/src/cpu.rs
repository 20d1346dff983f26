//! The state of a wave and what an instruction may touch while it runs.

use crate::fault::Cause;
use crate::inst::{CONSTS, Kind, SPREAD, Src};
use crate::lds::Lds;
use crate::view::View;

/// A value for each of the 64 lanes.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lanes(pub [u32; 64]);

impl Lanes {
    pub(crate) const ZERO: Lanes = Lanes([0; 64]);

    /// All ones in the lanes of a mask, 0 in the others.
    #[inline(always)]
    pub(crate) fn mask(m: u64) -> Lanes {
        const BIT: Lanes = {
            let (mut bits, mut l) = ([0; 64], 0);
            while l < 64 {
                bits[l] = 1 << (l % 32);
                l += 1;
            }
            Lanes(bits)
        };
        let mut x = Lanes([m as u32; 64]);
        x.0[32..].fill((m >> 32) as u32);
        for l in 0..64 {
            x.0[l] = if x.0[l] & BIT.0[l] != 0 { !0 } else { 0 };
        }
        x
    }
}

/// Scalar register numbers as the ISA encodes them.
pub(crate) const VCC: u16 = 106;
pub(crate) const M0: u16 = 124;
pub(crate) const EXEC: u16 = 126;

/// Why a wave stopped running.
pub(crate) enum Stop {
    End,
    Barrier,
    /// Its slice of instructions is used up.
    Yield,
    Fault(Box<Cause>),
}

pub(crate) type Step = Result<(), Stop>;

pub(crate) fn fault(cause: Cause) -> Stop {
    Stop::Fault(Box::new(cause))
}

/// A wave: registers, masks, and which of them were ever written.
pub(crate) struct Wave {
    /// 256 ArchVGPRs, 256 AccVGPRs, copies of spread operands, the program's constants.
    pub regs: Vec<Lanes>,
    /// Lanes of each vector register that hold a value.
    pub init: Vec<u64>,
    pub s: [u32; 128],
    /// Scalar registers that hold a value.
    pub sinit: [bool; 128],
    pub scc: bool,
    /// SCC holds a value.
    pub scc_known: bool,
    pub pc: usize,
    /// Lanes the running vector instruction writes: EXEC, less what DPP leaves alone.
    pub wmask: u64,
    pub initial_exec: u64,
    pub id: u32,
    pub addr: Box<[u64; 64]>,
    /// For each vector register the instruction, counted from 1, that last loaded memory into it which nothing had written.
    pub holes: Vec<u32>,
    /// This CPU runs the wide functions.
    pub wide: bool,
}

impl Wave {
    pub(crate) fn new(consts: &[Lanes]) -> Wave {
        let mut regs = vec![Lanes::ZERO; CONSTS as usize + 1];
        regs.truncate(CONSTS as usize);
        regs.extend_from_slice(consts);
        let mut init = vec![0; regs.len()];
        init[CONSTS as usize..].fill(!0);
        Wave {
            init,
            regs,
            s: [0; 128],
            sinit: [false; 128],
            scc: false,
            scc_known: false,
            pc: 0,
            wmask: 0,
            initial_exec: 0,
            id: 0,
            addr: Box::new([0; 64]),
            holes: vec![0; SPREAD as usize],
            wide: crate::inst::wide_cpu(),
        }
    }

    /// Forgets everything, so that the wave can run another workgroup.
    pub(crate) fn reset(&mut self) {
        self.init[..SPREAD as usize].fill(0);
        self.sinit = [false; 128];
        [EXEC, EXEC + 1, M0].into_iter().for_each(|r| self.sinit[r as usize] = true);
        self.scc = false;
        self.scc_known = false;
        self.s = [0; 128];
        self.holes.fill(0);
    }

    /// Remembers which load left a register without a value, for the message about its use.
    #[inline(always)]
    pub(crate) fn note_hole(&mut self, reg: usize, known: bool) {
        if !known {
            self.holes[reg] = self.pc as u32;
        }
    }

    #[inline(always)]
    pub(crate) fn exec(&self) -> u64 {
        u64::from(self.s[126]) | u64::from(self.s[127]) << 32
    }

    #[inline(always)]
    pub(crate) fn s64(&self, r: u16) -> u64 {
        let r = (r & 126) as usize;
        u64::from(self.s[r]) | u64::from(self.s[r + 1]) << 32
    }

    #[inline(always)]
    pub(crate) fn set_s32(&mut self, r: u16, x: u32, known: bool) {
        let r = (r & 127) as usize;
        self.s[r] = x;
        self.sinit[r] = known;
    }

    #[inline(always)]
    pub(crate) fn set_s64(&mut self, r: u16, x: u64, known: bool) {
        self.set_s32(r, x as u32, known);
        self.set_s32(r + 1, (x >> 32) as u32, known);
    }

    #[inline(always)]
    pub(crate) fn sknown(&self, r: u16, words: u16) -> bool {
        let known = |n: u16| self.sinit[((r + n) & 127) as usize];
        known(0) && (words < 2 || known(1))
    }

    /// The value of a scalar operand, and whether it was ever written.
    #[inline(always)]
    pub(crate) fn scalar(&self, s: &Src, words: u16) -> (u64, bool) {
        match s.kind {
            Kind::Scalar => {
                let r = (s.reg & 127) as usize;
                let lo = u64::from(self.s[r]);
                let hi = if words == 2 { u64::from(self.s[(r + 1) & 127]) << 32 } else { 0 };
                (lo | hi, self.sknown(s.reg, words))
            }
            Kind::Scc => (u64::from(self.scc), self.scc_known),
            _ => (if words == 2 { s.value } else { s.value & 0xffff_ffff }, true),
        }
    }

    /// Writes the lanes of `wmask`; `known` says which lanes now hold a value.
    #[inline(always)]
    pub(crate) fn put(&mut self, reg: usize, x: &Lanes, known: u64) {
        let m = self.wmask;
        if m == !0 {
            self.regs[reg] = *x;
            self.init[reg] = known;
        } else {
            let (d, on) = (&mut self.regs[reg].0, Lanes::mask(m).0);
            for l in 0..64 {
                d[l] = d[l] & !on[l] | x.0[l] & on[l];
            }
            self.init[reg] = self.init[reg] & !m | known & m;
        }
    }
}

/// What is counted while a workgroup runs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub class: [u64; crate::inst::CLASSES],
    pub conflicts: u64,
    pub read: u64,
    pub written: u64,
}

/// What an instruction may touch.
pub(crate) struct Cpu<'a> {
    pub w: &'a mut Wave,
    pub lds: &'a mut Lds,
    pub mem: &'a View,
    pub tally: &'a mut Tally,
}
