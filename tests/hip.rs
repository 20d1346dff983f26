//! The HIP backend: every kernel as machine code for gfx942, its lowering, and what is wrong with a kernel that is wrong.

use crate::support::{CLANG, Outcome, all, synth_tiny, trial};
use greta_backend::{Backend, StepSize};
use greta_hip::compile::{Clang, CodeObject};
use greta_hip::kernels::Source;
use greta_hip::{Hip, HipOptions, Target};
use greta_models::{Arithmetic, Engine, EngineOptions, Model};
use greta_ops::{DType, Op};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("hip/kernels_compile_without_spill", resources),
        trial("hip/kernels_hold_the_instructions", instructions),
        trial("hip/kernels_compile_for_nvidia", nvidia),
        trial("hip/lowering", lowering),
        trial("hip/names", names),
    ]
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
    for dtype in [DType::F32, DType::F16, DType::I32, DType::I8] {
        let l = greta_hip::lower::stats(greta_hip::lower::Buffer::Scratch, dtype, 64, 0, 1, [0; 3]);
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

/// Devices and targets are chosen by name, and a wrong one is an error.
fn names() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    for bad in [":abacus", ":gfx942:1", ":gfx906"] {
        if Hip::open(bad, HipOptions::threads(1)).is_ok() {
            failures.push(format!("hip{bad} was opened"));
        }
    }
    if let Ok(b) = Hip::open(":gfx942", HipOptions::threads(1)) {
        let model = Model::open(&synth_tiny("Q4_0")?)?;
        if Engine::new(std::sync::Arc::new(model), &b, &EngineOptions::default()).is_ok() {
            failures.push("a target was run on".into());
        }
    }
    all(failures)
}
