//! Instructions one by one, decoded from their text, against results worked out by hand.

use crate::cpu::{Cpu, Lanes, Step, Stop, Tally, VCC, Wave};
use crate::decode::Decoder;
use crate::fault::What;
use crate::lds::Lds;
use crate::listing;
use crate::memory::Memory;
use crate::view::View;

/// Runs one instruction on a wave that `set` prepared, as any CPU runs it and, where it can, with AVX-512.
fn execute(text: &str, set: impl Fn(&mut Wave)) -> (Wave, Step) {
    let (w, step) = execute_as(text, &set, false);
    if crate::inst::wide_cpu() {
        let (wide, _) = execute_as(text, &set, true);
        let same = w.regs.iter().zip(&wide.regs).take(256).all(|(a, b)| a.0 == b.0);
        assert!(same && w.s == wide.s && w.init == wide.init, "{text}: both codes give the same");
    }
    (w, step)
}

fn execute_as(text: &str, set: impl Fn(&mut Wave), wide: bool) -> (Wave, Step) {
    let line = listing::instruction(text);
    let mut decoder = Decoder::new();
    decoder.wide = wide;
    let inst = decoder.decode(&line);
    let mut w = Wave::new(&decoder.consts);
    w.reset();
    w.wide = wide;
    w.set_s64(126, !0, true);
    set(&mut w);
    let (mut lds, mut tally) = (Lds::new(1024, 1), Tally::default());
    let memory = Memory::new(0);
    let view = View::of(&memory, [], &[]).expect("nothing");
    let mut cx = Cpu { w: &mut w, lds: &mut lds, mem: &view, tally: &mut tally };
    // SAFETY: wide functions are only asked for where `wide_cpu` says that this CPU runs them.
    let step = unsafe { (inst.run)(&mut cx, &inst) };
    (w, step)
}

fn vector(w: &mut Wave, reg: usize, f: impl Fn(u32) -> u32) {
    w.regs[reg] = Lanes(std::array::from_fn(|l| f(l as u32)));
    w.init[reg] = !0;
}

fn explain(step: &Step) -> String {
    match step {
        Err(Stop::Fault(cause)) => format!("{cause:?}"),
        Err(_) => "it stops".into(),
        Ok(()) => "fine".into(),
    }
}

/// Sets v1, v2, … to the inputs in every lane, and compares v0 (and v10 for a high word written there) in every lane.
fn vectors(rows: &[(&str, &[u32], u32)]) {
    for (text, inputs, want) in rows {
        let (w, step) = execute(text, |w| {
            for (n, x) in inputs.iter().enumerate() {
                vector(w, n + 1, |_| *x);
            }
        });
        assert!(step.is_ok(), "{text}: {}", explain(&step));
        assert!(w.regs[0].0.iter().all(|x| x == want), "{text} {inputs:x?}: {:#x}, not {want:#x}", w.regs[0].0[0]);
        assert_eq!(w.init[0], !0, "{text}");
    }
}

fn f(x: f32) -> u32 {
    x.to_bits()
}

