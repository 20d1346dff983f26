//! `cache_write`, row by row.

use super::{Cut, Kernel, Lowering, Memory, Place};
use crate::kernels::cache;
use crate::kv::StateShape;
use crate::simd::Level;
use greta_ops::{Bindings, Dim, PAGE_TOKENS};

pub(super) struct CacheWrite {
    level: Level,
    cut: Cut,
    shape: StateShape,
    cache: Place,
    rows: Place,
    slots: Place,
    count: Dim,
}

impl CacheWrite {
    pub fn new(l: Lowering) -> CacheWrite {
        let Place::State(state) = l.ins[0] else { unreachable!("infer takes a cache alone") };
        CacheWrite {
            level: l.level,
            cut: Cut { threads: l.threads, least: 8 },
            shape: l.states[state],
            cache: l.ins[0].clone(),
            rows: l.ins[1].clone(),
            slots: l.ins[2].clone(),
            count: l.descs[1].rows(),
        }
    }
}

impl Kernel for CacheWrite {
    fn chunks(&self, m: &Memory) -> usize {
        self.cut.chunks(self.count.at(&m.at))
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (count, width) = (self.count.at(&m.at), self.shape.width());
        // SAFETY: the operands have these sizes.
        let (rows, slots) = unsafe { (m.read::<f32>(&self.rows, count * width), m.read::<i32>(&self.slots, count)) };
        let pages = m.pages(&self.cache);
        for t in self.cut.range(count, chunk) {
            let slot = slots[t] as usize;
            // SAFETY: pages are whole and aligned; slots of one step differ, so this one is this chunk's.
            unsafe {
                let page = pages[slot / PAGE_TOKENS];
                cache::cache_write(
                    self.level,
                    &self.shape.page,
                    self.shape.side,
                    page,
                    slot % PAGE_TOKENS,
                    &rows[t * width..][..width],
                );
            }
        }
    }

    fn route(&self, _: &Bindings) -> String {
        format!("cache_write.{}", self.level.name())
    }
}
