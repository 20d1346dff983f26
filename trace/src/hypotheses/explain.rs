//! Holds every prediction against what the op gave, and accepts one or none.

use super::scene::Scene;
use super::{ALL, Guess, Values, finite};
use crate::judge::{Class, Explained, Residual};
use greta_ops::DType;
use half::f16;

/// Columns of a large output that are looked at first, and then.
const FEW: usize = 8;
const MORE: usize = 64;

/// How much better than the runner-up and the plain reference an explanation must be.
pub const BETTER: f64 = 10.0;

/// Two predictions that differ by less than this part of the bound everywhere are one explanation under two names.
const SAME: f64 = 0.1;

/// One prediction, tried.
struct Tried {
    residual: Residual,
    /// Its hypothesis' name, without the parameter.
    name: &'static str,
    /// Its whole outputs; `None` where a few columns were enough to see that it does not fit.
    outs: Option<Vec<Guess>>,
}

/// Tries every hypothesis.
pub fn explain(scene: &Scene<'_>, control: Option<&Scene<'_>>) -> Explained {
    if let Some(found) = finite::explain(scene) {
        return found;
    }
    let every: Vec<usize> = (0..scene.want[0].cols()).collect();
    let stages = [probe(scene, FEW), probe(scene, MORE)];
    let mut tried: Vec<Tried> = Vec::new();
    for h in ALL.iter().flat_map(|room| room.iter()) {
        for p in (h.predict)(scene) {
            let (residual, outs) = match p.values {
                Values::Whole(outs) => (scene.residual(&outs), Some(outs)),
                Values::Columns(at) => {
                    // Columns left out can only make it worse, so past this it can neither be accepted nor matter.
                    let parts = stages.iter().map(|cols| scene.residual_at(cols, &at(cols)));
                    match parts.into_iter().find(|r| *r > BETTER) {
                        Some(part) => (part, None),
                        None => {
                            let whole = vec![at(&every)];
                            (scene.residual(&whole), Some(whole))
                        }
                    }
                }
            };
            let hypothesis = titled(h.name, &p.detail);
            tried.push(Tried { residual: Residual { hypothesis, class: h.class, residual }, name: h.name, outs });
        }
    }
    let want: Vec<Guess> = scene.want.iter().zip(&scene.bounds).map(|(t, b)| Guess::of(t, b.clone())).collect();
    accept(scene, control, tried, scene.residual(&want))
}

/// Whether a prediction leaves the control's rows as they are. One that says nothing of them does.
fn spares(control: Option<&Scene<'_>>, t: &Tried) -> bool {
    let Some(scene) = control else { return true };
    let every: Vec<usize> = (0..scene.want[0].cols()).collect();
    let h = ALL.iter().flat_map(|room| room.iter()).find(|h| h.name == t.name);
    let said = h.map_or(Vec::new(), |h| (h.predict)(scene));
    let wanted = |detail: &str| t.residual.hypothesis == titled(t.name, detail);
    said.into_iter().find(|p| wanted(&p.detail)).is_none_or(|p| match p.values {
        Values::Whole(outs) => scene.residual(&outs) <= 1.0,
        Values::Columns(at) => scene.residual(&[at(&every)]) <= 1.0,
    })
}

fn titled(name: &str, detail: &str) -> String {
    if detail.is_empty() { name.into() } else { format!("{name} ({detail})") }
}

