//! Which row of one run belongs to which row of the other.

use super::select::{Selector, last_position};
use crate::{At, PromptInfo, Recording, Row, Series};
use greta_backend::Phase;
use greta_graph::{Input, NodeId};
use std::collections::{HashMap, HashSet};

/// A side of a comparison.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub rec: &'a Recording,
    pub select: Selector,
}

/// The joined rows of one value of one prompt.
pub(super) struct Joined<'a> {
    pub a: &'a Series,
    pub b: &'a Series,
    pub rows: Vec<(&'a Row, &'a Row)>,
}

/// A prompt that both runs have.
pub(super) struct Pair<'a> {
    pub id: &'a str,
    pub a: u32,
    pub b: u32,
    /// Why the runs are unlike from this position on.
    pub unlike: Option<(u32, String)>,
    pub values: Vec<Joined<'a>>,
    /// Values of both sides no row of which has a partner, with the positions there are.
    pub apart: Vec<String>,
}

/// Inputs that say where a row lies in a step or a cache, not what it is; two right runs may differ in them.
const PLACES: [Input; 2] = [Input::Slots, Input::RowsWanted];

fn is_place(s: &Series) -> bool {
    s.op == "input" && PLACES.iter().any(|p| p.name() == s.name)
}

/// The values both runs have, in the order of the graph of whichever run has one.
pub(super) fn order<'a>(a: &'a Recording, b: &'a Recording) -> Vec<(&'a Series, &'a Series)> {
    let values = a.series.iter().filter(|s| !is_place(s));
    let mut list: Vec<_> = values.filter_map(|s| b.get(&s.name).map(|t| (s, t))).collect();
    if let Some(g) = a.graph.as_ref().or(b.graph.as_ref()) {
        // Stable: a foreign name that the graph lacks stays where its run had it, at the end.
        list.sort_by_key(|(s, _)| (g.find(&s.node).unwrap_or(NodeId(u32::MAX)), s.out));
    }
    list
}

/// The prompts that both runs have, joined.
pub(super) fn pairs<'a>(a: Side<'a>, b: Side<'a>) -> Vec<Pair<'a>> {
    let values = order(a.rec, b.rec);
    let find = |id: &str| b.rec.info.prompts.iter().position(|p| p.id == id);
    let both = a.rec.info.prompts.iter().enumerate().filter_map(|(i, p)| Some((i, find(&p.id)?, p)));
    both.map(|(i, j, p)| {
        let unlike = unlike(p, &b.rec.info.prompts[j]);
        let mut pair = Pair { id: &p.id, a: i as u32, b: j as u32, unlike, values: Vec::new(), apart: Vec::new() };
        pair.join(a, b, &values);
        pair
    })
    .collect()
}

/// From which position on two prompts' tokens differ, as far as both are known.
fn unlike(a: &PromptInfo, b: &PromptInfo) -> Option<(u32, String)> {
    if a.tokens.is_empty() || b.tokens.is_empty() {
        return None;
    }
    if a.tokens != b.tokens {
        let at = a.tokens.iter().zip(&b.tokens).take_while(|(x, y)| x == y).count();
        let word = |p: &PromptInfo| p.tokens.get(at).map_or("the end".into(), |t| format!("token {t}"));
        let text = format!("the prompts differ at position {at}: {} in A, {} in B", word(a), word(b));
        // A shorter prompt is another prompt, though its rows may be the same.
        return Some((0, text));
    }
    let at = a.decoded.iter().zip(&b.decoded).position(|(x, y)| x != y)?;
    let position = a.tokens.len() + at;
    let text = format!("decode{} was fed token {} in A, {} in B", at + 1, a.decoded[at], b.decoded[at]);
    Some((position as u32, text))
}

type Key = (Option<Phase>, u32, u32);

