//! The KV cache: the page table, and a buffer for each state that grows by doubling.

use crate::driver::{Device, DriverError, Stream};
use crate::memory::DeviceBuffer;
use greta_backend::{KvConfig, KvError, KvOps, PageTable};
use greta_graph::NodeId;
use greta_ops::PAGE_TOKENS;
use std::sync::{Arc, Mutex, PoisonError};

/// A cache of a session. Slots of a page are rows that follow each other.
pub(crate) struct Cache {
    table: PageTable,
    device: Arc<dyn Device>,
    stream: Arc<Mutex<Box<dyn Stream>>>,
    states: Vec<State>,
    /// Pages there is memory for.
    pages: usize,
    /// What went wrong where the page table's interface has no room for it.
    failed: Option<DriverError>,
}

struct State {
    node: NodeId,
    name: String,
    page_bytes: usize,
    buffer: DeviceBuffer,
}

impl Cache {
    /// An empty cache of these states: node, name, bytes of a row.
    pub fn new(
        config: KvConfig,
        device: &Arc<dyn Device>,
        stream: &Arc<Mutex<Box<dyn Stream>>>,
        states: &[(NodeId, String, usize)],
    ) -> Result<Cache, DriverError> {
        let state = |(node, name, row): &(NodeId, String, usize)| {
            let page_bytes = row * PAGE_TOKENS;
            Ok(State {
                node: *node,
                name: name.clone(),
                page_bytes,
                buffer: DeviceBuffer::new(device, page_bytes, name)?,
            })
        };
        Ok(Cache {
            table: PageTable::new(config),
            device: device.clone(),
            stream: stream.clone(),
            states: states.iter().map(state).collect::<Result<_, _>>()?,
            pages: 1,
            failed: None,
        })
    }

    /// Where a state lies now.
    pub fn buffer(&self, node: NodeId) -> Option<&DeviceBuffer> {
        self.states.iter().find(|s| s.node == node).map(|s| &s.buffer)
    }

    /// Slots there is memory for.
    pub fn slots(&self) -> usize {
        self.pages * PAGE_TOKENS
    }

    /// An error that [`KvOps::copy_page`] could not give back.
    pub fn take_failure(&mut self) -> Option<DriverError> {
        self.failed.take()
    }

    fn grow_to(&mut self, pages: usize) -> Result<(), DriverError> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // All or nothing: a state that can't grow must not leave the others larger than the count says.
        let larger = |s: &State| DeviceBuffer::new(&self.device, s.page_bytes * pages, &s.name);
        let grown = self.states.iter().map(larger).collect::<Result<Vec<_>, _>>()?;
        for (state, new) in self.states.iter_mut().zip(grown) {
            stream.copy(state.buffer.at(), new.at(), state.page_bytes * self.pages)?;
            state.buffer = new;
        }
        self.pages = pages;
        Ok(())
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
        if pages <= self.pages {
            return Ok(());
        }
        let config = self.table.config();
        let most = self.table.max_pages() * config.sequences;
        let wanted = pages.max((2 * self.pages).min(most));
        self.grow_to(wanted).or_else(|_| self.grow_to(pages)).map_err(|_| KvError::Memory(pages))
    }

    fn copy_page(&mut self, from: usize, to: usize) {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        for s in &self.states {
            let at = |page: usize| s.buffer.at().offset((page * s.page_bytes) as u64);
            if let Err(e) = stream.copy(at(from), at(to), s.page_bytes) {
                self.failed.get_or_insert(e);
            }
        }
    }
}
