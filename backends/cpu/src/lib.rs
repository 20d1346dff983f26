//! The CPU backend: AVX-512, AVX2 and portable kernels that give the same bits, on any number of threads.
//!
//! A plan is lowered once to a list of stages, one per op; each stage is cut into chunks that threads take from a
//! counter. Who computes a chunk, and how chunks are cut, changes no bit of it (promise P1). Weights of matmuls are
//! repacked when compiling and the file's pages given back.

mod choice;
mod compile;
pub mod kernels;
mod kv;
mod memory;
mod ops;
mod plain;
mod pool;
mod session;
pub mod simd;
mod taps;
mod weights;

use greta_backend::{Backend, BackendError, CompileOptions, Executable, Fault, Weights};
use greta_graph::{Pass, Plan};
use greta_ops::{Op, TensorDesc};
use pool::Pool;
pub use pool::physical_cores;
use simd::Level;
use std::sync::Arc;

/// How to use the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Threads; `None`: physical cores.
    pub threads: Option<usize>,
    /// Instruction set; `None`: the best this CPU has.
    pub level: Option<Level>,
    /// Check after every step that no kernel wrote outside its buffer.
    pub guard: bool,
}

/// The backend.
pub struct Cpu {
    level: Level,
    pool: Arc<Pool>,
    guard: bool,
}

/// More threads than any machine has are a slip of the keyboard.
pub const MOST_THREADS: usize = 1024;

impl Cpu {
    /// Starts the threads.
    pub fn new(options: CpuOptions) -> Result<Cpu, BackendError> {
        let threads = options.threads.unwrap_or_else(pool::physical_cores);
        if threads == 0 || threads > MOST_THREADS {
            return Err(BackendError::Device(format!(
                "cpu: {threads} threads asked for, expected 1 to {MOST_THREADS}"
            )));
        }
        let level = options.level.unwrap_or_else(Level::detect);
        Ok(Cpu { level, pool: Arc::new(Pool::new(threads)?), guard: options.guard })
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn describe(&self) -> String {
        let levels: Vec<_> = Level::available().iter().map(|l| l.name()).collect();
        format!("{} threads, {} (this CPU has {})", self.threads(), self.level.name(), levels.join(", "))
    }

    fn kernels(&self) -> Vec<String> {
        Level::available().iter().map(|l| l.name()).chain([plain::NAME]).map(String::from).collect()
    }

    fn faults(&self) -> Vec<Fault> {
        // That one is in the prompt, in no kernel.
        Fault::ALL.iter().copied().filter(|f| *f != Fault::BosMissing).collect()
    }

    fn wants(&self, _: &dyn Pass) -> bool {
        true
    }

    fn supports(&self, op: &Op, ins: &[&TensorDesc]) -> Result<(), String> {
        ops::supports(op, ins)
    }

    fn compile(
        &self,
        plan: Plan,
        weights: Arc<dyn Weights>,
        options: CompileOptions<'_>,
    ) -> Result<Arc<dyn Executable>, BackendError> {
        compile::compile(plan, weights, options, self.level, self.pool.clone(), self.guard)
    }
}
