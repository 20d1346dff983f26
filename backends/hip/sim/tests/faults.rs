//! Kernels with planted mistakes: each must be caught, or give a wrong result where that is all a GPU would show.

mod support;

use greta_gfx942::Fault;
use support::{Bench, compile};

/// Runs a kernel over 256 positive inputs and an output of 256, and gives its fault.
fn fault_of(kernel: &str, block: u32, extra: impl Fn(&mut Bench)) -> Option<Fault> {
    let p = compile("faults.hip")?;
    let mut b = Bench::new();
    b.f32s("x", &(0..256).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>());
    b.output("y", 1024);
    extra(&mut b);
    match b.run(&p, kernel, 1, block) {
        Ok(_) => panic!("{kernel} ran through"),
        Err(f) => Some(f),
    }
}

macro_rules! expect {
    ($kernel:literal, $block:literal, $pattern:pat, $words:expr) => {
        if let Some(f) = fault_of($kernel, $block, |_| {}) {
            assert!(matches!(f, $pattern), "{f}");
            let text = f.to_string();
            for word in $words {
                assert!(text.contains(word), "`{word}` is missing:\n{text}");
            }
        }
    };
}

#[test]
fn missing_barrier() {
    // Wave 0 runs first and reads what wave 3 has yet to write.
    expect!(
        "missing_barrier",
        256,
        Fault::UninitialisedRegister { .. } | Fault::LdsRace { .. },
        ["wave 0", "faults.hip:6", "loaded by `ds_read", "source", "faults.hip", "a barrier is missing"]
    );
}

#[test]
fn missing_second_barrier() {
    expect!("missing_second_barrier", 256, Fault::LdsRace { .. }, ["since the last barrier", "ds_", "faults.hip"]);
}

#[test]
fn a_barrier_is_enough() {
    let Some(p) = compile("faults.hip") else { return };
    let mut b = Bench::new();
    b.f32s("x", &(0..256).map(|i| i as f32).collect::<Vec<_>>());
    let y = b.output("y", 1024);
    b.run(&p, "with_barrier", 1, 256).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(b.read_f32(y, 256)[3], 252.0);
}

#[test]
fn out_of_bounds() {
    let Some(p) = compile("faults.hip") else { return };
    let mut b = Bench::new();
    b.f32s("rows", &[0.0; 256]);
    b.output("y", 256);
    b.i32(64);
    let launch = |grid| b.run(&p, "row_too_far", grid, 64);
    assert!(launch(3).is_ok());
    let Err(f) = launch(4) else { panic!("row 4 of 4 was read") };
    assert!(matches!(f, Fault::OutOfBounds { bytes: 4, write: false, .. }), "{f}");
    assert!(f.to_string().contains("outside every allocation (0 after the end of `rows` of 1024 bytes"), "{f}");
    assert!(f.to_string().contains(" before `y` of 256 bytes)"), "{f}");
    assert!(f.to_string().contains("workgroup (3, 0, 0), wave 0, lane 0"), "{f}");
}

