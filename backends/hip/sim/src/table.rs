//! The opcode table: every family's rows by mnemonic.

use crate::inst::{Class, Inst, Row, exec};
use crate::{
    compare, convert, cross, division, ds, flow, global, global_atomic, mfma, salu, smem, valu_float, valu_half,
    valu_int, valu_wide,
};
use std::collections::HashMap;
use std::sync::OnceLock;

pub(crate) static UNKNOWN: Row =
    Row { name: "", class: Class::Other, reads_dst: false, roles: &[], exec: exec!(|_cx, _i| flow::unknown()) };
pub(crate) static SCRATCH: Row =
    Row { name: "", class: Class::Other, reads_dst: false, roles: &[], exec: exec!(|_cx, _i| flow::scratch()) };

static WAIT: Row = flow::WAIT;

pub(crate) fn find(name: &str) -> Option<&'static Row> {
    static TABLE: OnceLock<HashMap<&'static str, &'static Row>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let families: [&'static [Row]; 15] = [
            salu::ROWS,
            flow::ROWS,
            smem::ROWS,
            valu_int::ROWS,
            valu_wide::ROWS,
            valu_float::ROWS,
            valu_half::ROWS,
            convert::ROWS,
            division::ROWS,
            cross::ROWS,
            mfma::ROWS,
            global::ROWS,
            global_atomic::ROWS,
            ds::ROWS,
            ds::ATOMICS,
        ];
        let rows = families.into_iter().chain(compare::ROWS.iter().copied()).flatten().map(|r| (r.name, r));
        rows.chain(flow::WAITS.iter().map(|n| (*n, &WAIT))).collect()
    });
    table.get(name).copied()
}

/// `s_setreg`: setting MODE to what it is at start is allowed, anything else is refused when it is executed.
pub(crate) fn setreg(mut inst: Inst, operands: &[&str]) -> Option<Inst> {
    let wide = crate::inst::wide_cpu();
    let place = operands.iter().find(|o| o.starts_with("hwreg("))?;
    let value = operands.last().and_then(|v| crate::operand::parse(v)).map(|v| v.what);
    let fine = match (place.contains("MODE, 0, 4"), place.contains("MODE, 4, 4"), value) {
        // Rounding to nearest; denormals kept.
        (true, _, Some(crate::operand::Thing::Int(0) | crate::operand::Thing::Hex(0))) => true,
        (_, true, Some(crate::operand::Thing::Int(15) | crate::operand::Thing::Hex(15))) => true,
        (_, _, Some(crate::operand::Thing::Int(3) | crate::operand::Thing::Hex(3))) => place.contains("MODE, 4, 2"),
        _ => false,
    };
    let row = find(if fine { "s_mode_default" } else { "s_mode_other" })?;
    inst.run = if wide { row.exec.wide } else { row.exec.portable };
    inst.class = row.class;
    Some(inst)
}
