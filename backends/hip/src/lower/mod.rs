//! Lowering: which kernels an op takes for a step, with grid and arguments. Pure, one file per op, one line per op here.

mod add;
mod attention;
mod cache_write;
mod elementwise;
mod embed;
pub mod fault;
mod live;
mod matmul;
mod quantize;
mod rmsnorm;
mod rope;
mod swiglu;
mod taps;
mod topk;

pub use attention::SEGMENT;
pub use rope::turns;
pub use taps::{STATS_BYTES, stats, stats_source};
pub use topk::{TopK, top_k, top_k_source};

use crate::Target;
use crate::driver::Size;
use crate::kernels::Source;
use greta_graph::{Input, NodeId, SlotId};
use greta_ops::{Bindings, Case, CaseInput, Dim, Op, Pattern, TensorDesc};
use smallvec::SmallVec;
use std::fmt;

/// A buffer a kernel is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// A slot of the plan.
    Slot(SlotId),
    /// What the step brings.
    Input(Input),
    /// A weight.
    Weight(NodeId),
    /// A KV cache.
    State(NodeId),
    /// A constant that the node's attributes decide.
    Table(NodeId),
    /// Room for the partial results between an op's kernels.
    Scratch,
    /// Of the step's taps or results, from this byte on.
    Side(u64),
    /// A copy of an operand as the step before left it, for a fault.
    Stale(NodeId, u8),
}

impl fmt::Display for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Buffer::Slot(s) => write!(f, "slot{}", s.0),
            Buffer::Input(i) => write!(f, "input:{}", i.name()),
            Buffer::Weight(n) => write!(f, "weight#{}", n.0),
            Buffer::State(n) => write!(f, "cache#{}", n.0),
            Buffer::Table(n) => write!(f, "table#{}", n.0),
            Buffer::Scratch => f.write_str("scratch"),
            Buffer::Side(at) => write!(f, "side+{at}"),
            Buffer::Stale(n, i) => write!(f, "stale#{}.{i}", n.0),
        }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// The address of a buffer.
    Buffer(Buffer),
    /// An integer.
    U32(u32),
    /// A number.
    F32(f32),
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Buffer(b) => b.fmt(f),
            Arg::U32(v) => v.fmt(f),
            Arg::F32(v) => write!(f, "{v:e}"),
        }
    }
}

/// One kernel to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The module.
    pub source: Source,
    /// The kernel in it.
    pub kernel: &'static str,
    /// Workgroups and threads.
    pub size: Size,
    /// Shared memory of a workgroup, bytes: what the kernel declares.
    pub lds: u32,
    /// Arguments, in the order of the kernel's parameters.
    pub args: SmallVec<[Arg; 12]>,
    /// Bytes of [`Buffer::Scratch`] it uses.
    pub scratch: u64,
    /// How many bytes of its buffers hold a value in this step. The kernel has no business behind them.
    pub live: SmallVec<[(Buffer, u64); 8]>,
}

impl Launch {
    /// With one workgroup of 256 threads; the builder's methods say the rest.
    pub fn new(source: Source, kernel: &'static str) -> Launch {
        let size = Size { grid: [1; 3], block: THREADS };
        Launch { source, kernel, size, lds: 0, args: SmallVec::new(), scratch: 0, live: SmallVec::new() }
    }

    fn grid(mut self, x: usize, y: usize, z: usize) -> Launch {
        self.size.grid = [x as u32, y as u32, z as u32];
        self
    }

    fn lds(mut self, bytes: u32) -> Launch {
        self.lds = bytes;
        self
    }

    fn buffers(mut self, list: impl IntoIterator<Item = Buffer>) -> Launch {
        self.args.extend(list.into_iter().map(Arg::Buffer));
        self
    }

    fn sizes(mut self, list: impl IntoIterator<Item = usize>) -> Launch {
        self.args.extend(list.into_iter().map(|v| Arg::U32(v as u32)));
        self
    }

    fn float(mut self, v: f32) -> Launch {
        self.args.push(Arg::F32(v));
        self
    }

    fn live(mut self, list: impl IntoIterator<Item = (Buffer, usize)>) -> Launch {
        self.live.extend(list.into_iter().map(|(b, bytes)| (b, bytes as u64)));
        self
    }

    fn scratch(mut self, bytes: u64) -> Launch {
        self.scratch = bytes;
        self
    }
}

/// Threads of every kernel's workgroup.
pub const THREADS: u32 = 256;

/// A step's sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// Tokens.
    pub tokens: usize,
    /// Rows wanted.
    pub rows: usize,
    /// Slots of the cache there is memory for.
    pub slots: usize,
    /// Sequences of the block table.
    pub seqs: usize,
    /// Pages a sequence can have.
    pub pages: usize,
    /// The most tokens of a sequence once the step is done: how far attention looks.
    pub context: usize,
}

