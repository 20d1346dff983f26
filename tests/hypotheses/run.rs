//! A recorded run, and what a wrong kernel could have read in one of its steps.

use crate::support::{Outcome, cpu, synth_tiny};
use greta_graph::{TapMode, TapRequest, TapRows, TapSpec};
use greta_models::{Arithmetic, EngineOptions, Model};
use greta_ops::{ACT_BLOCK, DType, quant};
use greta_trace::recording::{Recording, Series};
use greta_trace::{PromptInfo, TracePlan, tracer};
use std::sync::Arc;

pub struct Taped {
    pub model: Arc<Model>,
    pub recording: Recording,
}

impl Taped {
    /// A tiny model's run of a prompt and two decode steps, everything recorded.
    pub fn new(mix: &str, arith: Arithmetic, kv: DType, tokens: u32) -> Result<Taped, Outcome> {
        Self::tapped(mix, arith, kv, tokens, TapMode::Semantic)
    }

    pub fn tapped(mix: &str, arith: Arithmetic, kv: DType, tokens: u32, tap_mode: TapMode) -> Result<Taped, Outcome> {
        let model = Arc::new(Model::open(&synth_tiny(mix)?)?);
        let prompt = PromptInfo {
            id: "test".into(),
            tokens: (0..tokens).map(|i| (i * 37 + i * i * 11 + 5) % 1000).collect(),
            ..PromptInfo::default()
        };
        let taps = vec![TapRequest::new("all", TapSpec { rows: TapRows::All, ..TapSpec::default() })?];
        let options = EngineOptions { arith, kv, taps, tap_mode, context: Some(256), ..EngineOptions::default() };
        let plan = TracePlan { decode_steps: 2, ..TracePlan::default() };
        let (recording, _) = tracer::record(&model, &cpu(2)?, &options, &[prompt], &plan, &mut |_, _, _| true)?;
        Ok(Taped { model, recording })
    }

    /// The recording with one node's rows as a wrong kernel would have given them.
    pub fn distorted(&self, node: &str, wrong: impl Fn(&Step<'_>) -> Option<Vec<Vec<f32>>>) -> Recording {
        let mut out = self.recording.clone();
        for order in 0..3 {
            let step = Step { run: self, order };
            let Some(rows) = wrong(&step) else { continue };
            // Values past a row's end are the second output's.
            let cols = out.get(node).map_or(0, |s| s.cols);
            for (name, from) in [(node.to_string(), 0), (format!("{node}.1"), cols)] {
                let Some(series) = out.series.iter_mut().find(|s| s.name == name) else { continue };
                let places: Vec<_> = series.of_step(0, order).iter().map(|r| r.data.clone()).collect();
                assert_eq!(places.len(), rows.len(), "{node}");
                for (place, row) in places.into_iter().zip(&rows) {
                    let values = &row[from..from + series.cols];
                    match series.is_int() {
                        true => {
                            series.ints[place].copy_from_slice(&values.iter().map(|&v| v as i32).collect::<Vec<_>>())
                        }
                        false => series.reals[place].copy_from_slice(values),
                    }
                }
            }
        }
        out
    }
}

/// One step: 0 is the prompt, 1 and 2 decode.
pub struct Step<'a> {
    pub run: &'a Taped,
    pub order: u32,
}

