//! Makes an [`Inst`] of an instruction's text and its row in the opcode table.

use crate::cpu::Lanes;
use crate::inst::{
    CONSTS, Class, Dpp, Dst, Fetch, Inst, Kind, RETURNS, Role, Row, SADDR, SPREAD, Sdwa, Sel, Special, Src, Ty, Unused,
    wide_cpu,
};
use crate::listing::Line;
use crate::operand::{self, Operand, Thing};
use crate::special;
use crate::table;
use std::collections::HashMap;

/// Turns lines into instructions and collects the constants they need.
pub(crate) struct Decoder {
    pub consts: Vec<Lanes>,
    slots: HashMap<u32, u16>,
    pub wide: bool,
}

const NO_SRC: Src = Src {
    kind: Kind::None,
    ty: Ty::B32,
    reg: 0,
    words: 0,
    value: 0,
    fetch: Fetch::Ready,
    sign: [0; 2],
    neg: false,
    abs: false,
    sext: false,
};
const NO_DST: Dst = Dst { kind: Kind::None, ty: Ty::B32, reg: 0, words: 0 };

/// Operations that leave the high half of their destination alone; all other 16-bit ones clear it.
const KEEP_HIGH: &[&str] = &[
    "v_fma_f16",
    "v_mad_f16",
    "v_mad_u16",
    "v_mad_i16",
    "v_div_fixup_f16",
    "v_fma_mixlo_f16",
    "v_cvt_pk_fp8_f32",
    "v_cvt_pk_bf8_f32",
];

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { consts: vec![Lanes::ZERO], slots: HashMap::from([(0, CONSTS)]), wide: wide_cpu() }
    }

    /// Decodes one line; what isn't known becomes an instruction that faults when it is executed.
    pub(crate) fn decode(&mut self, line: &Line) -> Inst {
        self.try_decode(line).unwrap_or_else(|| {
            let row = if line.op.starts_with("scratch_") || line.op.starts_with("buffer_") {
                &table::SCRATCH
            } else {
                &table::UNKNOWN
            };
            self.blank(row, line)
        })
    }

    fn blank(&self, row: &Row, line: &Line) -> Inst {
        Inst {
            run: if self.wide { row.exec.wide } else { row.exec.portable },
            class: row.class,
            nsrc: 0,
            reads_dst: row.reads_dst,
            fetch: false,
            changes_result: false,
            slot: [[CONSTS; 2]; 4],
            dst: NO_DST,
            sdst: 0,
            src: [NO_SRC; 4],
            special: None,
            imm: 0,
            imm2: 0,
            flags: 0,
            pc: line.pc,
        }
    }

    fn try_decode(&mut self, line: &Line) -> Option<Inst> {
        let mut name = line.op.as_str();
        for suffix in ["_e32", "_e64", "_dpp", "_sdwa"] {
            name = name.strip_suffix(suffix).unwrap_or(name);
        }
        if matches!(name, "s_setreg_imm32_b32" | "s_setreg_b32") {
            let operands: Vec<&str> = line.operands.iter().map(String::as_str).collect();
            return table::setreg(self.blank(&table::UNKNOWN, line), &operands);
        }
        let row = row_of(name, line)?;
        let mut inst = self.blank(row, line);
        // Waits and traps take numbers that change nothing here.
        if row.class == Class::Wait || name == "s_trap" {
            return Some(inst);
        }
        let mut roles: Vec<Role> = row.roles.to_vec();
        let mut operands: Vec<&str> = line.operands.iter().map(String::as_str).collect();
        let atomic = name.starts_with("global_atomic") || name.starts_with("flat_atomic");
        if atomic && line.modifiers.iter().any(|(n, _)| n == "sc0") {
            inst.flags |= RETURNS;
            roles.insert(0, Role::Dst(Ty::Rows));
        }
        if row.class == Class::Branch && operands.len() == 1 && roles.is_empty() {
            let offset = operands.pop()?.parse::<u16>().ok()? as i16;
            inst.imm = line.pc as i64 + 4 + 4 * i64::from(offset);
        }
        inst.special = special(line, name, &roles)?.map(Box::new);
        inst.changes_result = inst.special.as_ref().is_some_and(|sp| sp.changes_result());
        let mut given = operands.into_iter();
        let last = roles.len();
        for (n, role) in roles.iter().enumerate() {
            if row.reads_dst && n + 1 == last {
                let d = inst.dst;
                let Role::Src(ty) = *role else { return None };
                inst.src[inst.nsrc as usize] = Src { kind: d.kind, ty, reg: d.reg, words: d.words, ..NO_SRC };
                self.place(&mut inst, ty)?;
                continue;
            }
            let Some(text) = given.next() else {
                // Memory instructions may leave out the scalar base.
                if matches!(role, Role::Src(Ty::Rows)) {
                    continue;
                }
                return None;
            };
            let operand = operand::parse(text)?;
            match (*role, operand.what) {
                (Role::Dst(ty), Thing::Reg { kind, reg, words }) => inst.dst = Dst { kind, ty, reg, words },
                (Role::Sdst, Thing::Reg { kind: Kind::Scalar, reg, .. }) => inst.sdst = reg,
                (Role::Src(ty), _) => self.source(&mut inst, operand, ty)?,
                _ => return None,
            }
        }
        if given.next().is_some() {
            return None;
        }
        memory(line, name, &mut inst)?;
        Some(inst)
    }

    /// Adds a source operand.
    fn source(&mut self, inst: &mut Inst, operand: Operand, ty: Ty) -> Option<()> {
        let Operand { what, neg, abs, sext } = operand;
        let mut src = Src { ty, neg, abs, sext, ..NO_SRC };
        match what {
            Thing::Reg { kind, reg, words } => {
                if ty != Ty::Rows && kind == Kind::Vector && words < ty.words() {
                    return None;
                }
                (src.kind, src.reg, src.words) = (kind, reg, words);
            }
            Thing::Scc => src.kind = Kind::Scc,
            Thing::Nothing => src.kind = Kind::None,
            constant => {
                src.kind = Kind::Const;
                src.value = operand::constant(constant, ty);
            }
        }
        inst.src[inst.nsrc as usize] = src;
        self.place(inst, ty)
    }

    /// Decides where the lanes of the source just added will be found, and how they get there.
    fn place(&mut self, inst: &mut Inst, ty: Ty) -> Option<()> {
        let k = inst.nsrc as usize;
        inst.nsrc += 1;
        if ty == Ty::Rows || ty == Ty::Mask {
            return Some(());
        }
        let (two, copy) = (ty.words() == 2, SPREAD + 2 * k as u16);
        let pair = |lo: u16, hi: u16| [lo, if two { hi } else { lo }];
        let special = inst.special.as_deref();
        let changes = special.is_some_and(|sp| sp.changes(&inst.src[k], k as u8));
        let sign = special.and_then(|sp| sp.signs(&inst.src[k], k as u8));
        let src = &mut inst.src[k];
        src.sign = sign.unwrap_or_default();
        src.fetch = match (src.kind, changes, sign) {
            (Kind::Scalar | Kind::Scc, false, _) => Fetch::Spread,
            (Kind::Scalar, true, Some(_)) if ty != Ty::P32 => Fetch::Spread,
            (Kind::Vector, true, Some(_)) => Fetch::Sign,
            (_, true, _) => Fetch::Change,
            _ => Fetch::Ready,
        };
        let (kind, fetch, reg, value) = (src.kind, src.fetch, src.reg, src.value);
        inst.slot[k] = match (kind, fetch) {
            (Kind::Vector, Fetch::Ready) => pair(reg, reg + 1),
            (Kind::Vector, Fetch::Sign) => {
                let word = |w: u16| {
                    let from = special::word_of(inst, k, w);
                    if inst.src[k].sign[w as usize] == 0 { from } else { copy + w }
                };
                pair(word(0), if two { word(1) } else { 0 })
            }
            (Kind::Const, Fetch::Ready) => {
                let lo = self.constant(value as u32)?;
                pair(lo, if two { self.constant((value >> 32) as u32)? } else { lo })
            }
            (Kind::None, Fetch::Ready) => inst.slot[k],
            _ => pair(copy, copy + 1),
        };
        let from = |w: u16| special::word_of(inst, k, w);
        if fetch == Fetch::Sign && inst.slot[k][0] == from(0) && (!two || inst.slot[k][1] == from(1)) {
            inst.src[k].fetch = Fetch::Ready;
        }
        inst.fetch |= inst.src[k].fetch != Fetch::Ready;
        Some(())
    }

    fn constant(&mut self, x: u32) -> Option<u16> {
        if let Some(slot) = self.slots.get(&x) {
            return Some(*slot);
        }
        let slot = CONSTS + u16::try_from(self.consts.len()).ok()?;
        self.consts.push(Lanes([x; 64]));
        self.slots.insert(x, slot);
        Some(slot)
    }
}