impl<'a> Pair<'a> {
    fn join(&mut self, a: Side<'a>, b: Side<'a>, values: &[(&'a Series, &'a Series)]) {
        let by_phase = (a.select, b.select) == (Selector::All, Selector::All);
        let key = |r: &Row| -> Key { (by_phase.then_some(r.at.phase), r.at.seq, r.at.position) };
        let (last_a, last_b) = (last_position(a.rec, self.a), last_position(b.rec, self.b));
        for &(s, t) in values {
            let take = |s: &'a Series, side: Side<'_>, prompt: u32, last| -> Vec<&'a Row> {
                s.rows.iter().filter(|r| r.at.prompt == prompt && side.select.takes(r, last)).collect()
            };
            let (rows_a, rows_b) = (take(s, a, self.a, last_a), take(t, b, self.b, last_b));
            if rows_a.is_empty() || rows_b.is_empty() {
                continue;
            }
            let by_key: HashMap<Key, &Row> = rows_b.iter().map(|r| (key(r), *r)).collect();
            let (mut rows, mut met) = (Vec::new(), false);
            for ra in &rows_a {
                let rb = by_key.get(&key(ra)).copied().or_else(|| unplaced(ra, &rows_a, &rows_b, by_phase));
                let Some(rb) = rb else { continue };
                met = true;
                if self.stays_like(ra, rb) {
                    rows.push((*ra, rb));
                }
            }
            if !met {
                self.apart.push(format!("{}: {} in A, {} in B", s.name, places(&rows_a), places(&rows_b)));
            } else if !rows.is_empty() {
                self.values.push(Joined { a: s, b: t, rows });
            }
        }
    }

    /// Whether two rows at one place may be compared; if their tokens differ, the prompt is unlike from there on.
    fn stays_like(&mut self, a: &Row, b: &Row) -> bool {
        if a.at.token >= 0 && b.at.token >= 0 && a.at.token != b.at.token {
            let position = a.at.position;
            if self.unlike.as_ref().is_none_or(|(p, _)| *p > position) {
                let text = format!("position {position} was fed token {} in A, {} in B", a.at.token, b.at.token);
                self.unlike = Some((position, text));
            }
            return false;
        }
        let position = if a.at.position == At::NO_POSITION { b.at.position } else { a.at.position };
        self.unlike.as_ref().is_none_or(|(p, _)| position < *p)
    }
}

/// The partner of a row where one side does not tell positions: there must be one row on each side.
fn unplaced<'a>(row: &Row, rows_a: &[&'a Row], rows_b: &[&'a Row], by_phase: bool) -> Option<&'a Row> {
    let like = |r: &&&Row| !by_phase || r.at.phase == row.at.phase;
    let (mut of_a, mut of_b) = (rows_a.iter().filter(like), rows_b.iter().filter(like));
    let (Some(_), None, Some(only), None) = (of_a.next(), of_a.next(), of_b.next(), of_b.next()) else { return None };
    let unknown = row.at.position == At::NO_POSITION || only.at.position == At::NO_POSITION;
    unknown.then_some(*only)
}

fn places(rows: &[&Row]) -> String {
    let list: Vec<String> = rows.iter().take(4).map(|r| r.at.position.to_string()).collect();
    let more = if rows.len() > 4 { " …" } else { "" };
    format!("position {}{more}", list.join(", "))
}

/// Names of values that one side alone recorded in what is compared.
pub(super) fn only(this: Side<'_>, other: Side<'_>) -> Vec<String> {
    let there: HashSet<&str> = recorded(other);
    let mut list: Vec<&str> = recorded(this).into_iter().filter(|n| !there.contains(n)).collect();
    list.sort_unstable();
    list.into_iter().map(String::from).collect()
}

fn recorded<'a>(side: Side<'a>) -> HashSet<&'a str> {
    // The last position matters only to one of the selectors, and not to whether a value was recorded at all.
    let any = |s: &&Series| !is_place(s) && s.rows.iter().any(|r| side.select.takes(r, last_position_of(side, r)));
    side.rec.series.iter().filter(any).map(|s| s.name.as_str()).collect()
}

fn last_position_of(side: Side<'_>, row: &Row) -> Option<u32> {
    match side.select {
        Selector::PrefillLast => Some(row.at.position),
        _ => None,
    }
}
