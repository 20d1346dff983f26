//! The page table against a plain list of tokens, and a fork's independence on every backend.

use crate::support::{Outcome, all, cpu, engine, synth_tiny, trial};
use greta_backend::{Backend, Batch, KvConfig, KvError, KvOps, PageTable, RowsWanted, SeqId, Session, Want};
use greta_models::EngineOptions;
use greta_ops::PAGE_TOKENS;
use greta_reference::Reference;
use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("kv/table_is_lists_of_tokens", lists),
        trial("kv/limits", limits),
        trial("kv/batches_made_by_hand", by_hand),
        trial("kv/fork/cpu", || forks(&cpu(2)?)),
        trial("kv/fork/reference", || forks(&Reference)),
    ]
}

/// A cache whose memory is one number a slot.
struct Fake {
    table: PageTable,
    memory: Vec<u32>,
}

impl KvOps for Fake {
    fn table(&self) -> &PageTable {
        &self.table
    }
    fn table_mut(&mut self) -> &mut PageTable {
        &mut self.table
    }
    fn grow(&mut self, pages: usize) -> Result<(), KvError> {
        self.memory.resize(pages * PAGE_TOKENS, 0);
        Ok(())
    }
    fn copy_page(&mut self, from: usize, to: usize) {
        self.memory.copy_within(from * PAGE_TOKENS..(from + 1) * PAGE_TOKENS, to * PAGE_TOKENS);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize, usize),
    Truncate(usize, usize),
    Fork(usize, usize),
}

fn lists() -> Result<(), Outcome> {
    let step = prop_oneof![
        (0..3usize, 0..80usize).prop_map(|(s, n)| Step::Append(s, n)),
        (0..3usize, 0..200usize).prop_map(|(s, n)| Step::Truncate(s, n)),
        (0..3usize, 0..3usize).prop_map(|(a, b)| Step::Fork(a, b)),
    ];
    let run = |steps: Vec<Step>| {
        let mut fake = Fake { table: PageTable::new(KvConfig { context: 200, sequences: 3 }), memory: Vec::new() };
        let mut lists: [Vec<u32>; 3] = Default::default();
        let mut stamp = 0;
        for step in steps {
            match step {
                Step::Append(s, n) => match fake.append(SeqId(s), n) {
                    Ok(slots) => {
                        for slot in slots {
                            stamp += 1;
                            fake.memory[slot] = stamp;
                            lists[s].push(stamp);
                        }
                    }
                    Err(_) => prop_assert!(lists[s].len() + n > 200),
                },
                Step::Truncate(s, n) => {
                    fake.truncate(SeqId(s), n).map_err(|e| TestCaseError::fail(e.to_string()))?;
                    lists[s].truncate(n);
                }
                Step::Fork(a, b) => {
                    fake.fork(SeqId(a), SeqId(b)).map_err(|e| TestCaseError::fail(e.to_string()))?;
                    lists[b] = lists[a].clone();
                }
            }
            let table = fake.table.block_table();
            for (s, list) in lists.iter().enumerate() {
                prop_assert_eq!(fake.table.len(SeqId(s)), list.len());
                let row = &table[s * fake.table.max_pages()..];
                let read: Vec<u32> = (0..list.len())
                    .map(|p| fake.memory[row[p / PAGE_TOKENS] as usize * PAGE_TOKENS + p % PAGE_TOKENS])
                    .collect();
                prop_assert_eq!(&read, list);
            }
            // Three full sequences of their own, and one page each may be copied: no page is ever lost.
            prop_assert!(fake.table.pages() <= 3 * 7 + 3);
        }
        Ok(())
    };
    let mut runner = TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
    runner.run(&proptest::collection::vec(step, 1..40), run).map_err(|e| Outcome::Failed(e.to_string()))
}

fn limits() -> Result<(), Outcome> {
    let mut fake = Fake { table: PageTable::new(KvConfig { context: 40, sequences: 1 }), memory: Vec::new() };
    fake.append(SeqId(0), 40)?;
    let full = fake.append(SeqId(0), 1);
    let none = fake.append(SeqId(1), 1);
    match (full, none) {
        (Err(KvError::Context { len: 40, more: 1, context: 40, .. }), Err(KvError::Sequence { seq: 1, .. })) => Ok(()),
        other => Err(Outcome::Failed(format!("{other:?}"))),
    }
}

/// Two sequences that share a beginning and then differ give what each gives alone.
fn forks(backend: &dyn Backend) -> Result<(), Outcome> {
    let options = EngineOptions { sequences: 2, max_rows: 64, ..EngineOptions::default() };
    let engine = engine(&synth_tiny("Q8_0")?, backend, &options)?;
    let kv = KvConfig { context: 100, sequences: 2 };
    let step = |s: &mut dyn Session, seq: usize, tokens: &[u32]| {
        let mut b = Batch::default();
        b.append(s.kv(), SeqId(seq), tokens, RowsWanted::Last)?;
        s.run(&b, Want::Logits).map(|o| o.logits)
    };
    let prefix: Vec<u32> = (0..37).collect();
    let mut forked = engine.executable().clone().session(kv)?;
    step(&mut *forked, 0, &prefix)?;
    forked.kv().fork(SeqId(0), SeqId(1))?;
    let a = step(&mut *forked, 0, &[5, 6])?;
    let b = step(&mut *forked, 1, &[7, 8])?;
    for (tail, got) in [([5, 6], a), ([7, 8], b)] {
        let mut alone = engine.executable().clone().session(kv)?;
        step(&mut *alone, 0, &prefix)?;
        if step(&mut *alone, 0, &tail)? != got {
            return Err(Outcome::Failed(format!("the fork that went on with {tail:?} differs from a run of its own")));
        }
    }
    Ok(())
}

/// A batch that would make a kernel write or read outside its sequence is refused, whoever made it.
fn by_hand() -> Result<(), Outcome> {
    let engine = engine(&synth_tiny("Q8_0")?, &cpu(2)?, &EngineOptions::default())?;
    let kv = KvConfig { context: 100, sequences: 1 };
    type Break = fn(&mut Batch);
    let cases: [(&str, Break, &str); 6] = [
        ("slot twice", |b| b.slots[1] = b.slots[0], "go to slot"),
        ("slot outside", |b| b.slots[1] = 32, "is not in the cache"),
        ("slot below", |b| b.slots[1] = -1, "is not in the cache"),
        ("position ahead", |b| b.positions[2] = 3, "its sequence has 3 tokens"),
        ("sequence", |b| b.seqs[0] = 1, "is not in the cache"),
        ("row", |b| b.rows[0] = 3, "row 3"),
    ];
    let mut failures = Vec::new();
    for (name, damage, says) in cases {
        let mut session = engine.executable().clone().session(kv)?;
        let mut b = Batch::default();
        b.append(session.kv(), SeqId(0), &[1, 2, 3], RowsWanted::Last)?;
        damage(&mut b);
        match session.run(&b, Want::Logits) {
            Err(e) if e.to_string().contains(says) => {}
            other => failures.push(format!("{name}: {:?}", other.map(|_| "accepted").map_err(|e| e.to_string()))),
        }
    }
    all(failures)
}
