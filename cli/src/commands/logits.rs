//! `greta logits`: the logits after a prompt's last token.

use crate::args::{Common, Prompt};
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::session::{self, Loaded};
use crate::{json, output};
use anyhow::Context as _;
use greta::Model;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Print the logits of the last position
///
/// The prompt is completed as `run` does it; --tokens takes ids as they are, which needs no vocabulary.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta logits \"The capital of France is\"
  greta logits --tokens 1,504,3575 --top 20 --arith exact --kv f32 --json
  greta logits --dump row.f32 Hi      # the whole row, little-endian f32")]
pub struct Logits {
    #[command(flatten)]
    prompt: Prompt,
    /// Wrap the prompt in the model's chat template, as the user's turn
    #[arg(long, conflicts_with = "tokens")]
    chat: bool,
    /// System message before it
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Token ids, taken as given
    #[arg(long, value_name = "ID", value_delimiter = ',', group = "source")]
    tokens: Option<Vec<u32>>,
    /// How many of the largest to print
    #[arg(long, value_name = "K", default_value_t = 10)]
    top: usize,
    /// Write the whole row to a file, as little-endian f32
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Logits {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let text = self.prompt.read()?;
        let model = self.common.open()?;
        let tokens = match &self.tokens {
            Some(ids) => ids.clone(),
            None => session::prompt(&model, session::tokenizer(&model)?, &text, self.chat, self.system.as_deref())?,
        };
        let mut loaded = self.common.load(&model, self.common.engine_options())?;
        let guard = Guard::arm();
        let row = session::prefill(&mut loaded.context, &tokens, &guard)?.ok_or(Interrupted)?;
        drop(guard);
        if let Some(path) = &self.dump {
            dump(path, &row)?;
        }
        self.show(&model, &loaded, &tokens, &row)?;
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, model: &Model, loaded: &Loaded, tokens: &[u32], row: &[f32]) -> anyhow::Result<()> {
        let bad = row.iter().filter(|v| !v.is_finite()).count();
        if bad > 0 {
            output::warn(&format!(
                "{bad} of {} logits are NaN or infinite; `greta inspect --check` looks for such weights",
                row.len()
            ));
        }
        let rms = (row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / row.len().max(1) as f64).sqrt();
        let top = largest(row, self.top);
        // A file without a vocabulary has no pieces, and needs none here.
        let tokenizer = model.tokenizer().ok();
        let piece = |id: u32| tokenizer.map(|t| String::from_utf8_lossy(&t.piece(id)).into_owned()).unwrap_or_default();
        if self.common.json {
            let top: Vec<_> =
                top.iter().map(|&id| json!({"id": id, "logit": row[id as usize], "piece": piece(id)})).collect();
            return json::print(
                &json!({"tokens": tokens, "top": top, "rms": rms, "settings": loaded.settings(&self.common)}),
            );
        }
        let mut rows = vec![["id", "logit", "piece"].map(String::from).to_vec()];
        rows.extend(
            top.iter().map(|&id| vec![id.to_string(), format!("{:.6}", row[id as usize]), format!("{:?}", piece(id))]),
        );
        let tail = format!("{} tokens, {} logits, rms {rms:.6}\n", tokens.len(), row.len());
        output::print(&(output::table(&rows, &[true, true, false]) + &tail))?;
        Ok(())
    }
}

/// Ids of the `n` largest, largest first, equal ones by id. NaN sorts as the largest, so that it is seen.
fn largest(row: &[f32], n: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    let at = |id: &u32| if row[*id as usize].is_nan() { f32::INFINITY } else { row[*id as usize] };
    ids.sort_by(|a, b| at(b).total_cmp(&at(a)).then(a.cmp(b)));
    ids.truncate(n);
    ids
}

fn dump(path: &Path, row: &[f32]) -> anyhow::Result<()> {
    let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(path, bytes).with_context(|| format!("{}: the logits can't be written", path.display()))
}
