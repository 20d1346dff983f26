//! A norm: its input, weight, statistics and output in both phases, and whose fault a difference is.

use super::look::{Judged, Look, PHASES, said};
use super::{Cell, Point, Probe, Row, Text};
use crate::TraceError;
use crate::judge::{Class, Culprit, NodeCheck, Outcome, weight};
use greta_graph::{Kind, NodeId};
use greta_ops::Op;

pub(super) fn probe(look: &Look<'_>, point: Point) -> Result<Probe, TraceError> {
    let name = look.name(point.name());
    let id = look.find(&name)?;
    let upstream = look.upstream(id);
    let mut judged = Judged::default();
    let mut rows = Vec::new();
    let (mut unexplained, mut within) = (false, false);
    for (p, prompt) in look.prompts() {
        let own = PHASES.map(|phase| judged.check(look, id, p, phase));
        // Whatever comes before the norm is judged first: a norm can only be blamed for what it did itself.
        judged.findings.retain(|c| c.node != name || c.prompt != prompt.id);
        let culprit = look.first_wrong(&upstream, p)?;
        let n = Norm { look, id, own: &own, prompt: p };
        let (output, input) = (look.apart(&name, p), look.apart(&n.input(), p));
        let differs = output.is_none_or(|o| o.mae != 0.0);
        let far = look.is_far(output) || look.is_far(input);
        let bucket = match &culprit {
            Some(c) => c.class,
            None if far => Class::Unknown,
            None => Class::None,
        };
        if output.is_none() || input.is_none() {
            judged.lacks(&name, format!("{}: its rows are not recorded whole in both phases", prompt.id));
        }
        unexplained |= culprit.is_none() && far;
        within |= culprit.is_none() && differs && !far && output.is_some();
        rows.push(
            Row::default()
                .with("prompt", prompt.id.as_str())
                .with("input_mae", input.map(|a| a.mae))
                .with("weight_mae", n.weight_mae())
                .with("output_mae", output.map(|a| a.mae))
                .with("eps_match", !n.says(Class::BNormStats))
                .with("sumsq_delta", n.delta(|sum_sq, _, _| sum_sq))
                .with("inv_rms_delta", n.delta(|sum_sq, cols, eps| 1.0 / (sum_sq / cols + eps).sqrt()))
                .with("input_ptr_match", n.place(|r| r.buffer.to_string()))
                .with("input_offset_match", n.place(|r| r.offset))
                .with("weight_hash_match", !n.says(Class::CWeightLayout) && n.same_facts())
                .with("bucket", bucket.name())
                .with("culprit", culprit.as_ref().map_or(Cell::Missing, |c| c.node.as_str().into())),
        );
        judged.findings.extend(culprit);
    }
    let text = interpret(look, point, &judged.findings, unexplained, within);
    judged.answer(look, "rmsnorm", rows, unexplained, text)
}

impl From<bool> for Cell {
    fn from(b: bool) -> Cell {
        Cell::Flag(b)
    }
}

/// A norm on one prompt.
struct Norm<'l, 'a> {
    look: &'l Look<'a>,
    id: NodeId,
    own: &'l [Option<NodeCheck>; 2],
    prompt: u32,
}

impl Norm<'_, '_> {
    fn input(&self) -> String {
        let g = &self.look.judge.graph;
        g.operands(self.id).first().map_or(String::new(), |&v| g.value_name(v))
    }

    fn eps(&self) -> f64 {
        match &self.look.judge.graph.node(self.id).kind {
            Kind::Op(Op::RmsNorm(n)) => f64::from(n.eps),
            _ => 0.0,
        }
    }

    /// Whether the judge puts the norm's own error down to this class in either phase.
    fn says(&self, class: Class) -> bool {
        let wrong = self.own.iter().flatten().filter(|c| c.outcome != Outcome::Clean);
        wrong.into_iter().any(|c| self.look.judge.culprit(c).class == class)
    }