#[test]
fn integers() {
    vectors(&[
        ("v_bfe_u32 v0, v1, 8, 4", &[0xabcd_ef12], 0xf),
        ("v_bfe_i32 v0, v1, 8, 4", &[0xabcd_ef12], !0),
        ("v_bfe_i32 v0, v1, 28, 8", &[0x7fff_ffff], 7),
        ("v_bfi_b32 v0, v1, v2, v3", &[0xff00, 0x1234_5678, 0x9abc_def0], 0x9abc_56f0),
        ("v_bfm_b32 v0, v1, v2", &[4, 8], 0xf00),
        ("v_alignbit_b32 v0, v1, v2, 8", &[0x1122_3344, 0x5566_7788], 0x4455_6677),
        ("v_alignbyte_b32 v0, v1, v2, 3", &[0x1122_3344, 0x5566_7788], 0x2233_4455),
        ("v_perm_b32 v0, v1, v2, v3", &[0x1122_3344, 0x5566_7788, 0x0c0d_0407], 0x00ff_4411),
        ("v_perm_b32 v0, v1, v2, v3", &[0x8022_3344, 0x5566_8788, 0x0b08_0100], 0xffff_8788),
        ("v_sad_u8 v0, v1, v2, v3", &[0x0105_0a10, 0x0401_0a00, 100], 100 + 3 + 4 + 16),
        ("v_mad_u32_u24 v0, v1, v2, v3", &[0xff00_0003, 5, 7], 22),
        ("v_mul_i32_i24_e32 v0, v1, v2", &[0x00ff_ffff, 5], -5i32 as u32),
        ("v_mul_hi_i32 v0, v1, v2", &[0x8000_0000, 4], -2i32 as u32),
        ("v_med3_i32 v0, v1, v2, v3", &[-5i32 as u32, 9, 3], 3),
        ("v_xad_u32 v0, v1, v2, v3", &[6, 3, 10], 15),
        ("v_ffbh_i32_e32 v0, v1", &[0xffff_0000], 16),
        ("v_ffbh_u32_e32 v0, v1", &[0], !0),
        ("v_sub_u32_e64 v0, v1, v2 clamp", &[3, 5], 0),
        ("v_add_i32 v0, v1, v2 clamp", &[0x7fff_ffff, 5], 0x7fff_ffff),
        ("v_ashrrev_i16_e32 v0, 4, v1", &[0xdead_8000], 0xf800),
        ("v_mad_u16 v0, v1, v2, v3", &[300, 300, 1], 90001 & 0xffff),
        ("v_pk_add_u16 v0, v1, v2", &[0xffff_0001, 0x0002_0003], 0x0001_0004),
        ("v_pk_add_u16 v0, v1, v2 op_sel:[1,0] op_sel_hi:[0,1]", &[0x0010_0001, 0x0200_0300], 0x0201_0310),
        ("v_pk_lshlrev_b16 v0, 1, v1 op_sel_hi:[0,1]", &[0x4001_4002], 0x8002_8004),
        ("v_dot4_i32_i8 v0, v1, v2, v3", &[0xff02_0304, 0x0506_0708, 1000], 1000 - 5 + 12 + 21 + 32),
        ("v_dot8_i32_i4 v0, v1, v2, v3", &[0x0000_00f7, 0x0000_0022, 1], 1 + 14 - 2),
        ("v_cvt_pk_i16_i32 v0, v1, v2", &[70000, -70000i32 as u32], 0x8000_7fff),
        ("v_pack_b32_f16 v0, v1, v2 op_sel:[1,0,0]", &[0xaaaa_bbbb, 0xcccc_dddd], 0xdddd_aaaa),
        ("v_mov_b32_e32 v0, 1.0", &[], f(1.0)),
        ("v_and_b32_e32 v0, lit(0xffffffff), v1", &[77], 77),
        ("v_add_u32_e32 v0, -16, v1", &[20], 4),
    ]);
}

