//! What a step launches beside the plan's ops: kernels that look at tapped rows, and those that pick the largest logits.
//!
//! All of them leave what they find in the step's side buffer: first the lists of rows, which the host writes, then what
//! kernels write, without gaps, so that one read brings it.

use super::{HipSession, StepLaunches};
use crate::executable::{Ready, Stage};
use crate::lower::{self, STATS_BYTES, Step, TopK};
use crate::taps::{Room, Row, TapPoint};
use greta_backend::{BackendError, Batch, Phase, StepAt, TapSink};
use std::sync::Arc;

/// Kinds of steps that are kept.
const KEPT: usize = 8;

/// All that decides these launches, apart from the plan.
#[derive(Clone, PartialEq)]
pub(super) struct ExtraKey {
    pub step: Step,
    pub phase: Phase,
    /// Rows of each tap; none where nobody listens.
    pub rows: Vec<usize>,
    /// How many of the largest logits; 0: all of them or none.
    pub top: usize,
}

/// A tap in a step.
pub(super) struct Tapped {
    pub room: Room,
    /// The kernels of the op whose value it is.
    pub route: String,
    pub ready: Vec<Ready>,
}

/// What steps of one kind launch beside their ops.
pub(super) struct Extra {
    /// No other has it, in this session.
    pub id: u64,
    key: ExtraKey,
    pub taps: Vec<Tapped>,
    pub top: Option<(TopK, u64)>,
    pub top_ready: Vec<Ready>,
    /// Bytes of the lists, which come first.
    pub lists: u64,
    /// Where what kernels find begins and ends.
    pub found: [u64; 2],
    /// Bytes of scratch the kernels use.
    pub scratch: u64,
}

/// Those that are kept.
#[derive(Default)]
pub(super) struct Extras {
    known: Vec<Arc<Extra>>,
    made: u64,
}

impl HipSession {
    /// Every tap of the plan, in order.
    pub(super) fn points(&self) -> impl Iterator<Item = &TapPoint> {
        self.model.stages.iter().filter_map(|s| match s {
            Stage::Tap(point) => Some(point),
            Stage::Op(_) => None,
        })
    }

    /// The rows of each tap; none where nobody listens.
    pub(super) fn tapped(&self, at: StepAt, batch: &Batch, sink: &dyn TapSink) -> Vec<Vec<Row>> {
        match sink.active() {
            true => self.points().map(|p| p.rows(at, batch)).collect(),
            false => Vec::new(),
        }
    }

    /// The launches of such a step, made when it is the first.
    pub(super) fn extra(&mut self, key: ExtraKey, launches: &StepLaunches) -> Result<Arc<Extra>, BackendError> {
        if let Some(known) = self.extras.known.iter().find(|e| e.key == key) {
            return Ok(known.clone());
        }
        let made = Arc::new(self.make_extra(key, launches)?);
        self.extras.made += 1;
        if self.extras.known.len() >= KEPT {
            self.extras.known.remove(0);
        }
        self.extras.known.push(made.clone());
        Ok(made)
    }

    fn make_extra(&self, key: ExtraKey, launches: &StepLaunches) -> Result<Extra, BackendError> {
        let model = &self.model;
        let (g, bindings) = (model.plan.graph(), key.step.bindings());
        let tapped: Vec<(&TapPoint, u64)> = self.points().zip(key.rows.iter().map(|n| *n as u64)).collect();
        let mut end = 0;
        let mut next = |bytes: u64| {
            end += bytes;
            end - bytes
        };
        let lists: Vec<u64> = tapped.iter().map(|(_, n)| next(4 * n)).collect();
        let written = next(0);
        let start = written.next_multiple_of(64);
        next(start - written);
        let stats: Vec<u64> = tapped.iter().map(|(_, n)| next(STATS_BYTES * n)).collect();
        let values: Vec<u64> = tapped.iter().map(|(p, n)| next(p.kept_bytes() * n)).collect();

        let route = |point: &TapPoint| {
            let stage = model.stages.iter().position(|s| matches!(s, Stage::Op(id) if *id == point.value.node));
            stage.map_or("input".into(), |s| lower::route(launches[s].iter().map(|r| &r.launch)))
        };
        let mut taps = Vec::new();
        for (i, (point, n)) in tapped.iter().enumerate() {
            let room = Room { list: lists[i], stats: stats[i], values: values[i] };
            let launch = point.launch(*n as usize, &room, g.desc(point.value).bytes(&bindings));
            let mut ready = model.ready(&g.node(point.tap).name, launch.into_iter().collect())?;
            ready.iter_mut().for_each(|r| r.cost.bytes = n * point.row_bytes());
            taps.push(Tapped { room, route: route(point), ready });
        }
        let (mut top, mut top_ready) = (None, Vec::new());
        if let (Some(v), 1..) = (self.logits(), key.top) {
            let vocab = g.desc(v).cols().at(&bindings);
            let k = TopK { rows: key.step.rows, vocab, want: key.top.min(vocab) };
            let to = next(8 * (k.rows * k.want) as u64);
            top_ready = model.ready("logits", lower::top_k(model.place(v), k, to).into())?;
            top = Some((k, to));
        }
        let scratch = top_ready.iter().map(|r| r.launch.scratch).max().unwrap_or(0);
        let found = [start, next(0)];
        Ok(Extra { id: self.extras.made, key, taps, top, top_ready, lists: written, found, scratch })
    }
}
