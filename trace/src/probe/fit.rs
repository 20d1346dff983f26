//! Which of several predictions an op's output is.
//!
//! One is accepted only if it leaves no more than the op's bound **and** at least ten times less than the next best: the
//! better of two bad fits is none.

use crate::hypotheses::{ALL, BETTER, Guess, Prediction, Scene, Values, first_columns};
use crate::judge::NodeCheck;

/// What the table says where nothing is accepted.
pub(super) const NONE_FITS: &str = "NONE_FITS";

/// Rows that a prediction is held against: wrong ones, and right ones, which it has to explain as well.
const WRONG: usize = 4;
const RIGHT: usize = 3;

/// Something an op may have computed.
pub(super) struct Candidate<'s> {
    pub name: String,
    /// Candidates of one kind are parameters of each other, not rivals.
    pub kind: String,
    pub prediction: Prediction<'s>,
}

impl<'s> Candidate<'s> {
    /// One that is a rival of all others.
    pub fn new(name: impl Into<String>, prediction: Prediction<'s>) -> Candidate<'s> {
        let name = name.into();
        Candidate { kind: name.clone(), name, prediction }
    }
}

/// A candidate, tried.
pub(super) struct Tried {
    pub name: String,
    kind: String,
    /// The worst error over its bound.
    pub residual: f64,
    /// Mean absolute error, over the columns looked at.
    pub mae: f64,
    /// Its values, unless a few columns were enough to see that it does not fit.
    outs: Option<Vec<Guess>>,
}

/// What fits.
pub(super) struct Fit {
    /// Every candidate, the definition first.
    pub tried: Vec<Tried>,
    /// The one accepted.
    pub best: Option<usize>,
    /// The one with the least left over, accepted or not.
    pub nearest: usize,
    /// The best of its rivals.
    pub runner_up: Option<usize>,
}

impl Fit {
    /// The accepted candidate's name, or that none fits.
    pub fn name(&self) -> &str {
        self.best.map_or(NONE_FITS, |i| &self.tried[i].name)
    }

    /// What the accepted candidate, or the nearest, leaves.
    pub fn residual(&self) -> f64 {
        self.tried[self.best.unwrap_or(self.nearest)].residual
    }

    /// The mean absolute error of the accepted candidate, or of the nearest.
    pub fn mae(&self) -> f64 {
        self.tried[self.best.unwrap_or(self.nearest)].mae
    }

    /// The mean absolute error of a candidate.
    pub fn mae_of(&self, name: &str) -> Option<f64> {
        self.tried.iter().find(|t| t.name == name).map(|t| t.mae)
    }

    /// The rival, with what it leaves.
    pub fn runner_up(&self) -> Option<String> {
        let t = &self.tried[self.runner_up?];
        Some(format!("{} ({:.1e})", t.name, t.residual))
    }