#[test]
fn floats() {
    let h = |x: f32| u32::from(crate::convert::f2h(x));
    vectors(&[
        ("v_fma_f32 v0, -v1, |v2|, v3", &[f(2.0), f(-3.0), f(1.0)], f(-5.0)),
        ("v_mul_f32_e64 v0, v1, v2 mul:2", &[f(1.5), f(2.0)], f(6.0)),
        ("v_add_f32_e64 v0, v1, v2 clamp", &[f(1.5), f(2.0)], f(1.0)),
        ("v_add_f32_e64 v0, v1, v2 clamp", &[f(f32::NAN), f(2.0)], 0),
        ("v_fmamk_f32 v0, v1, 0x40400000, v2", &[f(2.0), f(1.0)], f(7.0)),
        ("v_fmaak_f32 v0, v1, v2, 0x40400000", &[f(2.0), f(1.0)], f(5.0)),
        ("v_max_f32_e32 v0, v1, v2", &[f(f32::NAN), f(2.0)], f(2.0)),
        ("v_max_f32_e32 v0, v1, v2", &[f(-0.0), f(0.0)], 0),
        ("v_min_f32_e32 v0, v1, v2", &[f(0.0), f(-0.0)], f(-0.0)),
        ("v_med3_f32 v0, v1, v2, v3", &[f(5.0), f(-1.0), f(2.0)], f(2.0)),
        ("v_ldexp_f32 v0, v1, v2", &[f(1.5), -149i32 as u32], 2),
        ("v_frexp_exp_i32_f32_e32 v0, v1", &[f(8.0)], 4),
        ("v_frexp_mant_f32_e32 v0, v1", &[f(-12.0)], f(-0.75)),
        ("v_rndne_f32_e32 v0, v1", &[f(2.5)], f(2.0)),
        ("v_fract_f32_e32 v0, v1", &[f(-0.25)], f(0.75)),
        ("v_cvt_i32_f32_e32 v0, v1", &[f(-3e9)], 0x8000_0000),
        ("v_cvt_u32_f32_e32 v0, v1", &[f(-3.0)], 0),
        ("v_cvt_f32_ubyte2_e32 v0, v1", &[0x00c8_0000], f(200.0)),
        ("v_cvt_f16_f32_e32 v0, v1", &[f(65520.0)], 0x7c00),
        ("v_cvt_f16_f32_e32 v0, v1", &[f(1.5 / 16777216.0)], 2),
        ("v_cvt_f32_f16_e32 v0, v1", &[0xdead_0001], f(1.0 / 16777216.0)),
        ("v_cvt_pkrtz_f16_f32 v0, v1, v2", &[f(1.0009765), f(-65519.0)], 0xfbff_3c00),
        ("v_cvt_f32_fp8_e32 v0, v1", &[0x48], f(2.0)),
        ("v_add_f16_e32 v0, 1.0, v1", &[h(2.0)], h(3.0)),
        ("v_pk_mul_f16 v0, v1, 2.0 op_sel_hi:[1,0]", &[h(3.0) << 16 | h(0.5)], h(6.0) << 16 | h(1.0)),
        ("v_pk_fma_f16 v0, v1, v2, v3 neg_lo:[0,0,1] neg_hi:[1,0,0]", &[h(2.0) * 0x1_0001; 3], h(-2.0) << 16 | h(2.0)),
        ("v_fma_mix_f32 v0, v1, v2, -v3 op_sel:[1,0,0] op_sel_hi:[1,0,0]", &[h(3.0) << 16, f(2.0), f(1.0)], f(5.0)),
        ("v_dot2_f32_f16 v0, v1, v2, v3", &[h(2.0) << 16 | h(3.0), h(5.0) << 16 | h(7.0), f(1.0)], f(32.0)),
        ("v_rcp_f32_e32 v0, v1", &[f(4.0)], f(0.25)),
        ("v_sin_f32_e32 v0, v1", &[f(0.25)], f(1.0)),
        ("v_div_fixup_f32 v0, v1, v2, v3", &[f(9.0), f(0.0), f(-1.0)], f(f32::NEG_INFINITY)),
    ]);
}

#[test]
fn parts_of_registers() {
    vectors(&[
        (
            "v_add_u32_sdwa v0, v1, v2 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_1 src1_sel:WORD_1",
            &[0x1122_3344, 0x0005_0000],
            0x38,
        ),
        (
            "v_mul_i32_i24_sdwa v0, sext(v1), v2 dst_sel:WORD_1 dst_unused:UNUSED_PAD src0_sel:BYTE_3 src1_sel:DWORD",
            &[0xff00_0000, 3],
            0xfffd_0000,
        ),
        ("v_cvt_f32_i32_sdwa v0, sext(v1) dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_0", &[0x80], f(-128.0)),
        (
            "v_or_b32_sdwa v0, v1, v2 dst_sel:BYTE_0 dst_unused:UNUSED_SEXT src0_sel:DWORD src1_sel:DWORD",
            &[0x80, 1],
            0xffff_ff81,
        ),
    ]);
    let keeps = |text: &str, want: u32| {
        let (w, step) = execute(text, |w| {
            vector(w, 0, |_| 0x1122_3344);
            vector(w, 1, |_| f(1.0));
        });
        assert!(step.is_ok() && w.regs[0].0[5] == want, "{text}: {:#x}", w.regs[0].0[5]);
    };
    keeps("v_mov_b32_sdwa v0, v1 dst_sel:BYTE_1 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_3", 0x1122_3f44);
    keeps("v_fma_mixlo_f16 v0, v1, v1, v1", 0x1122_4000);
    keeps("v_fma_mixhi_f16 v0, v1, v1, v1", 0x4000_3344);
    keeps("v_fma_f16 v0, v1, v1, 1.0", 0x1122_3c00);
}

