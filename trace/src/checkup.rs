//! Whether a backend's numbers are right, on ops alone and on a tiny model: the second half of `greta doctor`.
//!
//! The model is synthetic and made on the spot, so that a bare machine needs nothing.

use crate::judge::{VerdictKind, worst_ratio};
use crate::verify::{VerifyOptions, verify};
use crate::{FolderWriter, PromptInfo, RunInfo, Status, TraceError, TracePlan, facts, prompts, tracer};
use greta_backend::{Backend, BackendError, CaseRunner, Check, Checked, CompileOptions, Interrupt, StepSize};
use greta_graph::{TapRequest, TapSpec};
use greta_models::synth::{self, Mix, SynthSpec};
use greta_models::{Arithmetic, Engine, EngineOptions, Model};
use greta_ops::{DType, Op, Precision};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const ADD: Checked = Checked { name: "op add", advice: OP };
const EXACT: Checked = Checked { name: "op matmul, exact", advice: OP };
const INT8: Checked = Checked { name: "op matmul, int8", advice: OP };
const OP: &str = "One op alone, on known operands, is not what its f64 definition says: the kernel, its compiler or the \
                  hardware. Nothing that uses it can be right. Send the bundle; `greta plan` names the kernel";
const SAME: Checked = Checked {
    name: "prefill is decode",
    advice: "A prompt run at once and run token by token give other logits: a kernel's order depends on the batch, a cache \
             row lies elsewhere, or a replayed step reads old inputs. `greta gate`, `greta verify`, and both with --eager, \
             say which",
};
const VERIFY: Checked = Checked {
    name: "verify",
    advice: "An op of a running model is over its bound: the finding names it. `greta verify` on your own model, then \
             docs/debugging.md",
};
const LOGITS: Checked = Checked {
    name: "logits as on the CPU",
    advice: "Every op may be within its bound and their chain still be wrong: weights of another layer, or a wrong table. \
             `greta trace` on both backends, then `greta diff`",
};
const TRACE: Checked =
    Checked { name: "trace", advice: "The run could not be recorded. The disk may be full; `greta trace` says more" };

/// Tokens of the prompt: more than a tile has rows.
const TOKENS: usize = 24;
/// What the mean size of logits may differ by, as a share of it: f32 sums in another order; codes of int8 on a tie.
const LIMITS: [(Arithmetic, f64); 2] = [(Arithmetic::Exact, 1e-4), (Arithmetic::Int8, 0.05)];

/// What the checks run on.
pub struct Subject<'a> {
    /// The backend that is checked.
    pub backend: &'a dyn Backend,
    /// The one its logits are compared with.
    pub against: &'a dyn Backend,
    /// Asked now and then whether to stop.
    pub interrupt: &'a Interrupt,
    /// A folder for the model; a run folder `run` and `kernels.json` are made beside it.
    pub room: &'a Path,
}

