//! A gather of another row.

use super::scene::Scene;
use super::{Guess, Hypothesis, Prediction};
use crate::judge::Class;
use greta_ops::{Data, HostTensor, Op, quant};

pub(super) const ROOM: &[Hypothesis] =
    &[Hypothesis { name: "another token's embedding", class: Class::AInputSelection, predict: token }];

/// The table and the ids, if the node looks tokens up.
fn lookup<'s>(scene: &'s Scene<'_>) -> Option<(&'s HostTensor, &'s [i32])> {
    match scene.op {
        Op::Embed(_) if !scene.is_row_operand(scene.operands()[0]) => Some((&scene.ins[0], scene.ins[1].ints())),
        _ => None,
    }
}

fn token<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some((table, ids)) = lookup(scene) else { return Vec::new() };
    let prompt = scene.judge.recording.info.prompts.get(scene.rows[0].prompt as usize);
    let mut out = Vec::new();
    for by in [1i64, -1] {
        // A prompt's ends have one neighbour; such a row can't be explained by the other.
        let beside = |at: &crate::At| prompt?.token((i64::from(at.position) + by).try_into().ok()?).map(|t| t as i32);
        let list: Option<Vec<i32>> = scene.rows.iter().map(beside).collect();
        out.extend(list.and_then(|l| gathered(scene, format!("the token at position {by:+}"), table, &l)));
    }
    for by in [1, -1] {
        let list: Vec<i32> = ids.iter().map(|i| i + by).collect();
        out.extend(gathered(scene, format!("id {by:+}"), table, &list));
    }
    let found: Option<Vec<i32>> = (0..scene.rows.len()).map(|r| search(table, &scene.outs[0].row(r))).collect();
    if let Some(list) = found.filter(|l| l != ids) {
        let names = list.iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        out.extend(gathered(scene, format!("id {names}"), table, &list));
    }
    out
}

fn gathered<'s>(_: &'s Scene<'_>, detail: String, table: &HostTensor, ids: &[i32]) -> Option<Prediction<'s>> {
    let mut guess = Guess::default();
    for &id in ids {
        let id = usize::try_from(id).ok().filter(|&i| i < table.rows())?;
        guess.values.extend_from_slice(&table.row(id));
    }
    Some(Prediction::whole(detail, vec![guess]))
}

/// The row of the table that holds these very values.
fn search(table: &HostTensor, row: &[f64]) -> Option<i32> {
    let same = |id: usize| table.row(id).as_ref() == row;
    let found = match &table.data {
        Data::Packed(dtype, bytes) => {
            // A row's first block is enough to leave nearly all of them out.
            let len = dtype.block_len().max(16).min(row.len());
            let mut first = vec![0f32; len];
            let size = dtype.row_bytes(len)?;
            (0..table.rows()).find(|&id| {
                quant::dequantize_row(*dtype, &table.packed_row(*dtype, bytes, id)[..size], &mut first);
                first.iter().zip(row).all(|(a, b)| f64::from(*a) == *b) && same(id)
            })
        }
        _ => (0..table.rows()).find(|&id| same(id)),
    };
    found.map(|id| id as i32)
}
