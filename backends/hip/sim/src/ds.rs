//! LDS instructions, and the lane permutes that share their encoding.

use crate::cpu::{Cpu, Lanes, Step, Stop};
use crate::global::{Part, lanes_of, merge};
use crate::inst::{Class, Inst, Kind, Role, Row, Ty, exec};
use crate::lanes::unknown;
use crate::lds::{Access, Span};

/// The lanes' addresses with `offset`, and EXEC.
#[inline(always)]
fn addresses(cx: &Cpu<'_>, i: &Inst, offset: i64) -> Result<([u32; 64], u64), Stop> {
    let exec = cx.w.exec();
    let v = i.src[0].reg as usize;
    if i.src[0].kind != Kind::Vector || cx.w.init[v] & exec != exec {
        return Err(unknown(cx, i, exec));
    }
    let mut addr = cx.w.regs[v].0;
    for a in &mut addr {
        *a = a.wrapping_add(offset as u32);
    }
    Ok((addr, exec))
}

/// The addresses of an access, `None` if no lane is active.
#[inline(always)]
fn span(cx: &Cpu<'_>, i: &Inst, offset: i64, bytes: u32) -> Result<Option<Span>, Stop> {
    let (mut addr, exec) = addresses(cx, i, offset)?;
    if exec == 0 {
        return Ok(None);
    }
    if exec != !0 {
        let (first, on) = (addr[exec.trailing_zeros() as usize & 63], Lanes::mask(exec).0);
        for l in 0..64 {
            addr[l] = addr[l] & on[l] | first & !on[l];
        }
    }
    Ok(Some(Span::new(addr, exec, bytes)))
}

/// Counts conflicts, checks and notes an access.
#[inline(always)]
fn access(cx: &mut Cpu<'_>, i: &Inst, s: &Span, offset: i64, align: u32, access: Access) -> Step {
    let key = (i.pc >> 2).wrapping_add(offset as u64);
    cx.tally.conflicts += cx.lds.banks.conflicts(key, &s.addr, s.exec, s.bytes.div_ceil(4));
    cx.lds.access(s, align, cx.w.id, access)
}

/// Data registers of a write must hold values.
fn data(cx: &Cpu<'_>, i: &Inst, k: usize, words: usize) -> Result<usize, Stop> {
    let (d, exec) = (i.src[k].reg as usize, cx.w.exec());
    let bad = i.src[k].kind != Kind::Vector || cx.w.init[d..d + words].iter().any(|m| m & exec != exec);
    if bad { Err(unknown(cx, i, exec)) } else { Ok(d) }
}

/// The alignment an access must have: its size, or 4 for 12 bytes. Hardware in its unaligned mode takes any, slowly; but
/// clang emits wide accesses only where it was promised the alignment, so less of it is a broken promise.
fn align(bytes: u32) -> u32 {
    if bytes == 12 { 4 } else { bytes }
}

#[inline(always)]
fn read_at(cx: &mut Cpu<'_>, i: &Inst, offset: i64, d: usize, bytes: u32, part: Part) -> Step {
    let Some(s) = span(cx, i, offset, bytes)? else { return Ok(()) };
    access(cx, i, &s, offset, align(bytes), Access::Read)?;
    cx.w.wmask = s.exec;
    if cx.lds.all_known(&s) {
        match bytes {
            4 => words::<1>(cx, &s, d),
            8 => words::<2>(cx, &s, d),
            12 => words::<3>(cx, &s, d),
            16 => words::<4>(cx, &s, d),
            _ => parts(cx, &s, d, part, s.exec),
        }
        return Ok(());
    }
    // Some bytes were never written: dwords that have one hold no value.
    if bytes < 4 {
        let known = lanes_of(s.exec).fold(0, |k, l| k | u64::from(cx.lds.known(s.addr[l], bytes)) << l);
        parts(cx, &s, d, part, known);
        cx.w.note_hole(d, known == s.exec);
        return Ok(());
    }
    for n in 0..bytes / 4 {
        let (mut x, mut known) = (Lanes::ZERO, 0);
        for l in lanes_of(s.exec) {
            let a = s.addr[l] + 4 * n;
            x.0[l] = cx.lds.dword(a);
            known |= u64::from(cx.lds.known(a, 4)) << l;
        }
        cx.w.put(d + n as usize, &x, known);
        cx.w.note_hole(d + n as usize, known == s.exec);
    }
    Ok(())
}

