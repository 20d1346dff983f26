//! One step's work.

use crate::{BackendError, KvOps, PageTable, SeqId};
use greta_ops::HostTensor;

/// Tokens of one or several sequences, with where each goes and which rows' logits are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids.
    pub tokens: Vec<i32>,
    /// Position of each token in its sequence.
    pub positions: Vec<i32>,
    /// Sequence of each token.
    pub seqs: Vec<i32>,
    /// Cache slot of each token.
    pub slots: Vec<i32>,
    /// Indexes into `tokens`, whose logits are wanted.
    pub rows: Vec<i32>,
}

/// Which rows of a sequence's part of a batch are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsWanted {
    /// None: the tokens only fill the cache.
    None,
    /// The last.
    Last,
    /// Every one.
    All,
    /// All from this token of the part on.
    From(usize),
}

impl Batch {
    /// Appends tokens to sequences: takes cache slots for them and notes their positions.
    ///
    /// The cache's lengths count the tokens from here on; a caller whose step fails truncates them again.
    pub fn append(
        &mut self,
        kv: &mut dyn KvOps,
        seq: SeqId,
        tokens: &[u32],
        rows: RowsWanted,
    ) -> Result<(), BackendError> {
        let start = kv.table().len(seq);
        let slots = kv.append(seq, tokens.len())?;
        let base = self.tokens.len();
        for (i, (&t, slot)) in tokens.iter().zip(slots).enumerate() {
            let id = i32::try_from(t).map_err(|_| BackendError::Batch(format!("token id {t} is too large")))?;
            self.tokens.push(id);
            self.positions.push((start + i) as i32);
            self.seqs.push(seq.0 as i32);
            self.slots.push(slot as i32);
        }
        let from = match rows {
            RowsWanted::None => tokens.len(),
            RowsWanted::Last => tokens.len().saturating_sub(1),
            RowsWanted::All => 0,
            RowsWanted::From(i) => i.min(tokens.len()),
        };
        self.rows.extend((from..tokens.len()).map(|i| (base + i) as i32));
        Ok(())
    }

    /// Checks that the lists agree and every row lies in the batch.
    pub fn check(&self, max_tokens: usize, max_rows: usize) -> Result<(), BackendError> {
        let n = self.tokens.len();
        let bad = |what: String| Err(BackendError::Batch(what));
        if [self.positions.len(), self.seqs.len(), self.slots.len()].iter().any(|&l| l != n) {
            return bad("its lists differ in length".into());
        }
        if n > max_tokens {
            return bad(format!("{n} tokens, but the session takes {max_tokens} a step"));
        }
        if self.rows.len() > max_rows {
            return bad(format!("{} rows wanted, but the session gives {max_rows} a step", self.rows.len()));
        }
        if let Some(r) = self.rows.iter().find(|&&r| r < 0 || r as usize >= n) {
            return bad(format!("row {r} is wanted of a batch of {n} tokens"));
        }
        Ok(())
    }

    /// Checks that every token has a slot of its own among the cache's `slots`, and a position that its sequence has.
    ///
    /// Slots and page numbers come from the page table, but a batch can be made by hand, and kernels write to the slots of
    /// different tokens at once.
    pub fn check_places(&self, table: &PageTable, slots: usize) -> Result<(), BackendError> {
        let bad = |what: String| Err(BackendError::Batch(what));
        let mut taken = self.slots.clone();
        taken.sort_unstable();
        if let Some(twice) = taken.windows(2).find(|w| w[0] == w[1]) {
            return bad(format!("two of its tokens go to slot {}", twice[0]));
        }
        let sequences = table.config().sequences;
        for (i, ((&seq, &slot), &pos)) in self.seqs.iter().zip(&self.slots).zip(&self.positions).enumerate() {
            if slot < 0 || slot as usize >= slots || seq < 0 || seq as usize >= sequences {
                return bad(format!("token {i}: sequence {seq}, slot {slot} is not in the cache"));
            }
            let len = table.len(SeqId(seq as usize));
            if pos < 0 || pos as usize >= len {
                return bad(format!("token {i}: position {pos}, but its sequence has {len} tokens"));
            }
        }
        Ok(())
    }
}

/// What of the output `logits` a step gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing: only the cache is filled.
    Nothing,
    /// All logits of every row wanted.
    Logits,
    /// The `n` largest of every row, largest first; equal logits by ascending id.
    TopK(usize),
}

/// A step's results.
#[derive(Clone, Debug, Default)]
pub struct StepOut {
    /// Logits, one row of the vocabulary's size per row wanted.
    pub logits: Vec<f32>,
    /// Values in a row of logits.
    pub vocab: usize,
    /// `(id, logit)` lists, one per row wanted.
    pub top: Vec<Vec<(u32, f32)>>,
    /// The graph's outputs other than `logits`, by name.
    pub values: Vec<(String, HostTensor)>,
}

impl StepOut {
    /// Takes what is wanted from a host copy of the logits.
    pub fn with_logits(mut self, logits: &[f32], vocab: usize, want: Want) -> StepOut {
        self.vocab = vocab;
        match want {
            Want::Nothing => {}
            Want::Logits => self.logits = logits.to_vec(),
            Want::TopK(n) => self.top = logits.chunks_exact(vocab).map(|row| top_k(row, n)).collect(),
        }
        self
    }

    /// Row `i` of the logits.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.logits[i * self.vocab..][..self.vocab]
    }
}

/// The `n` largest, largest first, equal ones by ascending id; NaN sorts below everything.
pub(crate) fn top_k(row: &[f32], n: usize) -> Vec<(u32, f32)> {
    let key = |i: &u32| {
        let v = row[*i as usize];
        if v.is_nan() { f32::NEG_INFINITY } else { v }
    };
    let order = |a: &u32, b: &u32| key(b).total_cmp(&key(a)).then(a.cmp(b));
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    let n = n.min(ids.len());
    if n < ids.len() && n > 0 {
        ids.select_nth_unstable_by(n - 1, order);
    }
    ids.truncate(n);
    ids.sort_unstable_by(order);
    ids.into_iter().map(|i| (i, row[i as usize])).collect()
}