    /// The largest residual that would have been accepted.
    pub fn limit(&self) -> f64 {
        self.runner_up.map_or(1.0, |i| f64::min(1.0, self.tried[i].residual / BETTER))
    }
}

/// The rows of a check that candidates are held against.
pub(super) fn rows(check: &NodeCheck) -> Vec<usize> {
    let mut wrong: Vec<usize> = (0..check.rows.len()).filter(|&i| check.errors[i].ratio > 1.0).collect();
    wrong.sort_by(|&a, &b| check.errors[b].ratio.total_cmp(&check.errors[a].ratio));
    wrong.truncate(WRONG);
    let right = (0..check.rows.len()).rev().filter(|&i| check.errors[i].ratio <= 1.0);
    let right: Vec<usize> = right.take(RIGHT).collect();
    wrong.extend(right);
    wrong
}

/// The predictions of hypotheses of these names.
pub(super) fn hypotheses<'s>(scene: &'s Scene<'_>, names: &[&str]) -> Vec<Candidate<'s>> {
    let mut out = Vec::new();
    for name in names {
        for h in ALL.iter().flat_map(|room| room.iter()).filter(|h| h.name == *name) {
            for prediction in (h.predict)(scene) {
                let name = match prediction.detail.as_str() {
                    "" => h.name.to_string(),
                    detail => format!("{} ({detail})", h.name),
                };
                out.push(Candidate { name, kind: h.name.into(), prediction });
            }
        }
    }
    out
}

/// Tries the definition, under this name, and the candidates.
pub(super) fn fit<'s>(scene: &'s Scene<'_>, definition: &str, candidates: Vec<Candidate<'s>>) -> Fit {
    let first = first_columns(scene);
    let every: Vec<usize> = (0..scene.want[0].cols()).collect();
    let want: Vec<Guess> = scene.want.iter().zip(&scene.bounds).map(|(t, b)| Guess::of(t, b.clone())).collect();
    let mut tried = vec![Tried {
        name: definition.into(),
        kind: definition.into(),
        residual: scene.residual(&want),
        mae: mae(scene, &every, &want[0]),
        outs: Some(want),
    }];
    for c in candidates {
        let (residual, mae, outs) = match c.prediction.values {
            Values::Whole(outs) => {
                let mae = outs.first().map_or(f64::INFINITY, |g| mae(scene, &every, g));
                (scene.residual(&outs), mae, Some(outs))
            }
            Values::Columns(at) => {
                let part = at(&first);
                match scene.residual_at(&first, &part) {
                    // Columns left out can only make it worse.
                    r if r.is_nan() || r > BETTER => (r, mae(scene, &first, &part), None),
                    _ => {
                        let whole = vec![at(&every)];
                        (scene.residual(&whole), mae(scene, &every, &whole[0]), Some(whole))
                    }
                }
            }
        };
        tried.push(Tried { name: c.name, kind: c.kind, residual, mae, outs });
    }
    accept(scene, tried)
}

fn accept(scene: &Scene<'_>, tried: Vec<Tried>) -> Fit {
    let least = (0..tried.len()).min_by(|&a, &b| tried[a].residual.total_cmp(&tried[b].residual)).unwrap_or(0);
    let same = |a: usize, b: usize| match (&tried[a].outs, &tried[b].outs) {
        (Some(x), Some(y)) => a == b || scene.same(x, y),
        _ => a == b,
    };
    // Of predictions of the same values, the one listed first stands for all.
    let nearest = (0..tried.len()).find(|&i| tried[i].residual <= 1.0 && same(i, least)).unwrap_or(least);
    let rivals = (0..tried.len()).filter(|&i| tried[i].kind != tried[nearest].kind && !same(i, nearest));
    let runner_up = rivals.min_by(|&a, &b| tried[a].residual.total_cmp(&tried[b].residual));
    // A window of zeros matches nothing.
    let nothing = scene.outs.iter().all(|t| (0..t.rows()).all(|r| t.row(r).iter().all(|&v| v == 0.0)));
    let own = tried[nearest].residual;
    let rival = runner_up.map_or(f64::INFINITY, |i| tried[i].residual);
    let fits = !nothing && own <= 1.0 && own.max(1e-3) * BETTER <= rival;
    Fit { best: fits.then_some(nearest), nearest, runner_up, tried }
}

fn mae(scene: &Scene<'_>, cols: &[usize], guess: &Guess) -> f64 {
    if guess.values.len() != scene.rows.len() * cols.len() || guess.values.is_empty() {
        return f64::INFINITY;
    }
    let mut sum = 0.0;
    for r in 0..scene.rows.len() {
        let got = scene.outs[0].row(r);
        for (i, &c) in cols.iter().enumerate() {
            let (p, g) = (guess.values[r * cols.len() + i], got[c]);
            sum += if p == g { 0.0 } else { (p - g).abs() };
        }
    }
    let mae = sum / guess.values.len() as f64;
    if mae.is_nan() { f64::INFINITY } else { mae }
}