/// The row of an opcode. Integer operations that saturate have rows of their own.
fn row_of(name: &str, line: &Line) -> Option<&'static Row> {
    let row = table::find(name)?;
    let clamp = line.modifiers.iter().any(|(n, _)| n == "clamp");
    let float = matches!(row.roles.first(), Some(Role::Dst(Ty::F16 | Ty::F32 | Ty::F64 | Ty::P16 | Ty::P32 | Ty::Mix)));
    if clamp && !float && name.starts_with("v_") {
        return table::find(&format!("{name} clamp"));
    }
    Some(row)
}

fn hex(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(h) => u64::from_str_radix(h, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `[1,0,1]` as bits.
fn bits(text: &str) -> Option<u8> {
    let list = text.strip_prefix('[')?.strip_suffix(']')?;
    let mut out = 0;
    for (n, bit) in list.split(',').enumerate() {
        out |= (bit.trim() == "1") as u8 * u8::checked_shl(1, n as u32)?;
    }
    Some(out)
}

fn sel(text: &str) -> Option<Sel> {
    Some(match text {
        "DWORD" => Sel::Dword,
        "WORD_0" => Sel::Word(0),
        "WORD_1" => Sel::Word(1),
        _ => Sel::Byte(text.strip_prefix("BYTE_")?.parse().ok().filter(|b| *b < 4)?),
    })
}

fn dpp(name: &str, value: &str) -> Option<Dpp> {
    let n = || value.parse::<u8>().ok().filter(|n| *n < 16);
    Some(match (name, value) {
        ("quad_perm", v) => {
            let mut p = [0; 4];
            let list = v.strip_prefix('[')?.strip_suffix(']')?;
            for (to, from) in p.iter_mut().zip(list.split(',')) {
                *to = from.trim().parse().ok().filter(|l| *l < 4)?;
            }
            Dpp::QuadPerm(p)
        }
        ("row_shl", _) => Dpp::RowShl(n()?),
        ("row_shr", _) => Dpp::RowShr(n()?),
        ("row_ror", _) => Dpp::RowRor(n()?),
        ("wave_shl", _) => Dpp::WaveShl,
        ("wave_rol", _) => Dpp::WaveRol,
        ("wave_shr", _) => Dpp::WaveShr,
        ("wave_ror", _) => Dpp::WaveRor,
        ("row_mirror", _) => Dpp::Mirror,
        ("row_half_mirror", _) => Dpp::HalfMirror,
        ("row_bcast", "15") => Dpp::Bcast15,
        ("row_bcast", "31") => Dpp::Bcast31,
        ("row_newbcast", _) => Dpp::NewBcast(n()?),
        _ => return None,
    })
}

/// Collects the modifiers of a vector ALU instruction; `None` inside if it has none that matter.
fn special(line: &Line, name: &str, roles: &[Role]) -> Option<Option<Special>> {
    if !name.starts_with("v_") {
        return Some(None);
    }
    if name.starts_with("v_mfma") {
        // Broadcasts between blocks and permuted lanes are not emulated.
        return line.modifiers.is_empty().then_some(None);
    }
    let mix = roles.iter().any(|r| matches!(r, Role::Src(Ty::Mix)));
    let keep_high = KEEP_HIGH.contains(&name);
    let mut sp = Special {
        row_mask: 15,
        bank_mask: 15,
        op_sel_hi: if mix { 0 } else { 0xf },
        keep_high,
        write_high: name == "v_fma_mixhi_f16",
        ..Special::default()
    };
    let is_sdwa = line.op.ends_with("_sdwa");
    let mut sdwa = Sdwa { dst: Sel::Dword, unused: Unused::Pad, src: [Sel::Dword; 2] };
    for (name, value) in &line.modifiers {
        match name.as_str() {
            "op_sel" => sp.op_sel = bits(value)?,
            "op_sel_hi" => sp.op_sel_hi = bits(value)?,
            "neg_lo" => sp.neg_lo = bits(value)?,
            "neg_hi" => sp.neg_hi = bits(value)?,
            "clamp" => sp.clamp = true,
            "mul" => sp.omod = if value == "2" { 1 } else { 2 },
            "div" => sp.omod = 3,
            "row_mask" => sp.row_mask = hex(value)? as u8,
            "bank_mask" => sp.bank_mask = hex(value)? as u8,
            "bound_ctrl" => sp.bound_ctrl = true,
            "dst_sel" => sdwa.dst = sel(value)?,
            "src0_sel" => sdwa.src[0] = sel(value)?,
            "src1_sel" => sdwa.src[1] = sel(value)?,
            "dst_unused" => {
                sdwa.unused = match value.as_str() {
                    "UNUSED_PAD" => Unused::Pad,
                    "UNUSED_SEXT" => Unused::Sext,
                    "UNUSED_PRESERVE" => Unused::Preserve,
                    _ => return None,
                }
            }
            other => sp.dpp = Some(dpp(other, value)?),
        }
    }
    sp.sdwa = is_sdwa.then_some(sdwa);
    sp.tabulate();
    let signed = line.operands.iter().skip(1).any(|o| operand::parse(o).is_some_and(|o| o.neg || o.abs || o.sext));
    let plain = !signed && !keep_high && !mix && line.modifiers.is_empty() && !is_sdwa;
    Some((!plain).then_some(sp))
}

/// Offsets of memory instructions.
fn memory(line: &Line, name: &str, inst: &mut Inst) -> Option<()> {
    let lds = name.starts_with("ds_");
    if !lds && !["global_", "flat_", "s_load_"].iter().any(|p| name.starts_with(p)) {
        return Some(());
    }
    for (name, value) in &line.modifiers {
        match name.as_str() {
            "offset" if value.starts_with("swizzle(") => inst.imm = crate::ds::swizzle(value)?,
            "offset" | "offset0" => {
                inst.imm = match value.strip_prefix('-') {
                    Some(v) => -(hex(v)? as i64),
                    None => hex(value)? as i64,
                }
            }
            "offset1" => inst.imm2 = hex(value)? as i64,
            "sc0" | "sc1" | "nt" => {}
            _ => return None,
        }
    }
    if inst.src[..inst.nsrc as usize].iter().skip(1).any(|s| s.kind == Kind::Scalar) {
        inst.flags |= SADDR;
    }
    Some(())
}
