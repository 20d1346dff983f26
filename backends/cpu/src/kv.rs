//! The memory behind the page table: for each layer's keys and values, one block a page.

use crate::kernels::cache::{PageShape, Side, cache_read};
use crate::memory::Block;
use greta_backend::{KvConfig, KvError, KvOps, PageTable};
use greta_ops::PAGE_TOKENS;

/// How one state of the graph is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateShape {
    pub page: PageShape,
    pub side: Side,
}

impl StateShape {
    /// Values in a token's row.
    pub fn width(&self) -> usize {
        self.page.kv_heads() * self.page.head_dim()
    }
}

/// All states of a session.
pub(crate) struct Cache {
    table: PageTable,
    states: Vec<State>,
}

struct State {
    shape: StateShape,
    pages: Vec<Block>,
    /// The pages' bases, for kernels.
    bases: Vec<*mut u8>,
}

// SAFETY: the bases point into the state's own blocks, which are plain memory.
unsafe impl Send for State {}
// SAFETY: as above; kernels that write through them own the slots they write.
unsafe impl Sync for State {}

impl Cache {
    pub fn new(config: KvConfig, shapes: &[StateShape]) -> Cache {
        let states = shapes.iter().map(|&shape| State { shape, pages: Vec::new(), bases: Vec::new() }).collect();
        Cache { table: PageTable::new(config), states }
    }

    /// Where the pages of a state begin, by page number.
    pub fn bases(&self, state: usize) -> &[*mut u8] {
        &self.states[state].bases
    }

    /// A token's row as stored.
    pub fn row(&self, state: usize, slot: usize) -> Vec<f32> {
        let s = &self.states[state];
        let mut row = vec![0.0; s.shape.width()];
        // SAFETY: pages are whole, aligned and zeroed when made, so every slot is initialised; no step is running.
        unsafe { cache_read(&s.shape.page, s.shape.side, s.bases[slot / PAGE_TOKENS], slot % PAGE_TOKENS, &mut row) };
        row
    }
}

impl KvOps for Cache {
    fn table(&self) -> &PageTable {
        &self.table
    }

    fn table_mut(&mut self) -> &mut PageTable {
        &mut self.table
    }

    fn grow(&mut self, pages: usize) -> Result<(), KvError> {
        for s in &mut self.states {
            while s.pages.len() < pages {
                let page = Block::zeroed(s.shape.page.bytes(), "a page of the KV cache");
                let page = page.map_err(|_| KvError::Memory(s.pages.len()))?;
                s.bases.push(page.base());
                s.pages.push(page);
            }
        }
        Ok(())
    }

    fn copy_page(&mut self, from: usize, to: usize) {
        for s in &mut self.states {
            let bytes = s.pages[from].bytes().to_vec();
            s.pages[to].bytes_mut().copy_from_slice(&bytes);
        }
    }
}
