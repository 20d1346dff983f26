//! Distortions with a hypothesis of their own.

use super::run::{Seen, Step, attend, norm, product, product_of, rope};
use super::{Case, sums};
use greta_models::Arithmetic::{self, Exact, Int8};
use greta_trace::judge::Class::{self, *};

pub type Wrong = fn(&Step<'_>) -> Option<Vec<Vec<f32>>>;

pub fn case(
    name: &'static str,
    mix: &'static str,
    arith: Arithmetic,
    node: &'static str,
    class: Class,
    hypothesis: &'static str,
    wrong: Wrong,
) -> Case {
    Case { name, mix, arith, node, wrong, class, hypothesis: Some(hypothesis) }
}

const Q: &str = "blk.1.attn_q.weight";
const K: &str = "blk.1.attn_k.weight";
pub const ATT: &str = "blk.1.attn_norm";
const ALL_LANES: fn(usize) -> bool = |_| true;

/// Rows or columns within a tile of 16, exchanged.
fn turned(a: usize, b: usize, tile: usize) -> (usize, usize) {
    (a - a % tile + b % tile, b - b % tile + a % tile)
}

fn adjacent(i: usize) -> (usize, usize) {
    (2 * i, 2 * i + 1)
}

/// Attention of layer 1 with the given parts; the rest is right.
fn attention(
    s: &Step<'_>,
    scale: f32,
    list: impl Fn(usize) -> Vec<usize>,
    kv: impl Fn(usize) -> usize,
) -> Vec<Vec<f32>> {
    let (q, keys, values) = (s.rows("blk.1.q_rope"), s.cache("blk.1.k_cache"), s.cache("blk.1.v_cache"));
    attend(&Seen { q: &q, keys: &keys, values: &values, scale }, list, kv, ALL_LANES)
}

pub fn every(f: fn(f32) -> f32, rows: Vec<Vec<f32>>) -> Option<Vec<Vec<f32>>> {
    Some(rows.into_iter().map(|r| r.into_iter().map(f).collect()).collect())
}

pub fn cases() -> Vec<Case> {
    [weights(), packing(), rows(), norms(), ropes(), attentions(), sums::cases()].into_iter().flatten().collect()
}

fn weights() -> Vec<Case> {
    let both = |name, node, hypothesis, class, wrong: Wrong| {
        [("F32", Exact), ("Q4_K_M", Exact), ("Q4_K_M", Int8), ("Q6_K", Int8)]
            .map(|(mix, arith)| case(name, mix, arith, node, class, hypothesis, wrong))
    };
    let mut all = Vec::new();
    all.extend(both("weight-col-major", "blk.1.q", "column-major weight", CWeightLayout, |s| {
        let w = s.weight(Q);
        Some(product(&s.x(ATT), w.rows, |n, k| w.values[k * w.rows + n]))
    }));
    all.extend(both("kv-transposed", "blk.1.k", "column-major weight", CWeightLayout, |s| {
        let w = s.weight(K);
        Some(product(&s.x(ATT), w.rows, |n, k| w.values[k * w.rows + n]))
    }));
    all.extend(both("weight tile", "blk.1.k", "weight tile transposed (tile 16)", CWeightLayout, |s| {
        let w = s.weight(K);
        Some(product(&s.x(ATT), w.rows, |n, k| {
            let (n, k) = turned(n, k, 16);
            w.at(n, k)
        }))
    }));
    all.extend(both("tile-transposed", "blk.1.q", "output tile transposed (tile 16, full ones)", DKernelMath, |s| {
        (!s.decodes()).then(|| {
            let (w, x) = (s.weight(Q), s.x(ATT));
            let right = product(&x, w.rows, |n, k| w.at(n, k));
            let full = x.len() / 16 * 16;
            let at = |t: usize, n: usize| if t < full { turned(t, n, 16) } else { (t, n) };
            (0..x.len()).map(|t| (0..w.rows).map(|n| right[at(t, n).0][at(t, n).1]).collect()).collect()
        })
    }));
    all.extend(both(
        "operands-transposed",
        "blk.1.k",
        "operand tiles transposed (tile 16, full ones)",
        DKernelMath,
        |s| {
            (!s.decodes()).then(|| {
                let (w, x) = (s.weight(K), s.x(ATT));
                let full = x.len() / 16 * 16;
                let right = product(&x, w.rows, |n, k| w.at(n, k));
                let mut out = product_of(
                    full,
                    w.rows,
                    w.cols,
                    |n, k| w.at(turned(n, k, 16).0, turned(n, k, 16).1),
                    |t, k| x[turned(t, k, 16).0][turned(t, k, 16).1],
                );
                out.extend_from_slice(&right[full..]);
                out
            })
        },
    ));
    all.extend(both("tile 32", "blk.1.v", "output tile transposed (tile 32, full ones)", DKernelMath, |s| {
        (!s.decodes()).then(|| {
            let (w, x) = (s.weight("blk.1.attn_v.weight"), s.x(ATT));
            let right = product(&x, w.rows, |n, k| w.at(n, k));
            let full = x.len() / 32 * 32;
            let at = |t: usize, n: usize| if t < full { turned(t, n, 32) } else { (t, n) };
            (0..x.len()).map(|t| (0..w.rows).map(|n| right[at(t, n).0][at(t, n).1]).collect()).collect()
        })
    }));
    all.extend(both("another layer", "blk.1.ffn_gate", "neighbour layer's weight (-1)", CWeightLayout, |s| {
        let w = s.weight("blk.0.ffn_gate.weight");
        Some(product(&s.x("blk.1.ffn_norm"), w.rows, |n, k| w.at(n, k)))
    }));
    all.extend(both("up for gate", "blk.1.ffn_gate", "another tensor of the layer", CWeightLayout, |s| {
        let w = s.weight("blk.1.ffn_up.weight");
        Some(product(&s.x("blk.1.ffn_norm"), w.rows, |n, k| w.at(n, k)))
    }));
    all.extend(both("embd-col-major", "embd", "column-major weight", CWeightLayout, |s| {
        let w = s.weight("token_embd.weight");
        Some(s.tokens().iter().map(|id| (0..w.cols).map(|c| w.values[c * w.rows + id]).collect()).collect())
    }));
    all
}

fn packing() -> Vec<Case> {
    let both = |name, mix, node, hypothesis, wrong: Wrong| {
        [Exact, Int8].map(|arith| case(name, mix, arith, node, CWeightLayout, hypothesis, wrong))
    };
    let mut all = Vec::new();
    all.extend(both("q4k-nibbles", "Q4_K_M", "blk.1.q", "nibble order (high nibble first)", |s| {
        let w = s.weight(Q).repacked(|_, b| b[16..].iter_mut().for_each(|v| *v = v.rotate_left(4)));
        Some(product(&s.x(ATT), w.rows, |n, k| w.at(n, k)))
    }));
    all.extend(both("q4_0 nibbles", "Q4_0", "blk.1.q", "nibble order (high nibble first)", |s| {
        let w = s.weight(Q).repacked(|_, b| b[2..].iter_mut().for_each(|v| *v = v.rotate_left(4)));
        Some(product(&s.x(ATT), w.rows, |n, k| w.at(n, k)))
    }));
    all.extend(both("q4k-scales", "Q4_K_M", "blk.1.q", "scale packing (first-half formula for all)", |s| {
        // Scales 4-7 become minima 0-3, and minima 4-7 the low six bits of bytes 8-11.
        let w = s.weight(Q).repacked(|_, b| {
            let (min, low): ([u8; 4], [u8; 4]) =
                ([4, 5, 6, 7].map(|j| b[4 + j] & 63), [8, 9, 10, 11].map(|j| b[4 + j] & 63));
            for j in 0..4 {
                b[4 + j] = (b[4 + j] & 63) | ((min[j] >> 4) << 6);
                b[8 + j] = (b[8 + j] & 63) | ((low[j] >> 4) << 6);
                b[12 + j] = (min[j] & 15) | (low[j] << 4);
            }
        });
        Some(product(&s.x(ATT), w.rows, |n, k| w.at(n, k)))
    }));
    all.extend(both("q6k-order", "Q6_K", "blk.1.q", "Q6_K low and high bits", |s| {
        let w = s.weight(Q).repacked(|_, b| {
            let (low, high) = b[..192].split_at_mut(128);
            let codes: Vec<u8> = (0..256)
                .map(|i| {
                    let (half, j) = (i / 128, i % 128);
                    let lo = (low[half * 64 + j % 64] >> (j / 64 * 4)) & 15;
                    let hi = (high[half * 32 + j % 32] >> (j / 32 * 2)) & 3;
                    (lo << 2) | hi
                })
                .collect();
            low.fill(0);
            high.fill(0);
            for (i, c) in codes.into_iter().enumerate() {
                let (half, j) = (i / 128, i % 128);
                low[half * 64 + j % 64] |= (c & 15) << (j / 64 * 4);
                high[half * 32 + j % 32] |= (c >> 4) << (j / 32 * 2);
            }
        });
        Some(product(&s.x(ATT), w.rows, |n, k| w.at(n, k)))
    }));
    all.extend(both("next block's scale", "Q8_0", "blk.1.k", "neighbour block's scale (block +1)", |s| {
        let w = s.weight(K);
        let old = w.bytes.clone();
        let w = w.repacked(|i, b| {
            if let Some(next) = old.get((i + 1) * 34..(i + 1) * 34 + 2) {
                b[..2].copy_from_slice(next);
            }
        });
        Some(product(&s.x(ATT), w.rows, |n, k| w.at(n, k)))
    }));
    all
}

fn rows() -> Vec<Case> {
    let f32s = |name, node, class, hypothesis, wrong: Wrong| case(name, "F32", Exact, node, class, hypothesis, wrong);
    vec![
        f32s("input-row", ATT, AInputSelection, "another token's row (the next)", |s| {
            let x = s.rows("blk.0.out");
            let moved: Vec<_> = (0..x.len()).map(|t| x[(t + 1).min(x.len() - 1)].clone()).collect();
            Some(norm(&moved, &s.weight("blk.1.attn_norm.weight").values, 1e-5, ALL_LANES))
        }),
        f32s("input-row-before", "blk.1.ffn_norm", AInputSelection, "another token's row (the one before)", |s| {
            let x = s.rows("blk.1.ffn_inp");
            let moved: Vec<_> = (0..x.len()).map(|t| x[t.saturating_sub(1)].clone()).collect();
            Some(norm(&moved, &s.weight("blk.1.ffn_norm.weight").values, 1e-5, ALL_LANES))
        }),
        f32s("offset", ATT, AInputSelection, "wrong offset (+1 element)", |s| {
            let flat = s.rows("blk.0.out").concat();
            let moved: Vec<Vec<f32>> = (0..flat.len() / 256)
                .map(|t| (0..256).map(|i| flat.get(t * 256 + i + 1).copied().unwrap_or(0.0)).collect())
                .collect();
            Some(norm(&moved, &s.weight("blk.1.attn_norm.weight").values, 1e-5, ALL_LANES))
        }),
        f32s("stale-buffer", ATT, GStaleData, "stale operand", |s| {
            let x = vec![s.before()?.rows("blk.0.out")[0].clone()];
            Some(norm(&x, &s.weight("blk.1.attn_norm.weight").values, 1e-5, ALL_LANES))
        }),
        f32s("stale product", "blk.1.q", GStaleData, "stale operand", |s| {
            let (w, x) = (s.weight(Q), vec![s.before()?.rows(ATT)[0].clone()]);
            Some(product(&x, w.rows, |n, k| w.at(n, k)))
        }),
        f32s("input-row in decode", ATT, AInputSelection, "", |s| {
            let x = s.decodes().then(|| s.behind("blk.0.out")).flatten()?;
            Some(norm(&[x], &s.weight("blk.1.attn_norm.weight").values, 1e-5, ALL_LANES))
        }),
        f32s("stale output", "blk.1.ffn_inp", GStaleData, "stale output", |s| {
            Some(vec![s.before()?.rows("blk.1.ffn_inp")[0].clone()])
        }),
        f32s("logits-row", "rows", AInputSelection, "another token's row", |s| {
            (!s.decodes()).then(|| vec![s.rows("blk.1.out")[3].clone()])
        }),
        f32s("input-token", "embd", AInputSelection, "another token's embedding", |s| {
            (s.order == 1).then(|| vec![s.weight("token_embd.weight").values[77 * 256..78 * 256].to_vec()])
        }),
        f32s("next token", "embd", AInputSelection, "another token's", |s| {
            let (w, mut ids) = (s.weight("token_embd.weight"), s.tokens());
            ids.rotate_left(1);
            (!s.decodes()).then(|| ids.iter().map(|i| w.values[i * 256..(i + 1) * 256].to_vec()).collect())
        }),
        f32s("swapped", "blk.1.ffn_act", DKernelMath, "operands swapped", |s| {
            let (gate, up) = (s.rows("blk.1.ffn_gate"), s.rows("blk.1.ffn_up"));
            let silu = |g: f32| g / (1.0 + (-g).exp());
            Some(gate.iter().zip(&up).map(|(g, u)| g.iter().zip(u).map(|(g, u)| silu(*u) * g).collect()).collect())
        }),
    ]
}

fn norms() -> Vec<Case> {
    let norms = |name, class, hypothesis, wrong: Wrong| case(name, "F32", Exact, ATT, class, hypothesis, wrong);
    fn made(s: &Step<'_>, weight: &str, eps: f32, kept: impl Fn(usize) -> bool) -> Option<Vec<Vec<f32>>> {
        Some(norm(&s.rows("blk.0.out"), &s.weight(weight).values, eps, kept))
    }
    vec![
        norms("eps", BNormStats, "epsilon (1e-6", |s| made(s, "blk.1.attn_norm.weight", 1e-6, ALL_LANES)),
        norms("odd eps", BNormStats, "epsilon (fitted", |s| made(s, "blk.1.attn_norm.weight", 3.7e-4, ALL_LANES)),
        norms("eps in decode", BNormStats, "epsilon (1e-3", |s| {
            s.decodes().then(|| made(s, "blk.1.attn_norm.weight", 1e-3, ALL_LANES))?
        }),
        norms("norm-weight-layer", CWeightLayout, "neighbour layer's weight (-1)", |s| {
            made(s, "blk.0.attn_norm.weight", 1e-5, ALL_LANES)
        }),
        norms("norm-weight-kind", CWeightLayout, "another tensor of the layer (blk.1.ffn_norm", |s| {
            made(s, "blk.1.ffn_norm.weight", 1e-5, ALL_LANES)
        }),
        norms("half-wave", DKernelMath, "norm over half the lanes (first 32 of 64)", |s| {
            made(s, "blk.1.attn_norm.weight", 1e-5, |i| i % 64 < 32)
        }),
        norms("k-truncated norm", DKernelMath, "norm over the first K' values (K' = 128", |s| {
            made(s, "blk.1.attn_norm.weight", 1e-5, |i| i < 128)
        }),
        norms("scale-uniform", DKernelMath, "uniform scale (1.866667)", |s| {
            every(|v| v * (448.0 / 240.0), s.rows(ATT))
        }),
        norms("scale in decode", DKernelMath, "uniform scale (0.5", |s| {
            s.decodes().then(|| every(|v| v * 0.5, s.rows(ATT)))?
        }),
    ]
}

fn ropes() -> Vec<Case> {
    let rope_at =
        |name, class, hypothesis, wrong: Wrong| case(name, "F32", Exact, "blk.1.q_rope", class, hypothesis, wrong);
    vec![
        rope_at("rope-halves", DKernelMath, "RoPE pairing (halves)", |s| {
            let p = s.positions();
            Some(rope(&s.rows("blk.1.q"), |t| p[t] as f64, |i| (i, i + 32), 500_000.0))
        }),
        rope_at("rope-pos+1", AInputSelection, "RoPE position (+1)", |s| {
            let p = s.positions();
            s.decodes().then(|| rope(&s.rows("blk.1.q"), |t| p[t] as f64 + 1.0, adjacent, 500_000.0))
        }),
        rope_at("rope in step", AInputSelection, "RoPE position (the row in the step)", |s| {
            s.decodes().then(|| rope(&s.rows("blk.1.q"), |t| t as f64, adjacent, 500_000.0))
        }),
        rope_at("rope inverse", DKernelMath, "RoPE direction", |s| {
            let p = s.positions();
            Some(rope(&s.rows("blk.1.q"), |t| -(p[t] as f64), adjacent, 500_000.0))
        }),
        rope_at("rope theta", DKernelMath, "RoPE theta (10000)", |s| {
            let p = s.positions();
            Some(rope(&s.rows("blk.1.q"), |t| p[t] as f64, adjacent, 10_000.0))
        }),
    ]
}

fn attentions() -> Vec<Case> {
    let at = |name, class, hypothesis, wrong: Wrong| case(name, "F32", Exact, "blk.1.attn", class, hypothesis, wrong);
    const S: f32 = 0.125;
    vec![
        at("no-sqrt-d", DKernelMath, "missing 1/√d", |s| {
            let p = s.positions();
            Some(attention(s, 1.0, |t| (0..=p[t]).collect(), |h| h / 2))
        }),
        at("gqa-map", FCache, "GQA head map (h % kv_heads)", |s| {
            let p = s.positions();
            Some(attention(s, S, |t| (0..=p[t]).collect(), |h| h % 2))
        }),
        at("mask+1", DKernelMath, "causal mask +1", |s| {
            let p = s.positions();
            (!s.decodes()).then(|| attention(s, S, |t| (0..=(p[t] + 1).min(69)).collect(), |h| h / 2))
        }),
        at("mask-1", DKernelMath, "causal mask -1", |s| {
            let p = s.positions();
            (!s.decodes()).then(|| attention(s, S, |t| (0..p[t].max(1)).collect(), |h| h / 2))
        }),
        at("seq-len-1", FCache, "sequence length -1", |s| {
            let p = s.positions();
            s.decodes().then(|| attention(s, S, |t| (0..p[t]).collect(), |h| h / 2))
        }),
        at("seq-len+1", FCache, "sequence length +1 (zeros)", |s| {
            let p = s.positions();
            let (q, mut k, mut v) = (s.rows("blk.1.q_rope"), s.cache("blk.1.k_cache"), s.cache("blk.1.v_cache"));
            k.push(vec![0.0; 128]);
            v.push(vec![0.0; 128]);
            let seen = Seen { q: &q, keys: &k, values: &v, scale: S };
            s.decodes().then(|| attend(&seen, |t| (0..=p[t] + 1).collect(), |h| h / 2, ALL_LANES))
        }),
        at("kv-layer-base", FCache, "another layer's cache (layer 0)", |s| {
            let p = s.positions();
            let (q, k, v) = (s.rows("blk.1.q_rope"), s.cache("blk.0.k_cache"), s.cache("blk.0.v_cache"));
            Some(attend(
                &Seen { q: &q, keys: &k, values: &v, scale: S },
                |t| (0..=p[t]).collect(),
                |h| h / 2,
                ALL_LANES,
            ))
        }),
        at("page of zeros", FCache, "another page (page 1 is zeros)", |s| {
            let p = s.positions();
            let (q, mut k, mut v) = (s.rows("blk.1.q_rope"), s.cache("blk.1.k_cache"), s.cache("blk.1.v_cache"));
            (32..64).for_each(|j| (k[j], v[j]) = (vec![0.0; 128], vec![0.0; 128]));
            Some(attend(
                &Seen { q: &q, keys: &k, values: &v, scale: S },
                |t| (0..=p[t]).collect(),
                |h| h / 2,
                ALL_LANES,
            ))
        }),
        at("ctx-boundary", DKernelMath, "context limit (first 48 keys)", |s| {
            let p = s.positions();
            Some(attention(s, S, |t| (0..=p[t].min(47)).collect(), |h| h / 2))
        }),
        at("half-wave scores", DKernelMath, "scores over half the lanes", |s| {
            let p = s.positions();
            let (q, k, v) = (s.rows("blk.1.q_rope"), s.cache("blk.1.k_cache"), s.cache("blk.1.v_cache"));
            Some(attend(
                &Seen { q: &q, keys: &k, values: &v, scale: S },
                |t| (0..=p[t]).collect(),
                |h| h / 2,
                |i| i < 32,
            ))
        }),
    ]
}
