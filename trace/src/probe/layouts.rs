//! In which layout a weight was read, by what came of it.

use super::fit::{self, Candidate, Fit, NONE_FITS};
use super::look::{Judged, Look, PHASES, said};
use super::{Probe, Row, Text};
use crate::TraceError;
use crate::hypotheses::{Guess, Prediction, Scene};
use crate::judge::{Culprit, NodeCheck};
use crate::recording::phase_name;
use greta_graph::{Kind, NodeId};
use greta_ops::Op;

/// The definition.
const ROW: &str = "row-major";
/// The other classic.
const COLUMN: &str = "column-major weight";

/// Layouts of a matrix that hypotheses know: order, tiles, packing, and other tensors.
const FAMILY: &[&str] = &[
    COLUMN,
    "weight tile transposed",
    "output tile transposed",
    "operand tiles transposed",
    "input tile transposed",
    "nibble order",
    "scale packing",
    "neighbour block's scale",
    "Q6_K low and high bits",
    "neighbour layer's weight",
    "another tensor of the layer",
];

pub(super) fn weights(look: &Look<'_>) -> Result<Probe, TraceError> {
    let mut judged = Judged::default();
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for (id, tensor) in products(look) {
        let head = head_dim(look, id);
        for (p, prompt) in look.prompts() {
            for phase in PHASES {
                let Some(check) = judged.check(look, id, p, phase) else { continue };
                let fit = with_scene(look, &check, |scene| {
                    let mut list = fit::hypotheses(scene, FAMILY);
                    list.extend(head.into_iter().flat_map(|d| permuted(scene, d)));
                    fit::fit(scene, ROW, list)
                });
                let place = format!("{} of {}", phase_name(phase, 0), prompt.id);
                if fit.name() != ROW {
                    wrong.push((tensor.clone(), place, short(fit.name())));
                }
                let row = Row::default()
                    .with("weight", tensor.as_str())
                    .with("prompt", prompt.id.as_str())
                    .with("phase", phase_name(phase, 0))
                    .with("layout_best", short(fit.name()));
                rows.push(numbers(row, &fit, true));
            }
        }
    }
    let text = interpret(&judged.findings, &wrong, rows.len());
    judged.answer(look, "weights", rows, false, text)
}

pub(super) fn embedding(look: &Look<'_>) -> Result<Probe, TraceError> {
    let id = look.find("embd")?;
    let mut judged = Judged::default();
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (p, prompt) in look.prompts() {
        for phase in PHASES {
            let Some(check) = judged.check(look, id, p, phase) else { continue };
            let fit = with_scene(look, &check, |scene| {
                let names = [FAMILY, &["another token's embedding"]].concat();
                fit::fit(scene, ROW, fit::hypotheses(scene, &names))
            });
            if fit.name() != ROW {
                wrong.push(("embd".into(), format!("{} of {}", phase_name(phase, 0), prompt.id), short(fit.name())));
            }
            let row = Row::default()
                .with("prompt", prompt.id.as_str())
                .with("phase", phase_name(phase, 0))
                .with("layout_best", short(fit.name()));
            rows.push(numbers(row, &fit, false));
        }
    }
    let text = interpret(&judged.findings, &wrong, rows.len());
    judged.answer(look, "embedding", rows, false, text)
}

/// The scene of a check's rows, wrong and right.
pub(super) fn with_scene(look: &Look<'_>, check: &NodeCheck, f: impl Fn(&Scene<'_>) -> Fit) -> Fit {
    let scene = Scene::at(&look.judge, check, &fit::rows(check));
    f(&scene)
}

fn numbers(row: Row, fit: &Fit, limit: bool) -> Row {
    let row = row.with("mae_row", fit.mae_of(ROW)).with("mae_col", fit.mae_of(COLUMN)).with("residual", fit.residual());
    let row = if limit { row.with("limit", fit.limit()) } else { row };
    row.with("runner_up", fit.runner_up().map_or("none".into(), |t| short(&t)))
}

/// A layout as the reports call it.
fn short(name: &str) -> String {
    name.replacen(COLUMN, "column-major", 1)
}

