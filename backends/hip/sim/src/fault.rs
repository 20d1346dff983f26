//! What can go wrong while a kernel runs, and where it did.

use crate::memory::Memory;
use crate::view::View;
use std::fmt;

/// Where a fault happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The kernel's name.
    pub kernel: String,
    /// Address of the instruction in the code object.
    pub pc: u64,
    /// The instruction's assembly text.
    pub instruction: String,
    /// `file:line` of the source, if it was compiled with `-g` and listed with `-l`.
    pub source: Option<String>,
    /// The workgroup's coordinates.
    pub workgroup: [u32; 3],
    /// The wave in its workgroup.
    pub wave: u32,
    /// The first lane concerned, if lanes differ.
    pub lane: Option<u32>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.workgroup;
        write!(f, "\n  kernel {}, pc {:#x}: {}", self.kernel, self.pc, self.instruction)?;
        if let Some(source) = &self.source {
            write!(f, "\n  source {source}")?;
        }
        write!(f, "\n  workgroup ({x}, {y}, {z}), wave {}", self.wave)?;
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane} (work-item {})", self.wave * 64 + lane)?;
        }
        Ok(())
    }
}

/// Why a launch was stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A global access outside every allocation, or outside what is live for the launch.
    #[error("{} {bytes} bytes at {address:#x}, {place}{at}", verb(*.write))]
    OutOfBounds {
        /// Where.
        at: Box<Location>,
        /// The address accessed.
        address: u64,
        /// How many bytes a lane accesses.
        bytes: u32,
        /// Whether it is a write.
        write: bool,
        /// How the address lies to what the launch may touch.
        place: String,
    },
    /// A register that no instruction has written is used.
    #[error("{register} is used but holds no value{why}{at}")]
    UninitialisedRegister {
        /// Where.
        at: Box<Location>,
        /// The register.
        register: String,
        /// What left it without one.
        why: String,
    },
    /// Memory that nothing has written is read by a scalar load or an atomic.
    #[error("{what} at {address:#x} is read but was never written{at}")]
    UninitialisedMemory {
        /// Where.
        at: Box<Location>,
        /// The address.
        address: u64,
        /// The allocation, or LDS.
        what: String,
    },
    /// An access that is not aligned to its size.
    #[error("{bytes}-byte access at {address:#x} is misaligned{at}")]
    Misaligned {
        /// Where.
        at: Box<Location>,
        /// The address (of LDS: the offset).
        address: u64,
        /// Bytes of the access.
        bytes: u32,
    },
    /// A barrier that not all work-items reach together.
    #[error("divergent barrier: {why}{at}")]
    DivergentBarrier {
        /// Where.
        at: Box<Location>,
        /// What diverges.
        why: String,
    },
    /// Two waves touch the same LDS byte with no barrier between, one of them writing.
    #[error("LDS race at offset {address:#x}: wave {other} {} it since the last barrier{at}", past(*.other_write))]
    LdsRace {
        /// Where.
        at: Box<Location>,
        /// Offset in LDS.
        address: u64,
        /// The other wave.
        other: u32,
        /// Whether the other wave wrote.
        other_write: bool,
    },
    /// An LDS access outside the workgroup's allocation.
    #[error("{} {bytes} bytes at LDS offset {address:#x} of {size:#x}{at}", verb(*.write))]
    LdsOutOfBounds {
        /// Where.
        at: Box<Location>,
        /// Offset in LDS.
        address: u64,
        /// Bytes a lane accesses.
        bytes: u32,
        /// Size of the workgroup's LDS.
        size: u32,
        /// Whether it is a write.
        write: bool,
    },
    /// The instruction is not emulated.
    #[error("unknown opcode{at}")]
    UnknownOpcode {
        /// Where.
        at: Box<Location>,
    },
    /// The instruction is known, but what it asks for is not emulated.
    #[error("not emulated: {why}{at}")]
    Unsupported {
        /// Where.
        at: Box<Location>,
        /// What it asks for.
        why: String,
    },
    /// The kernel asked to be stopped: an assertion, or code that was taken to be unreachable.
    #[error("the kernel trapped{at}")]
    Trap {
        /// Where.
        at: Box<Location>,
    },
    /// Scratch memory is used; kernels of this project are to have none.
    #[error("scratch memory is used{at}")]
    Scratch {
        /// Where.
        at: Box<Location>,
    },
    /// A wave runs without end.
    #[error("more than {instructions} instructions in one wave{at}")]
    Runaway {
        /// Where.
        at: Box<Location>,
        /// The limit.
        instructions: u64,
    },
    /// The launch itself is wrong.
    #[error("bad launch of `{kernel}`: {why}")]
    BadLaunch {
        /// The kernel's name.
        kernel: String,
        /// What is wrong.
        why: String,
    },
}

