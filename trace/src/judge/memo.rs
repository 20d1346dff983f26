//! Ops already proven right on the same bits.

use super::Judge;
use crate::{At, Series};
use greta_graph::{Kind, NodeId, Value};
use greta_ops::Op;
use std::collections::HashMap;
use std::sync::Mutex;

/// Checks that came out clean, by operands and outputs. One model, one graph.
#[derive(Default)]
pub struct Memo(Mutex<HashMap<u128, f64>>);

impl Memo {
    pub(super) fn get(&self, key: u128) -> Option<f64> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).get(&key).copied()
    }

    pub(super) fn put(&self, key: u128, worst: f64) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).insert(key, worst);
    }
}

/// A key of everything a check reads but weights; `None` where a row is missing.
pub(super) fn key(j: &Judge<'_>, id: NodeId, rows: &[At]) -> Option<u128> {
    let mut h = Hash(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    h.add(u64::from(id.0));
    for out in 0..j.graph.node(id).outs.len() as u8 {
        rows_hash(&mut h, series(j, Value { node: id, out })?, rows)?;
    }
    let attention = matches!(j.graph.node(id).kind, Kind::Op(Op::Attention(_)));
    for v in j.graph.operands(id) {
        match &j.graph.node(v.node).kind {
            Kind::Weight { .. } | Kind::State { .. } | Kind::Op(Op::Dequant(_)) => {}
            Kind::Input { .. } => rows.iter().for_each(|r| {
                let token = j.recording.info.prompts.get(r.prompt as usize).and_then(|p| p.token(r.position as usize));
                h.add(u64::from(r.position) << 32 | u64::from(token.unwrap_or(u32::MAX)));
            }),
            _ if attention && j.graph.is_state(v) => {
                let s = series(j, v)?;
                let last = rows.iter().map(|r| r.position).max()?;
                for p in 0..=last {
                    let row = s.latest(rows[0].prompt, rows[0].order, rows[0].seq, p)?;
                    h.add(row.stats.hash);
                }
            }
            _ => rows_hash(&mut h, series(j, v)?, rows)?,
        }
    }
    Some(h.0)
}

fn series<'j>(j: &'j Judge<'_>, v: Value) -> Option<&'j Series> {
    j.recording.get(&j.graph.value_name(v))
}

fn rows_hash(h: &mut Hash, s: &Series, rows: &[At]) -> Option<()> {
    for r in rows {
        h.add(s.find(r.prompt, r.order, r.seq, r.position)?.stats.hash);
    }
    Some(())
}

/// FNV-1a over 64-bit words.
struct Hash(u128);

impl Hash {
    fn add(&mut self, v: u64) {
        self.0 = (self.0 ^ u128::from(v)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
}
