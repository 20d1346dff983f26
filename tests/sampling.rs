//! The sampler: its settings, each filter against a plain definition, the draw, and what is refused.

use greta_models::sampling::{SampleError, Sampler, SamplerConfig, argmax};
use libtest_mimic::{Failed, Trial};
use std::fmt::Write as _;

/// Nothing filters and nothing bends: the softmax of the logits.
fn open() -> SamplerConfig {
    SamplerConfig { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: Some(7), ..SamplerConfig::default() }
}

/// All failures of a table, or none.
fn verdict(failures: &[String]) -> Result<(), Failed> {
    if failures.is_empty() {
        return Ok(());
    }
    let mut report = format!("{} wrong:", failures.len());
    for line in failures {
        write!(report, "\n  {line}")?;
    }
    Err(report.into())
}

/// How often each token comes in `n` draws, as shares.
fn shares(config: &SamplerConfig, logits: &[f32], n: usize) -> Result<Vec<f64>, Failed> {
    let mut sampler = Sampler::new(config.clone())?;
    let mut shares = vec![0.0; logits.len()];
    for _ in 0..n {
        shares[sampler.sample(logits, &[])? as usize] += 1.0 / n as f64;
    }
    Ok(shares)
}

/// Settings out of range are refused by the name of their flag.
fn validation() -> Result<(), Failed> {
    let d = SamplerConfig::default;
    let table: [(&str, SamplerConfig); 14] = [
        ("", d()),
        ("", SamplerConfig::greedy()),
        ("", open()),
        ("", SamplerConfig { top_p: 0.0, min_p: 1.0, top_k: usize::MAX, ..d() }),
        ("--temp", SamplerConfig { temperature: -0.1, ..d() }),
        ("--temp", SamplerConfig { temperature: f32::NAN, ..d() }),
        ("--temp", SamplerConfig { temperature: f32::INFINITY, ..d() }),
        ("--top-p", SamplerConfig { top_p: 1.01, ..d() }),
        ("--top-p", SamplerConfig { top_p: f32::NAN, ..d() }),
        ("--min-p", SamplerConfig { min_p: -0.01, ..d() }),
        ("--min-p", SamplerConfig { min_p: 2.0, ..d() }),
        ("--repeat-penalty", SamplerConfig { repeat_penalty: 0.0, ..d() }),
        ("--repeat-penalty", SamplerConfig { repeat_penalty: -1.0, ..d() }),
        ("--repeat-penalty", SamplerConfig { repeat_penalty: f32::INFINITY, ..d() }),
    ];
    let mut failures = Vec::new();
    for (flag, config) in table {
        let got = config.validate();
        let built = Sampler::new(config.clone()).map(|_| ());
        let said = got.as_ref().map_or_else(|e| e.to_string(), |()| String::new());
        if built.is_ok() != got.is_ok() || got.is_ok() != flag.is_empty() || !said.contains(flag) {
            failures.push(format!("{config:?}: “{said}”"));
        }
    }
    verdict(&failures)
}

/// The defaults are the documented ones.
fn defaults() -> Result<(), Failed> {
    let wanted = SamplerConfig {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.95,
        min_p: 0.05,
        repeat_penalty: 1.0,
        repeat_last_n: 64,
        seed: None,
    };
    if SamplerConfig::default() != wanted {
        return Err(format!("{:?}", SamplerConfig::default()).into());
    }
    Ok(())
}

/// Temperature 0 takes the largest logit, and of equal ones the first.
fn greedy() -> Result<(), Failed> {
    let inf = f32::INFINITY;
    let table: [(&[f32], u32); 6] = [
        (&[0.0], 0),
        (&[1.0, 3.0, 2.0], 1),
        (&[2.0, 3.0, 3.0], 1),
        (&[-1.0, -0.0, 0.0], 1),
        (&[-inf, -5.0, -inf], 1),
        (&[f32::MIN, f32::MAX], 1),
    ];
    let mut failures = Vec::new();
    for (logits, wanted) in table {
        let got = Sampler::new(SamplerConfig::greedy())?.sample(logits, &[])?;
        let first = argmax(logits)?;
        if got != wanted || first != wanted {
            failures.push(format!("{logits:?} → {got}, {first}"));
        }
    }
    verdict(&failures)
}

