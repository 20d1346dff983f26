//! Comparisons: a bit a lane into a scalar pair, and into EXEC for `v_cmpx`.

#![allow(clippy::neg_cmp_op_on_partial_ord, reason = "that is what the instructions compute")]

use crate::convert::h2f;
use crate::cpu::{Cpu, EXEC, Step};
use crate::inst::{Class, Inst, Role, Row, exec};
use crate::lanes::{H, Lane, prepare, wide};

#[inline(always)]
fn compare<A: Lane, B: Lane>(cx: &mut Cpu<'_>, i: &Inst, x: bool, f: impl Fn(A, B) -> bool) -> Step {
    prepare(cx, i, true)?;
    let mut mask;
    {
        let [a, ah] = i.slot[0];
        let [b, bh] = i.slot[1];
        let r = &cx.w.regs;
        let a = (&r[a as usize].0, if wide(A::TY) { &r[ah as usize].0 } else { &r[a as usize].0 });
        let b = (&r[b as usize].0, if wide(B::TY) { &r[bh as usize].0 } else { &r[b as usize].0 });
        let mut bits = [0u8; 64];
        for l in 0..64 {
            bits[l] = u8::from(f(A::get(a.0[l], a.1[l]), B::get(b.0[l], b.1[l])));
        }
        mask = crate::lanes::gather(&bits);
    }
    mask &= cx.w.wmask;
    cx.w.set_s64(i.sdst, mask, true);
    if x {
        cx.w.set_s64(EXEC, mask, true);
    }
    Ok(())
}

/// A test for the classes in a mask: NaNs, infinities, normals, denormals, zeros, by sign.
fn class(neg: bool, nan: bool, quiet: bool, inf: bool, zero: bool, denormal: bool, mask: u32) -> bool {
    let bit = match (nan, inf, zero, denormal) {
        (true, ..) => usize::from(quiet),
        (_, true, ..) => 2,
        (_, _, true, _) => 5,
        (_, _, _, true) => 4,
        _ => 3,
    };
    mask >> if nan || neg { bit } else { 11 - bit } & 1 != 0
}

fn class32(x: f32, mask: u32) -> bool {
    let quiet = x.to_bits() >> 22 & 1 != 0;
    class(x.is_sign_negative(), x.is_nan(), quiet, x.is_infinite(), x == 0.0, x.is_subnormal(), mask)
}

fn class64(x: f64, mask: u32) -> bool {
    let quiet = x.to_bits() >> 51 & 1 != 0;
    class(x.is_sign_negative(), x.is_nan(), quiet, x.is_infinite(), x == 0.0, x.is_subnormal(), mask)
}

fn class16(x: H, mask: u32) -> bool {
    let (e, m) = (x.0 >> 10 & 31, x.0 & 0x3ff);
    let (nan, inf) = (e == 31 && m != 0, e == 31 && m == 0);
    class(x.0 >> 15 != 0, nan, x.0 >> 9 & 1 != 0, inf, e == 0 && m == 0, e == 0 && m != 0, mask)
}

macro_rules! row {
    ($name:expr, $a:ty, $b:ty, $x:literal, $f:expr) => {
        Row {
            name: $name,
            class: Class::Valu,
            reads_dst: false,
            roles: &[Role::Sdst, Role::Src(<$a as Lane>::TY), Role::Src(<$b as Lane>::TY)],
            exec: exec!(|cx, i| compare::<$a, $b>(cx, i, $x, $f)),
        }
    };
}

/// Both forms of each comparison of a type.
macro_rules! family {
    ($t:literal, $a:ty, $b:ty, { $($rel:literal => $f:expr,)* }) => {
        &[$(
            row!(concat!("v_cmp_", $rel, "_", $t), $a, $b, false, $f),
            row!(concat!("v_cmpx_", $rel, "_", $t), $a, $b, true, $f),
        )*]
    };
}

macro_rules! integers {
    ($t:literal, $a:ty) => {
        family!($t, $a, $a, {
            "lt" => |x, y| x < y,
            "eq" => |x, y| x == y,
            "le" => |x, y| x <= y,
            "gt" => |x, y| x > y,
            "ne" => |x, y| x != y,
            "ge" => |x, y| x >= y,
            "f" => |_, _| false,
            "t" => |_, _| true,
        })
    };
}

/// `n` relations are negations, true where an operand is NaN. `$w` makes a comparable float of an operand.
macro_rules! floats {
    ($t:literal, $a:ty, $w:expr) => {
        family!($t, $a, $a, {
            "lt" => |x, y| $w(x) < $w(y),
            "eq" => |x, y| $w(x) == $w(y),
            "le" => |x, y| $w(x) <= $w(y),
            "gt" => |x, y| $w(x) > $w(y),
            "lg" => |x, y| $w(x) < $w(y) || $w(x) > $w(y),
            "ge" => |x, y| $w(x) >= $w(y),
            "o" => |x, y| !$w(x).is_nan() && !$w(y).is_nan(),
            "u" => |x, y| $w(x).is_nan() || $w(y).is_nan(),
            "nge" => |x, y| !($w(x) >= $w(y)),
            "nlg" => |x, y| !($w(x) < $w(y) || $w(x) > $w(y)),
            "ngt" => |x, y| !($w(x) > $w(y)),
            "nle" => |x, y| !($w(x) <= $w(y)),
            "neq" => |x, y| $w(x) != $w(y),
            "nlt" => |x, y| !($w(x) < $w(y)),
            "f" => |_, _| false,
            "tru" => |_, _| true,
        })
    };
}

#[inline(always)]
fn f16(x: H) -> f32 {
    h2f(x.0)
}

pub(crate) const ROWS: &[&[Row]] = &[
    integers!("i16", i16),
    integers!("u16", u16),
    integers!("i32", i32),
    integers!("u32", u32),
    integers!("i64", i64),
    integers!("u64", u64),
    floats!("f16", H, f16),
    floats!("f32", f32, f32::from),
    floats!("f64", f64, f64::from),
    family!("f32", f32, u32, { "class" => class32, }),
    family!("f64", f64, u32, { "class" => class64, }),
    family!("f16", H, u32, { "class" => class16, }),
];