/// Reads `N` dwords a lane that all were written.
#[inline(always)]
fn words<const N: usize>(cx: &mut Cpu<'_>, s: &Span, d: usize) {
    let mut out = cx.lds.dwords::<N>(s.addr[0]).map(|x| Lanes([x; 64]));
    if s.distinct > 1 {
        for l in 0..64 {
            let x = cx.lds.dwords::<N>(s.addr[l]);
            for n in 0..N {
                out[n].0[l] = x[n];
            }
        }
    }
    for n in 0..N {
        cx.w.put(d + n, &out[n], !0);
    }
}

/// Reads one or two bytes a lane.
fn parts(cx: &mut Cpu<'_>, s: &Span, d: usize, part: Part, known: u64) {
    let mut out = cx.w.regs[d];
    for l in lanes_of(s.exec) {
        out.0[l] = merge(cx.lds.part(s.addr[l], s.bytes), s.bytes, part, out.0[l]);
    }
    cx.w.put(d, &out, known);
}

#[inline(always)]
fn read(cx: &mut Cpu<'_>, i: &Inst, bytes: u32, part: Part) -> Step {
    read_at(cx, i, i.imm, i.dst.reg as usize, bytes, part)
}

/// Two reads side by side as one. False if it is for two reads to say what is wrong with them, or what holds no value.
#[inline(always)]
fn neighbours(cx: &mut Cpu<'_>, i: &Inst, bytes: u32) -> Result<bool, Stop> {
    let offset = i.imm * i64::from(bytes);
    let Some(s) = span(cx, i, offset, 2 * bytes)? else { return Ok(true) };
    if cx.lds.access(&s, bytes, cx.w.id, Access::Read).is_err() || !cx.lds.all_known(&s) {
        return Ok(false);
    }
    // Both conflict alike, one bank apart.
    cx.tally.conflicts +=
        2 * cx.lds.banks.conflicts((i.pc >> 2).wrapping_add(offset as u64), &s.addr, s.exec, bytes / 4);
    cx.w.wmask = s.exec;
    if bytes == 4 {
        words::<2>(cx, &s, i.dst.reg as usize)
    } else {
        words::<4>(cx, &s, i.dst.reg as usize)
    }
    Ok(true)
}

/// Two reads at offsets counted in elements, or in 64 elements.
#[inline(always)]
fn read2(cx: &mut Cpu<'_>, i: &Inst, bytes: u32, unit: i64) -> Step {
    let d = i.dst.reg as usize;
    if i.imm2 == i.imm + 1 && unit == i64::from(bytes) && neighbours(cx, i, bytes)? {
        return Ok(());
    }
    // The destination may overlap the address.
    let v = i.src[0].reg as usize;
    let (old, known) = (cx.w.regs[v], cx.w.init[v]);
    read_at(cx, i, i.imm * unit, d, bytes, Part::Whole)?;
    let first = d..d + bytes as usize / 4;
    if first.contains(&v) {
        let (new, new_known) = (cx.w.regs[v], cx.w.init[v]);
        (cx.w.regs[v], cx.w.init[v]) = (old, known);
        read_at(cx, i, i.imm2 * unit, first.end, bytes, Part::Whole)?;
        (cx.w.regs[v], cx.w.init[v]) = (new, new_known);
        return Ok(());
    }
    read_at(cx, i, i.imm2 * unit, first.end, bytes, Part::Whole)
}

#[inline(always)]
fn write_at(cx: &mut Cpu<'_>, i: &Inst, offset: i64, k: usize, bytes: u32, high: bool) -> Step {
    let Some(s) = span(cx, i, offset, bytes)? else { return Ok(()) };
    let d = data(cx, i, k, bytes.div_ceil(4) as usize)?;
    access(cx, i, &s, offset, align(bytes), Access::Write)?;
    cx.lds.mark(&s);
    match bytes {
        4 => set_words::<1>(cx, &s, d),
        8 => set_words::<2>(cx, &s, d),
        12 => set_words::<3>(cx, &s, d),
        16 => set_words::<4>(cx, &s, d),
        _ => {
            for l in lanes_of(s.exec) {
                cx.lds.set_part(s.addr[l], bytes, cx.w.regs[d].0[l] >> if high { 16 } else { 0 });
            }
        }
    }
    Ok(())
}

/// Writes `N` dwords a lane, in lane order.
#[inline(always)]
fn set_words<const N: usize>(cx: &mut Cpu<'_>, s: &Span, d: usize) {
    let regs = &cx.w.regs[d..d + N];
    let x = |l: usize| std::array::from_fn::<u32, N, _>(|n| regs[n].0[l]);
    if s.exec == !0 {
        for l in 0..64 {
            cx.lds.set_dwords::<N>(s.addr[l], x(l));
        }
    } else {
        for l in lanes_of(s.exec) {
            cx.lds.set_dwords::<N>(s.addr[l], x(l));
        }
    }
}

