//! Loads and stores of global memory.
//!
//! Loads and stores may have any alignment, as on gfx942 in the mode HSA runs it in (clang emits unaligned dwords for
//! packed blocks). Loaded bytes that nothing wrote make the destination hold no value.

use crate::cpu::{Cpu, Lanes, Step, Stop, fault};
use crate::fault::{Cause, What};
use crate::inst::{Class, Inst, Kind, Role, Row, SADDR, Ty, exec};
use crate::lanes::unknown;
use crate::memory::Region;
use crate::operand::{PRIVATE_BASE, SHARED_BASE};

/// Bytes between the lowest and the highest lane up to which asking for all of them is quicker than for each lane's.
const NEAR: u64 = 4096;

/// What a load makes of its bytes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Part {
    /// Dwords, or a zero-extended smaller value.
    Whole,
    Signed,
    /// The low half; the high half stays.
    Low,
    LowSigned,
    High,
    HighSigned,
}

/// Sign-extends and merges `x` of `bytes` into a register's old value.
#[inline(always)]
pub(crate) fn merge(x: u32, bytes: u32, part: Part, old: u32) -> u32 {
    let signed = if bytes == 1 { x as i8 as u32 } else { x as i16 as u32 };
    match part {
        Part::Whole => x,
        Part::Signed => signed,
        Part::Low => old & 0xffff_0000 | x & 0xffff,
        Part::LowSigned => old & 0xffff_0000 | signed & 0xffff,
        Part::High => old & 0xffff | x << 16,
        Part::HighSigned => old & 0xffff | signed << 16,
    }
}

/// The addresses of all lanes into `w.addr`; gives the lowest and highest of active lanes. `sbase` is the source that may
/// be the scalar base.
#[inline(always)]
pub(crate) fn addresses(cx: &mut Cpu<'_>, i: &Inst, sbase: usize) -> Result<(u64, u64), Stop> {
    let exec = cx.w.exec();
    let v = i.src[0].reg as usize;
    let wide = i.flags & SADDR == 0;
    let known = cx.w.init[v] & if wide { cx.w.init[v + 1] } else { !0 };
    if i.src[0].kind != Kind::Vector || known & exec != exec {
        return Err(unknown(cx, i, exec));
    }
    let base = if wide {
        i.imm as u64
    } else {
        let s = &i.src[sbase];
        let (base, known) = cx.w.scalar(s, 2);
        if !known {
            return Err(crate::cross::unknown_scalar(s.reg));
        }
        base.wrapping_add(i.imm as u64)
    };
    let (lo, hi) = (&cx.w.regs[v].0, &cx.w.regs[if wide { v + 1 } else { v }].0);
    let addr = &mut *cx.w.addr;
    let (mut min, mut max) = (u64::MAX, 0);
    for l in 0..64 {
        let a = u64::from(lo[l]) | if wide { u64::from(hi[l]) << 32 } else { 0 };
        addr[l] = a.wrapping_add(base);
        let active = exec >> l & 1 != 0;
        min = min.min(if active { addr[l] } else { u64::MAX });
        max = max.max(if active { addr[l] } else { 0 });
    }
    Ok((min, max))
}

pub(crate) fn lanes_of(exec: u64) -> impl Iterator<Item = usize> {
    let mut rest = exec;
    std::iter::from_fn(move || {
        let l = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (l < 64).then_some(l)
    })
}

#[cold]
fn outside(lane: usize, address: u64, bytes: u32, write: bool) -> Stop {
    let what = match address >> 32 << 32 {
        PRIVATE_BASE => What::Scratch,
        SHARED_BASE => What::Unsupported { why: "a generic address of LDS".into() },
        _ => What::OutOfBounds { address, bytes, write },
    };
    fault(Cause { lane: Some(lane as u32), what })
}

