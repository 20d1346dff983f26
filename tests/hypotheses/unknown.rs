//! Distortions that no hypothesis may claim.

use super::Case;
use super::run::{Seen, Step, attend, norm, product, rope};
use greta_models::Arithmetic::{Exact, Int8};
use greta_trace::judge::Class;

type Wrong = fn(&Step<'_>) -> Option<Vec<Vec<f32>>>;

/// Changes every row in place.
fn changed(mut rows: Vec<Vec<f32>>, f: impl Fn(&mut Vec<f32>)) -> Option<Vec<Vec<f32>>> {
    rows.iter_mut().for_each(f);
    Some(rows)
}

/// A factor within ±1 that looks like noise.
fn noise(i: usize) -> f32 {
    let x = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(0x9e37_79b9);
    ((x ^ (x >> 15)).wrapping_mul(0x85eb_ca6b) >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |name, node, wrong: Wrong| {
        for (mix, arith) in [("F32", Exact), ("Q4_K_M", Int8)] {
            all.push(Case { name, mix, arith, node, wrong, class: Class::Unknown, hypothesis: None });
        }
    };
    for node in
        ["blk.1.q", "blk.1.attn", "blk.1.ffn_out", "blk.1.q_rope", "blk.1.attn_norm", "blk.1.out", "blk.1.ffn_act"]
    {
        macro_rules! at {
            ($($n:literal),*) => { match node { $($n => {
                add("lane-sign", $n, |s| changed(s.rows($n), |r| r.iter_mut().skip(5).step_by(16).for_each(|v| *v = -*v)));
                add("noise", $n, |s| changed(s.rows($n), |r| {
                    let size = r.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    r.iter_mut().enumerate().for_each(|(i, v)| *v += noise(i) * size * 4e-5);
                }));
                add("column-repeated", $n, |s| changed(s.rows($n), |r| (16..r.len()).step_by(16).for_each(|i| r[i] = r[i - 1])));
                add("saturated", $n, |s| changed(s.rows($n), |r| {
                    let half = r.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 2.0;
                    r.iter_mut().for_each(|v| *v = v.clamp(-half, half));
                }));
                add("mantissa-bit", $n, |s| changed(s.rows($n), |r| {
                    r.iter_mut().step_by(7).for_each(|v| *v = f32::from_bits(v.to_bits() ^ (1 << 18)));
                }));
            })* _ => {} } };
        }
        at!("blk.1.q", "blk.1.attn", "blk.1.ffn_out", "blk.1.q_rope", "blk.1.attn_norm", "blk.1.out", "blk.1.ffn_act");
    }
    add("residual-twice", "blk.1.out", |s| {
        let (a, b) = (s.rows("blk.1.ffn_out"), s.rows("blk.1.ffn_inp"));
        Some(a.iter().zip(&b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + 2.0 * b).collect()).collect())
    });
    add("one-scale", "blk.1.q", |s| {
        let w = s.weight("blk.1.attn_q.weight");
        let at = |n: usize, k: usize| if (64..96).contains(&k) { w.at(n, k) * 1.5 } else { w.at(n, k) };
        Some(product(&s.x("blk.1.attn_norm"), w.rows, at))
    });
    add("one-scale in one row", "blk.1.q", |s| {
        let w = s.weight("blk.1.attn_q.weight");
        let at = |n: usize, k: usize| if n == 77 && (64..96).contains(&k) { w.at(n, k) * 1.5 } else { w.at(n, k) };
        Some(product(&s.x("blk.1.attn_norm"), w.rows, at))
    });
    add("block-dropped", "blk.1.q", |s| {
        let w = s.weight("blk.1.attn_q.weight");
        let at = |n: usize, k: usize| if (96..128).contains(&k) { 0.0 } else { w.at(n, k) };
        Some(product(&s.x("blk.1.attn_norm"), w.rows, at))
    });
    add("block-dropped norm", "blk.1.attn_norm", |s| {
        let w = s.weight("blk.1.attn_norm.weight").values;
        Some(norm(&s.rows("blk.0.out"), &w, 1e-5, |i| !(96..128).contains(&i)))
    });
    add("block-dropped norm decode", "blk.1.attn_norm", |s| {
        let w = s.weight("blk.1.attn_norm.weight").values;
        s.decodes().then(|| norm(&s.rows("blk.0.out"), &w, 1e-5, |i| !(96..128).contains(&i)))
    });
    add("layer-norm", "blk.1.attn_norm", |s| {
        let mut x = s.rows("blk.0.out");
        x.iter_mut().for_each(|r| {
            let mean = r.iter().sum::<f32>() / r.len() as f32;
            r.iter_mut().for_each(|v| *v -= mean);
        });
        Some(norm(&x, &s.weight("blk.1.attn_norm.weight").values, 1e-5, |_| true))
    });
    add("weight-plus-one", "blk.1.attn_norm", |s| {
        let w: Vec<f32> = s.weight("blk.1.attn_norm.weight").values.iter().map(|v| v + 1.0).collect();
        Some(norm(&s.rows("blk.0.out"), &w, 1e-5, |_| true))
    });
    add("hard-silu", "blk.1.ffn_act", |s| {
        let hard = |g: f32| g * ((g + 3.0) / 6.0).clamp(0.0, 1.0);
        let (gate, up) = (s.rows("blk.1.ffn_gate"), s.rows("blk.1.ffn_up"));
        Some(gate.iter().zip(&up).map(|(g, u)| g.iter().zip(u).map(|(g, u)| hard(*g) * u).collect()).collect())
    });
    add("coarse-exp", "blk.1.attn", |s| {
        let p = s.positions();
        let (q, k, v) = (s.rows("blk.1.q_rope"), s.cache("blk.1.k_cache"), s.cache("blk.1.v_cache"));
        // Scores cut to sixteenths stand for an exponential from a table.
        let cut = |x: Vec<Vec<f32>>| -> Vec<Vec<f32>> {
            x.iter().map(|r| r.iter().map(|v| (v * 16.0).round() / 16.0).collect()).collect()
        };
        let q = cut(q);
        Some(attend(&Seen { q: &q, keys: &k, values: &v, scale: 0.125 }, |t| (0..=p[t]).collect(), |h| h / 2, |_| true))
    });
    add("pair-skipped", "blk.1.k_rope", |s| {
        let p = s.positions();
        let x = s.rows("blk.1.k");
        let mut out = rope(&x, |t| p[t] as f64, |i| (2 * i, 2 * i + 1), 500_000.0);
        for (o, x) in out.iter_mut().zip(&x) {
            for h in (0..o.len()).step_by(64) {
                o[h + 62..h + 64].copy_from_slice(&x[h + 62..h + 64]);
            }
        }
        Some(out)
    });
    all
}