impl Step<'_> {
    pub fn decodes(&self) -> bool {
        self.order > 0
    }

    /// The step before.
    pub fn before(&self) -> Option<Step<'_>> {
        Some(Step { run: self.run, order: self.order.checked_sub(1)? })
    }

    fn series(&self, name: &str) -> &Series {
        self.run.recording.get(name).unwrap_or_else(|| panic!("{name} was not recorded"))
    }

    /// Recorded rows of a value.
    pub fn rows(&self, name: &str) -> Vec<Vec<f32>> {
        let s = self.series(name);
        s.of_step(0, self.order).iter().map(|r| s.values(r).iter().map(|&v| v as f32).collect()).collect()
    }

    /// What lies after the first row of a value in its buffer: left there by whatever used the place last.
    pub fn behind(&self, name: &str) -> Option<Vec<f32>> {
        let (series, all) = (self.series(name), &self.run.recording.series);
        let first = series.of_step(0, self.order).first()?;
        let place = first.offset + 4 * series.cols as u64;
        let same = |s: &Series, r: &greta_trace::recording::Row| {
            !s.is_int()
                && s.cols == series.cols
                && r.buffer == first.buffer
                && r.offset == place
                && r.at.order < self.order
        };
        let found = all.iter().flat_map(|s| s.rows.iter().filter(move |r| same(s, r)).map(move |r| (r.at.order, s, r)));
        // Of one step the value that comes last in the graph is what was written last.
        let (_, s, r) = found.max_by_key(|(order, ..)| *order)?;
        Some(s.values(r).iter().map(|&v| v as f32).collect())
    }

    pub fn positions(&self) -> Vec<usize> {
        self.series("embd").of_step(0, self.order).iter().map(|r| r.at.position as usize).collect()
    }

    /// Token ids of the step.
    pub fn tokens(&self) -> Vec<usize> {
        self.series("embd").of_step(0, self.order).iter().map(|r| r.at.token as usize).collect()
    }

    /// What a product reads of an activation: its values, or codes times scales.
    pub fn x(&self, name: &str) -> Vec<Vec<f32>> {
        let q8 = format!("{name}.q8");
        if self.run.recording.get(&q8).is_none() {
            return self.rows(name);
        }
        let scales = self.rows(&format!("{q8}.1"));
        let scaled = |(c, s): (Vec<f32>, &Vec<f32>)| c.iter().enumerate().map(|(i, v)| v * s[i / ACT_BLOCK]).collect();
        self.rows(&q8).into_iter().zip(&scales).map(scaled).collect()
    }

    /// A cache's rows by position, as they are after this step.
    pub fn cache(&self, name: &str) -> Vec<Vec<f32>> {
        let s = self.series(name);
        let last = self.positions().into_iter().max().unwrap_or(0) as u32;
        (0..=last)
            .map(|p| {
                s.latest(0, self.order, 0, p).map_or_else(Vec::new, |r| s.values(r).iter().map(|&v| v as f32).collect())
            })
            .collect()
    }

    /// A weight, dequantised: rows, columns, values.
    pub fn weight(&self, tensor: &str) -> Matrix {
        let weights = self.run.model.weights();
        let view = weights.tensor(tensor).unwrap_or_else(|e| panic!("{e}"));
        let dims: Vec<usize> = view.desc.dims.iter().filter_map(|d| d.constant()).collect();
        let mut values = vec![0.0; dims.iter().product()];
        quant::dequantize_row(view.desc.dtype, view.bytes, &mut values);
        let cols = dims[dims.len() - 1];
        Matrix { rows: values.len() / cols, cols, values, dtype: view.desc.dtype, bytes: view.bytes.to_vec() }
    }
}

pub struct Matrix {
    pub rows: usize,
    pub cols: usize,
    pub values: Vec<f32>,
    pub dtype: DType,
    pub bytes: Vec<u8>,
}

impl Matrix {
    pub fn at(&self, n: usize, k: usize) -> f32 {
        self.values[n * self.cols + k]
    }

    /// The matrix from other bytes.
    pub fn repacked(mut self, change: impl Fn(usize, &mut [u8])) -> Matrix {
        let size = self.dtype.block_bytes();
        self.bytes.chunks_exact_mut(size).enumerate().for_each(|(i, b)| change(i, b));
        quant::dequantize_row(self.dtype, &self.bytes, &mut self.values);
        self
    }
}

/// Σ_k w(n, k) · x(t, k), in f32 by blocks of 32.
pub fn product(x: &[Vec<f32>], n: usize, w: impl Fn(usize, usize) -> f32) -> Vec<Vec<f32>> {
    product_of(x.len(), n, x[0].len(), w, |t, k| x[t][k])
}

