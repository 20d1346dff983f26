//! `rope`, row by row, with sines and cosines from a table that grows with the positions seen.

use super::{Cut, Kernel, Lowering, Memory, Place};
use crate::kernels;
use crate::simd::Level;
use greta_ops::{Bindings, Dim, Pairing};
use std::sync::RwLock;

pub(super) struct Rope {
    level: Level,
    cut: Cut,
    op: greta_ops::Rope,
    x: Place,
    positions: Place,
    out: Place,
    rows: Dim,
    width: usize,
    table: Table,
}

/// Cosines, then sines, of every pair at each position.
struct Table {
    /// Angles per position, in f64: at position 8,191 an f32 angle would be off by 10⁻⁴.
    frequencies: Vec<f64>,
    rows: RwLock<Vec<f32>>,
}

impl Table {
    fn with<R>(&self, positions: usize, f: impl Fn(&[f32]) -> R) -> R {
        let need = positions * 2 * self.frequencies.len();
        {
            let rows = self.rows.read().unwrap_or_else(|e| e.into_inner());
            if rows.len() >= need {
                return f(&rows);
            }
        }
        let mut rows = self.rows.write().unwrap_or_else(|e| e.into_inner());
        let width = 2 * self.frequencies.len();
        for p in rows.len() / width..positions {
            rows.extend(self.frequencies.iter().map(|w| (p as f64 * w).cos() as f32));
            rows.extend(self.frequencies.iter().map(|w| (p as f64 * w).sin() as f32));
        }
        f(&rows)
    }
}

impl Rope {
    pub fn new(op: &greta_ops::Rope, l: Lowering) -> Rope {
        let factors: Vec<f32> = match l.ins.get(2) {
            Some(Place::Small(b)) => {
                b.bytes().chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
            }
            _ => Vec::new(),
        };
        let frequency = |i| op.frequency(i, f64::from(factors.get(i).copied().unwrap_or(1.0)));
        Rope {
            level: l.level,
            cut: Cut { threads: l.threads, least: 4 },
            op: op.clone(),
            x: l.ins[0].clone(),
            positions: l.ins[1].clone(),
            out: l.outs[0].clone(),
            rows: l.descs[0].rows(),
            width: l.descs[0].cols().constant().unwrap_or(0),
            table: Table { frequencies: (0..op.dims / 2).map(frequency).collect(), rows: RwLock::default() },
        }
    }
}

impl Kernel for Rope {
    fn chunks(&self, m: &Memory) -> usize {
        self.cut.chunks(self.rows.at(&m.at))
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (rows, n) = (self.rows.at(&m.at), self.width);
        let part = self.cut.range(rows, chunk);
        // SAFETY: the operands have these sizes.
        let (x, positions) = unsafe { (m.read::<f32>(&self.x, rows * n), m.read::<i32>(&self.positions, rows)) };
        let most = positions[part.clone()].iter().max().map_or(0, |&p| p.max(0) as usize + 1);
        let half = self.op.dims / 2;
        self.table.with(most, |table| {
            for t in part.clone() {
                // SAFETY: row t is this chunk's.
                let out: &mut [f32] = unsafe { m.write(&self.out, t * n, n) };
                out.copy_from_slice(&x[t * n..][..n]);
                let (cos, sin) = table[positions[t].max(0) as usize * 2 * half..][..2 * half].split_at(half);
                kernels::rope::rope(self.level, out, self.op.head_dim, cos, sin, self.op.pairing == Pairing::Adjacent);
            }
        });
    }

    fn route(&self, _: &Bindings) -> String {
        format!("rope.{}", self.level.name())
    }
}
