//! How fast the emulator is: `cargo run --release -p greta-gfx942 --example speed [threads] [filter]`.
//!
//! Runs kernels of `tests/kernels/speed.hip`, which are one kind of instruction each, and the backend's own kernels (both
//! need clang for gfx942). Prints wave instructions a second of
//! processor time; with several threads, of wall time.

#[path = "../tests/support/mod.rs"]
mod support;

use greta_gfx942::{LIMIT, Launch, Program, run};
use std::time::{Duration, Instant};
use support::{Bench, compile, compile_at};

/// A launch is repeated for this long, in batches of which the fastest counts.
const LENGTH: Duration = Duration::from_millis(800);
const BATCH: Duration = Duration::from_millis(80);

/// How long this thread ran, where the system says so: other processes don't count.
fn cpu_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

struct Speed {
    threads: usize,
    filter: String,
}

impl Speed {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    fn show(&self, name: &str, program: &Program, b: &Bench, kernel: &str, grid: [u32; 3], items: u32) {
        let launch =
            Launch { kernel, grid, block: [items, 1, 1], dynamic_lds: 0, args: &b.args, live: &[], limit: LIMIT };
        let (begin, mut best, mut size) = (Instant::now(), 0f64, 0);
        while begin.elapsed() < LENGTH {
            let (wall, cpu, mut n) = (Instant::now(), cpu_time(), 0);
            while wall.elapsed() < BATCH {
                match run(program, &b.memory, &launch, self.threads) {
                    Ok(counts) => (n, size) = (n + counts.instructions(), counts.instructions()),
                    Err(fault) => return println!("{name}: {fault}"),
                }
            }
            let cpu = cpu_time().zip(cpu).filter(|_| self.threads == 1).map(|(end, begin)| end - begin);
            best = best.max(n as f64 / cpu.unwrap_or(wall.elapsed()).as_secs_f64());
        }
        let each = 1e9 * self.threads as f64 / best;
        println!("{name:34} {:6.2} M instructions: {:6.1} M/s, {each:4.0} ns each", size as f64 / 1e6, best / 1e6);
    }

    fn single(&self) {
        let Some(program) = compile("speed.hip") else { return };
        for (kernel, groups, items) in [
            ("alu_f32", 64, 256),
            ("alu_int", 64, 256),
            ("lds_tile", 64, 256),
            ("mfma16", 64, 64),
            ("mfma32", 64, 64),
            ("stream", 256, 256),
        ] {
            if !self.wants(kernel) {
                continue;
            }
            let mut b = Bench::new();
            b.f32s("x", &vec![1.0; 1 << 20]);
            b.f32s("y", &vec![0.0; 1 << 20]);
            b.i32(300);
            self.show(kernel, &program, &b, kernel, [groups, 1, 1], items);
        }
    }

    /// A matrix product of `n` rows of quantised weights with `t` rows of `k` activations.
    fn matmul(&self, file: &str, kernel: &str, (weight, values, bytes): (&str, u32, u32), [n, k, t]: [u32; 3]) {
        let name = format!("{kernel} {weight} {n}x{k}x{t}");
        if !self.wants(&name) {
            return;
        }
        let Some(program) = compile_at("../kernels", file, &[("WEIGHT", weight)]) else { return };
        let mut b = Bench::new();
        b.output("out", (4 * n * t) as usize);
        bytes_of(&mut b, "w", n * k / values * bytes);
        if kernel.contains("exact") {
            floats(&mut b, "x", k * t);
        } else {
            bytes_of(&mut b, "codes", k * t);
            floats(&mut b, "scales", k / 32 * t);
        }
        [n, k, t].into_iter().for_each(|x| b.i32(x as i32));
        let (rows, tokens) = match kernel {
            "matmul_int8" => (64, 64),
            k if k.ends_with("t4") => (8, 4),
            _ => (8, 1),
        };
        self.show(&name, &program, &b, kernel, [n.div_ceil(rows), t.div_ceil(tokens), 1], 256);
    }

