//! What an instruction is once it is decoded: a function to run and operands that need no more looking up.

use crate::cpu::{Cpu, Step};

/// First register slot of the AccVGPRs in a wave's register file.
pub(crate) const ACC: u16 = 256;
/// First slot of the copies that scalar and modified operands are spread into, two for each source.
pub(crate) const SPREAD: u16 = 512;
/// First slot of the program's constants. The first of them is 0, which also stands where there is no source.
pub(crate) const CONSTS: u16 = SPREAD + 8;

/// How an operand's bits are read: decides what an inline constant means and where a sign bit lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Ty {
    B16,
    F16,
    B32,
    F32,
    B64,
    F64,
    /// Two f16, or two 16-bit integers, chosen by `op_sel` and `op_sel_hi`.
    P16,
    I16x2,
    /// Two f32 in two registers.
    P32,
    /// f32, or f16 where `op_sel_hi` says so (`v_fma_mix`).
    Mix,
    /// A 64-bit scalar mask, a bit a lane.
    Mask,
    /// Registers in a row that the instruction itself looks at (matrix operands, data of loads and stores).
    Rows,
}

impl Ty {
    pub(crate) fn words(self) -> u16 {
        match self {
            Ty::B64 | Ty::F64 | Ty::P32 | Ty::Mask => 2,
            _ => 1,
        }
    }
}

/// What one operand of an instruction's text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// The destination.
    Dst(Ty),
    /// A second, scalar destination (carry, comparison).
    Sdst,
    /// A source.
    Src(Ty),
}

/// Where an operand lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    None,
    Vector,
    Scalar,
    Const,
    Scc,
}

/// What must be done before the lanes of a source lie in its slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fetch {
    /// Nothing: the slots are registers or constants.
    Ready,
    /// A scalar is spread over 64 lanes.
    Spread,
    /// Words of a vector register are copied with other signs, as `Src::sign` says.
    Sign,
    /// Any other modifier: `special.rs` copies and changes it.
    Change,
}

/// `Src::sign`: the word's top bit is cleared.
pub(crate) const ABS: u8 = 1;
/// `Src::sign`: the word's top bit is flipped, after that.
pub(crate) const NEG: u8 = 2;

/// A source operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Src {
    pub value: u64,
    /// Slot of a vector register (AccVGPRs from [`ACC`]) or number of a scalar one.
    pub reg: u16,
    /// How many registers the text names.
    pub words: u16,
    pub kind: Kind,
    pub ty: Ty,
    pub fetch: Fetch,
    /// What happens to the sign of each word.
    pub sign: [u8; 2],
    pub neg: bool,
    pub abs: bool,
    pub sext: bool,
}

/// A destination operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dst {
    pub kind: Kind,
    pub ty: Ty,
    pub reg: u16,
    pub words: u16,
}

/// Which part of a register an SDWA operand means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sel {
    Byte(u8),
    Word(u8),
    Dword,
}

/// What SDWA does with the part of the destination it doesn't write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unused {
    Pad,
    Sext,
    Preserve,
}

/// Which lane a DPP operand comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dpp {
    QuadPerm([u8; 4]),
    RowShl(u8),
    RowShr(u8),
    RowRor(u8),
    WaveShl,
    WaveRol,
    WaveShr,
    WaveRor,
    Mirror,
    HalfMirror,
    Bcast15,
    Bcast31,
    NewBcast(u8),
}

/// Everything an instruction may say beyond opcode and registers. Most say nothing and have none of this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Special {
    pub dpp: Option<Dpp>,
    /// The lane each lane reads by DPP; 64 for none.
    pub from: Vec<u8>,
    /// Lanes for which there is one.
    pub there: u64,
    /// Lanes that `row_mask` and `bank_mask` let be written.
    pub enabled: u64,
    pub row_mask: u8,
    pub bank_mask: u8,
    pub bound_ctrl: bool,
    pub sdwa: Option<Sdwa>,
    pub op_sel: u8,
    pub op_sel_hi: u8,
    pub neg_lo: u8,
    pub neg_hi: u8,
    pub clamp: bool,
    /// 0, or 1, 2, 3 for ×2, ×4, ÷2.
    pub omod: u8,
    /// A 16-bit result leaves the register's high half as it is.
    pub keep_high: bool,
    /// A 16-bit result goes to the register's high half.
    pub write_high: bool,
}