#[test]
fn lanes_move() {
    let moved = |text: &str, exec: u64, from: &dyn Fn(u32) -> Option<u32>| {
        let (w, step) = execute(text, |w| {
            vector(w, 0, |_| 1000);
            vector(w, 1, |l| l);
            vector(w, 2, |l| 4 * (63 - l));
            w.set_s64(126, exec, true);
        });
        assert!(step.is_ok(), "{text}: {}", explain(&step));
        for l in 0..64 {
            let want = from(l).filter(|_| exec >> l & 1 != 0).unwrap_or(1000);
            assert_eq!(w.regs[0].0[l as usize], want, "{text}, lane {l}");
        }
    };
    moved("v_mov_b32_dpp v0, v1 quad_perm:[3,2,1,0] row_mask:0xf bank_mask:0xf", !0, &|l| Some(l ^ 3));
    moved("v_mov_b32_dpp v0, v1 row_shl:2 row_mask:0xf bank_mask:0xf", !0, &|l| (l % 16 < 14).then_some(l + 2));
    moved("v_mov_b32_dpp v0, v1 row_shl:2 row_mask:0x5 bank_mask:0xf bound_ctrl:1", !0, &|l| {
        (l / 16 % 2 == 0).then_some(if l % 16 < 14 { l + 2 } else { 0 })
    });
    moved("v_mov_b32_dpp v0, v1 row_newbcast:3 row_mask:0xf bank_mask:0x3", !0, &|l| {
        (l % 16 < 8).then_some((l & 48) + 3)
    });
    moved("v_mov_b32_dpp v0, v1 wave_shr:1 row_mask:0xf bank_mask:0xf", !0, &|l| l.checked_sub(1));
    moved("v_mov_b32_dpp v0, v1 row_ror:1 row_mask:0xf bank_mask:0xf", 0xff, &|l| (1..8).contains(&l).then(|| l - 1));
    moved("ds_bpermute_b32 v0, v2, v1", !0, &|l| Some(63 - l));
    moved("ds_permute_b32 v0, v2, v1", !0, &|l| Some(63 - l));
    moved("ds_swizzle_b32 v0, v1 offset:swizzle(SWAP,16)", !0, &|l| Some(l ^ 16));
    moved("ds_swizzle_b32 v0, v1 offset:swizzle(REVERSE,8)", !0, &|l| Some(l ^ 7));
    moved("ds_swizzle_b32 v0, v1 offset:swizzle(BROADCAST,4,1)", !0, &|l| Some(l & !3 | 1));
    moved("ds_swizzle_b32 v0, v1 offset:swizzle(QUAD_PERM,1,1,3,3)", !0, &|l| Some(l | 1));
    moved("ds_swizzle_b32 v0, v1 offset:swizzle(BITMASK_PERM,\"01pip\")", !0, &|l| Some((l & 0x25 | 8) | (!l & 2)));
    moved("v_mbcnt_hi_u32_b32 v0, -1, 0", !0, &|l| Some(l.saturating_sub(32)));
}

/// Sets s2 to s9 and SCC, and compares s0, s1 and SCC.
fn scalars(rows: &[(&str, &[u32], bool, u64, bool)]) {
    for (text, inputs, scc, want, scc_want) in rows {
        let (w, step) = execute(text, |w| {
            for (n, x) in inputs.iter().enumerate() {
                w.set_s32(n as u16 + 2, *x, true);
            }
            w.set_s64(0, 7, true);
            (w.scc, w.scc_known) = (*scc, true);
        });
        assert!(step.is_ok(), "{text}: {}", explain(&step));
        assert_eq!((w.s64(0), w.scc), (*want, *scc_want), "{text} {inputs:x?}");
    }
}

