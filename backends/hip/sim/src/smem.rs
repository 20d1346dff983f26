//! Scalar loads.

use crate::cpu::{Cpu, Step, fault};
use crate::cross::unknown_scalar;
use crate::fault::{Cause, What};
use crate::inst::{Class, Inst, Role, Row, Ty, exec};

/// Loads `n` dwords. Bytes that were never written make the register hold no value: clang loads whole blocks of
/// arguments, padding and all.
fn load(cx: &mut Cpu<'_>, i: &Inst, n: u16) -> Step {
    let (base, known) = cx.w.scalar(&i.src[0], 2);
    if !known {
        return Err(unknown_scalar(i.src[0].reg));
    }
    let (offset, known) = cx.w.scalar(&i.src[1], 1);
    if !known {
        return Err(unknown_scalar(i.src[1].reg));
    }
    let offset = if i.src[1].kind == crate::inst::Kind::Const { i.src[1].value } else { offset };
    let addr = base.wrapping_add(offset).wrapping_add(i.imm as u64) & !3;
    let bytes = u32::from(n) * 4;
    let Some((region, whole)) = cx.mem.find(addr, bytes.into()) else {
        return Err(fault(Cause { lane: None, what: What::OutOfBounds { address: addr, bytes, write: false } }));
    };
    cx.tally.read += u64::from(bytes);
    for w in 0..n {
        let off = addr - region.base + 4 * u64::from(w);
        let known = whole || region.known(off, 4);
        let x = region.load(off, 4);
        cx.w.set_s32(i.dst.reg + w, x, known);
    }
    Ok(())
}

macro_rules! row {
    ($name:literal, $n:literal) => {
        Row {
            name: $name,
            class: Class::Smem,
            reads_dst: false,
            roles: &[Role::Dst(Ty::Rows), Role::Src(Ty::B64), Role::Src(Ty::B32)],
            exec: exec!(|cx, i| load(cx, i, $n)),
        }
    };
}

pub(crate) const ROWS: &[Row] = &[
    row!("s_load_dword", 1),
    row!("s_load_dwordx2", 2),
    row!("s_load_dwordx4", 4),
    row!("s_load_dwordx8", 8),
    row!("s_load_dwordx16", 16),
];
