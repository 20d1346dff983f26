//! Matrix instructions: `D = A·B + C`, all 64 lanes, whatever EXEC says.
//!
//! Operands lie as AMD's matrix instruction calculator has it. With `M` rows, `B` blocks and `e` elements a lane, lane `l`
//! holds elements `k = e·(l / (M·B)) ..` of row (of A) or column (of B) `l % M` of block `l / M % B`. Element (i, j) of D
//! lies in lane `j + M·…` and register as [`place`] says.
//!
//! **Rounding.** Floats are summed as a chain of f32 fused multiply-adds in ascending k, starting with C. The hardware
//! differs: CDNA3 sums f16 and bf16 products in groups with truncated alignment. Results agree within the error of an f32
//! sum, not in their bits. Integer products are exact on both.

use crate::convert::{bf8, fp8, h2f};
use crate::cpu::{Cpu, Lanes, Step};
use crate::inst::{Class, Inst, Kind, Role, Row, Ty, exec};
use crate::lanes::unknown;

/// Where row `i` of block `b` of D begins: its register and first lane.
#[inline(always)]
fn place<const M: usize>(b: usize, i: usize) -> (usize, usize) {
    match M {
        4 => (i, 4 * b),
        16 => (4 * b + i % 4, 16 * (i / 4)),
        _ => (16 * b + 4 * (i / 8) + i % 4, 32 * (i / 4 % 2)),
    }
}

/// An element type of D with its multiply-add, in floats.
trait Sum {
    /// What a chain of sums begins with.
    fn first(c: u32) -> f32;
    /// D of C and the end of the chain.
    fn last(c: u32, sum: f32) -> u32;
}

impl Sum for f32 {
    #[inline(always)]
    fn first(c: u32) -> f32 {
        f32::from_bits(c)
    }
    #[inline(always)]
    fn last(_c: u32, sum: f32) -> u32 {
        sum.to_bits()
    }
}

/// Sums of up to 32 products of bytes are exact in f32, which is much faster than 32-bit integer products.
impl Sum for i32 {
    #[inline(always)]
    fn first(_c: u32) -> f32 {
        0.0
    }
    #[inline(always)]
    fn last(c: u32, sum: f32) -> u32 {
        c.wrapping_add(sum as i32 as u32)
    }
}

/// `per` elements lie in a register; `a` and `b` take one out.
#[inline(always)]
fn mfma<T: Sum, const M: usize, const K: usize, const B: usize>(
    cx: &mut Cpu<'_>,
    i: &Inst,
    per: usize,
    a: impl Fn(u32, u32) -> f32,
    b: impl Fn(u32, u32) -> f32,
) -> Step {
    let each = K * M * B / 64;
    let regs = M * M * B / 64;
    known(cx, i, each / per, regs)?;
    let mut out = [Lanes::ZERO; 32];
    for block in 0..B {
        let (mut at, mut bt) = ([[0f32; M]; K], [[0f32; M]; K]);
        for group in 0..K / each {
            let lane = M * (block + B * group);
            for e in 0..each {
                let word = |k: usize| &cx.w.regs[i.src[k].reg as usize + e / per].0[lane..lane + M];
                let (wa, wb, n) = (word(0), word(1), (e % per) as u32);
                let k = group * each + e;
                for j in 0..M {
                    at[k][j] = a(wa[j], n);
                    bt[k][j] = b(wb[j], n);
                }
            }
        }
        for row in 0..M {
            let (reg, lane) = place::<M>(block, row);
            let mut old = [i.src[2].value as u32; M];
            if i.src[2].kind == Kind::Vector {
                old.copy_from_slice(&cx.w.regs[i.src[2].reg as usize + reg].0[lane..lane + M]);
            }
            let mut acc = [0f32; M];
            for j in 0..M {
                acc[j] = T::first(old[j]);
            }
            for k in 0..K {
                let x = at[k][row];
                for j in 0..M {
                    acc[j] = x.mul_add(bt[k][j], acc[j]);
                }
            }
            for j in 0..M {
                out[reg].0[lane + j] = T::last(old[j], acc[j]);
            }
        }
    }
    let d = i.dst.reg as usize;
    cx.w.regs[d..d + regs].copy_from_slice(&out[..regs]);
    cx.w.init[d..d + regs].fill(!0);
    Ok(())
}

/// Every lane of every operand must hold a value.
fn known(cx: &Cpu<'_>, i: &Inst, inputs: usize, sums: usize) -> Step {
    let whole = |k: usize, n: usize| {
        let s = &i.src[k];
        s.kind != Kind::Vector || cx.w.init[s.reg as usize..s.reg as usize + n].iter().all(|m| *m == !0)
    };
    if whole(0, inputs) && whole(1, inputs) && whole(2, sums) { Ok(()) } else { Err(unknown(cx, i, !0)) }
}

