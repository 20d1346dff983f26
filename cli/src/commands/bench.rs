//! `greta bench`: speed, with llama-bench's names and definitions.

mod report;

use crate::args::Common;
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::progress::{Progress, Unit};
use crate::session::Loaded;
use crate::{output, taps};
use greta::backends::{Batch, RowsWanted, SeqId, Session, StepAt, TapRow, TapSink, Want};
use greta::graph::{Detail, TapMode, TapRequest, TapSpec};
use greta::{Context, EngineOptions};
use report::Report;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Measure speed: prompt processing (pp) and text generation (tg)
///
/// The tests are llama-bench's: pp N runs N random tokens as a prompt, tg N runs N single-token steps from an empty cache;
/// both give tokens a second, after one run that is not counted. Sampling is no part of it. With -d N the cache holds N
/// tokens before; with -s N so many sequences generate side by side, a token of each a step, and the largest logit of each is
/// what comes back.
///
/// With --taps each test is measured without taps and with them, in up to five turns of fresh engines: two at once would
/// compete for the caches with two copies of the weights.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta bench -m model.gguf -p 512 -n 128 -r 3 -t 2
  greta bench -p 128,512 -n 0 --json
  greta bench -p 0 -n 64 -d 4096             # deep in a context
  greta bench -p 0 -n 64 -d 128 -s 1,4,16    # sequences together
  greta bench -p 0 --taps 'blk.*.out'      # what a tap a layer costs")]
pub struct Bench {
    /// Tokens of the prompt; 0 leaves the test out
    #[arg(short = 'p', long, value_name = "N", value_delimiter = ',', default_value = "512")]
    n_prompt: Vec<usize>,
    /// Tokens to generate; 0 leaves the test out
    #[arg(short = 'n', long, value_name = "N", value_delimiter = ',', default_value = "128")]
    n_gen: Vec<usize>,
    /// Tokens in the cache before each test
    #[arg(short = 'd', long, value_name = "N", value_delimiter = ',', default_value = "0")]
    n_depth: Vec<usize>,
    /// Sequences that generate together
    #[arg(short, long, value_name = "N", value_delimiter = ',', default_value = "1", conflicts_with = "taps")]
    sequences: Vec<usize>,
    /// Runs of each test
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Measure with taps on these nodes as well; patterns as `greta trace` takes them
    #[arg(long, value_name = "PATTERN")]
    taps: Vec<String>,
    /// What the taps keep of a row: stats, sample:N or full
    #[arg(long, value_name = "DETAIL", default_value = "stats", requires = "taps")]
    detail: Detail,
    /// Tap what the fused plan really has
    #[arg(long, requires = "taps")]
    as_executed: bool,
    #[command(flatten)]
    common: Common,
}

/// Tokens in a step, llama-bench's `n_ubatch`.
const STEP: usize = 512;

/// Told how many tokens of the depth are in the cache, of how many; answers whether to go on.
type Filling<'a> = &'a dyn Fn(usize, usize) -> bool;

