//! Compiles the kernels under `tests/kernels` and runs them.

#![allow(dead_code, reason = "each test file uses a part of it")]

use greta_gfx942::{Counts, Fault, Launch, Memory, Program, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

fn tool(names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|n| Command::new(n).arg("--version").output().is_ok_and(|o| o.status.success()))
}

/// A program compiled from a file of `tests/kernels`, or `None`, said aloud, where there is no clang for gfx942.
pub fn compile(file: &str) -> Option<Program> {
    compile_at("tests/kernels", file, &[])
}

/// A program compiled from a file of a folder, which lies as said to this crate's, with some names defined.
pub fn compile_at(folder: &str, file: &str, defines: &[(&str, &str)]) -> Option<Program> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let (Some(clang), Some(objdump)) =
        (tool(&["clang-22", "clang-19", "clang"]), tool(&["llvm-objdump-22", "llvm-objdump-19", "llvm-objdump"]))
    else {
        eprintln!("SKIPPED: no clang and llvm-objdump; {file} was not compiled");
        return None;
    };
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("greta-gfx942-{}-{}.co", std::process::id(), COUNT.fetch_add(1, Relaxed));
    let out: PathBuf = std::env::temp_dir().join(unique);
    let status = Command::new(clang)
        .args(["-x", "hip", "--offload-arch=gfx942", "--cuda-device-only", "--no-gpu-bundle-output", "-nogpuinc"])
        .args([
            "-nogpulib",
            "-ffp-contract=off",
            "-fno-math-errno",
            "-O3",
            "-std=c++17",
            "-mcode-object-version=5",
            "-g",
        ])
        .arg("-Wno-pass-failed")
        .args(defines.iter().map(|(name, value)| format!("-D{name}={value}")))
        .arg(dir.join(file))
        .arg("-o")
        .arg(&out)
        .status()
        .expect("clang runs");
    assert!(status.success(), "{file} does not compile");
    let listing = Command::new(objdump).args(["-d", "-l", "--mcpu=gfx942"]).arg(&out).output().expect("objdump runs");
    let code = std::fs::read(&out).expect("the code object is there");
    std::fs::remove_file(&out).expect("it can be removed");
    Some(Program::load(&code, &String::from_utf8_lossy(&listing.stdout)).expect("the code object loads"))
}

/// A device with buffers, and arguments as they are collected.
pub struct Bench {
    pub memory: Memory,
    pub args: Vec<u8>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench { memory: Memory::new(1 << 30), args: Vec::new() }
    }

    /// A buffer with contents, as the next argument.
    pub fn input<T: Copy>(&mut self, label: &str, data: &[T], bytes: impl Fn(T) -> Vec<u8>) -> u64 {
        let raw: Vec<u8> = data.iter().flat_map(|x| bytes(*x)).collect();
        let addr = self.memory.alloc(raw.len(), label).expect("memory");
        self.memory.write(addr, &raw).expect("inside");
        self.u64(addr);
        addr
    }

    /// A buffer of bytes, as the next argument.
    pub fn bytes_in(&mut self, label: &str, bytes: &[u8]) -> u64 {
        let addr = self.memory.alloc(bytes.len(), label).expect("memory");
        self.memory.write(addr, bytes).expect("inside");
        self.u64(addr);
        addr
    }

    pub fn f32s(&mut self, label: &str, data: &[f32]) -> u64 {
        self.input(label, data, |x| x.to_le_bytes().into())
    }

    pub fn i32s(&mut self, label: &str, data: &[i32]) -> u64 {
        self.input(label, data, |x| x.to_le_bytes().into())
    }

    pub fn u16s(&mut self, label: &str, data: &[u16]) -> u64 {
        self.input(label, data, |x| x.to_le_bytes().into())
    }

    /// An uninitialised buffer, as the next argument.
    pub fn output(&mut self, label: &str, bytes: usize) -> u64 {
        let addr = self.memory.alloc(bytes, label).expect("memory");
        self.u64(addr);
        addr
    }

    pub fn u64(&mut self, x: u64) {
        self.args.resize(self.args.len().next_multiple_of(8), 0);
        self.args.extend(x.to_le_bytes());
    }

    pub fn i32(&mut self, x: i32) {
        self.args.extend(x.to_le_bytes());
    }

    pub fn f32(&mut self, x: f32) {
        self.args.extend(x.to_le_bytes());
    }

    pub fn run(&self, program: &Program, kernel: &str, grid: u32, block: u32) -> Result<Counts, Fault> {
        self.run_within(program, kernel, (grid, block), &[])
    }

    /// With a fence around what is live.
    pub fn run_within(
        &self,
        program: &Program,
        kernel: &str,
        (grid, block): (u32, u32),
        live: &[(u64, u64)],
    ) -> Result<Counts, Fault> {
        let (grid, block) = ([grid, 1, 1], [block, 1, 1]);
        let launch = Launch { kernel, grid, block, dynamic_lds: 0, args: &self.args, live, limit: 1 << 22 };
        run(program, &self.memory, &launch, 2)
    }

    pub fn bytes(&self, addr: u64, n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        self.memory.read(addr, &mut out).expect("initialised");
        out
    }

    pub fn read_f32(&self, addr: u64, n: usize) -> Vec<f32> {
        self.bytes(addr, 4 * n).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    pub fn read_i32(&self, addr: u64, n: usize) -> Vec<i32> {
        self.bytes(addr, 4 * n).chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    pub fn read_u16(&self, addr: u64, n: usize) -> Vec<u16> {
        self.bytes(addr, 2 * n).chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
    }
}