#[inline(always)]
fn f16(w: u32, n: u32) -> f32 {
    h2f((w >> (16 * n)) as u16)
}

#[inline(always)]
fn bf16(w: u32, n: u32) -> f32 {
    f32::from_bits(w >> (16 * n) << 16)
}

#[inline(always)]
fn i8(w: u32, n: u32) -> f32 {
    (w >> (8 * n)) as i8 as f32
}

fn e4(w: u32, n: u32) -> f32 {
    fp8(w >> (8 * n))
}

fn e5(w: u32, n: u32) -> f32 {
    bf8(w >> (8 * n))
}

#[inline(always)]
fn f32(w: u32, _n: u32) -> f32 {
    f32::from_bits(w)
}

macro_rules! row {
    ($name:literal, $t:ty, $m:literal, $k:literal, $b:literal, $per:literal, $fa:expr, $fb:expr) => {
        Row {
            name: $name,
            class: Class::Mfma,
            reads_dst: false,
            roles: &[Role::Dst(Ty::Rows), Role::Src(Ty::Rows), Role::Src(Ty::Rows), Role::Src(Ty::Rows)],
            exec: exec!(|cx, i| mfma::<$t, $m, $k, $b>(cx, i, $per, $fa, $fb)),
        }
    };
}

pub(crate) const ROWS: &[Row] = &[
    row!("v_mfma_f32_16x16x16_f16", f32, 16, 16, 1, 2, f16, f16),
    row!("v_mfma_f32_32x32x8_f16", f32, 32, 8, 1, 2, f16, f16),
    row!("v_mfma_f32_16x16x4_4b_f16", f32, 16, 4, 4, 2, f16, f16),
    row!("v_mfma_f32_32x32x4_2b_f16", f32, 32, 4, 2, 2, f16, f16),
    row!("v_mfma_f32_4x4x4_16b_f16", f32, 4, 4, 16, 2, f16, f16),
    row!("v_mfma_f32_16x16x16_bf16", f32, 16, 16, 1, 2, bf16, bf16),
    row!("v_mfma_f32_32x32x8_bf16", f32, 32, 8, 1, 2, bf16, bf16),
    row!("v_mfma_f32_16x16x4_4b_bf16", f32, 16, 4, 4, 2, bf16, bf16),
    row!("v_mfma_f32_32x32x4_2b_bf16", f32, 32, 4, 2, 2, bf16, bf16),
    row!("v_mfma_f32_4x4x4_16b_bf16", f32, 4, 4, 16, 2, bf16, bf16),
    row!("v_mfma_i32_16x16x32_i8", i32, 16, 32, 1, 4, i8, i8),
    row!("v_mfma_i32_32x32x16_i8", i32, 32, 16, 1, 4, i8, i8),
    row!("v_mfma_i32_16x16x4_4b_i8", i32, 16, 4, 4, 4, i8, i8),
    row!("v_mfma_i32_32x32x4_2b_i8", i32, 32, 4, 2, 4, i8, i8),
    row!("v_mfma_i32_4x4x4_16b_i8", i32, 4, 4, 16, 4, i8, i8),
    row!("v_mfma_f32_16x16x4_f32", f32, 16, 4, 1, 1, f32, f32),
    row!("v_mfma_f32_32x32x2_f32", f32, 32, 2, 1, 1, f32, f32),
    row!("v_mfma_f32_16x16x1_4b_f32", f32, 16, 1, 4, 1, f32, f32),
    row!("v_mfma_f32_32x32x1_2b_f32", f32, 32, 1, 2, 1, f32, f32),
    row!("v_mfma_f32_4x4x1_16b_f32", f32, 4, 1, 16, 1, f32, f32),
    row!("v_mfma_f32_16x16x32_fp8_fp8", f32, 16, 32, 1, 4, e4, e4),
    row!("v_mfma_f32_16x16x32_fp8_bf8", f32, 16, 32, 1, 4, e4, e5),
    row!("v_mfma_f32_16x16x32_bf8_fp8", f32, 16, 32, 1, 4, e5, e4),
    row!("v_mfma_f32_16x16x32_bf8_bf8", f32, 16, 32, 1, 4, e5, e5),
    row!("v_mfma_f32_32x32x16_fp8_fp8", f32, 32, 16, 1, 4, e4, e4),
    row!("v_mfma_f32_32x32x16_fp8_bf8", f32, 32, 16, 1, 4, e4, e5),
    row!("v_mfma_f32_32x32x16_bf8_fp8", f32, 32, 16, 1, 4, e5, e4),
    row!("v_mfma_f32_32x32x16_bf8_bf8", f32, 32, 16, 1, 4, e5, e5),
];
