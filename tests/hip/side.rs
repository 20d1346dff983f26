//! The step's side buffer: taps and the largest logits take turns in it, and neither is found in the other's place.

use crate::support::{Outcome, engine, synth_tiny};
use greta_backend::{Batch, RowsWanted, SeqId, StepAt, TapRow, TapSink, Want};
use greta_graph::{TapRequest, TapSpec};
use greta_hip::Hip;
use greta_models::EngineOptions;

/// What was tapped: value and hash; silent if it is not to listen.
struct Seen(Option<Vec<(u32, u64)>>);

impl TapSink for Seen {
    fn row(&mut self, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if let Some(list) = &mut self.0 {
            list.push((row.value.node.0, row.stats.hash));
        }
        Ok(())
    }

    fn active(&self) -> bool {
        self.0.is_some()
    }
}

/// Steps of one session with taps, with the largest logits, with both: each gives what it gives in a session of its own.
pub fn turns(hip: &Hip) -> Result<(), Outcome> {
    let every = TapRequest { pattern: "blk.*.out".parse()?, spec: TapSpec::default() };
    let engine = engine(&synth_tiny("Q4_0")?, hip, &EngineOptions { taps: vec![every], ..EngineOptions::default() })?;
    let kinds =
        [(true, 0), (false, 4), (true, 0), (true, 4), (false, 0), (true, 0), (false, 1000), (true, 4), (true, 0)];
    let mut shared = engine.session()?;
    let mut wrong = Vec::new();
    for (i, (tapped, top)) in kinds.into_iter().enumerate() {
        // The same token at the same place: whatever went before, its numbers are the same.
        let step = |session: &mut dyn greta_backend::Session| -> Result<_, Outcome> {
            session.kv().truncate(SeqId(0), 0)?;
            let (mut batch, mut seen) = (Batch::default(), Seen(tapped.then(Vec::new)));
            batch.append(session.kv(), SeqId(0), &[7], RowsWanted::Last)?;
            let want = if top > 0 { Want::TopK(top) } else { Want::Logits };
            let out = session.run_tapped(&batch, want, StepAt::of(&batch), &mut seen)?;
            Ok((seen.0, out.top, out.logits))
        };
        let (got, want) = (step(&mut *shared)?, step(&mut *engine.session()?)?);
        let whole = want.0.as_ref().is_none_or(|taps| !taps.is_empty()) && want.1.len() + want.2.len() > 0;
        if got != want || !whole {
            wrong.push(format!("step {i}, tapped {tapped}, top {top}: {:?}, expected {:?}", got.0, want.0));
        }
    }
    crate::support::all(wrong)
}