pub fn product_of(
    rows: usize,
    n: usize,
    k: usize,
    w: impl Fn(usize, usize) -> f32,
    x: impl Fn(usize, usize) -> f32,
) -> Vec<Vec<f32>> {
    let one = |t: usize, c: usize| {
        let mut sum = 0.0f32;
        for b in (0..k).step_by(32) {
            let block: f64 = (b..(b + 32).min(k)).map(|i| f64::from(w(c, i)) * f64::from(x(t, i))).sum();
            sum += block as f32;
        }
        sum
    };
    (0..rows).map(|t| (0..n).map(|c| one(t, c)).collect()).collect()
}

/// x · weight / √(mean square of some values + eps).
pub fn norm(x: &[Vec<f32>], w: &[f32], eps: f32, kept: impl Fn(usize) -> bool) -> Vec<Vec<f32>> {
    let row = |x: &Vec<f32>| {
        let sum: f32 = x.iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, v)| v * v).sum();
        let inv = 1.0 / (sum / x.len() as f32 + eps).sqrt();
        x.iter().zip(w).map(|(v, w)| v * inv * w).collect()
    };
    x.iter().map(row).collect()
}

/// Which keys a position sees, and how.
pub struct Seen<'a> {
    pub q: &'a [Vec<f32>],
    pub keys: &'a [Vec<f32>],
    pub values: &'a [Vec<f32>],
    pub scale: f32,
}

/// Four heads of 64 over two key-value heads; `list` gives the cache rows a query row sees, `kv` a head's key-value head.
pub fn attend(
    s: &Seen<'_>,
    list: impl Fn(usize) -> Vec<usize>,
    kv: impl Fn(usize) -> usize,
    lane: impl Fn(usize) -> bool,
) -> Vec<Vec<f32>> {
    const D: usize = 64;
    let one = |t: usize| {
        let seen = list(t);
        let mut out = Vec::new();
        for h in 0..4 {
            let base = kv(h) * D;
            let dot = |j: usize| -> f32 {
                (0..D).filter(|&i| lane(i)).map(|i| s.q[t][h * D + i] * s.keys[j][base + i]).sum::<f32>() * s.scale
            };
            let scores: Vec<f32> = seen.iter().map(|&j| dot(j)).collect();
            let max = scores.iter().fold(f32::MIN, |m, v| m.max(*v));
            let weights: Vec<f32> = scores.iter().map(|v| (v - max).exp()).collect();
            let sum: f32 = weights.iter().sum();
            out.extend(
                (0..D).map(|i| seen.iter().zip(&weights).map(|(&j, w)| w * s.values[j][base + i]).sum::<f32>() / sum),
            );
        }
        out
    };
    (0..s.q.len()).map(one).collect()
}

/// RoPE on heads of 64 with base 500,000.
pub fn rope(
    x: &[Vec<f32>],
    position: impl Fn(usize) -> f64,
    pair: impl Fn(usize) -> (usize, usize),
    theta: f64,
) -> Vec<Vec<f32>> {
    let mut out = x.to_vec();
    for (t, row) in out.iter_mut().enumerate() {
        for head in row.chunks_exact_mut(64) {
            for i in 0..32 {
                let (a, b) = pair(i);
                let (sin, cos) = (position(t) * theta.powf(-2.0 * i as f64 / 64.0)).sin_cos();
                let (x, y) = (head[a], head[b]);
                head[a] = x * cos as f32 - y * sin as f32;
                head[b] = x * sin as f32 + y * cos as f32;
            }
        }
    }
    out
}

/// Codes and then scales of each row.
pub fn quantized(x: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let row = |x: &Vec<f32>| {
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for block in x.chunks_exact(ACT_BLOCK) {
            let amax = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            scales.push(amax / 127.0);
            codes.extend(block.iter().map(|v| (v * (127.0 / amax)).round_ties_even()));
        }
        codes.extend(scales);
        codes
    };
    x.iter().map(row).collect()
}
