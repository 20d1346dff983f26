//! Taps are nodes of the graph: a pattern of names puts them in, and a sink gets the rows they see.
use greta::backends::{Batch, RowsWanted, SeqId, StepAt, TapRow, TapSink, Want};
use greta::graph::{Detail, TapRequest, TapSpec};
use greta::synth::{self, SynthSpec};
use greta::{Engine, EngineOptions, Model};
use std::{error::Error, sync::Arc};

struct Print(Arc<dyn greta::backends::Executable>);

impl TapSink for Print {
    fn row(&mut self, r: &TapRow<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (name, s) = (self.0.plan().graph().value_name(r.value), r.stats);
        println!(
            "{name:<12} position {}  rms {:.4}  min {:.4}  max {:.4}  by {}",
            r.position,
            s.rms(),
            s.min,
            s.max,
            r.route
        );
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = tempfile::NamedTempFile::new()?.into_temp_path(); // a small model of random weights
    synth::write(&SynthSpec::preset("tiny").ok_or("no such preset")?, &file, &mut |_done, _all| true)?;
    let model = Arc::new(Model::open(&file)?);

    let taps = TapRequest::new("{blk.*.out,logits}", TapSpec { detail: Detail::Stats, ..TapSpec::default() })?;
    let options = EngineOptions { taps: vec![taps], ..EngineOptions::default() };
    let engine = Engine::new(model, &*greta::backend("cpu", &Default::default())?, &options)?;

    let (mut session, mut batch) = (engine.session()?, Batch::default());
    batch.append(session.kv(), SeqId(0), &[1, 2, 3, 4, 5], RowsWanted::Last)?;
    session.run_tapped(&batch, Want::Logits, StepAt::of(&batch), &mut Print(engine.executable().clone()))?;
    Ok(())
}