/// Calls `f` for every active lane with the region its `bytes` lie in and their offset there.
#[inline(always)]
pub(crate) fn each(
    cx: &mut Cpu<'_>,
    (min, max): (u64, u64),
    bytes: u32,
    write: bool,
    mut f: impl FnMut(&mut crate::cpu::Wave, usize, &Region, u64) -> Step,
) -> Step {
    let exec = cx.w.exec();
    if exec == 0 {
        return Ok(());
    }
    let n = u64::from(bytes) * u64::from(exec.count_ones());
    *(if write { &mut cx.tally.written } else { &mut cx.tally.read }) += n;
    if let Some((region, _)) = (max - min).checked_add(bytes.into()).and_then(|n| cx.mem.find(min, n)) {
        for l in lanes_of(exec) {
            let off = cx.w.addr[l] - region.base;
            f(cx.w, l, region, off)?;
        }
    } else {
        for l in lanes_of(exec) {
            let addr = cx.w.addr[l];
            let (region, _) = cx.mem.find(addr, bytes.into()).ok_or_else(|| outside(l, addr, bytes, write))?;
            f(cx.w, l, region, addr - region.base)?;
        }
    }
    Ok(())
}

/// The region that all active lanes access, whether what is live of it was written, and each lane's place in it: inactive
/// ones have that of the lowest.
#[inline(always)]
fn together<'a>(cx: &mut Cpu<'a>, (min, max): (u64, u64), bytes: u32) -> Option<(&'a Region, bool, [u64; 64])> {
    let exec = cx.w.exec();
    let span = max.wrapping_sub(min).checked_add(bytes.into());
    let (region, whole) = span.and_then(|n| cx.mem.find(min, n)).filter(|_| exec != 0)?;
    let mut off = *cx.w.addr;
    for l in 0..64 {
        let a = if exec >> l & 1 != 0 { off[l] } else { min };
        off[l] = a.wrapping_sub(region.base);
    }
    Some((region, whole, off))
}

#[inline(always)]
fn load(cx: &mut Cpu<'_>, i: &Inst, range: (u64, u64), bytes: u32, part: Part) -> Step {
    // The common case: one allocation, all that is live of it written, or all between the lanes.
    let written = |region: &Region| {
        let n = range.1 - range.0 + u64::from(bytes);
        n <= NEAR && region.written(range.0 - region.base, n)
    };
    let found = together(cx, range, bytes);
    if let Some((region, _, off)) = found.filter(|(region, whole, _)| *whole || written(region)) {
        let done = match bytes {
            8 => load_lanes::<2>(cx, i, region, &off, bytes, part),
            12 => load_lanes::<3>(cx, i, region, &off, bytes, part),
            16 => load_lanes::<4>(cx, i, region, &off, bytes, part),
            _ => load_lanes::<1>(cx, i, region, &off, bytes, part),
        };
        if done {
            return Ok(());
        }
    }
    load_each(cx, i, range, bytes, part)
}

/// Loads the `N` registers of all lanes; false if that was not possible.
#[inline(always)]
fn load_lanes<const N: usize>(
    cx: &mut Cpu<'_>,
    i: &Inst,
    region: &Region,
    off: &[u64; 64],
    bytes: u32,
    part: Part,
) -> bool {
    let (mut out, exec, d) = ([Lanes::ZERO; N], cx.w.exec(), i.dst.reg as usize);
    if !region.load_lanes(off, bytes, &mut out) {
        return false;
    }
    cx.tally.read += u64::from(bytes) * u64::from(exec.count_ones());
    if bytes < 4 {
        let old = &cx.w.regs[d].0;
        for l in 0..64 {
            out[0].0[l] = merge(out[0].0[l] & ((1 << (8 * bytes)) - 1), bytes, part, old[l]);
        }
    }
    cx.w.wmask = exec;
    for n in 0..N {
        cx.w.put(d + n, &out[n], !0);
    }
    true
}

/// Loads lane by lane.
#[inline(never)]
fn load_each(cx: &mut Cpu<'_>, i: &Inst, range: (u64, u64), bytes: u32, part: Part) -> Step {
    let d = i.dst.reg as usize;
    each(cx, range, bytes, false, |w, l, region, off| {
        let known = region.is_whole() || region.known(off, bytes);
        if bytes < 4 {
            let old = w.regs[d].0[l];
            w.regs[d].0[l] = merge(region.load(off, bytes), bytes, part, old);
            w.init[d] = w.init[d] & !(1 << l) | u64::from(known) << l;
            w.note_hole(d, known);
            return Ok(());
        }
        for n in 0..(bytes / 4) as usize {
            let off = off + 4 * n as u64;
            let known = known || region.known(off, 4);
            w.regs[d + n].0[l] = region.load(off, 4);
            w.init[d + n] = w.init[d + n] & !(1 << l) | u64::from(known) << l;
            w.note_hole(d + n, known);
        }
        Ok(())
    })
}

