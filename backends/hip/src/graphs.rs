//! Steps that the device runs at once: launches captured when a step is seen for the second time, and run again as long as
//! nothing about them changes. What changes from token to token (ids, positions, slots, the block table) is read from the
//! device's memory by the kernels themselves.

use crate::driver::{Captured, Pointer};
use crate::lower::Step;

/// Graphs that are kept: a context grows through a few sizes while others of its tokens are tapped.
const KEPT: usize = 4;

/// All that a step's launches and their arguments depend on, apart from the plan.
#[derive(Clone, PartialEq)]
pub(crate) struct GraphKey {
    /// Sizes. Caches that have grown have more slots, so that their addresses are part of this.
    pub step: Step,
    /// Which launches that are not the plan's: taps and the largest logits.
    pub extra: u64,
    /// Buffers that may have moved.
    pub at: [Pointer; 2],
}

/// Graphs by what they depend on, the last used one last; `None` for steps seen once.
#[derive(Default)]
pub(crate) struct Graphs(Vec<(GraphKey, Option<Captured>)>);

impl Graphs {
    /// Whether such a step was seen before, and its graph if it is captured.
    pub fn get(&mut self, key: &GraphKey) -> Option<Option<Captured>> {
        let i = self.0.iter().position(|(k, _)| k == key)?;
        let found = self.0.remove(i);
        let graph = found.1;
        self.0.push(found);
        Some(graph)
    }

    /// Notes a step; gives back a graph that is not kept any longer.
    pub fn seen(&mut self, key: GraphKey) -> Option<Captured> {
        self.0.push((key, None));
        if self.0.len() > KEPT { self.0.remove(0).1 } else { None }
    }

    /// Notes the graph of a step that was seen.
    pub fn captured(&mut self, key: &GraphKey, graph: Captured) {
        if let Some((_, g)) = self.0.iter_mut().find(|(k, _)| k == key) {
            *g = Some(graph);
        }
    }
}