/// What is in an allocation but not live is out of bounds, for reads and for writes.
#[test]
fn past_what_is_live() {
    let Some(p) = compile("faults.hip") else { return };
    let launch = |from: i32, to: i32, live: &dyn Fn(u64, u64) -> Vec<(u64, u64)>| {
        let mut b = Bench::new();
        let (x, y) = (b.f32s("x", &[1.0; 256]), b.output("y", 1024));
        b.i32(from);
        b.i32(to);
        let found = b.run_within(&p, "row_at", (1, 64), &live(x, y));
        found.map(|_| ()).map_err(|f| f.to_string())
    };
    let half = |x, y| vec![(x, 512), (y, 512)];
    assert_eq!(launch(0, 0, &half), Ok(()));
    assert_eq!(launch(256, 256, &half), Ok(()));
    // One buffer as two arguments, of which the second is the longer.
    assert_eq!(launch(512, 512, &|x, y| vec![(x, 512), (x, 768), (y, 1024), (y, 4)]), Ok(()));
    let from_512 = |x, y| vec![(x + 512, 256), (x, 256), (y, 256)];
    assert_eq!(launch(512, 0, &from_512), Ok(()));
    type Live<'a> = &'a dyn Fn(u64, u64) -> Vec<(u64, u64)>;
    let cases: [(i32, i32, Live<'_>, &[&str]); 6] = [
        (512, 0, &half, &["reads 4 bytes", "past the live 512 bytes of `x` (byte 512 of `x` of 1024 bytes)", "lane 0"]),
        (260, 0, &half, &["past the live 512 bytes of `x` (byte 512", "lane 63"]),
        (0, 260, &half, &["writes 4 bytes", "past the live 512 bytes of `y` (byte 512", "lane 63"]),
        (768, 0, &from_512, &["past the live 256 bytes of `x` from byte 512 on (byte 768"]),
        (0, 1020, &|x, y| vec![(x, 1024), (y, 1024)], &["outside every allocation (0 after the end of `y` of 1024"]),
        (
            0,
            0,
            &|x, _| vec![(x, 1024)],
            &["memory that the launch was not given (byte 0 of `y`", "after the end of `x`"],
        ),
    ];
    for (from, to, live, said) in cases {
        let text = launch(from, to, live).expect_err("it is caught");
        assert!(said.iter().all(|s| text.contains(s)), "{said:?}\n{text}");
    }
    let more = launch(0, 0, &|x, _| vec![(x, 1028)]).expect_err("there is not as much");
    assert!(more.contains("bad launch"), "{more}");
}

#[test]
fn traps_and_endless_kernels() {
    let Some(p) = compile("faults.hip") else { return };
    let run = |kernel: &str, block| {
        let mut b = Bench::new();
        b.f32s("x", &[-1.0; 128]);
        b.output("y", 512);
        b.run(&p, kernel, 1, block).map(|_| ())
    };
    let trapped = run("trap", 64).expect_err("it traps");
    assert!(matches!(trapped, Fault::Trap { .. }) && trapped.to_string().contains("the kernel trapped"), "{trapped}");
    let endless = run("endless", 64).expect_err("it is stopped");
    assert!(matches!(endless, Fault::Runaway { .. }), "{endless}");
    assert_eq!(run("many_barriers", 128), Ok(()));
}

#[test]
fn a_sum_over_32_lanes_is_wrong() {
    let Some(p) = compile("faults.hip") else { return };
    let mut b = Bench::new();
    b.f32s("x", &[1.0; 64]);
    let y = b.output("y", 4);
    b.run(&p, "sum32", 1, 64).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(b.read_f32(y, 1), [32.0]);
}

#[test]
fn a_wrong_layout_is_wrong() {
    let Some(p) = compile("faults.hip") else { return };
    let mut b = Bench::new();
    let h = |x: usize| half::f16::from_f32(x as f32).to_bits();
    let a: Vec<u16> = (0..256).map(|i| h(i % 5)).collect();
    let identity: Vec<u16> = (0..256).map(|i| h(usize::from(i / 16 == i % 16))).collect();
    b.u16s("a", &a);
    b.u16s("b", &identity);
    let c = b.output("c", 1024);
    b.run(&p, "wrong_layout", 1, 64).unwrap_or_else(|f| panic!("{f}"));
    let got = b.read_f32(c, 256);
    assert!((0..256).all(|i| got[i] == (((i % 16) * 16 + i / 16) % 5) as f32), "the product comes out transposed");
}

#[test]
fn uninitialised() {
    let Some(p) = compile("faults.hip") else { return };
    let mut b = Bench::new();
    b.output("y", 1024);
    let Err(f) = b.run(&p, "uninitialised_lds", 1, 64) else { panic!("ran through") };
    assert!(matches!(f, Fault::UninitialisedRegister { .. }) && f.to_string().contains("lane 63"), "{f}");
    let mut b = Bench::new();
    b.output("x", 1024);
    b.output("y", 1024);
    let Err(f) = b.run(&p, "uninitialised_global", 1, 64) else { panic!("ran through") };
    assert!(matches!(f, Fault::UninitialisedRegister { .. }), "{f}");
}

#[test]
fn misaligned() {
    let shift = |n| move |b: &mut Bench| b.i32(n);
    if let Some(f) = fault_of("misaligned_lds", 64, shift(4)) {
        assert!(matches!(f, Fault::Misaligned { bytes: 16, .. }), "{f}");
    }
}

#[test]
fn divergent_barrier() {
    expect!("divergent_barrier", 128, Fault::DivergentBarrier { .. }, ["lanes", "s_barrier"]);
    expect!("early_end", 128, Fault::DivergentBarrier { .. }, ["wave 1 has ended"]);
}

#[test]
fn lds_out_of_bounds() {
    let Some(p) = compile("faults.hip") else { return };
    let mut b = Bench::new();
    b.i32s("x", &[1]);
    b.output("y", 1024);
    let Err(f) = b.run(&p, "lds_too_far", 1, 64) else { panic!("ran through") };
    assert!(matches!(f, Fault::LdsOutOfBounds { address: 256, size: 256, write: true, .. }), "{f}");
}

#[test]
fn scratch() {
    let Some(p) = compile("faults.hip") else { return };
    assert!(p.kernel("scratch").is_some_and(|k| k.scratch_bytes > 0));
    assert_eq!(p.unknown("histogram").collect::<Vec<_>>(), Vec::<&str>::new());
    let mut b = Bench::new();
    b.i32s("x", &[1; 64]);
    b.output("y", 1024);
    let Err(f) = b.run(&p, "scratch", 1, 64) else { panic!("ran through") };
    assert!(matches!(f, Fault::Scratch { .. }), "{f}");
}

#[test]
fn atomics_do_not_race() {
    let Some(p) = compile("faults.hip") else { return };
    let mut b = Bench::new();
    b.i32s("x", &(0..256).collect::<Vec<_>>());
    let y = b.output("y", 64);
    let counts = b.run(&p, "histogram", 1, 256).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(b.read_i32(y, 16), [16; 16]);
    assert!(counts.lds_bank_conflict_cycles == 0, "lanes that share a dword share the access");
}

#[test]
fn bad_launches() {
    let Some(p) = compile("faults.hip") else { return };
    let b = Bench::new();
    for (kernel, block) in [("no_such_kernel", 64), ("sum32", 128), ("sum32", 64)] {
        assert!(matches!(b.run(&p, kernel, 1, block), Err(Fault::BadLaunch { .. })), "{kernel}");
    }
}