#[inline(always)]
fn write2(cx: &mut Cpu<'_>, i: &Inst, bytes: u32, unit: i64) -> Step {
    write_at(cx, i, i.imm * unit, 1, bytes, false)?;
    write_at(cx, i, i.imm2 * unit, 2, bytes, false)
}

/// `f(memory, data0, data1)` in lane order.
fn atomic(cx: &mut Cpu<'_>, i: &Inst, bytes: u32, two: bool, f: impl Fn(u64, u64, u64) -> u64) -> Step {
    let n = bytes as usize / 4;
    let Some(s) = span(cx, i, i.imm, bytes)? else { return Ok(()) };
    let d0 = data(cx, i, 1, n)?;
    let d1 = if two { data(cx, i, 2, n)? } else { d0 };
    access(cx, i, &s, i.imm, bytes, Access::Atomic)?;
    for l in lanes_of(s.exec) {
        let a = s.addr[l];
        let wide = |lo: u32, hi: u32| u64::from(lo) | u64::from(hi) << 32;
        let value = |d: usize| wide(cx.w.regs[d].0[l], if n == 2 { cx.w.regs[d + 1].0[l] } else { 0 });
        let (lo, hi) = (cx.lds.dword(a), if n == 2 { cx.lds.dword(a + 4) } else { 0 });
        if !cx.lds.known(a, bytes) {
            let what = crate::fault::What::LdsMemory { address: a.into() };
            return Err(crate::cpu::fault(crate::fault::Cause { lane: Some(l as u32), what }));
        }
        let new = f(wide(lo, hi), value(d0), value(d1));
        cx.lds.set_dword(a, new as u32);
        if n == 2 {
            cx.lds.set_dword(a + 4, (new >> 32) as u32);
        }
        if i.dst.kind == Kind::Vector {
            for (w, x) in [lo, hi].into_iter().enumerate().take(n) {
                let d = i.dst.reg as usize + w;
                cx.w.regs[d].0[l] = x;
                cx.w.init[d] |= 1 << l;
            }
        }
    }
    Ok(())
}

/// Moves values between lanes. `from` has the lane read, or 64 for zero.
#[inline(always)]
fn permute(cx: &mut Cpu<'_>, i: &Inst, from: &[u32; 64], src: usize) -> Step {
    let exec = cx.w.exec();
    let (x, known) = (cx.w.regs[src], cx.w.init[src]);
    let moved = |m: u64| (0..64).fold(0, |r, l| r | (m >> (from[l] & 63) & 1 | u64::from(from[l] >> 6)) << l);
    let mut r = Lanes::ZERO;
    for l in 0..64 {
        // Inactive lanes give 0.
        let on = (exec >> (from[l] & 63) & 1) as u32 & !(from[l] >> 6);
        r.0[l] = x.0[(from[l] & 63) as usize] & on.wrapping_neg();
    }
    let k = if known & exec == exec { !0 } else { moved(known | !exec) };
    cx.w.wmask = exec;
    cx.w.put(i.dst.reg as usize, &r, k);
    Ok(())
}

/// Each lane takes the value of the lane its address names; inactive lanes give 0.
fn bpermute(cx: &mut Cpu<'_>, i: &Inst) -> Step {
    let (addr, _) = addresses(cx, i, i.imm)?;
    permute(cx, i, &addr.map(|a| a >> 2 & 63), i.src[1].reg as usize)
}

/// Each lane sends its value to the lane its address names; the highest sender wins.
fn forward(cx: &mut Cpu<'_>, i: &Inst) -> Step {
    let (addr, exec) = addresses(cx, i, i.imm)?;
    let mut from = [64; 64];
    for l in lanes_of(exec) {
        from[(addr[l] >> 2 & 63) as usize] = l as u32;
    }
    permute(cx, i, &from, i.src[1].reg as usize)
}

fn swizzled(cx: &mut Cpu<'_>, i: &Inst) -> Step {
    let n = i.imm as u32;
    let from = |l: u32| {
        if n & 0x8000 != 0 {
            (l & !3) | n >> (2 * (l & 3)) & 3
        } else {
            let (and, or, xor) = (n & 31, n >> 5 & 31, n >> 10 & 31);
            (l & 32) | (((l & 31) & and) | or) ^ xor
        }
    };
    permute(cx, i, &std::array::from_fn(|l| from(l as u32)), i.src[0].reg as usize)
}

