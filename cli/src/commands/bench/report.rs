//! What `greta bench` prints.

use super::{Bench, STEP, Test};
use crate::session::Loaded;
use crate::{json, names, output};
use greta::Model;
use serde_json::json;
use std::time::Duration;

/// Collects the results: a table as they come, or llama-bench's JSON array at the end.
pub(super) struct Report {
    json: Option<Vec<serde_json::Value>>,
    filename: String,
    model_type: String,
    size: u64,
    params: u64,
    backend: String,
    device: String,
    threads: usize,
    kv: String,
    arith: String,
    context: usize,
}

impl Report {
    pub(super) fn new(bench: &Bench, model: &Model, loaded: &Loaded) -> anyhow::Result<Report> {
        let tensors = model.gguf().tensors();
        let report = Report {
            json: bench.common.json.then(Vec::new),
            filename: model.gguf().path().display().to_string(),
            model_type: names::model_type(model.gguf()),
            size: tensors.iter().map(|t| t.bytes).sum(),
            params: names::parameters(model.gguf()),
            backend: loaded.backend.name().into(),
            device: loaded.backend.describe(),
            threads: bench.common.thread_count()?,
            kv: bench.common.kv.dtype().name().to_lowercase(),
            arith: loaded.engine.arithmetic().to_string(),
            context: loaded.engine.context_size(),
        };
        if report.json.is_none() {
            output::print(
                "| model                          |       size |     params | backend    | threads | arith |            test |                  t/s |\n\
                 | ------------------------------ | ---------: | ---------: | ---------- | ------: | ----: | --------------: | -------------------: |\n",
            )?;
        }
        Ok(report)
    }

    pub(super) fn add(&mut self, test: &Test, samples: Vec<Duration>, tapped: bool) -> anyhow::Result<()> {
        let ns: Vec<f64> = samples.iter().map(|d| d.as_nanos() as f64).collect();
        let ts: Vec<f64> = ns.iter().map(|ns| test.tokens() as f64 * 1e9 / ns).collect();
        let ((avg_ns, stddev_ns), (avg_ts, stddev_ts)) = (mean_and_deviation(&ns), mean_and_deviation(&ts));
        let Some(list) = &mut self.json else {
            output::print(&format!(
                "| {:<30} | {:>10} | {:>10} | {:<10} | {:>7} | {:>5} | {:>15} | {:>20} |\n",
                self.model_type,
                output::bytes(self.size),
                output::count(self.params),
                self.backend,
                self.threads,
                self.arith,
                format!("{}{}", test.name(), if tapped { " + taps" } else { "" }),
                format!("{avg_ts:.2} ± {stddev_ts:.2}"),
            ))?;
            return Ok(());
        };
        list.push(json!({
            "build": concat!("greta ", env!("CARGO_PKG_VERSION")),
            "cpu_info": self.device,
            "backends": self.backend,
            "model_filename": self.filename,
            "model_type": self.model_type,
            "model_size": self.size,
            "model_n_params": self.params,
            "n_batch": STEP,
            "n_ubatch": STEP,
            "n_threads": self.threads,
            "type_k": self.kv,
            "type_v": self.kv,
            "arith": self.arith,
            "n_ctx": self.context,
            "n_prompt": test.n_prompt,
            "n_gen": test.n_gen,
            "n_depth": test.depth,
            "n_sequences": test.sequences,
            "taps": tapped,
            "avg_ns": avg_ns.round() as u64,
            "stddev_ns": stddev_ns.round() as u64,
            "avg_ts": avg_ts,
            "stddev_ts": stddev_ts,
            "samples_ns": samples.iter().map(|d| d.as_nanos() as u64).collect::<Vec<_>>(),
            "samples_ts": ts,
        }));
        Ok(())
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.json {
            Some(list) => json::print(&list.into()),
            None => Ok(()),
        }
    }
}

/// Mean, and the standard deviation of a sample (n − 1), 0 for one value.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}
