//! Writing a synthetic model: threads make chunks, the caller's thread puts them into the file in order.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZero;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::error::SynthError;
use super::metadata;
use super::part::Part;
use super::plan::{self, Tensor};
use super::spec::SynthSpec;
use crate::gguf::{GgufError, GgufWriter};

/// Chunks that a thread may be ahead of the file: enough to bridge a slow write, little enough to stay small.
const AHEAD: usize = 8;

/// The most threads: beyond it the disk is what is waited for.
const MOST_THREADS: usize = 64;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynthReport {
    /// Tensors in the file.
    pub tensors: usize,
    /// Values in all tensors.
    pub parameters: u64,
    /// Length of the file.
    pub bytes: u64,
}

/// Writes the model that `spec` describes to `out`, with a thread for every processor.
///
/// `progress` is told the bytes of tensor data written so far and in all, first with 0; when it returns `false` the
/// work is cancelled. The file is made under another name in the same directory and appears as `out` when it is
/// complete, replacing what was there; a run that fails or is cancelled leaves nothing behind.
///
/// # Errors
///
/// A spec that describes no model ([`SynthSpec::check`]), a file that cannot be written, or
/// [`SynthError::Cancelled`].
pub fn write(
    spec: &SynthSpec,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<SynthReport, SynthError> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    write_with_threads(spec, out, threads, progress)
}

/// [`write()`] with this many threads making weights (from 1 to 64; others are taken as the nearest). The file does not
/// depend on it.
///
/// # Errors
///
/// As [`write()`].
pub fn write_with_threads(
    spec: &SynthSpec,
    out: &Path,
    threads: usize,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<SynthReport, SynthError> {
    spec.check()?;
    let tensors = plan::tensors(spec);
    let (part, file) = Part::create(out)?;
    let in_file = |source: GgufError| SynthError::Gguf { path: out.to_owned(), source };
    let at_file = |doing| move |source| SynthError::Io { path: out.to_owned(), doing, source };

    // Chunks are larger than the buffer and pass it by: it is there for the header's sake.
    let mut writer = GgufWriter::new(BufWriter::with_capacity(1 << 16, file));
    declare(spec, &tensors, &mut writer).map_err(in_file)?;
    let feed = |tensor: &Tensor, bytes: &[u8]| writer.write_data(&tensor.name, bytes).map_err(in_file);
    make_all(spec.seed, &tensors, threads, at_file("start a thread"), feed, progress)?;
    let buffered = writer.finish().map_err(in_file)?;
    let file: File = buffered.into_inner().map_err(|e| at_file("write the file")(e.into_error()))?;
    let bytes = file.metadata().map_err(at_file("measure the file"))?.len();
    drop(file);
    part.keep()?;
    Ok(SynthReport { tensors: tensors.len(), parameters: tensors.iter().map(Tensor::values).sum(), bytes })
}

/// Writes everything that stands before the tensors' data.
fn declare<W: Write>(spec: &SynthSpec, tensors: &[Tensor], writer: &mut GgufWriter<W>) -> Result<(), GgufError> {
    for (key, value) in metadata::entries(spec) {
        writer.add_metadata(key, value)?;
    }
    for tensor in tensors {
        writer.add_tensor(&tensor.name, &tensor.dims, tensor.dtype)?;
    }
    writer.write_header()
}

/// Makes every chunk and feeds them in order.
///
/// Thread `w` of `n` makes chunks `w`, `w + n`, `w + 2n` and so on, into a queue of its own; taking from the queues in
/// turn restores the order without sorting. Leaving early drops the queues, which ends the threads.
fn make_all(
    seed: u64,
    tensors: &[Tensor],
    threads: usize,
    no_thread: impl Fn(std::io::Error) -> SynthError,
    mut feed: impl FnMut(&Tensor, &[u8]) -> Result<(), SynthError>,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<(), SynthError> {
    let threads = threads.clamp(1, MOST_THREADS);
    let total = tensors.iter().map(Tensor::bytes).sum();
    let mut done = 0;
    if !progress(done, total) {
        return Err(SynthError::Cancelled);
    }
    thread::scope(|scope| {
        let start = |worker: usize| {
            let (queue, made) = sync_channel(AHEAD);
            let work = move || {
                for chunk in plan::chunks(tensors).skip(worker).step_by(threads) {
                    if queue.send(chunk.make(seed)).is_err() {
                        return; // no one waits for it any more
                    }
                }
            };
            thread::Builder::new().spawn_scoped(scope, work).map(|_| made)
        };
        let queues: Vec<Receiver<Vec<u8>>> = (0..threads).map(start).collect::<Result<_, _>>().map_err(no_thread)?;
        for (chunk, queue) in plan::chunks(tensors).zip(queues.iter().cycle()) {
            // A queue ends early only where its thread panicked, and the scope passes that on.
            let Ok(bytes) = queue.recv() else { break };
            feed(chunk.tensor, &bytes)?;
            done += bytes.len() as u64;
            if !progress(done, total) {
                return Err(SynthError::Cancelled);
            }
        }
        Ok(())
    })
}
