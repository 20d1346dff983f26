//! Reads operands: registers, constants and their modifiers.

use crate::convert::f2h;
use crate::cpu::{EXEC, M0, VCC};
use crate::inst::{ACC, Kind, Ty};

/// An operand's text, understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Operand {
    pub what: Thing,
    pub neg: bool,
    pub abs: bool,
    pub sext: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Thing {
    Reg {
        kind: Kind,
        reg: u16,
        words: u16,
    },
    /// An inline integer.
    Int(i64),
    /// A literal, in hexadecimal.
    Hex(u64),
    Float(f64),
    Scc,
    /// `off`, `null`.
    Nothing,
}

/// Base of the LDS aperture in generic addresses.
pub(crate) const SHARED_BASE: u64 = 0x0001_0000_0000_0000;
/// Base of the scratch aperture.
pub(crate) const PRIVATE_BASE: u64 = 0x0002_0000_0000_0000;

pub(crate) fn parse(text: &str) -> Option<Operand> {
    let mut t = text.trim();
    let mut out = Operand { what: Thing::Nothing, neg: false, abs: false, sext: false };
    loop {
        if let Some(number) = number(t) {
            out.what = number;
            return Some(out);
        }
        if let Some(inner) = t.strip_prefix('-') {
            out.neg = true;
            t = inner;
        } else if let Some(inner) = call(t, "neg(") {
            out.neg = true;
            t = inner;
        } else if let Some(inner) = t.strip_prefix('|').and_then(|t| t.strip_suffix('|')).or_else(|| call(t, "abs(")) {
            out.abs = true;
            t = inner;
        } else if let Some(inner) = call(t, "sext(") {
            out.sext = true;
            t = inner;
        } else if let Some(inner) = call(t, "lit(").or_else(|| call(t, "lit64(")) {
            t = inner;
        } else {
            break;
        }
    }
    let scalar = |reg, words| Thing::Reg { kind: Kind::Scalar, reg, words };
    out.what = match t {
        "vcc" => scalar(VCC, 2),
        "vcc_lo" => scalar(VCC, 1),
        "vcc_hi" => scalar(VCC + 1, 1),
        "exec" => scalar(EXEC, 2),
        "exec_lo" => scalar(EXEC, 1),
        "exec_hi" => scalar(EXEC + 1, 1),
        "m0" => scalar(M0, 1),
        "scc" | "src_scc" => Thing::Scc,
        "off" | "null" => Thing::Nothing,
        "src_shared_base" => Thing::Int(SHARED_BASE as i64),
        "src_shared_limit" => Thing::Int((SHARED_BASE + 0xffff_ffff) as i64),
        "src_private_base" => Thing::Int(PRIVATE_BASE as i64),
        "src_private_limit" => Thing::Int((PRIVATE_BASE + 0xffff_ffff) as i64),
        _ => register(t)?,
    };
    Some(out)
}

fn call<'a>(t: &'a str, name: &str) -> Option<&'a str> {
    t.strip_prefix(name)?.strip_suffix(')')
}

fn number(t: &str) -> Option<Thing> {
    if let Some(hex) = t.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Thing::Hex);
    }
    if let Ok(i) = t.parse::<i64>() {
        return Some(Thing::Int(i));
    }
    let digit = t.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    t.parse::<f64>().ok().filter(|_| digit).map(Thing::Float)
}

fn register(t: &str) -> Option<Thing> {
    let (kind, first, rest) = match t.split_at_checked(1)? {
        ("v", rest) => (Kind::Vector, 0, rest),
        ("a", rest) => (Kind::Vector, ACC, rest),
        ("s", rest) => (Kind::Scalar, 0, rest),
        _ => return None,
    };
    let (low, high) = match rest.strip_prefix('[') {
        Some(range) => {
            let range = range.strip_suffix(']')?;
            range.split_once(':').unwrap_or((range, range))
        }
        None => (rest, rest),
    };
    let (low, high): (u16, u16) = (low.parse().ok()?, high.parse().ok()?);
    let limit = if kind == Kind::Scalar { 102 } else { 256 };
    (low <= high && high < limit).then_some(Thing::Reg { kind, reg: first + low, words: high - low + 1 })
}

/// The bits a constant stands for where an operand has type `ty`.
pub(crate) fn constant(thing: Thing, ty: Ty) -> u64 {
    let double = |lo: u64| lo & 0xffff_ffff | lo << 32;
    match (thing, ty) {
        (Thing::Hex(x), Ty::F64) => x << 32,
        (Thing::Hex(x), Ty::P32) => double(x),
        (Thing::Hex(x), _) => x,
        (Thing::Int(x), Ty::P32) => double(x as u64),
        (Thing::Int(x), _) => x as u64,
        (Thing::Float(x), Ty::F64 | Ty::B64 | Ty::Mask) => x.to_bits(),
        (Thing::Float(x), Ty::F16 | Ty::B16 | Ty::P16 | Ty::I16x2) => f2h(x as f32).into(),
        (Thing::Float(x), Ty::P32) => double((x as f32).to_bits().into()),
        (Thing::Float(x), _) => (x as f32).to_bits().into(),
        _ => 0,
    }
}
