//! Threads that go through a step together.

use greta_backend::BackendError;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A fixed set of threads.
pub(crate) struct Pool {
    threads: usize,
    /// `None` for one thread: the caller's.
    pool: Option<rayon::ThreadPool>,
    /// Teams meet at barriers, so two must not share the threads at once.
    one: Mutex<()>,
}

impl Pool {
    pub fn new(threads: usize) -> Result<Pool, BackendError> {
        let build =
            || rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("greta-{i}")).build();
        let pool = match threads {
            1 => None,
            _ => Some(
                build().map_err(|e| BackendError::Device(format!("cpu: {threads} threads can't be started: {e}")))?,
            ),
        };
        Ok(Pool { threads, pool, one: Mutex::new(()) })
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` on every thread at once and waits for all. A panic in one ends the others at their next barrier and
    /// is an error here.
    pub fn team(&self, work: impl Fn(&Team) + Sync) -> Result<(), BackendError> {
        let _one = self.one.lock().unwrap_or_else(|e| e.into_inner());
        let team = Team {
            size: self.threads,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        };
        let member = || {
            let run = std::panic::AssertUnwindSafe(|| work(&team));
            if std::panic::catch_unwind(run).is_err() {
                team.broken.store(true, Ordering::Release);
            }
        };
        match &self.pool {
            None => member(),
            Some(pool) => {
                pool.broadcast(|_| member());
            }
        }
        match team.broken.load(Ordering::Acquire) {
            true => Err(BackendError::Device("cpu: a kernel panicked; the message above says where".into())),
            false => Ok(()),
        }
    }

    /// Calls `f` for `0..n`, each once, on all threads.
    pub fn each(&self, n: usize, f: impl Fn(usize) + Sync) -> Result<(), BackendError> {
        let next = AtomicUsize::new(0);
        self.team(|_| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    break;
                }
                f(i);
            }
        })
    }
}

/// The threads of one call of [`Pool::team`].
pub(crate) struct Team {
    size: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
}

/// Turns of the waiting loop before the processor is offered to others: a barrier is usually a fraction of a
/// microsecond away, but a thread that has lost its processor is milliseconds away.
const SPINS: u32 = 2_000;

impl Team {
    /// Waits until every thread is here. Answers `false` if one never will be: it panicked.
    pub fn barrier(&self) -> bool {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.size {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return true;
        }
        let mut spins = 0u32;
        while self.round.load(Ordering::Acquire) == round {
            if self.broken.load(Ordering::Acquire) {
                return false;
            }
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        true
    }
}

/// Cores without counting their hyper-threads, as far as the process may use them.
pub fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut cores = HashSet::new();
    for cpu in 0..allowed {
        let read = |what: &str| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{what}"));
        match (read("physical_package_id"), read("core_id")) {
            (Ok(package), Ok(core)) => cores.insert((package, core)),
            _ => return allowed,
        };
    }
    cores.len().clamp(1, allowed)
}