impl Subject<'_> {
    /// Every check, where there is no use in making them.
    pub fn skipped(why: &str) -> Vec<Check> {
        [ADD, EXACT, INT8, SAME, VERIFY, LOGITS, TRACE].map(|c| c.skipped(why)).into()
    }

    /// Every check; each is told of as soon as it is made, and the answer is whether to go on.
    pub fn checks(&self, tell: &dyn Fn(&Check) -> bool) -> Result<Vec<Check>, TraceError> {
        let mut out = Vec::new();
        let mut push = |what: Checked, check: &dyn Fn() -> Result<String, String>| {
            let done = what.ended(check());
            // What a check says that was stopped is of no use.
            self.interrupt.check().map_err(|_| TraceError::Interrupted)?;
            let on = tell(&done);
            out.push(done);
            if on { Ok(()) } else { Err(TraceError::Interrupted) }
        };
        for (what, case) in [(ADD, "add/"), (EXACT, "matmul/q4_k"), (INT8, "matmul/q4_k")] {
            let int8 = what.name == INT8.name;
            push(what, &|| self.op(case, int8))?;
        }
        match self.model() {
            Ok((model, prompts)) => {
                let tokens = &prompts[0].tokens;
                push(SAME, &|| self.same(&model, tokens))?;
                push(VERIFY, &|| self.verified(&model, &prompts))?;
                push(LOGITS, &|| self.logits(&model, tokens))?;
                push(TRACE, &|| self.trace(&model, &prompts).map_err(|e| e.to_string()))?;
            }
            Err(e) => {
                let why = format!("no model could be made: {e}");
                [SAME, VERIFY, LOGITS, TRACE].into_iter().try_for_each(|c| push(c, &|| Err(why.clone())))?;
            }
        }
        Ok(out)
    }

    fn options(&self, arith: Arithmetic) -> EngineOptions<'static> {
        EngineOptions { arith, kv: DType::F32, interrupt: self.interrupt.clone(), ..EngineOptions::default() }
    }

    /// Cases of an op, judged by its definition and bound.
    fn op(&self, title: &str, int8: bool) -> Result<String, String> {
        let cases: Vec<_> = Op::cases()
            .into_iter()
            .filter(|c| c.title().starts_with(title) && c.title().ends_with("_int8") == int8)
            .take(3)
            .collect();
        let mut worst = 0.0f64;
        for case in &cases {
            let named = |e: BackendError| format!("{}: {e}", case.title());
            let options = CompileOptions { interrupt: Some(self.interrupt), ..CompileOptions::default() };
            let mut runner = CaseRunner::with_options(case, self.backend, options).map_err(named)?;
            let got = runner.run().map_err(named)?;
            let stored = case.stored();
            let ins: Vec<_> = stored.iter().collect();
            let want = case.op.spec().reference(&ins);
            let bounds = case.op.spec().error_bound(&ins, &want, Precision::F32);
            if got.len() != want.len() {
                return Err(format!("{}: {} outputs, expected {}", case.title(), got.len(), want.len()));
            }
            for (o, got) in got.iter().enumerate() {
                let ratio = worst_ratio(got, &want[o], &bounds[o], runner.outputs()[o].dtype, want[o].rows());
                if ratio > 1.0 || ratio.is_nan() {
                    return Err(format!("{}: {ratio:.2} × its bound", case.title()));
                }
                worst = worst.max(ratio);
            }
        }
        match cases.len() {
            0 => Err(format!("there is no case {title}")),
            n => Ok(format!("{n} cases, at most {worst:.2} × the bound")),
        }
    }

    fn model(&self) -> Result<(Arc<Model>, Vec<PromptInfo>), String> {
        let spec = SynthSpec::preset("tiny").ok_or("there is no preset `tiny`")?;
        let path = self.room.join("tiny.gguf");
        let mix = Mix::from_name("Q4_K_M").ok_or("there is no mix `Q4_K_M`")?;
        synth::write(&SynthSpec { mix, ..spec }, &path, &mut |_, _| true).map_err(|e| e.to_string())?;
        let model = Arc::new(Model::open(&path).map_err(|e| e.to_string())?);
        let mut list = prompts::built_in(&model, &["p4_sys".into()], 256).map_err(|e| e.to_string())?;
        list.iter_mut().for_each(|p| p.tokens.truncate(TOKENS));
        Ok((model, list))
    }

    /// The logits after a prompt, run at once or token by token.
    fn row(&self, model: &Arc<Model>, backend: &dyn Backend, arith: Arithmetic, tokens: &[u32], single: bool) -> Row {
        let engine = Engine::new(model.clone(), backend, &self.options(arith)).map_err(|e| e.to_string())?;
        let mut context = engine.context().map_err(|e| e.to_string())?;
        let mut last = None;
        // A context runs only what its cache lacks: one token, a decode step.
        for end in if single { 1 } else { tokens.len() }..=tokens.len() {
            last = context.prefill(&tokens[..end], &mut |_, _| true).map_err(|e| e.to_string())?;
        }
        last.filter(|l| !l.is_empty()).ok_or_else(|| "the steps gave no logits".into())
    }

    fn same(&self, model: &Arc<Model>, tokens: &[u32]) -> Result<String, String> {
        for (arith, _) in LIMITS {
            let whole = self.row(model, self.backend, arith, tokens, false)?;
            let single = self.row(model, self.backend, arith, tokens, true)?;
            let differ = whole.iter().zip(&single).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            if differ > 0 || whole.len() != single.len() || whole.iter().any(|x| !x.is_finite()) {
                return Err(format!("{arith}: {differ} of {} logits differ, or are no numbers", whole.len()));
            }
        }
        Ok(format!("{} tokens at once and one by one: the same bits, exact and int8", tokens.len()))
    }

    fn verified(&self, model: &Arc<Model>, prompts: &[PromptInfo]) -> Result<String, String> {
        let mut said = Vec::new();
        for (arith, _) in LIMITS {
            let plan = TracePlan { decode_steps: 4, ..TracePlan::default() };
            let options = VerifyOptions { plan, ..VerifyOptions::default() };
            let found = verify(model, self.backend, &self.options(arith), prompts, &options, None, &|_, _, _| true)
                .map_err(|e| e.to_string())?
                .verified;
            let v = &found.verdict;
            match (&v.culprit, v.verdict) {
                (Some(c), _) => return Err(format!("{arith}: {} in {}, {}: {}", c.node, c.phase, c.class, c.detail)),
                (None, VerdictKind::Clean) if found.taps_change_nothing => {}
                (None, VerdictKind::Clean) => {
                    return Err(format!("{arith}: logits with taps differ from those without"));
                }
                (None, other) => return Err(format!("{arith}: {other:?}")),
            }
            said.push(format!("{arith} CLEAN, {} ops at most {:.2} × the bound", v.judged, v.worst_clean));
        }
        Ok(said.join("; "))
    }

    fn logits(&self, model: &Arc<Model>, tokens: &[u32]) -> Result<String, String> {
        let mut said = Vec::new();
        for (arith, limit) in LIMITS {
            let ours = self.row(model, self.backend, arith, tokens, false)?;
            let want = self.row(model, self.against, arith, tokens, false)?;
            let rms = (want.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / want.len() as f64).sqrt();
            let mut worst = 0.0;
            for (a, b) in ours.iter().zip(&want) {
                let off = f64::from(a - b).abs() / rms;
                if off > limit || off.is_nan() {
                    return Err(format!("{arith}: off by {off:.1e} of the logits' size, the limit is {limit:.0e}"));
                }
                worst = off.max(worst);
            }
            said.push(format!("{arith} {worst:.1e} of their size apart (limit {limit:.0e})"));
        }
        Ok(said.join("; "))
    }

    /// A run folder with every value of the last rows, and what was launched.
    fn trace(&self, model: &Arc<Model>, prompts: &[PromptInfo]) -> Result<String, TraceError> {
        let taps = vec![TapRequest::new("all", TapSpec::default())?];
        let mut options = EngineOptions { taps, ..self.options(Arithmetic::Int8) };
        options.taps = facts::with_facts(model, self.backend, &options)?;
        let engine = Engine::new(model.clone(), self.backend, &options)?;
        let plan = TracePlan::default();
        let mut info = RunInfo::of(&engine, model, (self.backend.name(), self.backend.describe()), &options);
        info.prompts = prompts.to_vec();
        info.decode_steps = plan.decode_steps;
        let graph = engine.executable().plan().graph();
        let mut writer = FolderWriter::create(&self.room.join("run"), &info, graph, &plan, model.weights(), true)?;
        self.backend.count(true);
        let ran = tracer::run(&engine, &mut info, &plan, &mut writer, &mut |_, _, _| true);
        self.backend.count(false);
        ran?;
        info.status = Status::Complete;
        let folder = writer.finish(&info)?;
        let at = StepSize { tokens: TOKENS, rows: 1, context: TOKENS };
        let lowered = self.backend.lowering(engine.executable().plan(), &at, &[])?;
        let kernels = serde_json::json!({ "launches": lowered, "profile": self.backend.profile() });
        let path = self.room.join("kernels.json");
        fs::write(&path, format!("{kernels:#}\n")).map_err(crate::error::io(&path, "can't be written"))?;
        Ok(format!("{} rows of {} values", folder.rows, folder.values))
    }
}

type Row = Result<Vec<f32>, String>;
