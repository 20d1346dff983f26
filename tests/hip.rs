//! The HIP backend: every kernel as machine code for gfx942, its lowering, and what is wrong with a kernel that is wrong.

mod bits;
mod lost;
mod mistakes;
mod names;
mod side;
mod smollm2;
mod soak;

use crate::p1::MIXES;
use crate::support::{CLANG, Outcome, all, cpu, engine, gpu, hips, synth_tiny, trial, within};
use greta_backend::{Backend, Batch, RowsWanted, SeqId, Session, StepOut, StepSize, Want};
use greta_hip::compile::{Clang, CodeObject};
use greta_hip::driver::sim::Sim;
use greta_hip::driver::{Driver, Size};
use greta_hip::kernels::Source;
use greta_hip::{Hip, HipOptions, Launching, Target};
use greta_models::{Arithmetic, Engine, EngineOptions, Model};
use greta_ops::{DType, Op};
use greta_trace::judge::VerdictKind;
use greta_trace::prompts;
use greta_trace::verify::{VerifyOptions, verify};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        trial("hip/kernels_compile_without_spill", resources),
        trial("hip/kernels_hold_the_instructions", instructions),
        trial("hip/kernels_compile_for_nvidia", nvidia),
        trial("hip/lowering", lowering),
        trial("hip/names", names::names),
        trial("hip/planted_mistakes_are_caught", mistakes::planted),
        trial("hip/past_what_is_live", mistakes::past_live),
        trial("hip/compiler_is_heard", mistakes::heard),
        trial("hip/captured_launches", captured),
    ];
    list.extend(lost::trials(&hips()));
    for (label, open) in hips() {
        list.push(trial(format!("hip/largest_logits/{label}"), move || largest(&open()?)));
        list.push(trial(format!("hip/cache_grows_forks_and_is_cut/{label}"), move || cache(&open()?)));
        let (prompts, longest) = if label == "hip-sim" { (6, 20) } else { (1000, 600) };
        list.push(trial(format!("hip/prompts_in_a_row/{label}"), move || soak::soak(&open()?, prompts, longest)));
        list.push(trial(format!("hip/taps_and_results_take_turns/{label}"), move || side::turns(&open()?)));
        list.push(trial(format!("hip/bits_of_every_device/{label}"), move || bits::same(&open()?)));
        list.push(trial(format!("hip/replayed_as_launched/{label}"), move || replayed(label, &open()?)));
        for arith in [Arithmetic::Exact, Arithmetic::Int8] {
            let name = format!("hip/smollm2_as_on_the_cpu/{label}/{arith}");
            list.push(trial(name, move || smollm2::as_on_the_cpu(label, &open()?, arith)));
        }
        for mix in MIXES {
            for arith in [Arithmetic::Exact, Arithmetic::Int8] {
                let name = format!("hip/clean_and_as_on_the_cpu/{label}/{mix}/{arith}");
                list.push(trial(name, move || clean(mix, arith, &open()?)));
            }
        }
    }
    // Where there is none, this is what says that all tests of `hip-gpu` were left out.
    list.push(trial("hip/gpu", || gpu().map(|_| ())));
    list
}

/// Every op of a model's run is within its bound, prompt and decode steps, and the logits are the CPU's.
///
/// Backends sum in different orders, so logits differ by f32 rounding; in `int8` a value that lies on a tie may get
/// another code, which moves logits by some hundredths of their size.
fn clean(mix: &str, arith: Arithmetic, hip: &Hip) -> Result<(), Outcome> {
    let model = Arc::new(Model::open(&synth_tiny(mix)?)?);
    let options = EngineOptions { arith, kv: DType::F32, ..EngineOptions::default() };
    let mut prompts = prompts::built_in(&model, &["p4_sys".into()], 256)?;
    prompts.iter_mut().for_each(|p| p.tokens.truncate(24));
    let mut failures = Vec::new();
    let found = verify(&model, hip, &options, &prompts, &VerifyOptions::default(), None, &|_, _, _| true)?;
    if found.verified.verdict.verdict != VerdictKind::Clean || !found.verified.taps_change_nothing {
        failures.push(format!("{:?}: {:?}", found.verified.verdict.verdict, found.verified.verdict.culprit));
    }
    let logits = |backend: &dyn Backend| -> Result<Vec<f32>, Outcome> {
        let engine = Engine::new(model.clone(), backend, &options)?;
        Ok(engine.context()?.prefill(&prompts[0].tokens, &mut |_, _| true)?.unwrap_or_default())
    };
    let (ours, want) = (logits(hip)?, logits(&cpu(2)?)?);
    let rms = (want.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / want.len() as f64).sqrt();
    let worst = ours.iter().zip(&want).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max) / rms;
    let limit = if arith == Arithmetic::Exact { 1e-4 } else { 0.05 };
    if ours.len() != want.len() || ours.iter().any(|x| x.is_nan()) || !within(worst, limit) {
        failures.push(format!("logits are off the CPU's by {worst:.1e} of their size, the limit is {limit:.0e}"));
    }
    all(failures)
}

