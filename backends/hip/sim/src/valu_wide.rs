//! 64-bit integer operations and moves.
//!
//! The low word of a sum, product or left shift depends on low words alone; clang leaves high words undefined that it
//! does not look at, and `known[0]` is right for those.

use crate::inst::Row;
use crate::lanes::op;

pub(crate) const ROWS: &[Row] = &[
    op!(int "v_mov_b64", |a: u64| -> u64 { a }),
    op!(int "v_lshl_add_u64", |a: u64, b: u32, c: u64| -> u64 { (a << (b & 63)).wrapping_add(c) }),
    op!(int "v_lshlrev_b64", |a: u32, b: u64| -> u64 { b << (a & 63) }),
    op!(int "v_lshrrev_b64", |a: u32, b: u64| -> u64 { b >> (a & 63) }),
    op!(int "v_ashrrev_i64", |a: u32, b: i64| -> i64 { b >> (a & 63) }),
];