/// The parts of registers an SDWA instruction reads and writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sdwa {
    pub dst: Sel,
    pub unused: Unused,
    pub src: [Sel; 2],
}

/// Instruction classes that are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Class {
    Valu,
    Salu,
    Mfma,
    Dot,
    Lds,
    VmemLoad,
    VmemStore,
    Smem,
    Branch,
    Atomic,
    Barrier,
    Wait,
    Other,
}

pub(crate) const CLASSES: usize = 13;

/// Code of one instruction. Calling it needs the CPU features it was compiled for, see [`Exec`].
pub(crate) type Run = unsafe fn(&mut Cpu<'_>, &Inst) -> Step;

/// The same code twice: for any CPU, and for one with AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Exec {
    pub portable: Run,
    pub wide: Run,
}

/// A row of the opcode table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub name: &'static str,
    pub exec: Exec,
    pub class: Class,
    pub roles: &'static [Role],
    /// The destination is also read (accumulators, partial writes).
    pub reads_dst: bool,
}

/// A decoded instruction. What most of them look at lies in the first cache line.
#[repr(C, align(64))]
pub(crate) struct Inst {
    pub run: Run,
    /// Where the 64 lanes of each source are found once the sources are prepared, for each of two words.
    pub slot: [[u16; 2]; 4],
    pub dst: Dst,
    pub sdst: u16,
    pub class: Class,
    pub nsrc: u8,
    /// The last source is the destination's old value.
    pub reads_dst: bool,
    /// Some source is not [`Fetch::Ready`].
    pub fetch: bool,
    /// Modifiers change the result.
    pub changes_result: bool,
    pub special: Option<Box<Special>>,
    /// Memory offset, branch target (as an instruction's index) or other immediate.
    pub imm: i64,
    pub src: [Src; 4],
    pub imm2: i64,
    pub flags: u32,
    pub pc: u64,
}

/// `Inst::flags`: an atomic that returns the old value.
pub(crate) const RETURNS: u32 = 1;
/// `Inst::flags`: a scalar base address stands beside a 32-bit vector offset.
pub(crate) const SADDR: u32 = 2;

/// Compiles a body twice and gives the pair of functions.
macro_rules! exec {
    (|$cx:ident, $i:ident| $body:expr) => {{
        fn portable($cx: &mut $crate::cpu::Cpu<'_>, $i: &$crate::inst::Inst) -> $crate::cpu::Step {
            $body
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        fn wide($cx: &mut $crate::cpu::Cpu<'_>, $i: &$crate::inst::Inst) -> $crate::cpu::Step {
            $body
        }
        #[cfg(not(target_arch = "x86_64"))]
        use portable as wide;
        $crate::inst::Exec { portable, wide }
    }};
}
pub(crate) use exec;

/// Calls an `#[inline(always)]` function, compiled for AVX-512 where this CPU has it. For code that every family shares.
macro_rules! either {
    ($cx:ident, $f:ident($($arg:ident: $t:ty),*) -> $r:ty) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
            fn wide($cx: &mut $crate::cpu::Cpu<'_>, $($arg: $t),*) -> $r {
                $f($cx, $($arg),*)
            }
            if $cx.w.wide {
                // SAFETY: the flag says that this CPU has the features.
                return unsafe { wide($cx, $($arg),*) };
            }
        }
        $f($cx, $($arg),*)
    }};
}
pub(crate) use either;

/// Whether this CPU runs [`Exec::wide`].
pub(crate) fn wide_cpu() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    #[cfg(not(target_arch = "x86_64"))]
    false
}