/// The offset that `swizzle(…)` in a listing stands for.
pub(crate) fn swizzle(text: &str) -> Option<i64> {
    let inner = text.strip_prefix("swizzle(")?.strip_suffix(')')?;
    let mut parts = inner.split(',').map(str::trim);
    let mode = parts.next()?;
    if mode == "BITMASK_PERM" {
        let mask = parts.next()?.trim_matches('"');
        let bit = |on: char| mask.chars().fold(0, |m, c| m << 1 | i64::from(c == on));
        return (mask.len() == 5).then(|| (bit('p') | bit('i')) | bit('1') << 5 | bit('i') << 10);
    }
    let n = parts.map(|p| p.parse::<i64>().ok()).collect::<Option<Vec<_>>>()?;
    Some(match (mode, n.as_slice()) {
        ("QUAD_PERM", [a, b, c, d]) => 0x8000 | a | b << 2 | c << 4 | d << 6,
        ("SWAP", [n]) => 31 | n << 10,
        ("REVERSE", [n]) => 31 | (n - 1) << 10,
        ("BROADCAST", [n, l]) => (32 - n) | (l << 5),
        _ => return None,
    })
}

const R: Role = Role::Src(Ty::Rows);
const D: Role = Role::Dst(Ty::Rows);

macro_rules! row {
    ($name:expr, $class:ident, $roles:expr, |$cx:ident, $i:ident| $e:expr) => {
        Row { name: $name, class: Class::$class, reads_dst: false, roles: $roles, exec: exec!(|$cx, $i| $e) }
    };
}

macro_rules! atomics {
    ($($name:literal, $rtn:literal, $bytes:literal, $two:literal, |$m:ident, $x:ident, $y:ident| $e:expr;)*) => {
        &[$(
            row!(concat!("ds_", $name), Atomic, if $two { &[R, R, R] } else { &[R, R] },
                |cx, i| atomic(cx, i, $bytes, $two, |$m, $x, $y| $e)),
            row!(concat!("ds_", $rtn), Atomic, if $two { &[D, R, R, R] } else { &[D, R, R] },
                |cx, i| atomic(cx, i, $bytes, $two, |$m, $x, $y| $e)),
        )*]
    };
}

fn s(x: u64) -> i32 {
    x as i32
}

fn float(m: u64, x: u64, f: fn(f32, f32) -> f32) -> u64 {
    f(f32::from_bits(m as u32), f32::from_bits(x as u32)).to_bits().into()
}

pub(crate) const ATOMICS: &[Row] = atomics! {
    "add_u32", "add_rtn_u32", 4, false, |m, x, _y| m.wrapping_add(x);
    "sub_u32", "sub_rtn_u32", 4, false, |m, x, _y| m.wrapping_sub(x);
    "inc_u32", "inc_rtn_u32", 4, false, |m, x, _y| if m >= x { 0 } else { m + 1 };
    "dec_u32", "dec_rtn_u32", 4, false, |m, x, _y| if m == 0 || m > x { x } else { m - 1 };
    "min_u32", "min_rtn_u32", 4, false, |m, x, _y| m.min(x);
    "max_u32", "max_rtn_u32", 4, false, |m, x, _y| m.max(x);
    "min_i32", "min_rtn_i32", 4, false, |m, x, _y| if s(x) < s(m) { x } else { m };
    "max_i32", "max_rtn_i32", 4, false, |m, x, _y| if s(x) > s(m) { x } else { m };
    "and_b32", "and_rtn_b32", 4, false, |m, x, _y| m & x;
    "or_b32", "or_rtn_b32", 4, false, |m, x, _y| m | x;
    "xor_b32", "xor_rtn_b32", 4, false, |m, x, _y| m ^ x;
    "add_f32", "add_rtn_f32", 4, false, |m, x, _y| float(m, x, |a, b| a + b);
    "min_f32", "min_rtn_f32", 4, false, |m, x, _y| float(m, x, crate::valu_float::min);
    "max_f32", "max_rtn_f32", 4, false, |m, x, _y| float(m, x, crate::valu_float::max);
    "wrxchg_b32", "wrxchg_rtn_b32", 4, false, |_m, x, _y| x;
    "cmpst_b32", "cmpst_rtn_b32", 4, true, |m, x, y| if m == x { y } else { m };
    "add_u64", "add_rtn_u64", 8, false, |m, x, _y| m.wrapping_add(x);
    "min_u64", "min_rtn_u64", 8, false, |m, x, _y| m.min(x);
    "max_u64", "max_rtn_u64", 8, false, |m, x, _y| m.max(x);
    "or_b64", "or_rtn_b64", 8, false, |m, x, _y| m | x;
    "and_b64", "and_rtn_b64", 8, false, |m, x, _y| m & x;
    "wrxchg_b64", "wrxchg_rtn_b64", 8, false, |_m, x, _y| x;
    "cmpst_b64", "cmpst_rtn_b64", 8, true, |m, x, y| if m == x { y } else { m };
};