    /// Causal attention of a sequence to itself, heads of 64 values.
    fn attention(&self, tokens: u32) {
        let name = format!("attention_tile F16 {tokens} tokens");
        if !self.wants(&name) {
            return;
        }
        let defines = [("HEAD_DIM", "64"), ("KV", "F16")];
        let Some(program) = compile_at("../kernels", "attention.hip", &defines) else { return };
        let (heads, kv_heads, pages) = (9, 3, tokens.div_ceil(32));
        let mut b = Bench::new();
        b.output("out", (tokens * heads * 64 * 4) as usize);
        floats(&mut b, "q", tokens * heads * 64);
        bytes_of(&mut b, "keys", pages * 32 * kv_heads * 64 * 2);
        bytes_of(&mut b, "values", pages * 32 * kv_heads * 64 * 2);
        b.i32s("positions", &(0..tokens as i32).collect::<Vec<_>>());
        b.i32s("seqs", &vec![0; tokens as usize]);
        b.i32s("table", &(0..pages as i32).collect::<Vec<_>>());
        [heads, kv_heads, tokens, pages].into_iter().for_each(|x| b.i32(x as i32));
        b.f32(0.125);
        let grid = [(tokens * heads / kv_heads).div_ceil(16), kv_heads, 1];
        self.show(&name, &program, &b, "attention_tile", grid, 256);
    }

    fn rmsnorm(&self, kernel: &str, n: u32, rows: u32) {
        let name = format!("{kernel} {n} x {rows}");
        if !self.wants(&name) {
            return;
        }
        let Some(program) = compile_at("../kernels", "rmsnorm.hip", &[]) else { return };
        let mut b = Bench::new();
        b.output("out", (4 * n * rows) as usize);
        if kernel.contains("quantize") {
            b.output("scales", (n / 8 * rows) as usize);
        }
        floats(&mut b, "x", n * rows);
        floats(&mut b, "weight", n);
        b.i32(n as i32);
        b.f32(1e-5);
        self.show(&name, &program, &b, kernel, [rows, 1, 1], 256);
    }
}

/// Bytes that make small numbers of all formats.
fn bytes_of(b: &mut Bench, label: &str, n: u32) {
    let bytes: Vec<u8> = (0..n).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 % 0x3c).collect();
    b.bytes_in(label, &bytes);
}

fn floats(b: &mut Bench, label: &str, n: u32) {
    let bytes: Vec<u8> = (0..n).flat_map(|i| ((i * 37 % 101) as f32 * 0.01 - 0.5).to_le_bytes()).collect();
    b.bytes_in(label, &bytes);
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().and_then(|t| t.parse().ok()).unwrap_or(1);
    let speed = Speed { threads, filter: args.next().unwrap_or_default() };
    speed.single();
    let (q4_1, q4_k, q8_0) = (("Q4_1", 32, 20), ("Q4_K", 256, 144), ("Q8_0", 32, 34));
    for weight in [q4_1, q8_0] {
        speed.matmul("matmul.hip", "matmul_int8", weight, [576, 576, 64]);
    }
    speed.matmul("matmul.hip", "matmul_int8", q4_k, [576, 768, 64]);
    speed.matmul("matmul.hip", "matmul_int8", q4_1, [1536, 576, 64]);
    for weight in [q4_1, q8_0] {
        speed.matmul("matvec.hip", "matvec_int8_t1", weight, [4096, 576, 1]);
    }
    speed.matmul("matvec.hip", "matvec_int8_t1", q4_k, [4096, 768, 1]);
    speed.matmul("matvec.hip", "matvec_int8_t4", q4_1, [4096, 576, 4]);
    speed.matmul("matmul_exact.hip", "matmul_exact_t1", q4_1, [4096, 576, 1]);
    speed.matmul("matmul_exact.hip", "matmul_exact_t4", q4_k, [4096, 768, 4]);
    speed.matmul("matmul_exact.hip", "matmul_exact_t4", ("F16", 1, 2), [4096, 576, 4]);
    speed.attention(128);
    speed.rmsnorm("rmsnorm", 576, 256);
    speed.rmsnorm("rmsnorm_quantize", 576, 256);
}