impl Bench {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let tests = self.tests()?;
        let longest = tests.iter().map(|t| t.depth.saturating_add(t.n_prompt.max(t.n_gen))).max().unwrap_or(0);
        let sequences = tests.iter().map(|t| t.sequences).max().unwrap_or(1);
        let model = self.common.open()?;
        let context = self.common.context.unwrap_or(longest);
        if longest > context || context > model.context() {
            let limit = context.min(model.context());
            anyhow::bail!("a test of {longest} tokens does not fit a context of {limit}; give smaller -p, -n and -d");
        }
        let options =
            EngineOptions { context: Some(context), max_tokens: STEP.max(sequences), ..self.common.engine_options() };
        let options = EngineOptions { sequences, max_rows: options.max_rows.max(sequences), ..options };
        let mut kinds = vec![options.clone()];
        if !self.taps.is_empty() {
            let spec = TapSpec { detail: self.detail, ..TapSpec::default() };
            let patterns = self.taps.iter().flat_map(|p| taps::split(p));
            let taps = patterns.map(|p| TapRequest::new(&p, spec.clone())).collect::<Result<_, _>>()?;
            let tap_mode = if self.as_executed { TapMode::AsExecuted } else { TapMode::Semantic };
            kinds.push(EngineOptions { taps, tap_mode, ..options.clone() });
        }
        let load = |options: &EngineOptions<'static>| self.common.load(&model, options.clone());
        // What the options leave open is the same in every engine.
        let mut loaded = load(&options)?;
        let guard = Guard::arm();
        let mut report = Report::new(self, &model, &loaded)?;
        for test in tests {
            let samples = self.measure(&test, &kinds, &mut loaded, &load, &guard)?;
            for (samples, tapped) in samples.into_iter().zip([false, true]) {
                report.add(&test, samples, tapped)?;
            }
        }
        report.finish()?;
        Ok(ExitCode::SUCCESS)
    }

    /// The times of a test's runs, of each kind of engine.
    fn measure(
        &self,
        test: &Test,
        kinds: &[EngineOptions<'static>],
        loaded: &mut Loaded,
        load: &dyn Fn(&EngineOptions<'static>) -> anyhow::Result<Loaded>,
        guard: &Guard,
    ) -> anyhow::Result<Vec<Vec<Duration>>> {
        let (runs, turns) = (self.repetitions, if kinds.len() > 1 { self.repetitions.min(5) } else { 1 });
        let progress = Progress::new("measuring", Unit::Things("runs"));
        let mut samples = vec![Vec::new(); kinds.len()];
        for turn in 0..turns {
            let part = runs * turn / turns..runs * (turn + 1) / turns;
            for (i, kind) in kinds.iter().enumerate() {
                if kinds.len() > 1 {
                    *loaded = load(kind)?;
                }
                // The first run of an engine is not counted.
                for run in std::iter::once(None).chain(part.clone().map(Some)) {
                    let tokens = random_tokens(test.tokens(), loaded.engine.model().vocab(), run.map_or(0, |n| n + 1));
                    let done = |samples: &[Vec<Duration>]| samples.iter().map(|s| s.len() as u64).sum();
                    let (before, all) = (done(&samples), (runs * kinds.len()) as u64);
                    let filling = |there: usize, depth: usize| {
                        let note = format!("{}: filling the cache, {there} of {depth} tokens", test.name());
                        progress.set_noted(before, all, &note);
                        !guard.hit()
                    };
                    let time = test.once(&mut loaded.context, &tokens, i > 0, guard, &filling)?;
                    if guard.hit() {
                        return Err(Interrupted.into());
                    }
                    samples[i].extend(run.map(|_| time));
                    progress.set_noted(done(&samples), all, &test.name());
                }
            }
        }
        Ok(samples)
    }

    fn tests(&self) -> anyhow::Result<Vec<Test>> {
        if self.repetitions == 0 {
            anyhow::bail!("-r 0: there is nothing to measure; give 1 or more");
        }
        if self.sequences.contains(&0) {
            anyhow::bail!("-s 0: a test has at least one sequence");
        }
        if self.sequences.iter().any(|&s| s > 1) && self.n_prompt.iter().any(|&n| n > 0) {
            output::warn("-s is for generation; prompts (-p) run in one sequence");
        }
        let mut tests = Vec::new();
        for &depth in &self.n_depth {
            let of = |n_prompt, n_gen, sequences| Test { n_prompt, n_gen, depth, sequences };
            tests.extend(self.n_prompt.iter().map(|&n| of(n, 0, 1)));
            let tg = self.n_gen.iter().flat_map(|&n| self.sequences.iter().map(move |&s| of(0, n, s)));
            tests.extend(tg);
        }
        tests.retain(|t| t.n_prompt + t.n_gen > 0);
        if tests.is_empty() {
            anyhow::bail!("-p 0 and -n 0: there is nothing to measure");
        }
        Ok(tests)
    }
}

/// One line of the table; one of the two is 0.
struct Test {
    n_prompt: usize,
    n_gen: usize,
    /// Tokens of each sequence before.
    depth: usize,
    sequences: usize,
}

impl Test {
    fn name(&self) -> String {
        let mut name = if self.n_gen == 0 { format!("pp{}", self.n_prompt) } else { format!("tg{}", self.n_gen) };
        if self.sequences > 1 {
            name += &format!(" x{}", self.sequences);
        }
        if self.depth > 0 {
            name += &format!(" @ d{}", self.depth);
        }
        name
    }

    fn tokens(&self) -> usize {
        self.n_prompt + self.n_gen * self.sequences
    }

    /// Fills the cache up to the depth, as far as it is not filled from the run before. Deep down that takes longer than
    /// what is measured, so it is told.
    fn dive(&self, session: &mut dyn Session, vocab: usize, filling: Filling<'_>) -> anyhow::Result<()> {
        for s in 0..self.sequences {
            let seq = SeqId(s);
            let mut there = session.kv().table().len(seq).min(self.depth);
            session.kv().truncate(seq, there)?;
            let tokens = random_tokens(self.depth, vocab, usize::MAX - s);
            for part in tokens[there..].chunks(STEP) {
                if !filling(s * self.depth + there, self.sequences * self.depth) {
                    return Err(Interrupted.into());
                }
                let mut batch = Batch::default();
                batch.append(session.kv(), seq, part, RowsWanted::None)?;
                session.run(&batch, Want::Nothing)?;
                there += part.len();
            }
        }
        Ok(())
    }

    /// A run of the test where the context's own bookkeeping does not reach: deep, or with several sequences.
    fn beside(&self, session: &mut dyn Session, tokens: &[u32], guard: &Guard) -> anyhow::Result<()> {
        if self.n_gen == 0 {
            let parts = tokens.len().div_ceil(STEP);
            for (i, part) in tokens.chunks(STEP).enumerate().take_while(|_| !guard.hit()) {
                let (rows, want) =
                    if i + 1 == parts { (RowsWanted::Last, Want::Logits) } else { (RowsWanted::None, Want::Nothing) };
                let mut batch = Batch::default();
                batch.append(session.kv(), SeqId(0), part, rows)?;
                session.run(&batch, want)?;
            }
            return Ok(());
        }
        let want = if self.sequences > 1 { Want::TopK(1) } else { Want::Logits };
        for step in tokens.chunks(self.sequences).take_while(|_| !guard.hit()) {
            let mut batch = Batch::default();
            for (s, token) in step.iter().enumerate() {
                batch.append(session.kv(), SeqId(s), std::slice::from_ref(token), RowsWanted::Last)?;
            }
            session.run(&batch, want)?;
        }
        Ok(())
    }

    fn once(
        &self,
        context: &mut Context,
        tokens: &[u32],
        tapped: bool,
        guard: &Guard,
        filling: Filling<'_>,
    ) -> anyhow::Result<Duration> {
        if self.depth > 0 || self.sequences > 1 {
            let vocab = context.model().vocab();
            let session = context.session();
            self.dive(session, vocab, filling)?;
            let start = Instant::now();
            self.beside(session, tokens, guard)?;
            let time = start.elapsed();
            for s in 0..self.sequences {
                session.kv().truncate(SeqId(s), self.depth)?;
            }
            return Ok(time);
        }
        context.truncate(0)?;
        for s in 0..context.session().kv().table().config().sequences {
            context.session().kv().truncate(SeqId(s), 0)?;
        }
        let start = Instant::now();
        let step = if self.n_gen == 0 { STEP } else { 1 };
        if tapped {
            let parts = tokens.len().div_ceil(step);
            for (i, part) in tokens.chunks(step).enumerate().take_while(|_| !guard.hit()) {
                // Of a prompt the last row's logits alone, as `prefill` does it.
                let rows = if self.n_gen > 0 || i + 1 == parts { RowsWanted::Last } else { RowsWanted::None };
                let (session, mut batch) = (context.session(), Batch::default());
                batch.append(session.kv(), SeqId(0), part, rows)?;
                session.run_tapped(&batch, Want::Logits, StepAt::of(&batch), &mut Count::default())?;
            }
        } else if self.n_gen == 0 {
            context.prefill(tokens, &mut |_, _| !guard.hit())?;
        } else {
            for token in tokens.chunks(1).take_while(|_| !guard.hit()) {
                context.step(token, RowsWanted::Last)?;
            }
        }
        let time = start.elapsed();
        if tapped {
            context.session().kv().truncate(SeqId(0), 0)?;
        }
        Ok(time)
    }
}

/// Takes rows, so that handing them over is measured too.
#[derive(Default)]
struct Count {
    rows: usize,
    values: usize,
}

impl TapSink for Count {
    fn row(&mut self, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.rows += 1;
        self.values += row.values.len();
        Ok(())
    }
}

/// The same on every machine; another sequence each run. (Knuth's multiplicative hash.)
fn random_tokens(n: usize, vocab: usize, run: usize) -> Vec<u32> {
    let hash = |i: usize| ((i as u64 + 1) * 0x9e37_79b9 + run as u64 * 0x85eb_ca6b) >> 7;
    (0..n).map(|i| (hash(i) % vocab.max(1) as u64) as u32).collect()
}
