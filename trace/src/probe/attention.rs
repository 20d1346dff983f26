//! Which layer's cache, head map and length attention used, and whether the phases stored the same rows.

use super::fit::{self, Candidate, NONE_FITS};
use super::layouts::with_scene;
use super::look::{Judged, Look, PHASES, said};
use super::{Probe, Row, Text};
use crate::TraceError;
use crate::hypotheses::Scene;
use crate::judge::Outcome;
use crate::recording::phase_name;
use greta_graph::Kind;
use greta_ops::{Attention, Op};

/// Hypotheses about another layer's rows, another head's, and more or fewer of them.
const LAYER: &str = "another layer's cache";
const HEADS: &str = "GQA head map";
const LENGTH: [&str; 4] = ["sequence length +1", "sequence length -1", "causal mask +1", "causal mask -1"];

/// The definition.
const OWN: &str = "as the graph says";

pub(super) fn probe(look: &Look<'_>) -> Result<Probe, TraceError> {
    let mut judged = Judged::default();
    let caches = ["k_cache", "v_cache"].map(|p| look.name(p));
    let name = look.name("attn");
    let id = look.find(&name)?;
    let Kind::Op(Op::Attention(op)) = &look.judge.graph.node(id).kind else {
        return Err(TraceError::NotJudged(format!("`{name}` is no attention")));
    };
    let mut rows = Vec::new();
    let mut wrong = None;
    let (mut stored_apart, mut far) = (None, false);
    for (p, prompt) in look.prompts() {
        for cache in &caches {
            let id = look.find(cache)?;
            PHASES.iter().for_each(|&phase| drop(judged.check(look, id, p, phase)));
        }
        let apart = |n: &str| look.apart(n, p);
        let (k, v, attn) = (apart(&caches[0]), apart(&caches[1]), apart(&name));
        if k.or(v).is_some_and(|a| a.mae != 0.0) && stored_apart.is_none() {
            stored_apart = Some(prompt.id.clone());
        }
        far |= look.is_far(k) || look.is_far(v) || look.is_far(attn);
        for phase in PHASES {
            let row = Row::default()
                .with("prompt", prompt.id.as_str())
                .with("layer", look.layer)
                .with("phase", phase_name(phase, 0))
                .with("k_rows_mae", k.map(|a| a.mae))
                .with("v_rows_mae", v.map(|a| a.mae))
                .with("attn MAE", attn.map(|a| a.mae));
            let Some(check) = judged.check(look, id, p, phase) else { continue };
            let fit = with_scene(look, &check, |scene| fit::fit(scene, OWN, others(scene)));
            // One key more among many may hardly weigh anything; what is within its bound is right.
            let right = check.outcome == Outcome::Clean && fit.tried[0].residual <= 1.0;
            let said = if right { OWN } else { fit.name() };
            let read = read(said, look.layer, op);
            if !right && wrong.is_none() {
                wrong = Some((phase_name(phase, 0), prompt.id.clone(), said.to_string()));
            }
            rows.push(
                row.with("layer_read", read[0].as_str())
                    .with("head_map", read[1].as_str())
                    .with("length", read[2].as_str())
                    .with("residual", if right { fit.tried[0].residual } else { fit.residual() }),
            );
        }
    }
    let text = match (&wrong, judged.findings.first()) {
        (Some((phase, prompt, how)), _) if how != NONE_FITS => Text::new(
            format!("{name} is explained in {phase} of {prompt} by: {how}. What the cache holds is as it was stored."),
            format!(
                "{name} se explica en {phase} de {prompt} por: {how}. Lo que guarda la caché es lo que se escribió."
            ),
        ),
        (_, Some(c)) => {
            let why = said(c);
            Text::new(
                format!("{} is wrong in {} of {} ({}).", c.node, c.phase, c.prompt, why.en),
                format!("{} está mal en {} de {} ({}).", c.node, c.phase, c.prompt, why.es),
            )
        }
        (Some((phase, prompt, _)), None) => Text::new(
            format!("No layer, head map or length explains {name} in {phase} of {prompt}."),
            format!("Ninguna capa, mapa de cabezas ni longitud explica {name} en {phase} de {prompt}."),
        ),
        (None, None) if far => Text::new(
            "Writing and reading the cache are right; what was given to them differs between phases, so the cause lies before attention.",
            "La escritura y la lectura de la caché están bien; lo que reciben difiere entre fases, así que la causa está antes de la atención.",
        ),
        (None, None) => match &stored_apart {
            Some(prompt) => Text::new(
                format!(
                    "The phases stored rows that differ within their bounds ({prompt}); attention read them rightly."
                ),
                format!(
                    "Las fases guardaron filas que difieren dentro de sus cotas ({prompt}); la atención las leyó bien."
                ),
            ),
            None => Text::new(
                "Both phases stored the same rows, and attention read its own layer, heads and length.",
                "Ambas fases guardaron las mismas filas, y la atención leyó su propia capa, cabezas y longitud.",
            ),
        },
    };
    judged.answer(look, "cache", rows, far, text)
}

fn others<'s>(scene: &'s Scene<'_>) -> Vec<Candidate<'s>> {
    fit::hypotheses(scene, &[&[LAYER, HEADS][..], &LENGTH].concat())
}

/// The columns of what was accepted: layer, head map, length.
fn read(said: &str, layer: u32, op: &Attention) -> [String; 3] {
    let group = op.heads / op.kv_heads.max(1);
    let mut own = [layer.to_string(), format!("h / {group}"), "n".to_string()];
    let detail = said.split_once(" (").map_or("", |(_, d)| d.trim_end_matches(')'));
    match said {
        NONE_FITS => [NONE_FITS; 3].map(String::from),
        _ if said.starts_with(LAYER) => {
            own[0] = detail.trim_start_matches("layer ").into();
            own
        }
        _ if said.starts_with(HEADS) => {
            own[1] = detail.into();
            own
        }
        _ if LENGTH.iter().any(|l| said.starts_with(l)) => {
            let by = if said.contains("+1") { "n + 1" } else { "n - 1" };
            own[2] = if detail.is_empty() { by.into() } else { format!("{by}, {detail}") };
            own
        }
        _ => own,
    }
}