fn clang() -> Result<&'static Clang, Outcome> {
    Clang::get().map_err(|e| Outcome::Lacks(CLANG, PathBuf::from(format!("clang for gfx942 ({e})"))))
}

/// A module's kernels with the shared memory that lowering says they have.
type Modules = BTreeMap<Source, BTreeMap<String, u32>>;

/// Every module that some case or some model needs, for short and long steps.
fn modules() -> Result<Modules, Outcome> {
    let mut out = Modules::new();
    for case in Op::cases() {
        for l in greta_hip::lower::of_case(&case) {
            out.entry(l.source.clone()).or_default().insert(l.kernel.into(), l.lds);
        }
    }
    for kernel in ["read_all", "multiply_all"] {
        out.entry(Source::of("measure.hip")).or_default().insert(kernel.into(), 0);
    }
    for dtype in [DType::F32, DType::F16, DType::I32, DType::I8] {
        let l = greta_hip::lower::stats((greta_hip::lower::Buffer::Scratch, 0), dtype, 64, 0, 1, [0; 3]);
        out.entry(l.source.clone()).or_default().insert(l.kernel.into(), l.lds);
    }
    for l in greta_hip::lower::top_k(
        greta_hip::lower::Buffer::Scratch,
        greta_hip::lower::TopK { rows: 1, vocab: 1000, want: 4 },
        0,
    ) {
        out.entry(l.source.clone()).or_default().insert(l.kernel.into(), l.lds);
    }
    Ok(out)
}

/// `key: value` lines of each kernel in the compiler's report.
fn report(o: &CodeObject) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut out: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut kernel = String::new();
    for (key, value) in o.resources.lines().filter_map(|l| l.trim().split_once(": ")) {
        match key {
            "Function Name" => kernel = value.into(),
            _ => {
                out.entry(kernel.clone()).or_default().insert(key.into(), value.trim().into());
            }
        }
    }
    out
}

/// No kernel spills or needs scratch, shared memory is what lowering says, and registers are those of the last look.
fn resources() -> Result<(), Outcome> {
    let clang = clang()?;
    let (mut failures, mut table) = (Vec::new(), String::new());
    for (source, kernels) in modules()? {
        let made = clang.compile(&source, Target::Gfx942, None)?;
        if !made.warnings.is_empty() {
            failures.push(format!("{source}: {}", made.warnings));
        }
        let report = report(&made);
        for (kernel, lds) in kernels {
            let Some(r) = report.get(&kernel) else {
                failures.push(format!("{source}: the compiler says nothing of `{kernel}`"));
                continue;
            };
            let get = |key: &str| r.get(key).map_or("?", String::as_str);
            for zero in ["ScratchSize [bytes/lane]", "SGPRs Spill", "VGPRs Spill"] {
                if get(zero) != "0" {
                    failures.push(format!("{source} {kernel}: {zero} {}", get(zero)));
                }
            }
            if get("LDS Size [bytes/block]") != lds.to_string() {
                failures
                    .push(format!("{source} {kernel}: {} of LDS, lowering says {lds}", get("LDS Size [bytes/block]")));
            }
            let occupancy = get("Occupancy [waves/SIMD]");
            let _ = writeln!(
                table,
                "{source} {kernel}: {} VGPRs, {} AGPRs, {} SGPRs, {lds} LDS, occupancy {occupancy}",
                get("VGPRs"),
                get("AGPRs"),
                get("TotalSGPRs")
            );
        }
    }
    if clang.version().contains("22.1") && failures.is_empty() {
        insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("hip_resources", table);
        });
    }
    all(failures)
}

