//! Proof that faults are found: each is built into a kernel, the run is verified, and what is said is held against what was
//! done.

mod cell;
mod corpus;
mod score;

use corpus::Param;
pub use corpus::{CORPUS, Entry, PAIRS, Pair};
pub use score::{Counts, FaultReport, Row};

use crate::judge::Memo;
use crate::{PromptInfo, Recording, TraceError, TracePlan, prompts, tracer};
use greta_backend::{Backend, Fault, Injection};
use greta_graph::{TapRequest, TapRows, TapSpec};
use greta_models::synth::{self, Mix, SynthSpec};
use greta_models::{EngineOptions, Model};
use greta_ops::DType;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which cells to run.
#[derive(Clone, Debug, Default)]
pub struct FaultOptions {
    /// Faults; empty: all.
    pub faults: Vec<Fault>,
    /// Names of built-in prompts; empty: all.
    pub prompts: Vec<String>,
    /// Only the first, middle and last layer's cells of this kind; empty: all three.
    pub layers: Vec<LayerChoice>,
    /// The model; `None`: a synthetic one that suits the fault.
    pub model: Option<PathBuf>,
    /// Longest prompt, in tokens; `None`: as the context allows.
    pub longest: Option<usize>,
}

/// Which layer a cell's fault is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerChoice {
    /// The first.
    First,
    /// The middle one.
    Middle,
    /// The last.
    Last,
}

impl LayerChoice {
    /// All three.
    pub const ALL: [LayerChoice; 3] = [LayerChoice::First, LayerChoice::Middle, LayerChoice::Last];

    /// The layer's number in a model of `n`.
    pub fn of(self, n: u32) -> u32 {
        match self {
            LayerChoice::First => 0,
            LayerChoice::Middle => n / 2,
            LayerChoice::Last => n.saturating_sub(1),
        }
    }
}

impl std::str::FromStr for LayerChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "first" => Ok(LayerChoice::First),
            "middle" => Ok(LayerChoice::Middle),
            "last" => Ok(LayerChoice::Last),
            _ => Err(format!("unknown layer `{s}`; known: first, middle, last")),
        }
    }
}

/// Where a fault is put.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The corpus' point in this layer.
    Layer(u32),
    /// This node.
    Node(&'a str),
}

/// A fault of the corpus as a kernel takes it, with the corpus' parameter unless one is given.
pub fn injection(fault: Fault, place: Place<'_>, param: Option<u32>) -> Result<Injection, TraceError> {
    let unfit = |why: &str| TraceError::NotJudged(format!("the fault `{fault}` {why}"));
    let entry = CORPUS.iter().find(|e| e.fault == fault).ok_or_else(|| unfit("is not in the corpus"))?;
    if fault == Fault::BosMissing {
        return Err(unfit("is in the prompt, not in a kernel: give --tokens without the first"));
    }
    let node = match place {
        Place::Node(name) => name.to_string(),
        Place::Layer(_) if entry.global => entry.point.into(),
        Place::Layer(_) if entry.point == "*" => {
            return Err(unfit("needs a matmul whose weight has a certain type: name it with --node"));
        }
        Place::Layer(n) => format!("blk.{n}.{}", entry.point),
    };
    let param = match (param, entry.param) {
        (Some(n), _) | (None, Param::Is(n)) => Some(n),
        (None, Param::Default) => None,
        (None, Param::NextToken) => return Err(unfit("needs the token to read instead: give --param")),
    };
    Ok(Injection { fault, node, phase: entry.phase, param })
}

/// What is being done, cells done of all; answers whether to go on.
pub type Progress<'a> = &'a (dyn Fn(&str, usize, usize) -> bool + Sync);

/// Whether a fault can be put into a run on this backend: into its kernels, or into the prompt.
pub fn available(backend: &dyn Backend, fault: Fault) -> bool {
    fault == Fault::BosMissing || backend.faults().contains(&fault)
}

/// Runs every cell the options ask for, of the faults that the backend has; the others are named in the report.
pub fn run(
    backend: &dyn Backend,
    engine: &EngineOptions<'static>,
    options: &FaultOptions,
    scratch: &Path,
    progress: Progress<'_>,
) -> Result<FaultReport, TraceError> {
    let wanted = |f: Fault| options.faults.is_empty() || options.faults.contains(&f);
    let has = |f: Fault| available(backend, f);
    let (entries, lacking): (Vec<&Entry>, Vec<&Entry>) =
        CORPUS.iter().filter(|e| wanted(e.fault)).partition(|e| has(e.fault));
    let pairs: &[Pair] = if options.faults.is_empty() { PAIRS } else { &[] };
    let (pairs, lacking_pairs): (Vec<&Pair>, Vec<&Pair>) =
        pairs.iter().partition(|p| has(p.first.0) && has(p.second.0));
    let count = entries.len() + pairs.len();
    let lacking = lacking.iter().map(|e| e.fault.name().to_string());
    let not_available = lacking.chain(lacking_pairs.iter().map(|p| p.name())).collect::<Vec<_>>();
    if count == 0 {
        let text = format!(
            "not available on {name}: {}; `greta faults list -b {name}` shows which faults are",
            not_available.join(", "),
            name = backend.name()
        );
        return Err(TraceError::NotJudged(text));
    }
    let subjects = HashMap::new();
    let mut bench = Bench { backend, engine, options, scratch, subjects, progress, now: ("", 0, count) };
    let mut report = FaultReport { backend: backend.name().into(), not_available, ..FaultReport::default() };
    for entry in entries {
        bench.next(entry.fault.name())?;
        let subject = bench.subject(entry.needs)?;
        cell::entry(&bench, &subject, entry, &mut report)?;
    }
    for pair in pairs {
        bench.next("pairs")?;
        let subject = bench.subject(None)?;
        cell::pair(&bench, &subject, pair, &mut report)?;
    }
    for subject in bench.subjects.values() {
        cell::clean(&bench, subject, &mut report)?;
    }
    report.count();
    Ok(report)
}

