//! A functional emulator of **gfx942** (AMD MI300X, CDNA3, wave64): it executes machine code that clang made, on the CPU,
//! so that HIP kernels can be tested and costed where there is no such GPU. Nothing in it was compared with hardware.
//!
//! A [`Program`] is a code object and its `llvm-objdump` listing, decoded once. [`run`] executes a [`Launch`] of one of
//! its kernels over a [`Memory`] and gives [`Counts`] of what was executed, or the first [`Fault`].
//!
//! # What it checks
//!
//! Accesses outside of allocations, of what is live in them ([`Launch::live`]) and of LDS, registers and memory used before anything was written to them, misaligned
//! LDS accesses and atomics, barriers that not all work-items reach together, races on LDS between barriers, scratch
//! memory (kernels of this project have none), traps, waves that run for ever, and opcodes it doesn't know. Each fault names
//! instruction, source line, workgroup, wave, lane and the nearest allocations.
//!
//! # What it does not model
//!
//! - Time: no caches, no latencies, no occupancy. Bank conflicts are counted by a model, see `banks.rs`.
//! - `s_waitcnt` and hazards: every result is there at once, so a missing wait or `s_nop` goes unnoticed.
//! - Races on global memory.
//! - The bits of f16 and bf16 matrix products and of dot products of f16, see `mfma.rs`.
//! - The errors of `v_rcp`, `v_rsq`, `v_sqrt`, `v_exp`, `v_log`, `v_sin`, `v_cos`: they come out better than the hardware's.
//! - Modes: only rounding to nearest with denormals kept. Signalling NaNs and exceptions.
//! - Generic (flat) addresses of LDS or scratch, buffer instructions, images, calls.
//!
//! # How it runs
//!
//! One host thread runs one workgroup, its waves in turn up to the next barrier. Each instruction is a call through a
//! pointer to a function with a loop over 64 lanes (`lanes.rs`), compiled for any CPU and for AVX-512. The opcode table
//! is made of one file for each family of instructions.

#![allow(clippy::needless_range_loop, reason = "loops over lanes index several registers")]

mod banks;
mod compare;
mod convert;
mod counts;
mod cpu;
mod cross;
mod decode;
mod division;
mod ds;
mod elf;
mod fault;
mod flow;
mod global;
mod global_atomic;
mod inst;
mod lanes;
mod launch;
mod lds;
mod listing;
mod memory;
mod metadata;
mod mfma;
mod operand;
mod program;
mod salu;
mod smem;
mod special;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_memory;
mod valu_float;
mod valu_half;
mod valu_int;
mod valu_wide;
mod view;

pub use counts::Counts;
pub use fault::{Fault, Location};
pub use launch::{LIMIT, Launch, run};
pub use memory::Memory;
pub use program::{ArgInfo, KernelInfo, LoadError, Program};
pub use view::MemoryError;