/// Products of vectors are dots of four, products of matrices are on the matrix units.
fn instructions() -> Result<(), Outcome> {
    let clang = clang()?;
    let mut failures = Vec::new();
    for (source, _) in modules()?.into_iter().filter(|(s, _)| matches!(s.file, "matvec.hip" | "matmul.hip")) {
        let want: &[&str] = if source.file == "matmul.hip" { &["v_mfma_i32_16x16x32_i8"] } else { &["v_dot4"] };
        let made = clang.compile(&source, Target::Gfx942, None)?;
        for w in want {
            if !made.listing.contains(w) {
                failures.push(format!("{source}: no {w}"));
            }
        }
    }
    all(failures)
}

/// The same sources are good for NVIDIA: clang makes PTX for sm_90 of them.
fn nvidia() -> Result<(), Outcome> {
    let clang = clang()?;
    if !clang.has_target("nvptx64") {
        return Err(Outcome::Lacks(CLANG, PathBuf::from("clang's NVPTX target")));
    }
    let mut failures = Vec::new();
    for (source, kernels) in modules()? {
        match clang.ptx(&source) {
            Err(e) => failures.push(format!("{source}: {e}")),
            Ok(ptx) => {
                let missing = kernels.keys().filter(|k| !ptx.contains(&format!(".entry {k}(")));
                failures.extend(missing.map(|k| format!("{source}: no entry `{k}`")));
                // A kernel may start while the one before it runs; one that does not wait for it reads what is not there yet.
                let waits = ptx.split(".entry ").skip(1).filter(|body| body.contains("griddepcontrol.wait")).count();
                if waits != ptx.matches(".entry ").count() {
                    failures.push(format!("{source}: {waits} kernels wait for the one before"));
                }
            }
        }
    }
    all(failures)
}

/// What `greta plan` prints of a model: a decode step, and a chunk of a prompt.
fn lowering() -> Result<(), Outcome> {
    let model = Model::open(&synth_tiny("Q4_K_M")?)?;
    let backend = Hip::open(":gfx942", HipOptions::threads(1))?;
    for (name, arith, at) in [
        ("decode", Arithmetic::Int8, StepSize { tokens: 1, rows: 1, context: 200 }),
        ("prefill", Arithmetic::Int8, StepSize { tokens: 64, rows: 1, context: 64 }),
        ("exact", Arithmetic::Exact, StepSize { tokens: 64, rows: 1, context: 64 }),
    ] {
        let (plan, _) = Engine::plan(&model, &backend, &EngineOptions { arith, ..EngineOptions::default() })?;
        let mut text = String::new();
        for l in backend.lowering(&plan, &at, &[])?.unwrap_or_default() {
            let _ = writeln!(text, "{} {} {:?}x{} lds {} {}", l.node, l.kernel, l.grid, l.block, l.lds, l.module);
            let _ = writeln!(text, "  {} | {} bytes, {} flops", l.args.join(", "), l.bytes, l.flops);
        }
        insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("hip_{name}"), text);
        });
    }
    Ok(())
}

/// The largest logits as the device picks them are those of all logits.
fn largest(hip: &Hip) -> Result<(), Outcome> {
    let engine = engine(&synth_tiny("Q4_0")?, hip, &EngineOptions { max_rows: 3, ..EngineOptions::default() })?;
    let mut failures = Vec::new();
    for n in [1, 5, 1000, 5000] {
        let step = |want: Want| -> Result<StepOut, Outcome> {
            let mut session = engine.session()?;
            let mut batch = Batch::default();
            batch.append(session.kv(), SeqId(0), &[3, 1, 4, 1, 5], RowsWanted::From(2))?;
            Ok(session.run(&batch, want)?)
        };
        let (all, top) = (step(Want::Logits)?, step(Want::TopK(n))?);
        let want = all.clone().with_logits(&all.logits, all.vocab, Want::TopK(n)).top;
        if top.top != want || top.top.len() != 3 || !top.logits.is_empty() {
            failures.push(format!("{n}: {:?}, expected {:?}", top.top.first(), want.first()));
        }
    }
    all(failures)
}

