//! The page allocator of the KV cache: which pages a sequence has. It holds no memory; each backend does.

use greta_ops::PAGE_TOKENS;

/// A sequence: a row of the block table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeqId(pub usize);

/// How large a session's cache may grow. Nothing is allocated until tokens arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvConfig {
    /// Most tokens of one sequence.
    pub context: usize,
    /// Most sequences at once.
    pub sequences: usize,
}

/// Why tokens can't be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The sequence would grow past the session's context.
    #[error("sequence {seq} holds {len} tokens; {more} more do not fit the context of {context}")]
    Context {
        /// The sequence.
        seq: usize,
        /// Its tokens.
        len: usize,
        /// What was to be added.
        more: usize,
        /// The limit.
        context: usize,
    },
    /// The sequence is outside the session's limit.
    #[error("there is no sequence {seq}; the session holds {sequences}")]
    Sequence {
        /// The sequence.
        seq: usize,
        /// The limit.
        sequences: usize,
    },
    /// A backend could not get memory for a page.
    #[error("no memory for page {0} of the KV cache")]
    Memory(usize),
}

/// Sequences and their pages. Pages may be shared by sequences that have a common beginning.
#[derive(Clone, Debug)]
pub struct PageTable {
    config: KvConfig,
    seqs: Vec<Sequence>,
    /// How many sequences hold each page.
    shared: Vec<u32>,
    free: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Sequence {
    pages: Vec<usize>,
    len: usize,
}

impl PageTable {
    /// An empty table.
    pub fn new(config: KvConfig) -> Self {
        PageTable { config, seqs: vec![Sequence::default(); config.sequences], shared: Vec::new(), free: Vec::new() }
    }

    /// The limits.
    pub fn config(&self) -> KvConfig {
        self.config
    }

    /// Tokens of a sequence; 0 for one that is not there.
    pub fn len(&self, seq: SeqId) -> usize {
        self.seqs.get(seq.0).map_or(0, |s| s.len)
    }

    /// Whether no sequence holds a token.
    pub fn is_empty(&self) -> bool {
        self.seqs.iter().all(|s| s.len == 0)
    }

    /// Pages ever handed out: the memory a backend needs.
    pub fn pages(&self) -> usize {
        self.shared.len()
    }

    /// Pages a sequence can have.
    pub fn max_pages(&self) -> usize {
        self.config.context.div_ceil(PAGE_TOKENS)
    }

    /// Pages of a sequence, by position.
    pub fn sequence_pages(&self, seq: SeqId) -> &[usize] {
        self.seqs.get(seq.0).map_or(&[], |s| &s.pages)
    }

    /// The block table as the graph's input: `[sequences, max_pages]`; 0 where there is no page.
    pub fn block_table(&self) -> Vec<i32> {
        let width = self.max_pages();
        let mut out = vec![0; width * self.seqs.len()];
        for (s, row) in self.seqs.iter().zip(out.chunks_exact_mut(width.max(1))) {
            s.pages.iter().zip(row).for_each(|(&p, r)| *r = p as i32);
        }
        out
    }

    fn seq(&mut self, seq: SeqId) -> Result<&mut Sequence, KvError> {
        let sequences = self.config.sequences;
        self.seqs.get_mut(seq.0).ok_or(KvError::Sequence { seq: seq.0, sequences })
    }

    fn take(&mut self) -> usize {
        match self.free.pop() {
            Some(p) => {
                self.shared[p] = 1;
                p
            }
            None => {
                self.shared.push(1);
                self.shared.len() - 1
            }
        }
    }

    fn drop_page(&mut self, page: usize) {
        self.shared[page] -= 1;
        if self.shared[page] == 0 {
            self.free.push(page);
        }
    }

    /// The page that `n` more tokens of a sequence must not write to, because another sequence holds it too.
    fn shared_end(&self, seq: SeqId, n: usize) -> Option<usize> {
        let s = &self.seqs[seq.0];
        let partial = n > 0 && !s.len.is_multiple_of(PAGE_TOKENS);
        partial.then(|| s.pages[s.len / PAGE_TOKENS]).filter(|&p| self.shared[p] > 1)
    }

    /// Pages there will be in all once `n` more tokens of a sequence are placed.
    fn pages_with(&self, seq: SeqId, n: usize) -> Result<usize, KvError> {
        let (context, sequences) = (self.config.context, self.config.sequences);
        let s = self.seqs.get(seq.0).ok_or(KvError::Sequence { seq: seq.0, sequences })?;
        if n > context - s.len {
            return Err(KvError::Context { seq: seq.0, len: s.len, more: n, context });
        }
        let copies = usize::from(self.shared_end(seq, n).is_some());
        let new = (s.len + n).div_ceil(PAGE_TOKENS).saturating_sub(s.pages.len()) + copies;
        Ok(self.pages() + new.saturating_sub(self.free.len()))
    }

    /// Places `n` more tokens, which [`PageTable::pages_with`] has let pass: their slots, and the page to copy first.
    fn append(&mut self, seq: SeqId, n: usize) -> (Vec<usize>, Option<(usize, usize)>) {
        let copy = self.shared_end(seq, n).map(|last| {
            let own = self.take();
            self.drop_page(last);
            let s = &mut self.seqs[seq.0];
            s.pages[s.len / PAGE_TOKENS] = own;
            (last, own)
        });
        let len = self.seqs[seq.0].len;
        while self.seqs[seq.0].pages.len() * PAGE_TOKENS < len + n {
            let page = self.take();
            self.seqs[seq.0].pages.push(page);
        }
        let s = &mut self.seqs[seq.0];
        s.len += n;
        let slots = (len..len + n).map(|p| s.pages[p / PAGE_TOKENS] * PAGE_TOKENS + p % PAGE_TOKENS).collect();
        (slots, copy)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        let s = self.seq(seq)?;
        s.len = s.len.min(len);
        let gone = s.pages.split_off(s.len.div_ceil(PAGE_TOKENS));
        gone.into_iter().for_each(|p| self.drop_page(p));
        Ok(())
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> Result<(), KvError> {
        let source = self.seq(from)?.clone();
        self.truncate(to, 0)?;
        source.pages.iter().for_each(|&p| self.shared[p] += 1);
        *self.seq(to)? = source;
        Ok(())
    }
}

/// The cache of a session: the table, and the memory behind it.
pub trait KvOps {
    /// The table.
    fn table(&self) -> &PageTable;

    /// The table, to change; only the provided methods do.
    fn table_mut(&mut self) -> &mut PageTable;

    /// Makes memory for this many pages in all.
    fn grow(&mut self, pages: usize) -> Result<(), KvError>;

    /// Copies a page of every layer.
    fn copy_page(&mut self, from: usize, to: usize);

    /// Takes slots for `n` more tokens of a sequence.
    fn append(&mut self, seq: SeqId, n: usize) -> Result<Vec<usize>, KvError> {
        // Memory first: where there is none, nothing has changed.
        let pages = self.table().pages_with(seq, n)?;
        self.grow(pages)?;
        let (slots, copy) = self.table_mut().append(seq, n);
        if let Some((from, to)) = copy {
            self.copy_page(from, to);
        }
        Ok(slots)
    }

    /// Forgets all but the first `len` tokens of a sequence.
    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.table_mut().truncate(seq, len)
    }

    /// Makes `to` a copy of `from`; pages are shared until one of them is written.
    fn fork(&mut self, from: SeqId, to: SeqId) -> Result<(), KvError> {
        if from == to { Ok(()) } else { self.table_mut().fork(from, to) }
    }
}