pub(crate) const ROWS: &[Row] = &[
    row!("ds_read_b32", Lds, &[D, R], |cx, i| read(cx, i, 4, Part::Whole)),
    row!("ds_read_b64", Lds, &[D, R], |cx, i| read(cx, i, 8, Part::Whole)),
    row!("ds_read_b96", Lds, &[D, R], |cx, i| read(cx, i, 12, Part::Whole)),
    row!("ds_read_b128", Lds, &[D, R], |cx, i| read(cx, i, 16, Part::Whole)),
    row!("ds_read_u8", Lds, &[D, R], |cx, i| read(cx, i, 1, Part::Whole)),
    row!("ds_read_i8", Lds, &[D, R], |cx, i| read(cx, i, 1, Part::Signed)),
    row!("ds_read_u16", Lds, &[D, R], |cx, i| read(cx, i, 2, Part::Whole)),
    row!("ds_read_i16", Lds, &[D, R], |cx, i| read(cx, i, 2, Part::Signed)),
    row!("ds_read_u8_d16", Lds, &[D, R], |cx, i| read(cx, i, 1, Part::Low)),
    row!("ds_read_u8_d16_hi", Lds, &[D, R], |cx, i| read(cx, i, 1, Part::High)),
    row!("ds_read_i8_d16", Lds, &[D, R], |cx, i| read(cx, i, 1, Part::LowSigned)),
    row!("ds_read_i8_d16_hi", Lds, &[D, R], |cx, i| read(cx, i, 1, Part::HighSigned)),
    row!("ds_read_u16_d16", Lds, &[D, R], |cx, i| read(cx, i, 2, Part::Low)),
    row!("ds_read_u16_d16_hi", Lds, &[D, R], |cx, i| read(cx, i, 2, Part::High)),
    row!("ds_read2_b32", Lds, &[D, R], |cx, i| read2(cx, i, 4, 4)),
    row!("ds_read2_b64", Lds, &[D, R], |cx, i| read2(cx, i, 8, 8)),
    row!("ds_read2st64_b32", Lds, &[D, R], |cx, i| read2(cx, i, 4, 256)),
    row!("ds_read2st64_b64", Lds, &[D, R], |cx, i| read2(cx, i, 8, 512)),
    row!("ds_write_b8", Lds, &[R, R], |cx, i| write_at(cx, i, i.imm, 1, 1, false)),
    row!("ds_write_b8_d16_hi", Lds, &[R, R], |cx, i| write_at(cx, i, i.imm, 1, 1, true)),
    row!("ds_write_b16", Lds, &[R, R], |cx, i| write_at(cx, i, i.imm, 1, 2, false)),
    row!("ds_write_b16_d16_hi", Lds, &[R, R], |cx, i| write_at(cx, i, i.imm, 1, 2, true)),
    row!("ds_write_b32", Lds, &[R, R], |cx, i| write_at(cx, i, i.imm, 1, 4, false)),
    row!("ds_write_b64", Lds, &[R, R], |cx, i| write_at(cx, i, i.imm, 1, 8, false)),
    row!("ds_write_b96", Lds, &[R, R], |cx, i| write_at(cx, i, i.imm, 1, 12, false)),
    row!("ds_write_b128", Lds, &[R, R], |cx, i| write_at(cx, i, i.imm, 1, 16, false)),
    row!("ds_write2_b32", Lds, &[R, R, R], |cx, i| write2(cx, i, 4, 4)),
    row!("ds_write2_b64", Lds, &[R, R, R], |cx, i| write2(cx, i, 8, 8)),
    row!("ds_write2st64_b32", Lds, &[R, R, R], |cx, i| write2(cx, i, 4, 256)),
    row!("ds_write2st64_b64", Lds, &[R, R, R], |cx, i| write2(cx, i, 8, 512)),
    row!("ds_bpermute_b32", Lds, &[D, R, R], |cx, i| bpermute(cx, i)),
    row!("ds_permute_b32", Lds, &[D, R, R], |cx, i| forward(cx, i)),
    row!("ds_swizzle_b32", Lds, &[D, R], |cx, i| swizzled(cx, i)),
];
