//! Branches, barriers, waits, ends, and what is refused.

use crate::cpu::{Cpu, Step, Stop, VCC, fault};
use crate::fault::{Cause, What};
use crate::inst::{Class, Inst, Row, exec};

#[inline(always)]
fn branch(cx: &mut Cpu<'_>, i: &Inst, taken: bool) -> Step {
    if taken {
        cx.w.pc = i.imm as usize;
    }
    Ok(())
}

fn on_scc(cx: &mut Cpu<'_>, i: &Inst, when: bool) -> Step {
    if !cx.w.scc_known {
        return Err(fault(Cause { lane: None, what: What::Scc }));
    }
    let taken = cx.w.scc == when;
    branch(cx, i, taken)
}

fn on_vcc(cx: &mut Cpu<'_>, i: &Inst, zero: bool) -> Step {
    if !cx.w.sknown(VCC, 2) {
        return Err(crate::cross::unknown_scalar(VCC));
    }
    let taken = (cx.w.s64(VCC) == 0) == zero;
    branch(cx, i, taken)
}

fn on_exec(cx: &mut Cpu<'_>, i: &Inst, zero: bool) -> Step {
    let taken = (cx.w.exec() == 0) == zero;
    branch(cx, i, taken)
}

fn barrier(cx: &mut Cpu<'_>) -> Step {
    let (exec, all) = (cx.w.exec(), cx.w.initial_exec);
    if exec == all {
        return Err(Stop::Barrier);
    }
    let lane = Some((exec ^ all).trailing_zeros());
    let why = format!("of the wave's {} lanes {} reach it", all.count_ones(), (exec & all).count_ones());
    Err(fault(Cause { lane, what: What::Barrier { why } }))
}

/// `s_setpc_b64` and `s_swappc_b64` are not emitted for kernels whose calls are all inlined.
fn refuse(why: &str) -> Step {
    Err(fault(Cause { lane: None, what: What::Unsupported { why: why.into() } }))
}

pub(crate) fn unknown() -> Step {
    Err(fault(Cause { lane: None, what: What::Unknown }))
}

pub(crate) fn scratch() -> Step {
    Err(fault(Cause { lane: None, what: What::Scratch }))
}

macro_rules! row {
    ($name:literal, $class:ident, |$cx:ident, $i:ident| $e:expr) => {
        Row { name: $name, class: Class::$class, reads_dst: false, roles: &[], exec: exec!(|$cx, $i| $e) }
    };
}

pub(crate) const ROWS: &[Row] = &[
    row!("s_branch", Branch, |cx, i| branch(cx, i, true)),
    row!("s_cbranch_scc0", Branch, |cx, i| on_scc(cx, i, false)),
    row!("s_cbranch_scc1", Branch, |cx, i| on_scc(cx, i, true)),
    row!("s_cbranch_vccz", Branch, |cx, i| on_vcc(cx, i, true)),
    row!("s_cbranch_vccnz", Branch, |cx, i| on_vcc(cx, i, false)),
    row!("s_cbranch_execz", Branch, |cx, i| on_exec(cx, i, true)),
    row!("s_cbranch_execnz", Branch, |cx, i| on_exec(cx, i, false)),
    row!("s_barrier", Barrier, |cx, _i| barrier(cx)),
    row!("s_endpgm", Other, |_cx, _i| Err(Stop::End)),
    row!("s_trap", Other, |_cx, _i| Err(fault(Cause { lane: None, what: What::Trap }))),
    row!("s_mode_default", Other, |_cx, _i| Ok(())),
    row!("s_mode_other", Other, |_cx, _i| refuse("a rounding or denormal mode other than the default")),
];

/// Instructions that order or hint and have no effect here: memory is always up to date.
pub(crate) const WAITS: &[&str] = &[
    "s_nop",
    "s_waitcnt",
    "s_sleep",
    "s_setprio",
    "s_sethalt",
    "s_icache_inv",
    "s_dcache_inv",
    "s_dcache_wb",
    "s_inst_prefetch",
    "s_clause",
    "s_setkill",
    "s_incperflevel",
    "s_decperflevel",
    "s_ttracedata",
    "buffer_wbl2",
    "buffer_inv",
    "s_sendmsg",
    "s_barrier_nop",
    "s_code_end",
];

pub(crate) const WAIT: Row = row!("", Wait, |_cx, _i| Ok(()));
