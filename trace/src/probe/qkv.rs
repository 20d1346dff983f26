//! A layer's first norm and its three projections, prefill against decode.

use super::look::{Judged, Look, PHASES, said};
use super::{Probe, Row, Text};
use crate::TraceError;
use crate::judge::{Class, Culprit};
use greta_backend::Phase;

const POINTS: [&str; 4] = ["attn_norm", "q", "k", "v"];

pub(super) fn probe(look: &Look<'_>) -> Result<Probe, TraceError> {
    let nodes = POINTS.map(|p| look.find(&look.name(p)));
    let mut judged = Judged::default();
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for (p, prompt) in look.prompts() {
        let mae = POINTS.map(|point| look.apart(&look.name(point), p).map(|a| a.mae));
        let first = (0..4).find(|&i| mae[i].is_some_and(|m| m != 0.0));
        let known = first.map_or(mae.iter().all(Option::is_some), |i| mae[..i].iter().all(Option::is_some));
        let first = first.map(|i| POINTS[i]);
        rows.push(
            Row::default()
                .with("prompt", prompt.id.as_str())
                .with("norm_out MAE", mae[0])
                .with("q MAE", mae[1])
                .with("first mismatch", if known { first.unwrap_or("NONE") } else { "NOT_RECORDED" })
                .with("k MAE", mae[2])
                .with("v MAE", mae[3]),
        );
        if !known {
            judged.lacks(&look.name("attn_norm"), format!("{}: a row of a phase is not recorded whole", prompt.id));
        }
        let before = judged.findings.len();
        for (node, point) in nodes.iter().zip(POINTS) {
            match node {
                Ok(id) => PHASES.iter().for_each(|&phase| drop(judged.check(look, *id, p, phase))),
                Err(why) => judged.lacks(&look.name(point), why.to_string()),
            }
        }
        let input = nodes[0].as_ref().ok().and_then(|&id| look.judge.graph.operands(id).first().copied());
        let input = input.map(|v| look.judge.graph.value_name(v));
        all.push(Asked {
            id: &prompt.id,
            tokens: prompt.tokens.len(),
            first,
            wrong: judged.findings.len() > before,
            far: input.is_some_and(|i| look.is_far(look.apart(&i, p))),
        });
    }
    // The norm comes before what reads it, whichever phase or prompt is wrong.
    let place = |c: &Culprit| POINTS.iter().position(|p| c.node.ends_with(&format!(".{p}")));
    judged.findings.sort_by_key(place);
    let far = all.iter().any(|a| a.far);
    let text = interpret(look, &all, &judged.findings);
    judged.answer(look, "norm-qkv", rows, far, text)
}

/// A prompt, asked.
struct Asked<'a> {
    id: &'a str,
    tokens: usize,
    first: Option<&'a str>,
    wrong: bool,
    /// Whether the norm's own input differs more than kernels do.
    far: bool,
}

fn interpret(look: &Look<'_>, all: &[Asked<'_>], findings: &[Culprit]) -> Text {
    let Some(first) = findings.first() else {
        return match all.iter().find(|a| a.far || a.first.is_some()) {
            None => Text::new(
                "attn_norm, q, k and v are equal in both phases and within their bounds.",
                "attn_norm, q, k y v son iguales en ambas fases y están dentro de sus cotas.",
            ),
            Some(a) if a.far => Text::new(
                format!(
                    "The input of the norm differs already ({}): the cause lies before layer {}'s attention. `greta probe rmsnorm --point attn_norm --layer {}` walks up to it.",
                    a.id, look.layer, look.layer
                ),
                format!(
                    "La entrada de la norma ya difiere ({}): la causa está antes de la atención de la capa {}. `greta probe rmsnorm --point attn_norm --layer {}` llega hasta ella.",
                    a.id, look.layer, look.layer
                ),
            ),
            Some(a) => Text::new(
                format!(
                    "{} differs between phases within its bound ({}): no op is wrong.",
                    a.first.unwrap_or_default(),
                    a.id
                ),
                format!(
                    "{} difiere entre fases dentro de su cota ({}): ninguna operación está mal.",
                    a.first.unwrap_or_default(),
                    a.id
                ),
            ),
        };
    };
    let point = first.node.rsplit('.').next().unwrap_or(&first.node);
    let why = said(first);
    let of = |phase: Phase| {
        let begins = phase.name();
        findings.iter().any(|c| c.node == first.node && c.phase.starts_with(begins))
    };
    let (where_en, where_es) = match (of(Phase::Prefill), of(Phase::Decode)) {
        (true, false) => ("in prefill; decode is right", "en prefill; decode está bien"),
        (false, true) => ("in decode; prefill is right", "en decode; prefill está bien"),
        _ => ("in both phases: that they agree proves nothing", "en ambas fases: que coincidan no prueba nada"),
    };
    let mut text = Text::new(
        format!("{point} is wrong {where_en} ({}).", why.en),
        format!("{point} está mal {where_es} ({}).", why.es),
    );
    if point == "attn_norm" {
        return text.and(&Text::new(
            "The norm itself is at fault; q, k and v follow from it.",
            "La falla es de la norma misma; q, k y v la heredan.",
        ));
    }
    let norm_equal = all.iter().all(|a| a.first != Some("attn_norm"));
    if norm_equal {
        text = text.and(&Text::new(
            "The norm's output is equal in both phases and right.",
            "La salida de la norma es igual en ambas fases y correcta.",
        ));
    }
    if let Some(a) = all.iter().find(|a| a.wrong && a.first.is_none()) {
        text = text.and(&Text::new(
            format!("The table compares the last token alone: in {} other rows, or both phases, are wrong.", a.id),
            format!("La tabla compara solo el último token: en {} están mal otras filas, o ambas fases.", a.id),
        ));
    }
    let shortest = all.iter().filter(|a| a.wrong).map(|a| a.tokens).min().unwrap_or(0);
    let longest = all.iter().filter(|a| !a.wrong).map(|a| a.tokens).max();
    let only_long = longest.is_some_and(|n| n < shortest);
    let one_phase = of(Phase::Prefill) != of(Phase::Decode);
    let kernel = format!("`{}`", first.route);
    text.and(&match (only_long, one_phase, first.class) {
        (true, ..) => Text::new(
            format!(
                "Prompts of up to {} tokens are right and every prompt reads the same weights: the cause is the kernel {kernel} on its route for many rows (from {shortest} tokens on), not the weights.",
                longest.unwrap_or(0)
            ),
            format!(
                "Los prompts de hasta {} tokens están bien y todos leen los mismos pesos: la causa es el kernel {kernel} en su ruta para muchas filas (desde {shortest} tokens), no los pesos.",
                longest.unwrap_or(0)
            ),
        ),
        (_, true, _) => Text::new(
            format!("The other phase reads the same weights and is right: the cause is the kernel {kernel} or how it reads them, not the weights."),
            format!("La otra fase lee los mismos pesos y está bien: la causa es el kernel {kernel} o cómo los lee, no los pesos."),
        ),
        (.., Class::CWeightLayout) => Text::new(
            format!("Every phase and prompt reads the weight so: its layout is taken wrongly. `greta probe weights --layer {}` compares layouts.", look.layer),
            format!("Todas las fases y prompts leen así el peso: su disposición se interpreta mal. `greta probe weights --layer {}` compara disposiciones.", look.layer),
        ),
        _ => Text::new(
            format!("The cause is in what kernel {kernel} does."),
            format!("La causa está en lo que hace el kernel {kernel}."),
        ),
    })
}