/// The layer's products with a weight of the file, and the weight's name without its layer.
fn products(look: &Look<'_>) -> Vec<(NodeId, String)> {
    let g = &look.judge.graph;
    let tensor = |mut id: NodeId| {
        loop {
            match &g.node(id).kind {
                Kind::Weight { tensor, .. } => return Some(tensor.clone()),
                Kind::Op(Op::Dequant(_)) => id = g.operands(id).first()?.node,
                _ => return None,
            }
        }
    };
    let mine = g.nodes().filter(|(_, n)| crate::judge::layer(&n.name) == Some(look.layer));
    let products = mine.filter(|(_, n)| matches!(n.kind, Kind::Op(Op::MatMul(_))));
    products
        .filter_map(|(id, _)| {
            let name = tensor(g.operands(id).first()?.node)?;
            let name = name.strip_prefix(&look.name("")).unwrap_or(&name);
            Some((id, name.strip_suffix(".weight").unwrap_or(name).to_string()))
        })
        .collect()
}

/// Values of a head, of a product whose rows are heads: q and k, and v.
fn head_dim(look: &Look<'_>, id: NodeId) -> Option<usize> {
    let g = &look.judge.graph;
    let point = g.node(id).name.rsplit('.').next()?;
    if !["q", "k", "v"].contains(&point) {
        return None;
    }
    match &g.node(g.find(&look.name("attn"))?).kind {
        Kind::Op(Op::Attention(a)) => Some(a.head_dim),
        _ => None,
    }
}

/// Rows of a weight in another order: pairs of a rotation laid out as the other pairing has them, and another head's rows.
fn permuted<'s>(scene: &'s Scene<'_>, d: usize) -> Vec<Candidate<'s>> {
    let n = scene.want[0].cols();
    if d < 2 || !n.is_multiple_of(d) {
        return Vec::new();
    }
    let half = d / 2;
    type From = Box<dyn Fn(usize) -> usize>;
    let in_head = move |f: fn(usize, usize) -> usize| -> From { Box::new(move |c| c - c % d + f(c % d, half)) };
    let list: [(&str, From); 4] = [
        ("rows permuted, halves read as pairs", in_head(|j, half| j / 2 + j % 2 * half)),
        ("rows permuted, pairs read as halves", in_head(|j, half| if j < half { 2 * j } else { 2 * (j - half) + 1 })),
        ("the next head's rows", Box::new(move |c| (c + d) % n)),
        ("the head's rows before", Box::new(move |c| (c + n - d) % n)),
    ];
    let make = |(name, from): (&str, From)| {
        let mut guess = Guess::default();
        for r in 0..scene.rows.len() {
            let plain = scene.plain(0, r);
            guess.values.extend((0..n).map(|c| plain.values[from(c)]));
            guess.bounds.extend((0..n).map(|c| plain.bounds[from(c)]));
        }
        Candidate::new(name, Prediction::whole("", vec![guess]))
    };
    list.into_iter().map(make).collect()
}

fn interpret(findings: &[Culprit], wrong: &[(String, String, String)], asked: usize) -> Text {
    let Some((tensor, place, layout)) = wrong.first() else {
        return Text::new(
            "Every weight was read as the file stores it: row-major.",
            "Todos los pesos se leyeron como los guarda el archivo: por filas.",
        );
    };
    let mut names: Vec<&str> = wrong.iter().map(|w| w.0.as_str()).collect();
    names.dedup();
    let names = names.join(", ");
    let mut text = match layout == NONE_FITS {
        true => Text::new(
            format!(
                "{tensor} fits no layout in {place}: the output is none of the predictions, so no layout is named."
            ),
            format!(
                "{tensor} no encaja en ninguna disposición en {place}: la salida no es ninguna de las predicciones, así que no se nombra ninguna."
            ),
        ),
        false => Text::new(
            format!("{tensor} was read as {layout} in {place}."),
            format!("{tensor} se leyó como {layout} en {place}."),
        ),
    };
    text = text.and(&Text::new(
        format!("Not row-major: {names}; {} of {asked} readings.", wrong.len()),
        format!("No por filas: {names}; {} de {asked} lecturas.", wrong.len()),
    ));
    match findings.first() {
        Some(c) => {
            let why = said(c);
            text.and(&Text::new(
                format!("The judge says of {}: {}.", c.node, why.en),
                format!("El juez dice de {}: {}.", c.node, why.es),
            ))
        }
        None => text.and(&Text::new(
            "Yet every product is within its bound: the rows at hand can't tell layouts apart.",
            "Aun así cada producto está dentro de su cota: estas filas no distinguen disposiciones.",
        )),
    }
}
