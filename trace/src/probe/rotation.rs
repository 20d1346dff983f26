//! By which pairing and position queries and keys were rotated.

use super::fit::{self, Candidate, NONE_FITS};
use super::layouts::with_scene;
use super::look::{Judged, Look, PHASES, said};
use super::{Cell, Probe, Row, Text};
use crate::TraceError;
use crate::hypotheses::Scene;
use crate::recording::phase_name;
use greta_ops::{HostTensor, Op, Pairing, Rope};
use std::borrow::Cow;

pub(super) fn probe(look: &Look<'_>) -> Result<Probe, TraceError> {
    let mut judged = Judged::default();
    let (mut rows, mut wrong) = (Vec::new(), None);
    for point in ["q_rope", "k_rope"] {
        let name = look.name(point);
        let id = look.find(&name)?;
        for (p, prompt) in look.prompts() {
            for phase in PHASES {
                let Some(check) = judged.check(look, id, p, phase) else { continue };
                let mut own = String::new();
                if let greta_graph::Kind::Op(Op::Rope(r)) = &look.judge.graph.node(id).kind {
                    own = format!("{}, {:+}", pairing(r.pairing), 0);
                }
                let fit = with_scene(look, &check, |scene| fit::fit(scene, &own, turned(scene)));
                // A rotation that is right may be hard to tell from another, of positions that hardly turn.
                let right = check.outcome == crate::judge::Outcome::Clean && fit.tried[0].residual <= 1.0;
                let said = if right { own.as_str() } else { fit.name() };
                let (way, by) = said.rsplit_once(", ").unwrap_or((said, ""));
                if said != own && wrong.is_none() {
                    wrong = Some((name.clone(), phase_name(phase, 0), prompt.id.clone(), said.to_string()));
                }
                rows.push(
                    Row::default()
                        .with("prompt", prompt.id.as_str())
                        .with("phase", phase_name(phase, 0))
                        .with("node", point)
                        .with("pairing", way)
                        .with("position_offset", by.parse::<f64>().map_or(Cell::Missing, Cell::Number))
                        .with("mae", if right { fit.tried[0].mae } else { fit.mae() })
                        .with("residual", if right { fit.tried[0].residual } else { fit.residual() }),
                );
            }
        }
    }
    let text = match (&wrong, judged.findings.first()) {
        (None, None) => Text::new(
            "Queries and keys are rotated by the pairing the file wants, at their own positions.",
            "Consultas y claves se rotan con el apareamiento que pide el archivo, en sus propias posiciones.",
        ),
        (Some((node, phase, prompt, way)), _) if way != NONE_FITS => Text::new(
            format!("{node} is rotated as {way} (pairing, position offset) in {phase} of {prompt}."),
            format!("{node} se rota como {way} (apareamiento, desplazamiento de posición) en {phase} de {prompt}."),
        ),
        (_, Some(c)) => {
            let why = said(c);
            Text::new(
                format!("{} is wrong in {} of {}, by no pairing and position ({}).", c.node, c.phase, c.prompt, why.en),
                format!(
                    "{} está mal en {} de {}, por ningún apareamiento ni posición ({}).",
                    c.node, c.phase, c.prompt, why.es
                ),
            )
        }
        (Some((node, phase, prompt, _)), None) => Text::new(
            format!("No rotation fits {node} in {phase} of {prompt}."),
            format!("Ninguna rotación explica {node} en {phase} de {prompt}."),
        ),
    };
    judged.answer(look, "rope", rows, false, text)
}

fn pairing(p: Pairing) -> &'static str {
    match p {
        Pairing::Adjacent => "adjacent",
        Pairing::Halves => "halves",
    }
}

/// Every other pairing, offset and direction.
fn turned<'s>(scene: &'s Scene<'_>) -> Vec<Candidate<'s>> {
    let Op::Rope(rope) = scene.op else { return Vec::new() };
    let own = scene.ins[1].ints();
    let mut out = Vec::new();
    for way in [Pairing::Adjacent, Pairing::Halves] {
        for (inverse, by) in [(false, -1), (false, 0), (false, 1), (true, 0)] {
            if way == rope.pairing && !inverse && by == 0 {
                continue;
            }
            let list: Vec<i32> = own.iter().map(|p| if inverse { -p } else { p + by }).collect();
            let mut ins = scene.borrowed();
            ins[1] = Cow::Owned(HostTensor::int(&[list.len()], list));
            let op = Rope { pairing: way, ..rope.clone() };
            let name = format!("{}{}, {by:+}", pairing(way), if inverse { " inverse" } else { "" });
            out.push(Candidate::new(name, scene.predict("", op.into(), ins)));
        }
    }
    out
}