/// Rows that mean nothing are refused, whatever the settings.
fn refusals() -> Result<(), Failed> {
    let inf = f32::INFINITY;
    let table: [(&[f32], SampleError); 5] = [
        (&[], SampleError::Empty),
        (&[1.0, f32::NAN, f32::NAN], SampleError::NotANumber { token: 1 }),
        (&[inf, f32::NAN], SampleError::NotANumber { token: 1 }),
        (&[1.0, inf], SampleError::Infinite { token: 1 }),
        (&[-inf, -inf], SampleError::Infinite { token: 0 }),
    ];
    let mut failures = Vec::new();
    for config in [SamplerConfig::default(), SamplerConfig::greedy(), open()] {
        for (logits, wanted) in &table {
            let got = Sampler::new(config.clone())?.sample(logits, &[]);
            if got.as_ref() != Err(wanted) {
                failures.push(format!("{logits:?} → {got:?}"));
            }
        }
        let config = SamplerConfig { repeat_penalty: 1.5, ..config };
        let got = Sampler::new(config)?.sample(&[1.0, 2.0], &[2]);
        if got != Err(SampleError::HistoryOutOfRange { token: 2, size: 2 }) {
            failures.push(format!("history → {got:?}"));
        }
    }
    verdict(&failures)
}

/// Which tokens each filter leaves: those that come up in many draws.
fn filters() -> Result<(), Failed> {
    // Probabilities 0.4, 0.3, 0.15, 0.1, 0.05, out of order.
    let p = [0.1f32, 0.4, 0.05, 0.3, 0.15];
    let logits = p.map(f32::ln);
    let table: [(&str, SamplerConfig, &[usize]); 12] = [
        ("all", open(), &[0, 1, 2, 3, 4]),
        ("top-k 2", SamplerConfig { top_k: 2, ..open() }, &[1, 3]),
        ("top-k 9", SamplerConfig { top_k: 9, ..open() }, &[0, 1, 2, 3, 4]),
        ("top-k 1", SamplerConfig { top_k: 1, ..open() }, &[1]),
        ("top-p 0.69", SamplerConfig { top_p: 0.69, ..open() }, &[1, 3]),
        ("top-p 0.71", SamplerConfig { top_p: 0.71, ..open() }, &[1, 3, 4]),
        ("top-p 0", SamplerConfig { top_p: 0.0, ..open() }, &[1]),
        // Of the three that top-k leaves, two are 0.7/0.85 = 0.82.
        ("top-k, then top-p", SamplerConfig { top_k: 3, top_p: 0.8, ..open() }, &[1, 3]),
        ("min-p 0.3", SamplerConfig { min_p: 0.3, ..open() }, &[1, 3, 4]),
        ("min-p 1", SamplerConfig { min_p: 1.0, ..open() }, &[1]),
        // The temperature comes last: it must not change what the filters leave.
        ("hot", SamplerConfig { top_p: 0.69, temperature: 5.0, ..open() }, &[1, 3]),
        ("hot, min-p", SamplerConfig { min_p: 0.3, temperature: 5.0, ..open() }, &[1, 3, 4]),
    ];
    let mut failures = Vec::new();
    for (name, config, wanted) in table {
        let shares = shares(&config, &logits, 4000)?;
        let seen: Vec<usize> = (0..5).filter(|&i| shares[i] > 0.0).collect();
        if seen != wanted {
            failures.push(format!("{name}: {seen:?}, wanted {wanted:?}"));
        }
    }
    verdict(&failures)
}

/// Draws come as often as the softmax at that temperature says.
fn distribution() -> Result<(), Failed> {
    let logits = [0.0f32, 1.0, 2.0, -1.0, f32::NEG_INFINITY];
    let n = 40_000;
    let mut failures = Vec::new();
    for (temperature, top_k) in [(0.5f32, 0), (1.0, 0), (2.0, 0), (1.0, 4), (1e-30, 0)] {
        let got = shares(&SamplerConfig { temperature, top_k, ..open() }, &logits, n)?;
        let weights = logits.map(|l| (f64::from(l - 2.0) / f64::from(temperature)).exp());
        let total: f64 = weights.iter().sum();
        for (i, w) in weights.iter().enumerate() {
            let p = w / total;
            // Five standard deviations of a binomial share.
            if (got[i] - p).abs() > 5.0 * (p * (1.0 - p) / n as f64).sqrt() + 1e-9 {
                failures.push(format!("temperature {temperature}, token {i}: {} for {p}", got[i]));
            }
        }
    }
    verdict(&failures)
}