fn accept(scene: &Scene<'_>, control: Option<&Scene<'_>>, tried: Vec<Tried>, plain: f64) -> Explained {
    let nothing = scene.outs.iter().all(|t| (0..t.rows()).all(|r| t.row(r).iter().all(|&v| v == 0.0)));
    // Of predictions of the same values, the one listed first stands for all.
    let best = tried.iter().min_by(|a, b| a.residual.residual.total_cmp(&b.residual.residual));
    let same = |a: &Tried, b: &Tried| match (&a.outs, &b.outs) {
        (Some(a), Some(b)) => scene.same(a, b),
        _ => false,
    };
    // Of those, one that leaves the rows that are right alone is the likelier.
    let alike: Vec<&Tried> =
        best.map_or(Vec::new(), |b| tried.iter().filter(|t| t.residual.residual <= 1.0 && same(t, b)).collect());
    let first = match alike.len() {
        0 | 1 => alike.first(),
        _ => alike.iter().find(|t| spares(control, t)).or(alike.first()),
    };
    let first = first.copied();
    let accepted = first.filter(|first| {
        let others = tried.iter().filter(|t| t.name != first.name && !same(t, first));
        let runner = others.map(|t| t.residual.residual).fold(f64::INFINITY, f64::min);
        let floor = first.residual.residual.max(1e-3) * BETTER;
        !nothing && floor <= plain && floor <= runner
    });
    let accepted = accepted.map(|t| t.residual.clone());
    let mut residuals: Vec<Residual> = tried.into_iter().map(|t| t.residual).collect();
    residuals.push(Residual { hypothesis: "plain reference".into(), class: Class::None, residual: plain });
    residuals.sort_by(|a, b| a.residual.total_cmp(&b.residual));
    residuals.truncate(12);
    match accepted {
        Some(r) => {
            let detail = format!("explained by: {}", r.hypothesis);
            Explained { class: r.class, hypothesis: Some(r.hypothesis), detail, residuals }
        }
        None => {
            let detail = "no hypothesis fits".into();
            Explained { class: Class::Unknown, hypothesis: None, detail, residuals }
        }
    }
}

/// The columns that are looked at first.
pub fn first_columns(scene: &Scene<'_>) -> Vec<usize> {
    probe(scene, MORE)
}

/// Columns to look at first: each row's worst, and some spread over all. Ascending.
fn probe(scene: &Scene<'_>, spread: usize) -> Vec<usize> {
    let n = scene.want[0].cols();
    // Not every one at the beginning of a tile or a head.
    let mut cols: Vec<usize> = (0..spread).map(|i| i * n / spread + i % 3).filter(|&c| c < n).collect();
    for r in 0..scene.rows.len() {
        let (got, want) = (scene.outs[0].row(r), scene.want[0].row(r));
        let ratio = |c: usize| (got[c] - want[c]).abs() / scene.bounds[0][r * n + c].max(f64::MIN_POSITIVE);
        cols.extend((0..n).max_by(|&a, &b| ratio(a).total_cmp(&ratio(b))));
    }
    cols.sort_unstable();
    cols.dedup();
    cols
}

impl Scene<'_> {
    /// The worst error over its bound that a prediction leaves; infinite if it says nothing.
    pub fn residual(&self, outs: &[Guess]) -> f64 {
        let mut worst = if outs.is_empty() { f64::INFINITY } else { 0.0f64 };
        for (o, guess) in outs.iter().enumerate().take(self.outs.len()) {
            let every: Vec<usize> = (0..self.outs[o].cols()).collect();
            worst = worst.max(self.residual_in(o, &every, guess));
        }
        worst
    }

    /// The same, at some columns of the first output.
    pub fn residual_at(&self, cols: &[usize], guess: &Guess) -> f64 {
        self.residual_in(0, cols, guess)
    }

    fn residual_in(&self, o: usize, cols: &[usize], guess: &Guess) -> f64 {
        let n = self.outs[o].cols();
        if guess.values.len() != self.rows.len() * cols.len() {
            return f64::INFINITY;
        }
        let half = self.dtype(o) == DType::F16;
        let mut worst = 0.0f64;
        for r in 0..self.rows.len() {
            let got = self.outs[o].row(r);
            for (i, &c) in cols.iter().enumerate() {
                let at = r * cols.len() + i;
                let (p, g) = (guess.values[at], got[c]);
                // A cache of halves stores the nearest one.
                if p == g || (p.is_nan() && g.is_nan()) || (half && f16::from_f64(p).to_f64() == g) {
                    continue;
                }
                let own = guess.bounds.get(at).copied().unwrap_or(0.0);
                let rounded = f64::from(f32::EPSILON) * p.abs() / 2.0;
                let bound = self.bounds[o][r * n + c].max(own).max(rounded).max(f64::MIN_POSITIVE);
                let e = (p - g).abs() / bound;
                worst = worst.max(if e.is_nan() { f64::INFINITY } else { e });
            }
        }
        worst
    }

    /// Whether two predictions can't be told apart.
    pub fn same(&self, a: &[Guess], b: &[Guess]) -> bool {
        a.iter().zip(b).enumerate().all(|(o, (a, b))| {
            a.values.len() == b.values.len()
                && a.values.iter().zip(&b.values).enumerate().all(|(i, (x, y))| {
                    x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= SAME * self.bounds[o][i]
                })
        })
    }
}
