//! A loaded code object: instructions decoded once, and what is known of its kernels.

use crate::cpu::Lanes;
use crate::decode::Decoder;
use crate::elf::{self, Descriptor};
use crate::inst::{Class, Inst};
use crate::listing;
use crate::memory::Region;
use crate::metadata::{self, Notes};
use std::collections::HashMap;
use std::sync::Arc;

/// Where the image of a code object lies in the address space of its kernels.
pub(crate) const IMAGE: u64 = 0x6000_0000_0000;

/// Why a code object cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The ELF file is not as expected.
    #[error("not a code object for gfx942: {why}")]
    Elf {
        /// What is wrong.
        why: String,
    },
    /// The metadata note is missing or cannot be read.
    #[error("the code object's metadata note is missing or damaged")]
    Metadata,
    /// A line of the listing is not as llvm-objdump writes it.
    #[error("line {line} of the listing is not understood: `{text}`")]
    Listing {
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// The listing has no instruction where a kernel begins.
    #[error("the listing has no instruction at the start of kernel `{kernel}`, {entry:#x}")]
    NoEntry {
        /// The kernel.
        kernel: String,
        /// Where it begins.
        entry: u64,
    },
}

/// An argument of a kernel as its metadata describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgInfo {
    /// Its name, where the compiler kept it.
    pub name: String,
    /// Byte offset in the kernel arguments.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
    /// `by_value`, `global_buffer`, or one of the `hidden_` kinds that the emulator fills in.
    pub kind: String,
}

/// What is known of a kernel before it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelInfo {
    /// Its name.
    pub name: String,
    /// Bytes of LDS it declares.
    pub lds_bytes: u32,
    /// Bytes of its arguments, hidden ones included.
    pub kernarg_bytes: u32,
    /// Vector registers a lane uses, AccVGPRs included.
    pub vgprs: u32,
    /// AccVGPRs among them.
    pub agprs: u32,
    /// Scalar registers.
    pub sgprs: u32,
    /// Bytes of scratch a work-item uses.
    pub scratch_bytes: u32,
    /// Registers spilled to memory.
    pub spills: u32,
    /// The most work-items a workgroup may have.
    pub max_workgroup: u32,
    /// Its arguments.
    pub args: Vec<ArgInfo>,
    pub(crate) entry: usize,
    pub(crate) end: usize,
    pub(crate) rsrc1: u32,
    pub(crate) rsrc2: u32,
    pub(crate) properties: u16,
    pub(crate) preload: u16,
}

/// What is remembered of an instruction for messages.
pub(crate) struct Text {
    pub text: String,
    pub source: Option<u32>,
}

/// A code object, decoded.
pub struct Program {
    kernels: Vec<KernelInfo>,
    pub(crate) insts: Vec<Inst>,
    pub(crate) texts: Vec<Text>,
    pub(crate) sources: Vec<String>,
    pub(crate) consts: Vec<Lanes>,
    pub(crate) image: Arc<Region>,
}

impl Program {
    /// Loads a code object that clang made for gfx942. `listing` is what `llvm-objdump -d --mcpu=gfx942` prints for it;
    /// with `-l`, and `-g` at compile time, faults name the source line. Opcodes that aren't emulated are no error until
    /// they are executed.
    pub fn load(code: &[u8], listing: &str) -> Result<Program, LoadError> {
        let elf = elf::parse(code)?;
        let notes = metadata::parse(&elf.note)?;
        let listing = listing::parse(listing)?;
        let mut decoder = Decoder::new();
        let mut insts: Vec<Inst> = listing.lines.iter().map(|l| decoder.decode(l)).collect();
        let index: HashMap<u64, usize> = listing.lines.iter().enumerate().map(|(n, l)| (l.pc, n)).collect();
        let outside = insts.len();
        for inst in insts.iter_mut().filter(|i| i.class == Class::Branch) {
            inst.imm = index.get(&(inst.imm as u64)).copied().unwrap_or(outside) as i64;
        }
        let mut kernels = Vec::new();
        for d in &elf.descriptors {
            let known = notes.iter().find(|n| n.symbol == d.name).ok_or(LoadError::Metadata)?;
            kernels.push(kernel(d, known, &index)?);
        }
        let mut starts: Vec<usize> = kernels.iter().map(|k| k.entry).collect();
        starts.sort_unstable();
        for k in &mut kernels {
            k.end = starts.iter().copied().find(|s| *s > k.entry).unwrap_or(outside);
        }
        let image = Region::new(IMAGE, elf.image.len() as u64, "the code object").ok_or(LoadError::Metadata)?;
        image.write(0, &elf.image);
        Ok(Program {
            kernels,
            insts,
            texts: listing.lines.into_iter().map(|l| Text { text: l.text, source: l.source }).collect(),
            sources: listing.sources,
            consts: decoder.consts,
            image: Arc::new(image),
        })
    }

    /// The kernels of the code object.
    pub fn kernels(&self) -> impl Iterator<Item = &KernelInfo> {
        self.kernels.iter()
    }

    /// A kernel by its name.
    pub fn kernel(&self, name: &str) -> Option<&KernelInfo> {
        self.kernels.iter().find(|k| k.name == name)
    }

    /// The mnemonics of a kernel in the order of its code; none if there is no such kernel.
    pub fn instructions(&self, kernel: &str) -> impl Iterator<Item = &str> {
        let range = self.kernel(kernel).map_or(0..0, |k| k.entry..k.end);
        self.texts[range].iter().map(|t| t.text.split_whitespace().next().unwrap_or_default())
    }

    /// The texts of a kernel's instructions that would fault as unknown or scratch accesses if they were executed.
    pub fn unknown(&self, kernel: &str) -> impl Iterator<Item = &str> {
        let range = self.kernel(kernel).map_or(0..0, |k| k.entry..k.end);
        let nothing = |i: &Inst| i.class == Class::Other && i.nsrc == 0;
        let ends = ["s_endpgm", "s_trap", "s_setreg_imm32_b32"];
        range
            .filter(move |n| nothing(&self.insts[*n]))
            .map(|n| self.texts[n].text.as_str())
            .filter(move |t| !ends.iter().any(|e| t.starts_with(e)))
    }
}

fn kernel(d: &Descriptor, n: &Notes, index: &HashMap<u64, usize>) -> Result<KernelInfo, LoadError> {
    // Firmware that preloads arguments skips the 256 bytes that load them.
    let entry = if d.preload & 0x7f != 0 { d.entry + 256 } else { d.entry };
    let start = index.get(&entry).ok_or_else(|| LoadError::NoEntry { kernel: d.name.clone(), entry })?;
    Ok(KernelInfo {
        name: d.name.clone(),
        lds_bytes: d.lds.max(n.lds),
        kernarg_bytes: n.kernarg,
        vgprs: n.vgprs,
        agprs: n.agprs,
        sgprs: n.sgprs,
        scratch_bytes: n.scratch,
        spills: n.spills,
        max_workgroup: n.max_workgroup,
        args: n.args.clone(),
        entry: *start,
        end: 0,
        rsrc1: d.rsrc1,
        rsrc2: d.rsrc2,
        properties: d.properties,
        preload: d.preload,
    })
}