impl Step {
    /// As the shapes of the graph want it.
    pub fn bindings(&self) -> Bindings {
        Bindings { tokens: self.tokens, rows: self.rows, slots: self.slots, seqs: self.seqs, pages: self.pages }
    }
}

/// A node as lowering sees it.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// Its id.
    pub id: NodeId,
    /// Where its operands lie.
    pub ins: SmallVec<[Buffer; 6]>,
    /// Where its outputs go.
    pub outs: SmallVec<[Buffer; 2]>,
    /// What the operands are.
    pub in_descs: SmallVec<[&'a TensorDesc; 6]>,
    /// What the outputs are.
    pub out_descs: &'a [TensorDesc],
    /// A kernel that a route rule asks for, one of [`ROUTES`].
    pub forced: Option<&'static str>,
    /// What it is compiled for.
    pub target: Target,
}

impl Node<'_> {
    fn rows(&self, step: &Step) -> usize {
        self.out_descs[0].rows().at(&step.bindings())
    }

    /// Values in a row of the output.
    fn width(&self) -> usize {
        constant(self.out_descs[0].cols())
    }
}

/// A dimension that the graph fixes.
fn constant(d: Dim) -> usize {
    d.constant().unwrap_or(0)
}

/// Kernels that a route rule may ask for.
pub const ROUTES: &[&str] = &["matvec", "matmul", "attention-split", "attention-tile"];

/// The routes an op can be asked to take.
pub fn routes_of(op: &Op, ins: &[&TensorDesc]) -> &'static [&'static str] {
    match op {
        Op::MatMul(_) if ins.len() == 3 => &["matvec", "matmul"],
        Op::MatMul(_) => &["matvec"],
        Op::Attention(_) => &["attention-split", "attention-tile"],
        _ => &[],
    }
}

/// An op's kernels for a step, in order. What [`supports`] refuses does not get here.
pub fn lower(op: &Op, n: &Node<'_>, step: &Step) -> Vec<Launch> {
    let mut launches = match op {
        Op::Embed(_) => vec![embed::lower(n, step)],
        Op::Dequant(_) => vec![embed::dequant(n)],
        Op::Quantize(_) => vec![quantize::lower(n, step)],
        Op::MatMul(_) => vec![matmul::lower(n, step)],
        Op::RmsNorm(op) => vec![rmsnorm::lower(op, n, step)],
        Op::Rope(op) => vec![rope::lower(op, n, step)],
        Op::CacheWrite(_) => vec![cache_write::lower(n, step)],
        Op::Attention(op) => attention::lower(op, n, step),
        Op::Swiglu(_) => vec![swiglu::lower(n, step)],
        Op::Add(_) => vec![add::lower(n, step)],
        Op::Fused(f) => match f.pattern {
            Pattern::NormQuantize => vec![rmsnorm::quantized(f, n, step)],
            Pattern::SwigluQuantize => vec![swiglu::quantized(n, step)],
        },
    };
    live::fence(&mut launches, op, n, step);
    launches
}

/// Whether there is a kernel for these operands; if not, why.
pub fn supports(op: &Op, ins: &[&TensorDesc]) -> Result<(), String> {
    match op {
        Op::Attention(a) if a.head_dim > 256 => Err(format!("heads of {} values; up to 256 are supported", a.head_dim)),
        _ => op.spec().infer(ins).map(|_| ()).map_err(|e| e.to_string()),
    }
}

/// The route's name for people and records: its kernels.
pub fn route<'a>(launches: impl IntoIterator<Item = &'a Launch>) -> String {
    launches.into_iter().map(|l| l.kernel).collect::<Vec<_>>().join("+")
}

/// The launches of an op's case, for short and long routes: what tests compile and judge.
pub fn of_case(case: &Case) -> Vec<Launch> {
    let stored = case.stored();
    let descs: Vec<TensorDesc> = case
        .ins
        .iter()
        .zip(&stored)
        .map(|(input, t)| match input {
            CaseInput::Value(_, dtype) | CaseInput::Cache(_, dtype) => TensorDesc { dtype: *dtype, ..t.desc() },
        })
        .collect();
    let ins: Vec<&TensorDesc> = descs.iter().collect();
    let Ok(outs) = case.op.spec().infer(&ins) else { return Vec::new() };
    let rows = outs[0].rows().at(&Bindings::default());
    let step = Step { tokens: rows, rows, slots: 192, seqs: 2, pages: 3, context: 96 };
    let forced = routes_of(&case.op, &ins).iter().map(|r| Some(*r)).chain([None]);
    forced
        .flat_map(|forced| {
            let n = Node {
                id: NodeId(0),
                ins: ins.iter().map(|_| Buffer::Scratch).collect(),
                outs: outs.iter().map(|_| Buffer::Scratch).collect(),
                in_descs: ins.iter().copied().collect(),
                out_descs: &outs,
                forced,
                target: Target::Gfx942,
            };
            lower(&case.op, &n, &step)
        })
        .collect()
}
