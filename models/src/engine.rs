//! A model on a backend, ready to open contexts.

use crate::{Context, Model, ModelError};
use greta_backend::{Backend, CompileOptions, Executable, Injection, Interrupt, KvConfig, RouteRule, Session};
use greta_graph::{Kind, PassLog, Pipeline, Plan, TapMode, TapRequest};
use greta_ops::{DType, Op};
use std::sync::Arc;

/// Which arithmetic the passes make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Dequantised weights, f32 products in a fixed order.
    Exact,
    /// Activations quantised to 8 bits before products with quantised weights.
    #[default]
    Int8,
}

impl std::str::FromStr for Arithmetic {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "exact" => Ok(Arithmetic::Exact),
            "int8" => Ok(Arithmetic::Int8),
            other => Err(format!("unknown arithmetic `{other}`; known: exact, int8")),
        }
    }
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Arithmetic::Exact => "exact",
            Arithmetic::Int8 => "int8",
        })
    }
}

/// How to run a model.
#[derive(Clone)]
pub struct EngineOptions<'a> {
    /// The arithmetic.
    pub arith: Arithmetic,
    /// Type of the KV cache: F16 or F32.
    pub kv: DType,
    /// Most tokens of a sequence; `None`: the smaller of the model's and 4096.
    pub context: Option<usize>,
    /// Most sequences in one context's batches.
    pub sequences: usize,
    /// Most tokens in a step; longer prompts are cut into such chunks.
    pub max_tokens: usize,
    /// Most rows of logits a step gives.
    pub max_rows: usize,
    /// Passes to switch off, by name.
    pub without: Vec<String>,
    /// Values, by name, that every step gives back as well; a fusion that would hide one is refused.
    pub outputs: Vec<String>,
    /// Trace taps.
    pub taps: Vec<TapRequest>,
    /// Which values the taps see.
    pub tap_mode: TapMode,
    /// Kernels to force.
    pub routes: Vec<RouteRule>,
    /// Faults to build in: for `greta faults`, `greta gate` and tests.
    pub faults: Vec<Injection>,
    /// Told how many bytes of weights are ready, of how many.
    pub progress: Option<&'a dyn Fn(u64, u64)>,
    /// Asked during long steps whether to stop.
    pub interrupt: Interrupt,
}

impl Default for EngineOptions<'_> {
    fn default() -> Self {
        EngineOptions {
            arith: Arithmetic::Int8,
            kv: DType::F16,
            context: None,
            sequences: 1,
            max_tokens: 512,
            max_rows: 1,
            without: Vec::new(),
            outputs: Vec::new(),
            taps: Vec::new(),
            tap_mode: TapMode::Semantic,
            routes: Vec::new(),
            faults: Vec::new(),
            progress: None,
            interrupt: Interrupt::default(),
        }
    }
}

/// The context when none is asked for is at most this: memory should not be promised for a model's 131,072.
const DEFAULT_CONTEXT: usize = 4096;

/// A compiled model.
pub struct Engine {
    model: Arc<Model>,
    exe: Arc<dyn Executable>,
    kv: KvConfig,
    log: PassLog,
}

impl Engine {
    /// Builds the graph, runs the passes, plans and compiles.
    pub fn new(model: Arc<Model>, backend: &dyn Backend, o: &EngineOptions<'_>) -> Result<Engine, ModelError> {
        let context = o.context.unwrap_or(model.context().min(DEFAULT_CONTEXT));
        if context == 0 || context > model.context() {
            let text = format!("-c {context}: the model's context is 1 to {} tokens", model.context());
            return Err(ModelError::Options(text));
        }
        if o.sequences == 0 || o.max_tokens == 0 || o.max_rows == 0 {
            return Err(ModelError::Options("sequences, tokens and rows of a step must be at least 1".into()));
        }
        let (plan, log) = Self::plan(&model, backend, o)?;
        let options = CompileOptions {
            max_tokens: o.max_tokens.min(context * o.sequences),
            max_rows: o.max_rows,
            routes: &o.routes,
            faults: &o.faults,
            progress: o.progress,
            interrupt: Some(&o.interrupt),
        };
        let exe = backend.compile(plan, model.weights(), options)?;
        Ok(Engine { model, exe, kv: KvConfig { context, sequences: o.sequences }, log })
    }

    /// The plan alone, without touching a weight.
    pub fn plan(model: &Model, backend: &dyn Backend, o: &EngineOptions<'_>) -> Result<(Plan, PassLog), ModelError> {
        let mut graph = model.graph(o.kv)?;
        if !o.outputs.is_empty() {
            graph = graph.with_outputs(&o.outputs)?;
        }
        let pipeline = match o.arith {
            Arithmetic::Exact => Pipeline::exact(),
            Arithmetic::Int8 => Pipeline::int8(),
        };
        let (graph, log) =
            pipeline.retain(|p| backend.wants(p)).without(&o.without)?.with_taps(&o.taps, o.tap_mode).run(&graph)?;
        Ok((Plan::new(graph), log))
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The arithmetic that came about: `int8` only if some product is on quantised activations. A file without
    /// quantised weights is `exact` whatever was asked for.
    pub fn arithmetic(&self) -> Arithmetic {
        let mut ops =
            self.exe.plan().graph().nodes().map(|(id, n)| (&n.kind, self.exe.plan().graph().operands(id).len()));
        match ops.any(|(kind, operands)| matches!(kind, Kind::Op(Op::MatMul(_))) && operands == 3) {
            true => Arithmetic::Int8,
            false => Arithmetic::Exact,
        }
    }

    /// What runs it.
    pub fn executable(&self) -> &Arc<dyn Executable> {
        &self.exe
    }

    /// What the passes did and refused.
    pub fn pass_log(&self) -> &PassLog {
        &self.log
    }

    /// Most tokens of a sequence.
    pub fn context_size(&self) -> usize {
        self.kv.context
    }

    /// Opens a session with an empty cache, for batches and taps of one's own.
    pub fn session(&self) -> Result<Box<dyn Session>, ModelError> {
        Ok(self.exe.clone().session(self.kv)?)
    }

    /// Opens a context with an empty cache.
    pub fn context(&self) -> Result<Context, ModelError> {
        Ok(Context::new(self.model.clone(), self.exe.clone().session(self.kv)?, self.kv))
    }
}