#[inline(never)]
fn store(cx: &mut Cpu<'_>, i: &Inst, range: (u64, u64), bytes: u32, high: bool) -> Step {
    let (d, exec) = (i.src[1].reg as usize, cx.w.exec());
    let words = (bytes.div_ceil(4)) as usize;
    if i.src[1].kind != Kind::Vector || cx.w.init[d..d + words].iter().any(|m| m & exec != exec) {
        return Err(unknown(cx, i, exec));
    }
    if exec == !0 && range.1.wrapping_sub(range.0) == 63 * u64::from(bytes) && bytes >= 4 && range.0 & 3 == 0 {
        // The common case: lanes side by side in one allocation.
        let row = (0..64).fold(0, |off, l| off | cx.w.addr[l] ^ (range.0 + l as u64 * u64::from(bytes))) == 0;
        if let Some((region, whole, off)) = together(cx, range, bytes).filter(|_| row) {
            cx.tally.written += 64 * u64::from(bytes);
            for n in 0..words {
                region.store_lanes(off[0] + 4 * n as u64, bytes, &cx.w.regs[d + n]);
            }
            if !whole {
                region.mark_row(off[0], bytes);
            }
            return Ok(());
        }
    }
    each(cx, range, bytes, true, |w, l, region, off| {
        if bytes < 4 {
            region.store(off, bytes, w.regs[d].0[l] >> if high { 16 } else { 0 });
        } else {
            for n in 0..words {
                region.store(off + 4 * n as u64, 4, w.regs[d + n].0[l]);
            }
        }
        region.mark(off, bytes);
        Ok(())
    })
}

const R: Role = Role::Src(Ty::Rows);

macro_rules! load {
    ($name:literal, $bytes:literal, $part:ident) => {
        load!(@ concat!("global_load_", $name), concat!("flat_load_", $name), $bytes, $part)
    };
    (@ $g:expr, $f:expr, $bytes:literal, $part:ident) => {{
        const EXEC: crate::inst::Exec = exec!(|cx, i| {
            let range = addresses(cx, i, 1)?;
            load(cx, i, range, $bytes, Part::$part)
        });
        const ROLES: &[Role] = &[Role::Dst(Ty::Rows), R, R];
        [
            Row { name: $g, class: Class::VmemLoad, reads_dst: false, roles: ROLES, exec: EXEC },
            Row { name: $f, class: Class::VmemLoad, reads_dst: false, roles: ROLES, exec: EXEC },
        ]
    }};
}

macro_rules! store {
    ($name:literal, $bytes:literal, $high:literal) => {{
        const EXEC: crate::inst::Exec = exec!(|cx, i| {
            let range = addresses(cx, i, 2)?;
            store(cx, i, range, $bytes, $high)
        });
        const ROLES: &[Role] = &[R, R, R];
        [
            Row {
                name: concat!("global_store_", $name),
                class: Class::VmemStore,
                reads_dst: false,
                roles: ROLES,
                exec: EXEC,
            },
            Row {
                name: concat!("flat_store_", $name),
                class: Class::VmemStore,
                reads_dst: false,
                roles: ROLES,
                exec: EXEC,
            },
        ]
    }};
}

const GROUPS: &[[Row; 2]] = &[
    load!("ubyte", 1, Whole),
    load!("sbyte", 1, Signed),
    load!("ushort", 2, Whole),
    load!("sshort", 2, Signed),
    load!("ubyte_d16", 1, Low),
    load!("ubyte_d16_hi", 1, High),
    load!("sbyte_d16", 1, LowSigned),
    load!("sbyte_d16_hi", 1, HighSigned),
    load!("short_d16", 2, Low),
    load!("short_d16_hi", 2, High),
    load!("dword", 4, Whole),
    load!("dwordx2", 8, Whole),
    load!("dwordx3", 12, Whole),
    load!("dwordx4", 16, Whole),
    store!("byte", 1, false),
    store!("byte_d16_hi", 1, true),
    store!("short", 2, false),
    store!("short_d16_hi", 2, true),
    store!("dword", 4, false),
    store!("dwordx2", 8, false),
    store!("dwordx3", 12, false),
    store!("dwordx4", 16, false),
];

pub(crate) const ROWS: &[Row] = GROUPS.as_flattened();