fn verb(write: bool) -> &'static str {
    if write { "writes" } else { "reads" }
}

fn past(write: bool) -> &'static str {
    if write { "has written" } else { "has read" }
}

/// A fault before it is known where it happened.
#[derive(Debug)]
pub(crate) struct Cause {
    pub lane: Option<u32>,
    pub what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    OutOfBounds { address: u64, bytes: u32, write: bool },
    Register { vector: bool, reg: u16 },
    Scc,
    Memory { address: u64 },
    LdsMemory { address: u64 },
    Misaligned { address: u64, bytes: u32 },
    Barrier { why: String },
    Race { address: u64, other: u32, other_write: bool },
    LdsOutOfBounds { address: u64, bytes: u32, size: u32, write: bool },
    Unknown,
    Unsupported { why: String },
    Trap,
    Scratch,
    Runaway { instructions: u64 },
}

impl Cause {
    /// The fault with its place. `whence` says what left a vector register without a value, where that is known.
    pub(crate) fn at(self, at: Location, memory: (&View, &Memory), whence: impl Fn(u16) -> Option<String>) -> Fault {
        let at = Box::new(at);
        match self.what {
            What::OutOfBounds { address, bytes, write } => {
                Fault::OutOfBounds { at, address, bytes, write, place: memory.0.outside(memory.1, address) }
            }
            What::Register { vector, reg } => {
                let known = if vector { whence(reg) } else { None };
                let why = known.unwrap_or_else(|| ": never written, or from memory that nothing wrote".into());
                Fault::UninitialisedRegister { at, register: register(vector, reg), why }
            }
            What::Scc => Fault::UninitialisedRegister { at, register: "scc".into(), why: ": nothing wrote it".into() },
            What::Memory { address } => Fault::UninitialisedMemory { at, address, what: memory.0.describe(address) },
            What::LdsMemory { address } => Fault::UninitialisedMemory { at, address, what: "LDS".into() },
            What::Misaligned { address, bytes } => Fault::Misaligned { at, address, bytes },
            What::Barrier { why } => Fault::DivergentBarrier { at, why },
            What::Race { address, other, other_write } => Fault::LdsRace { at, address, other, other_write },
            What::LdsOutOfBounds { address, bytes, size, write } => {
                Fault::LdsOutOfBounds { at, address, bytes, size, write }
            }
            What::Unknown => Fault::UnknownOpcode { at },
            What::Unsupported { why } => Fault::Unsupported { at, why },
            What::Trap => Fault::Trap { at },
            What::Scratch => Fault::Scratch { at },
            What::Runaway { instructions } => Fault::Runaway { at, instructions },
        }
    }
}

/// The name of a register.
fn register(vector: bool, reg: u16) -> String {
    match (vector, reg) {
        (true, 0..256) => format!("v{reg}"),
        (true, _) => format!("a{}", reg - 256),
        (false, 106) => "vcc_lo".into(),
        (false, 107) => "vcc_hi".into(),
        (false, 124) => "m0".into(),
        (false, 126) => "exec_lo".into(),
        (false, 127) => "exec_hi".into(),
        (false, _) => format!("s{reg}"),
    }
}