#[test]
fn scalar_operations() {
    scalars(&[
        ("s_add_u32 s0, s2, s3", &[0xffff_ffff, 2], false, 1, true),
        ("s_addc_u32 s0, s2, s3", &[0xffff_ffff, 0], true, 0, true),
        ("s_subb_u32 s0, s2, s3", &[5, 5], true, 0xffff_ffff, true),
        ("s_add_i32 s0, s2, s3", &[0x7fff_ffff, 1], false, 0x8000_0000, true),
        ("s_addk_i32 s0, 0xfffe", &[], false, 5, false),
        ("s_mulk_i32 s0, 0xffff", &[], true, 0xffff_fff9, true),
        ("s_movk_i32 s0, 0x8000", &[], true, 0xffff_8000, true),
        ("s_cselect_b64 s[0:1], s[2:3], -1", &[1, 2], false, !0, false),
        ("s_cmov_b32 s0, s2", &[9], false, 7, false),
        ("s_bfe_u32 s0, s2, 0x80004", &[0xabcd_ef12], false, 0xf1, true),
        ("s_bfe_i32 s0, s2, 0x80004", &[0xabcd_ef12], false, 0xffff_fff1, true),
        ("s_bfm_b64 s[0:1], 40, 8", &[], false, 0xffff_ffff_ff00, false),
        ("s_ff1_i32_b64 s0, s[2:3]", &[0, 0x10], false, 36, false),
        ("s_flbit_i32_b32 s0, s2", &[0x0001_0000], false, 15, false),
        ("s_flbit_i32 s0, s2", &[0xfff0_0000], false, 12, false),
        ("s_abs_i32 s0, s2", &[-9i32 as u32], false, 9, true),
        ("s_min_i32 s0, s2, s3", &[-9i32 as u32, 3], false, 0xffff_fff7, true),
        ("s_lshl_b64 s[0:1], s[2:3], s4", &[1, 0, 33], false, 2 << 32, true),
        ("s_ashr_i64 s[0:1], s[2:3], 60", &[0, 0x8000_0000], false, !7, true),
        ("s_mul_hi_i32 s0, s2, s3", &[-2i32 as u32, 3], false, 0xffff_ffff, false),
        ("s_lshl2_add_u32 s0, s2, s3", &[3, 5], false, 17, false),
        ("s_bitcmp1_b32 s2, 4", &[16], false, 7, true),
        ("s_cmpk_lt_i32 s2, 0xfffe", &[-3i32 as u32], false, 7, true),
        ("s_cmp_lg_u64 s[2:3], 0", &[0, 1], false, 7, true),
        ("s_bcnt1_i32_b64 s0, s[2:3]", &[0xff, 1], false, 9, true),
        ("s_pack_lh_b32_b16 s0, s2, s3", &[0x1111_2222, 0x3333_4444], false, 0x3333_2222, false),
        ("s_and_saveexec_b64 s[0:1], s[2:3]", &[0, 0], true, !0, false),
        ("s_andn2_b64 s[0:1], s[2:3], 1", &[3, 0], false, 2, true),
    ]);
}

#[test]
fn masks() {
    let mask_of = |text: &str| {
        let (w, step) = execute(text, |w| {
            vector(w, 1, |l| l);
            vector(w, 2, |l| f(l as f32 - 1.0));
            vector(w, 3, |_| 0);
            vector(w, 4, |_| f(f32::NAN));
            w.set_s64(VCC, 0xff00, true);
            w.set_s64(4, 1 << 63, true);
        });
        assert!(step.is_ok(), "{text}: {}", explain(&step));
        w
    };
    assert_eq!(mask_of("v_cmp_gt_u32_e32 vcc, 3, v1").s64(VCC), 7);
    assert_eq!(mask_of("v_cmp_lt_f32_e64 s[6:7], v2, 0").s64(6), 1);
    assert_eq!(mask_of("v_cmp_nlt_f32_e64 s[6:7], v4, v2").s64(6), !0);
    assert_eq!(mask_of("v_cmp_class_f32_e64 s[6:7], v2, 0x60").s64(6), 2);
    assert_eq!(mask_of("v_cmpx_eq_u32_e32 vcc, v1, v3").exec(), 1);
    assert_eq!(mask_of("v_cndmask_b32_e32 v0, v3, v1, vcc").regs[0].0[7..10], [0, 8, 9]);
    assert_eq!(mask_of("v_cndmask_b32_e64 v0, v3, v1, s[4:5]").regs[0].0[62..], [0, 63]);
    let w = mask_of("v_sub_co_u32_e32 v0, vcc, 2, v1");
    assert_eq!((w.s64(VCC), w.regs[0].0[3]), (!7, !0));
    assert_eq!(mask_of("v_addc_co_u32_e32 v0, vcc, 0, v1, vcc").regs[0].0[7..9], [7, 9]);
    assert_eq!(mask_of("v_readlane_b32 s6, v1, 9").s[6], 9);
    assert_eq!(mask_of("v_writelane_b32 v1, 5, 9").regs[1].0[8..11], [8, 5, 10]);
    let w = mask_of("v_mad_u64_u32 v[10:11], s[6:7], v1, -1, v[3:4]");
    assert_eq!((w.regs[10].0[2], w.regs[11].0[2]), (!1, 0x7fc0_0001));
}