/// Launches that are captured run when they are replayed, as often as they are.
fn captured() -> Result<(), Outcome> {
    clang()?;
    let device = Sim { threads: 1, kernels: None }.open(0)?;
    let mut stream = device.stream()?;
    let add = device.function(&Source::of("add.hip"), "add")?;
    let (a, b) = (device.alloc(64, "a")?, device.alloc(64, "b")?);
    let bytes = |v: f32| v.to_le_bytes().repeat(16);
    stream.write(a, &bytes(1.0))?;
    stream.write(b, &bytes(2.0))?;
    let args = [&a.0.to_le_bytes()[..], &a.0.to_le_bytes(), &b.0.to_le_bytes(), &16u32.to_le_bytes()].concat();
    stream.begin_capture()?;
    stream.launch(add, Size { grid: [1, 1, 1], block: 256 }, &args, &[(a, 64), (b, 64)])?;
    let graph = stream.end_capture()?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut out = [0; 64];
        stream.read(a, &mut out)?;
        seen.push(f32::from_le_bytes([out[60], out[61], out[62], out[63]]));
        stream.replay(graph)?;
    }
    let (from, to) = (stream.event()?, stream.event()?);
    let took = stream.elapsed(from, to)?;
    if seen == [1.0, 3.0, 5.0] && took >= 0.0 { Ok(()) } else { Err(Outcome::Failed(format!("{seen:?}, {took} ms"))) }
}

/// Decode steps give the same bits whether they are captured and replayed or launched kernel by kernel, on either side of
/// where a segment of attention begins and the cache grows.
fn replayed(label: &str, hip: &Hip) -> Result<(), Outcome> {
    let which = if label == "hip-sim" { ":sim" } else { "" };
    let eager = Hip::open(which, HipOptions { launching: Launching::Eager, ..HipOptions::threads(1) })?;
    let rows = |backend: &Hip| -> Result<Vec<Vec<u32>>, Outcome> {
        let engine = engine(&synth_tiny("Q4_K_M")?, backend, &EngineOptions::default())?;
        let mut context = engine.context()?;
        let tokens: Vec<u32> = (0..134).map(|i| i * 37 % 1000).collect();
        // The cache holds all but the last token: a decode step.
        let step = |end: usize| -> Result<Vec<u32>, Outcome> {
            let row = context.prefill(&tokens[..end], &mut |_, _| true)?.unwrap_or_default();
            Ok(row.iter().map(|x| x.to_bits()).collect())
        };
        (122..=134).map(step).collect()
    };
    let (got, want) = (rows(hip)?, rows(&eager)?);
    let differ: Vec<usize> = (0..want.len()).filter(|&i| got[i] != want[i]).collect();
    match differ.is_empty() && want.iter().all(|r| !r.is_empty()) {
        true => Ok(()),
        false => Err(Outcome::Failed(format!("steps {differ:?} differ from those launched one by one"))),
    }
}

/// A cache that grew, a fork that went its own way and a sequence cut short give what a fresh run of the same tokens gives.
fn cache(hip: &Hip) -> Result<(), Outcome> {
    let options = EngineOptions { sequences: 2, context: Some(200), ..EngineOptions::default() };
    let engine = engine(&synth_tiny("Q8_0")?, hip, &options)?;
    let tokens: Vec<u32> = (0..150).map(|i| i * 37 % 1000).collect();
    let run = |session: &mut dyn Session, seq: usize, tokens: &[u32]| -> Result<Vec<u32>, Outcome> {
        let mut batch = Batch::default();
        batch.append(session.kv(), SeqId(seq), tokens, RowsWanted::Last)?;
        Ok(session.run(&batch, Want::Logits)?.logits.iter().map(|x| x.to_bits()).collect())
    };
    let mut failures = Vec::new();
    let mut grown = engine.session()?;
    tokens[..140].chunks(20).try_for_each(|part| run(&mut *grown, 0, part).map(|_| ()))?;
    grown.kv().fork(SeqId(0), SeqId(1))?;
    run(&mut *grown, 1, &[7, 8, 9])?;
    grown.kv().truncate(SeqId(1), 135)?;
    let (kept, cut) = (run(&mut *grown, 0, &tokens[140..])?, run(&mut *grown, 1, &[5])?);
    let mut fresh = engine.session()?;
    let want = run(&mut *fresh, 0, &tokens)?;
    let want_cut = run(&mut *fresh, 1, &[&tokens[..135], &[5]].concat())?;
    for (what, got, want) in [("grown and forked", kept, want), ("cut", cut, want_cut)] {
        if got != want {
            failures.push(format!("{what}: other logits than in a fresh session"));
        }
    }
    all(failures)
}
