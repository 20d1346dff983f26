//! How fast the emulator is: `cargo run --release -p greta-gfx942 --example speed [threads]`.
//!
//! Runs kernels of `tests/kernels/speed.hip` (needs clang for gfx942) and prints wave instructions a second.

#[path = "../tests/support/mod.rs"]
mod support;

use greta_gfx942::{Launch, run};
use std::time::Instant;
use support::{Bench, compile};

fn main() {
    let threads = std::env::args().nth(1).and_then(|t| t.parse().ok()).unwrap_or(1);
    let Some(program) = compile("speed.hip") else { return };
    for (kernel, groups, items) in [
        ("alu_f32", 64, 256),
        ("alu_int", 64, 256),
        ("lds_tile", 64, 256),
        ("mfma16", 64, 64),
        ("mfma32", 64, 64),
        ("stream", 256, 256),
    ] {
        let mut b = Bench::new();
        b.f32s("x", &vec![1.0; 1 << 20]);
        b.f32s("y", &vec![0.0; 1 << 20]);
        b.i32(1000);
        let launch = Launch { kernel, grid: [groups, 1, 1], block: [items, 1, 1], dynamic_lds: 0, args: &b.args };
        let start = Instant::now();
        match run(&program, &b.memory, &launch, threads) {
            Ok(counts) => {
                let s = start.elapsed().as_secs_f64();
                let n = counts.instructions() as f64;
                println!(
                    "{kernel:10} {:8.1} M instructions in {s:6.3} s: {:6.1} M/s, {:.0} ns each, {} mfma",
                    n / 1e6,
                    n / s / 1e6,
                    s * 1e9 * threads as f64 / n,
                    counts.mfma
                );
            }
            Err(fault) => println!("{kernel}: {fault}"),
        }
    }
}