/// What cells share.
struct Bench<'a> {
    backend: &'a dyn Backend,
    engine: &'a EngineOptions<'static>,
    options: &'a FaultOptions,
    scratch: &'a Path,
    subjects: HashMap<Option<DType>, Arc<Subject>>,
    progress: Progress<'a>,
    /// What is being done, how many faults were begun, of how many.
    now: (&'static str, usize, usize),
}

/// A model that faults are put into, with a clean run of each prompt.
struct Subject {
    name: String,
    model: Arc<Model>,
    layers: u32,
    prompts: Vec<PromptInfo>,
    /// One recording for each prompt, and the likeliest next token.
    clean: Vec<(Recording, u32)>,
    memo: Memo,
}

const DECODE: u32 = 2;

fn plan() -> TracePlan {
    TracePlan { decode_steps: DECODE, ..TracePlan::default() }
}

/// Every value at every token.
fn everything() -> Result<Vec<TapRequest>, TraceError> {
    Ok(vec![TapRequest::new("all", TapSpec { rows: TapRows::All, ..TapSpec::default() })?])
}

impl<'a> Bench<'a> {
    /// Begins a fault.
    fn next(&mut self, what: &'static str) -> Result<(), TraceError> {
        let (_, done, all) = self.now;
        self.now = (what, done + 1, all);
        if self.asked()() { Ok(()) } else { Err(TraceError::Interrupted) }
    }

    /// Whether to go on, for the work within a fault.
    fn asked(&self) -> impl Fn() -> bool + Sync + use<'a> {
        let (progress, (what, begun, all)) = (self.progress, self.now);
        move || progress(what, begun.saturating_sub(1), all)
    }

    fn engine(&self) -> Result<EngineOptions<'static>, TraceError> {
        Ok(EngineOptions { taps: everything()?, ..self.engine.clone() })
    }

    /// The model for faults that need weights of this type: the one asked for if it has some in every layer tried.
    fn subject(&mut self, needs: Option<DType>) -> Result<Arc<Subject>, TraceError> {
        let asked = match &self.options.model {
            Some(path) => Some(Arc::new(Model::open(path)?)).filter(|m| needs.is_none_or(|t| has(m, t))),
            None => None,
        };
        let key = if asked.is_some() { None } else { Some(needs.unwrap_or(DType::Q4_K)) };
        if let Some(s) = self.subjects.get(&key) {
            return Ok(s.clone());
        }
        let model = match asked {
            Some(m) => m,
            None => self.synthetic(key.unwrap_or(DType::Q4_K))?,
        };
        let context = self.engine.context.unwrap_or(1024).min(model.context());
        let mut prompts = prompts::built_in(&model, &self.options.prompts, context)?;
        if let Some(n) = self.options.longest {
            prompts.iter_mut().for_each(|p| p.tokens.truncate(n));
        }
        let engine = self.engine()?;
        let mut clean = Vec::new();
        for p in &prompts {
            let one = std::slice::from_ref(p);
            let asked = self.asked();
            let (rec, logits) = tracer::record(&model, self.backend, &engine, one, &plan(), &mut |_, _, _| asked())?;
            let next = logits.first().and_then(|l| l.first()).and_then(|l| greta_models::sampling::argmax(l).ok());
            clean.push((rec, next.unwrap_or(0)));
        }
        let layers = layers(&model);
        let name = model.gguf().path().file_name().map_or(String::new(), |n| n.to_string_lossy().into_owned());
        let subject = Arc::new(Subject { name, model, layers, prompts, clean, memo: Memo::default() });
        self.subjects.insert(key, subject.clone());
        Ok(subject)
    }

    fn synthetic(&self, dtype: DType) -> Result<Arc<Model>, TraceError> {
        let mix = match dtype {
            DType::Q6_K => Mix::Q6_K,
            _ => Mix::Q4_K_M,
        };
        let bad = |what: &str| TraceError::NotJudged(format!("no synthetic model of {}: {what}", mix.name()));
        let mut spec = SynthSpec::preset("tiny").ok_or_else(|| bad("there is no preset"))?;
        (spec.mix, spec.layers, spec.context) = (mix, spec.layers.max(4), spec.context.max(1024));
        let path = self.scratch.join(format!("synthetic-{}.gguf", mix.name()));
        synth::write(&spec, &path, &mut |_, _| true).map_err(|e| bad(&e.to_string()))?;
        Ok(Arc::new(Model::open(&path)?))
    }
}

fn layers(model: &Model) -> u32 {
    let names = model.gguf().tensors().iter().filter_map(|t| crate::judge::layer(&t.name));
    names.max().map_or(0, |n| n + 1)
}

/// Whether each of the layers tried has a matrix of this type.
fn has(model: &Model, dtype: DType) -> bool {
    let n = layers(model);
    LayerChoice::ALL.iter().all(|l| {
        let prefix = format!("blk.{}.", l.of(n));
        model.gguf().tensors().iter().any(|t| t.name.starts_with(&prefix) && t.dtype == dtype && t.dims.len() == 2)
    })
}
