//! The backends greta has, by name.

use greta_backend::{Backend, BackendError, Checkup, DriverEntry, Interrupt};
use greta_cpu::{Cpu, CpuOptions, MOST_THREADS};
use greta_hip::{Hip, HipOptions, Launching};
use greta_reference::Reference;

/// What a backend is opened with.
#[derive(Clone, Debug, Default)]
pub struct BackendOptions {
    /// Threads that compute; `None`: one per physical core. Backends that use no threads of the host ignore it.
    pub threads: Option<usize>,
    /// How steps are launched, where there is a choice.
    pub launching: Launching,
}

type Open = fn(&str, &BackendOptions) -> Result<Box<dyn Backend>, BackendError>;

/// A line of the table of backends.
pub struct BackendEntry {
    /// The name it is chosen by.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Opens it; the text is what the user wrote after the name, with its colon: `:sim`, `:sim:0`.
    open: Open,
    threads: fn(&BackendOptions) -> usize,
    /// Whether a colon may follow the name.
    devices: bool,
    drivers: fn(&BackendOptions, bool) -> Vec<DriverEntry>,
    checkup: fn(&str, &BackendOptions, &Interrupt) -> Result<Checkup, BackendError>,
}

impl BackendEntry {
    /// Opens the backend, which fails where its device is absent.
    pub fn open(&self, options: &BackendOptions) -> Result<Box<dyn Backend>, BackendError> {
        (self.open)("", options)
    }

    /// Its drivers and their devices; none for one that has no devices of its own. `bandwidth`: measured too.
    pub fn drivers(&self, options: &BackendOptions, bandwidth: bool) -> Vec<DriverEntry> {
        (self.drivers)(options, bandwidth)
    }
}

/// Every backend of this build, the default one first. Adding a backend is adding a line here.
pub const BACKENDS: &[BackendEntry] = &[
    BackendEntry {
        name: "cpu",
        about: "the host's processor: threads and vector instructions",
        open: |_, o| Ok(Box::new(cpu(o)?)),
        threads: host_threads,
        devices: false,
        drivers: |_, _| Vec::new(),
        checkup: |_, _, _| Ok(no_device("cpu")),
    },
    BackendEntry {
        name: "hip",
        about: "GPUs: hip:amd (never run yet), hip:nvidia, or hip:sim, which emulates gfx942; hip:amd:1 is the second",
        open: |which, o| Ok(Box::new(Hip::open(which, hip(o))?)),
        threads: host_threads,
        devices: true,
        drivers: |o, bandwidth| greta_hip::devices(&hip(o), bandwidth),
        checkup: |which, o, stop| greta_hip::check_up(which, &hip(o), stop),
    },
    BackendEntry {
        name: "reference",
        about: "every op's f64 definition on one thread: slow, to compare with",
        open: |_, _| Ok(Box::new(Reference)),
        threads: |_| 1,
        devices: false,
        drivers: |_, _| Vec::new(),
        checkup: |_, _, _| Ok(no_device("reference")),
    },
];

fn host_threads(options: &BackendOptions) -> usize {
    options.threads.unwrap_or_else(greta_cpu::physical_cores)
}

fn hip(options: &BackendOptions) -> HipOptions {
    HipOptions { launching: options.launching, ..HipOptions::threads(host_threads(options)) }
}

/// Nothing lies between the backend and the processor that runs greta.
fn no_device(name: &str) -> Checkup {
    Checkup { checks: Vec::new(), device: Some(name.into()), kernels: true }
}

fn cpu(options: &BackendOptions) -> Result<Cpu, BackendError> {
    Cpu::new(CpuOptions { threads: options.threads, ..CpuOptions::default() })
}

/// Why a backend can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No backend has this name.
    #[error("unknown backend `{name}`; known: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The backend is there, its device is not.
    #[error("backend `{name}` can't be used here: {source}")]
    Unavailable {
        /// The backend, as it was asked for.
        name: String,
        /// What is missing.
        source: BackendError,
    },
    /// A number of threads that makes no sense.
    #[error("{0} threads make no sense; give 1 to {MOST_THREADS}, or none for one per physical core")]
    Threads(usize),
}

/// Opens the backend of this name. There is no fallback: one that is absent is an error.
///
/// ```
/// let cpu = greta::backend("cpu", &Default::default())?;
/// assert_eq!(cpu.name(), "cpu");
/// assert!(greta::backend("abacus", &Default::default()).is_err());
/// # Ok::<(), greta::OpenError>(())
/// ```
pub fn backend(name: &str, options: &BackendOptions) -> Result<Box<dyn Backend>, OpenError> {
    let (entry, which) = entry(name, options)?;
    (entry.open)(which, options).map_err(|source| OpenError::Unavailable { name: name.into(), source })
}

/// Checks the driver and the device of the backend of this name, from the library to a kernel's numbers. `stop` is asked
/// between checks.
pub fn check_up(name: &str, options: &BackendOptions, stop: &Interrupt) -> Result<Checkup, OpenError> {
    let (entry, which) = entry(name, options)?;
    (entry.checkup)(which, options, stop).map_err(|source| OpenError::Unavailable { name: name.into(), source })
}

/// Variables by which devices are hidden from the drivers' libraries before greta counts them.
pub const VISIBLE: &[&str] = greta_hip::VISIBLE;

/// How many of the host's threads the backend of this name computes with.
pub fn backend_threads(name: &str, options: &BackendOptions) -> Result<usize, OpenError> {
    Ok((entry(name, options)?.0.threads)(options))
}

/// The table's line of this name, once the options make sense, and what follows the line's own name.
fn entry<'n>(name: &'n str, options: &BackendOptions) -> Result<(&'static BackendEntry, &'n str), OpenError> {
    if let Some(n) = options.threads.filter(|n| !(1..=MOST_THREADS).contains(n)) {
        return Err(OpenError::Threads(n));
    }
    let fits = |b: &'static BackendEntry| {
        let which = name.strip_prefix(b.name)?;
        (which.is_empty() || b.devices && which.starts_with(':')).then_some((b, which))
    };
    BACKENDS.iter().find_map(fits).ok_or_else(|| {
        let known = BACKENDS.iter().map(|b| b.name).collect::<Vec<_>>().join(", ");
        OpenError::Unknown { name: name.into(), known }
    })
}