    /// How far the weight that the outputs speak of is from the file's: 0 unless the judge finds another weight, which is
    /// then worked out as output over normalised input.
    fn weight_mae(&self) -> Option<f64> {
        if !self.says(Class::CWeightLayout) {
            return Some(0.0);
        }
        let id = self.look.judge.graph.operands(self.id).get(1)?.node;
        let file = weight(&self.look.judge, id).ok()?;
        let mut worst = 0.0f64;
        for check in self.own.iter().flatten().filter(|c| c.outcome != Outcome::Clean) {
            let r = check.rows.len() - 1;
            let (x, y) = (check.ins[0].row(r), check.outs[0].row(r));
            let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
            let factor = 1.0 / (mean + self.eps()).sqrt();
            let all = x.iter().zip(y.iter()).zip(file.reals()).filter(|((x, _), _)| **x != 0.0);
            let (mut sum, mut n) = (0.0, 0.0);
            all.for_each(|((x, y), w)| {
                sum += (y / (x * factor) - w).abs();
                n += 1.0;
            });
            worst = worst.max(sum / f64::max(n, 1.0));
        }
        Some(worst)
    }

    /// The difference of something worked out from each phase's input: its sum of squares, its width and ε.
    fn delta(&self, of: fn(f64, f64, f64) -> f64) -> Option<f64> {
        let (series, a, b) = self.look.pair(&self.input(), self.prompt)?;
        let of = |r: &crate::Row| of(r.stats.sum_sq, series.cols as f64, self.eps());
        Some((of(a) - of(b)).abs())
    }

    fn place<T: PartialEq>(&self, of: impl Fn(&crate::Row) -> T) -> Option<bool> {
        let (_, a, b) = self.look.pair(&self.input(), self.prompt)?;
        Some(of(a) == of(b))
    }

    /// Whether the phases' records name one weight, as far as they name any.
    fn same_facts(&self) -> bool {
        let name = &self.look.judge.graph.node(self.id).name;
        let Some((_, a, b)) = self.look.pair(name, self.prompt) else { return true };
        let hash = |r: &crate::Row| r.facts.as_ref().and_then(|f| f.weight.as_ref()).map(|w| w.hash.clone());
        match (hash(a), hash(b)) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        }
    }
}

fn interpret(look: &Look<'_>, point: Point, findings: &[Culprit], unexplained: bool, within: bool) -> Text {
    let norm = look.name(point.name());
    let places = Text::new(
        "Buffers and offsets may differ between phases; that alone is no fault.",
        "Los búferes y desplazamientos pueden diferir entre fases; eso solo no es una falla.",
    );
    match findings.first() {
        Some(c) if c.node == norm => {
            let why = said(c);
            Text::new(
                format!("{norm} itself is wrong in {} of {} ({}): what comes before it is right.", c.phase, c.prompt, why.en),
                format!("{norm} misma está mal en {} de {} ({}): lo anterior está bien.", c.phase, c.prompt, why.es),
            )
        }
        Some(c) => {
            let why = said(c);
            Text::new(
                format!(
                    "{norm} does what it should with what it was given. The cause is `{}`, wrong in {} of {} ({}); its error reaches the norm as input.",
                    c.node, c.phase, c.prompt, why.en
                ),
                format!(
                    "{norm} hace lo debido con lo que recibe. La causa es `{}`, mal en {} de {} ({}); su error llega a la norma como entrada.",
                    c.node, c.phase, c.prompt, why.es
                ),
            )
        }
        None if unexplained => Text::new(
            format!("The input of {norm} differs between phases, and no op that is recorded before it is wrong: record more of what comes before, with every row."),
            format!("La entrada de {norm} difiere entre fases y ninguna operación registrada antes está mal: registre más de lo anterior, con todas las filas."),
        ),
        None if within => Text::new(
            format!("{norm} differs between phases no more than kernels of one arithmetic may; no op up to it is wrong."),
            format!("{norm} difiere entre fases no más de lo que pueden los kernels de una misma aritmética; ninguna operación hasta ella está mal."),
        )
        .and(&places),
        None => Text::new(
            format!("{norm} and its input are equal in both phases, and no op up to it is wrong."),
            format!("{norm} y su entrada son iguales en ambas fases, y ninguna operación hasta ella está mal."),
        )
        .and(&places),
    }
}