/// The kept tokens are those of a full sort, at sizes round the buffer's, with many ties.
fn top_k_is_a_sort() -> Result<(), Failed> {
    let mut state = 1u32;
    let logits: Vec<f32> = (0..5000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 24) % 100) as f32 / 10.0
        })
        .collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let mut failures = Vec::new();
    for k in [1, 2, 31, 32, 33, 63, 64, 65, 200, 2499, 2500, 4999, 5000, 6000] {
        // So hot that all kept tokens are equally likely.
        let config = SamplerConfig { top_k: k, temperature: 1e30, ..open() };
        let mut sampler = Sampler::new(config)?;
        let allowed = &order[..k.min(order.len())];
        let mut seen = vec![false; logits.len()];
        for _ in 0..(if k <= 65 { 20 * k } else { 500 }) {
            let token = sampler.sample(&logits, &[])? as usize;
            if !allowed.contains(&token) {
                failures.push(format!("k = {k}: token {token} is not among them"));
                break;
            }
            seen[token] = true;
        }
        let missed = allowed.iter().filter(|&&t| !seen[t]).count();
        if k <= 65 && missed > 0 {
            failures.push(format!("k = {k}: {missed} never came"));
        }
    }
    verdict(&failures)
}

/// The penalty moves the right logits, once, as far back as it should.
fn penalty() -> Result<(), Failed> {
    let logits = [3.0f32, 2.9, -1.0, 2.8];
    let last = usize::MAX;
    let table: [(f32, usize, &[u32], u32); 9] = [
        (1.0, 64, &[0, 1], 0),
        (1.5, 64, &[], 0),
        (1.5, 64, &[0], 1),
        (1.5, 64, &[0, 1], 3),
        (1.5, 1, &[0, 1], 0),
        (1.5, 0, &[0, 1], 0),
        (1.5, last, &[0, 1, 2, 2, 2], 3),
        // Twice in the history is penalised once: 3/1.03 = 2.91 stays ahead.
        (1.03, 64, &[0, 0, 0], 0),
        // Below 1 it is a reward.
        (0.5, 64, &[3], 3),
    ];
    let mut failures = Vec::new();
    for (repeat_penalty, repeat_last_n, history, wanted) in table {
        let config = SamplerConfig { repeat_penalty, repeat_last_n, ..SamplerConfig::greedy() };
        let got = Sampler::new(config)?.sample(&logits, history)?;
        if got != wanted {
            failures.push(format!("{repeat_penalty} {repeat_last_n} {history:?}: {got}"));
        }
    }
    // A negative logit moves down, not up.
    let config = SamplerConfig { repeat_penalty: 2.0, ..SamplerConfig::greedy() };
    if Sampler::new(config)?.sample(&[-1.0, -1.5], &[0])? != 1 {
        failures.push("a negative logit was raised".into());
    }
    verdict(&failures)
}

/// A seed fixes every draw; two seeds differ; a seed that was taken can be asked for again.
fn seeds() -> Result<(), Failed> {
    let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
    let run = |seed: Option<u64>| -> Result<(u64, Vec<u32>), Failed> {
        let mut sampler = Sampler::new(SamplerConfig { seed, ..open() })?;
        let tokens = (0..50).map(|_| sampler.sample(&logits, &[])).collect::<Result<_, _>>()?;
        Ok((sampler.seed(), tokens))
    };
    let (a, b, c) = (run(Some(1))?, run(Some(1))?, run(Some(2))?);
    let (d, e) = (run(None)?, run(None)?);
    let again = run(Some(d.0))?;
    let mut failures = Vec::new();
    for (ok, what) in [
        (a == b, "one seed, two sequences"),
        (a.1 != c.1, "two seeds, one sequence"),
        (d.1 != e.1, "no seed, yet the same sequence"),
        (again == d, "the reported seed gives another sequence"),
        // These must never change: runs are recorded by their seed.
        (a.1[..8] == FIRST_DRAWS, "the generator has changed"),
    ] {
        if !ok {
            failures.push(format!("{what}: {:?}", a.1));
        }
    }
    verdict(&failures)
}

/// The first draws of seed 1.
const FIRST_DRAWS: [u32; 8] = [30, 2, 22, 47, 18, 10, 64, 4];

/// Every test of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("sampling::validation", validation),
        Trial::test("sampling::defaults", defaults),
        Trial::test("sampling::greedy", greedy),
        Trial::test("sampling::refusals", refusals),
        Trial::test("sampling::filters", filters),
        Trial::test("sampling::distribution", distribution),
        Trial::test("sampling::top_k_is_a_sort", top_k_is_a_sort),
        Trial::test("sampling::penalty", penalty),
        Trial::test("sampling::seeds", seeds),
    ]
}
