//! Mistakes planted in the kernels' sources, and what is said of them.

use super::clang;
use crate::conformance::run;
use crate::support::{Outcome, all, synth_tiny};
use greta_backend::{CompileOptions, RouteRule};
use greta_hip::compile::describe_sources;
use greta_hip::driver::Driver;
use greta_hip::driver::sim::Sim;
use greta_hip::kernels::Source;
use greta_hip::{Hip, HipOptions, Target};
use greta_models::{Engine, EngineOptions, Model};
use greta_ops::Op;
use std::sync::Arc;

/// A mistake in a kernel: which text of which file becomes which, in which cases it shows, and who says what.
struct Mistake {
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    case: &'static str,
    route: Option<&'static str>,
    said: &'static [&'static str],
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "a missing barrier",
        file: "rmsnorm.hip",
        from: "  barrier();\n",
        to: "",
        case: "rmsnorm/1x576",
        route: None,
        said: &["kernel `rmsnorm`", "rmsnorm.hip"],
    },
    Mistake {
        name: "a row out of bounds",
        file: "add.hip",
        from: "if (i < count) ",
        to: "",
        case: "add/",
        route: None,
        said: &["outside every allocation", "add.hip"],
    },
    Mistake {
        name: "a reduction over 32 lanes of a wave of 64",
        file: "rmsnorm.hip",
        from: "  if (thread_x() % 32 == 0) part[thread_x() / 32] = sum;\n",
        to: "  if (thread_x() % WAVE == 0) part[thread_x() / 32] = sum, part[thread_x() / 32 + 1] = 0.0f;\n",
        case: "rmsnorm/1x576",
        route: None,
        said: &["× its bound"],
    },
    Mistake {
        name: "a wrong layout of the matrix unit's outputs",
        file: "tile.hip.h",
        from: "DEV u32 row_step(u32 reg) { return reg; }",
        to: "DEV u32 row_step(u32 reg) { return 3 - reg; }",
        case: "matmul/q4_0_16x1024x9_int8",
        route: Some("matmul"),
        said: &["× its bound"],
    },
];

/// A folder with the kernels' sources, in one of which a text is another.
fn changed(file: &str, from: &str, to: &str) -> Result<tempfile::TempDir, Outcome> {
    let dir = tempfile::tempdir()?;
    for (name, text) in greta_hip::kernels::FILES {
        let text = if *name == file { text.replacen(from, to, 1) } else { text.to_string() };
        if *name == file && !text.contains(to) {
            return Err(Outcome::Failed(format!("{name} has no `{from}`")));
        }
        std::fs::write(dir.path().join(name), text)?;
    }
    Ok(dir)
}

/// A row behind a value's last is not the kernel's, though the value's slot has room for many more tokens.
pub fn past_live() -> Result<(), Outcome> {
    clang()?;
    let model = Arc::new(Model::open(&synth_tiny("Q4_0")?)?);
    let mut failures = Vec::new();
    for (from, to, said) in
        [("out[i] =", "out[i + 256] =", "writes 4 bytes"), ("= a[i] +", "= a[i + 256] +", "reads 4 bytes")]
    {
        let dir = changed("add.hip", from, to)?;
        let backend = Hip::open(":sim", HipOptions { kernels: Some(dir.path().into()), ..HipOptions::threads(1) })?;
        let engine = Engine::new(model.clone(), &backend, &EngineOptions::default())?;
        let got = engine.context()?.prefill(&[1, 2, 3], &mut |_, _| true);
        let text = got.map_or_else(|e| e.to_string(), |_| "it ran".into());
        if ![said, "past the live", "bytes of `slot", "kernel `add`", "add.hip"].iter().all(|s| text.contains(s)) {
            failures.push(format!("{to}: {text}"));
        }
    }
    all(failures)
}

/// Warnings are kept, errors come without remarks, and records of runs tell changed sources from greta's own.
pub fn heard() -> Result<(), Outcome> {
    let clang = clang()?;
    let mut failures = Vec::new();
    let own = describe_sources(None)?;
    for (to, said) in [("u32 unused = 3, i =", "unused variable"), ("u32 i = nothing +", "undeclared identifier")] {
        let dir = changed("add.hip", "u32 i =", to)?;
        // Twice: compiled, and from the cache.
        for _ in 0..2 {
            let got = clang.compile(&Source::of("add.hip"), Target::Gfx942, Some(dir.path()));
            let text = got.map_or_else(|e| e.to_string(), |made| made.warnings);
            let noise = ["remark", "\n\n", "generated when"].iter().any(|n| text.contains(n));
            if noise || !text.contains(said) || !text.contains("add.hip:6") {
                failures.push(format!("{to}: `{text}`"));
            }
        }
        let sources = describe_sources(Some(dir.path()))?;
        if sources.contains(&own) || !sources.contains("GRETA_KERNELS") {
            failures.push(format!("{sources}, greta's own are {own}"));
        }
    }
    let name = Sim { threads: 1, kernels: None }.open(0)?.info().name.clone();
    if !name.contains(&own) || !name.contains(&format!("clang {}", clang.number())) {
        failures.push(format!("the device is `{name}`"));
    }
    all(failures)
}

/// Mistakes planted in the kernels are caught: by the emulator, or by the op's own bound.
pub fn planted() -> Result<(), Outcome> {
    clang()?;
    let mut failures = Vec::new();
    for m in MISTAKES {
        let dir = changed(m.file, m.from, m.to)?;
        let backend = Hip::open(":sim", HipOptions { kernels: Some(dir.path().into()), ..HipOptions::threads(1) })?;
        let routes: Vec<RouteRule> =
            m.route.iter().map(|r| format!("out={r}").parse()).collect::<Result<_, _>>().map_err(Outcome::Failed)?;
        let cases: Vec<_> = Op::cases().into_iter().filter(|c| c.title().starts_with(m.case)).collect();
        let options = CompileOptions { routes: &routes, ..CompileOptions::default() };
        let wrong: Vec<String> = cases.iter().filter_map(|c| run(c, &backend, options).err()).collect();
        if !wrong.iter().any(|w| m.said.iter().all(|s| w.contains(s))) {
            failures.push(format!("{}: {} cases, said {wrong:?}, expected {:?}", m.name, cases.len(), m.said));
        }
    }
    all(failures)
}