#[test]
fn nothing_known() {
    let faults = |text: &str| match execute(text, |w| vector(w, 1, |_| 0)).1 {
        Err(Stop::Fault(cause)) => Some(cause.what),
        _ => None,
    };
    assert!(matches!(faults("v_add_f32_e32 v0, v1, v9"), Some(What::Register { vector: true, reg: 9 })));
    assert!(matches!(faults("v_cmp_eq_u32_e32 vcc, s9, v1"), Some(What::Register { vector: false, reg: 9 })));
    assert!(faults("v_mov_b32_e32 v0, v9").is_none(), "copies of nothing are nothing");
    assert!(faults("v_and_b32_e32 v0, v1, v9").is_none());
    assert!(matches!(faults("s_cbranch_scc1 4"), Some(What::Scc)));
    assert!(matches!(faults("global_load_dword v0, v[1:2], off"), Some(What::Register { .. })));
    assert!(matches!(faults("v_no_such_thing v0, v1"), Some(What::Unknown)));
    assert!(matches!(faults("scratch_load_dword v0, off, s32"), Some(What::Scratch)));
    assert!(matches!(faults("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 2), 3"), Some(What::Unsupported { .. })));
    assert!(matches!(faults("ds_read_b32 v0, v1 offset:1022"), Some(What::LdsOutOfBounds { .. })));
    assert!(matches!(faults("ds_read_b32 v0, v1 offset:2"), Some(What::Misaligned { .. })));
    let (w, _) = execute("v_add_u32_e32 v0, v1, v9", |w| {
        vector(w, 1, |_| 0);
        w.init[9] = 0xff;
    });
    assert_eq!(w.init[0], 0xff);
}

/// A pair of scalar registers of which an instruction takes one word may hold nothing in the other.
#[test]
fn one_word_of_a_scalar_pair() {
    let run = |text| {
        execute(text, |w| {
            w.set_s32(2, f(3.0), true);
            vector(w, 4, |_| f(2.0));
            vector(w, 5, |_| f(5.0));
        })
    };
    let (w, step) = run("v_pk_mul_f32 v[0:1], s[2:3], v[4:5] op_sel_hi:[0,1]");
    assert!(step.is_ok(), "{}", explain(&step));
    assert_eq!((w.regs[0].0[7], w.regs[1].0[7]), (f(6.0), f(15.0)));
    let (_, step) = run("v_pk_mul_f32 v[0:1], s[2:3], v[4:5]");
    assert!(explain(&step).contains("reg: 3"), "{}", explain(&step));
}

/// Either word of `v_pk_mov_b32` comes from an operand of its own, the one that `op_sel` says.
#[test]
fn packed_move() {
    for (op_sel, want) in
        [("", [4, 6]), ("op_sel:[0,1]", [4, 7]), ("op_sel:[1,0]", [5, 6]), ("op_sel:[1,1] op_sel_hi:[0,0]", [5, 7])]
    {
        let text = format!("v_pk_mov_b32 v[0:1], v[4:5], v[6:7] {op_sel}");
        let (w, step) = execute(&text, |w| (4..8).for_each(|r| vector(w, r, |_| r as u32)));
        assert!(step.is_ok(), "{text}: {}", explain(&step));
        assert_eq!([w.regs[0].0[63], w.regs[1].0[63]], want, "{text}");
    }
}
