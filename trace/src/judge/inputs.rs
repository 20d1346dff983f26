//! The graph's inputs, judged first: against the run's own record of its prompts.

use super::verdict::{Class, Culprit};
use crate::{Recording, Row};

/// The first input that is not what the prompt's record says.
pub(super) fn check(rec: &Recording) -> Option<Culprit> {
    let value = |row: &Row, ints: &[i32]| ints.get(row.data.start).copied();
    let tokens = rec.get("tokens");
    // Rows name the token they were fed even where the input itself was not tapped.
    let any = tokens.or_else(|| rec.series.iter().find(|s| !s.rows.is_empty()));
    for row in any.map_or(&[][..], |s| &s.rows) {
        let prompt = rec.info.prompts.get(row.at.prompt as usize)?;
        let fed = tokens.and_then(|s| value(row, &s.ints)).unwrap_or(row.at.token);
        if let Some(want) = prompt.token(row.at.position as usize).filter(|&w| w as i32 != fed) {
            let text = format!(
                "position {} of `{}` was fed token {fed}; the prompt's record says {want}",
                row.at.position, prompt.id
            );
            return Some(Culprit::input("tokens", Class::TraceMismatch, row.at, text));
        }
    }
    for row in rec.get("positions").map_or(&[][..], |s| &s.rows) {
        let got = value(row, &rec.get("positions")?.ints)?;
        if got != row.at.position as i32 {
            let text = format!("the position given is {got}, the token's is {}", row.at.position);
            return Some(Culprit::input("positions", Class::AInputSelection, row.at, text));
        }
    }
    for row in rec.get("seqs").map_or(&[][..], |s| &s.rows) {
        let got = value(row, &rec.get("seqs")?.ints)?;
        if got != row.at.seq as i32 {
            let text = format!("the sequence given is {got}, the token's is {}", row.at.seq);
            return Some(Culprit::input("seqs", Class::AInputSelection, row.at, text));
        }
    }
    // Two positions of a sequence never share a slot while both are in the cache.
    if let Some(slots) = rec.get("slots") {
        let mut at: std::collections::HashMap<(u32, u32, i32), u32> = Default::default();
        for row in &slots.rows {
            let slot = value(row, &slots.ints)?;
            let owner = *at.entry((row.at.prompt, row.at.seq, slot)).or_insert(row.at.position);
            if owner != row.at.position {
                let text = format!("slot {slot} holds position {owner} and is given to position {}", row.at.position);
                return Some(Culprit::input("slots", Class::FCache, row.at, text));
            }
        }
    }
    None
}
