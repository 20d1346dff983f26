//! Atomics of global memory, which must be aligned.

use crate::cpu::{Cpu, Step, fault};
use crate::fault::{Cause, What};
use crate::global::{addresses, each};
use crate::inst::{Class, Inst, Kind, RETURNS, Role, Row, Ty, exec};
use crate::lanes::unknown;
use std::sync::atomic::Ordering::Relaxed;

/// `f(memory, data, compare)` in each lane, in lane order. The data of a compare-and-swap is the new value, then the old.
#[inline(always)]
fn atomic(
    cx: &mut Cpu<'_>,
    i: &Inst,
    range: (u64, u64),
    (bytes, words): (u32, usize),
    f: impl Fn(u64, u64, u64) -> u64,
) -> Step {
    let (d, exec) = (i.src[1].reg as usize, cx.w.exec());
    if i.src[1].kind != Kind::Vector || cx.w.init[d..d + words].iter().any(|m| m & exec != exec) {
        return Err(unknown(cx, i, exec));
    }
    let wide = bytes == 8;
    let (n, data) = (bytes as usize / 4, d);
    each(cx, range, bytes, true, |w, l, region, off| {
        let stop = |what| fault(Cause { lane: Some(l as u32), what });
        if off & u64::from(bytes - 1) != 0 {
            return Err(stop(What::Misaligned { address: region.base + off, bytes }));
        }
        if !region.known(off, bytes) && !region.is_whole() {
            return Err(stop(What::Memory { address: region.base + off }));
        }
        let word = |k: usize| if k < words { u64::from(w.regs[data + k].0[l]) } else { 0 };
        let value = |k: usize| if wide { word(k * n) | word(k * n + 1) << 32 } else { word(k) };
        let (x, y) = (value(0), value(1));
        let old = if wide {
            let cell = region.qword(off);
            cell.fetch_update(Relaxed, Relaxed, |m| Some(f(m, x, y))).unwrap_or_else(|m| m)
        } else {
            let cell = region.dword(off);
            cell.fetch_update(Relaxed, Relaxed, |m| Some(f(m.into(), x, y) as u32)).unwrap_or_else(|m| m).into()
        };
        if i.flags & RETURNS != 0 {
            let d = i.dst.reg as usize;
            w.regs[d].0[l] = old as u32;
            w.init[d] |= 1 << l;
            if wide {
                w.regs[d + 1].0[l] = (old >> 32) as u32;
                w.init[d + 1] |= 1 << l;
            }
        }
        Ok(())
    })
}

const R: Role = Role::Src(Ty::Rows);

macro_rules! atomic {
    ($name:literal, $bytes:literal, $words:literal, |$m:ident, $x:ident, $y:ident| $e:expr) => {{
        const EXEC: crate::inst::Exec = exec!(|cx, i| {
            let range = addresses(cx, i, 2)?;
            atomic(cx, i, range, ($bytes, $words), |$m: u64, $x: u64, $y: u64| $e)
        });
        const ROLES: &[Role] = &[R, R, R];
        [
            Row {
                name: concat!("global_atomic_", $name),
                class: Class::Atomic,
                reads_dst: false,
                roles: ROLES,
                exec: EXEC,
            },
            Row {
                name: concat!("flat_atomic_", $name),
                class: Class::Atomic,
                reads_dst: false,
                roles: ROLES,
                exec: EXEC,
            },
        ]
    }};
}

fn add_f32(m: u64, x: u64) -> u64 {
    (f32::from_bits(m as u32) + f32::from_bits(x as u32)).to_bits().into()
}

fn pk_add_f16(m: u64, x: u64) -> u64 {
    use crate::convert::{f2h, h2f};
    let add = |s: u32| u64::from(f2h(h2f((m >> s) as u16) + h2f((x >> s) as u16))) << s;
    add(0) | add(16)
}

fn signed(x: u64) -> i32 {
    x as i32
}

fn f64_of(m: u64, x: u64, f: fn(f64, f64) -> f64) -> u64 {
    f(f64::from_bits(m), f64::from_bits(x)).to_bits()
}

const GROUPS: &[[Row; 2]] = &[
    atomic!("swap", 4, 1, |_m, x, _y| x),
    atomic!("cmpswap", 4, 2, |m, x, y| if m == y { x } else { m }),
    atomic!("add", 4, 1, |m, x, _y| m.wrapping_add(x)),
    atomic!("sub", 4, 1, |m, x, _y| m.wrapping_sub(x)),
    atomic!("smin", 4, 1, |m, x, _y| if signed(x) < signed(m) { x } else { m }),
    atomic!("umin", 4, 1, |m, x, _y| m.min(x)),
    atomic!("smax", 4, 1, |m, x, _y| if signed(x) > signed(m) { x } else { m }),
    atomic!("umax", 4, 1, |m, x, _y| m.max(x)),
    atomic!("and", 4, 1, |m, x, _y| m & x),
    atomic!("or", 4, 1, |m, x, _y| m | x),
    atomic!("xor", 4, 1, |m, x, _y| m ^ x),
    atomic!("inc", 4, 1, |m, x, _y| if m >= x { 0 } else { m + 1 }),
    atomic!("dec", 4, 1, |m, x, _y| if m == 0 || m > x { x } else { m - 1 }),
    atomic!("add_f32", 4, 1, |m, x, _y| add_f32(m, x)),
    atomic!("pk_add_f16", 4, 1, |m, x, _y| pk_add_f16(m, x)),
    atomic!("swap_x2", 8, 2, |_m, x, _y| x),
    atomic!("cmpswap_x2", 8, 4, |m, x, y| if m == y { x } else { m }),
    atomic!("add_x2", 8, 2, |m, x, _y| m.wrapping_add(x)),
    atomic!("sub_x2", 8, 2, |m, x, _y| m.wrapping_sub(x)),
    atomic!("smin_x2", 8, 2, |m, x, _y| (m as i64).min(x as i64) as u64),
    atomic!("umin_x2", 8, 2, |m, x, _y| m.min(x)),
    atomic!("smax_x2", 8, 2, |m, x, _y| (m as i64).max(x as i64) as u64),
    atomic!("umax_x2", 8, 2, |m, x, _y| m.max(x)),
    atomic!("and_x2", 8, 2, |m, x, _y| m & x),
    atomic!("or_x2", 8, 2, |m, x, _y| m | x),
    atomic!("xor_x2", 8, 2, |m, x, _y| m ^ x),
    atomic!("add_f64", 8, 2, |m, x, _y| f64_of(m, x, |a, b| a + b)),
    atomic!("min_f64", 8, 2, |m, x, _y| f64_of(m, x, f64::min)),
    atomic!("max_f64", 8, 2, |m, x, _y| f64_of(m, x, f64::max)),
];

pub(crate) const ROWS: &[Row] = GROUPS.as_flattened();
