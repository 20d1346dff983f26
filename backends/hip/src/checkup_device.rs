//! What a device that was opened is checked for: memory, a kernel, events, and a graph that is replayed.

use crate::driver::{Device, DriverError, Function, Size, Stream};
use crate::kernels::Source;
use crate::memory::DeviceBuffer;
use greta_backend::{BackendError, Check, Checked, Interrupt};
use std::sync::Arc;

const MEMORY: Checked = Checked {
    name: "memory free",
    advice: "Another process has the device's memory: `rocm-smi --showpids` or `nvidia-smi` names it",
};
pub(crate) const MODULE: Checked = Checked {
    name: "module compiles",
    advice: "The run-time compiler refuses a kernel: its words are above. Send the bundle; until then GRETA_KERNELS=FOLDER \
             takes changed sources. Kept code objects lie in GRETA_KERNEL_CACHE, which may be emptied",
};
const COPY: Checked = Checked {
    name: "memory keeps bytes",
    advice: "Bytes that went to the device and back are others, or a copy wrote beside its target: a fault of hardware, driver \
             or IOMMU set-up. No number of any model can be right; look at `dmesg`",
};
const LAUNCH: Checked = Checked {
    name: "kernel adds",
    advice: "The simplest kernel gives wrong sums: arguments, grid or code object are taken otherwise than greta gives them. \
             Send the bundle",
};
const EVENTS: Checked = Checked {
    name: "events advance",
    advice: "The device's clock stands still or runs backwards: times of `profile` and `backends --bandwidth` mean nothing. \
             Results are not touched",
};
const REPLAY: Checked = Checked {
    name: "graph replays",
    advice: "A captured launch does not read the inputs of its replay. Run with --eager, which replays nothing; \
             `verify --eager` that is clean beside `verify` that is not says the same",
};

/// Memory that the checks and the tiny model need.
const LEAST: u64 = 256 << 20;
/// Bytes that go to the device and back: many, and no whole number of anything.
const BYTES: usize = (1 << 20) + 13;
/// Bytes on either side that must stay as they are.
const GUARD: usize = 256;
/// Sums of one launch: the last workgroup is not full.
const SUMS: usize = 1000;
/// Launches between two events.
const LAUNCHES: usize = 16;

/// Checks a device; `None` was not opened for this reason.
pub(crate) fn on_device(
    device: Option<&Arc<dyn Device>>,
    why: Option<&str>,
    stop: &Interrupt,
    out: &mut Vec<Check>,
) -> Result<(), BackendError> {
    let Some(device) = device else {
        let why = why.unwrap_or("no device was opened");
        out.extend([MEMORY, MODULE, COPY, LAUNCH, EVENTS, REPLAY].map(|c| c.skipped(why)));
        return Ok(());
    };
    out.push(MEMORY.ended(match device.free_memory() {
        Some(free) if free < LEAST => Err(format!("{} of {} MiB", free >> 20, device.info().memory >> 20)),
        Some(free) => Ok(format!("{} of {} MiB", free >> 20, device.info().memory >> 20)),
        None => Ok("the driver does not count it".into()),
    }));
    let add = device.function(&Source::of("add.hip"), "add");
    out.push(MODULE.ended(match &add {
        Ok(_) => Ok(format!("add.hip, by {}", device.info().compiler)),
        Err(e) => Err(e.to_string()),
    }));
    stop.check()?;
    let text = |r: Result<Result<String, String>, DriverError>| r.unwrap_or_else(|e| Err(e.to_string()));
    out.push(COPY.ended(text(copies(device))));
    stop.check()?;
    type Run = fn(&Arc<dyn Device>, Function) -> Result<Result<String, String>, DriverError>;
    // Events and replays of a kernel that can't run say nothing of events and replays.
    let mut failed = add.is_err().then_some(MODULE.name);
    for (what, run) in [(LAUNCH, adds as Run), (EVENTS, events), (REPLAY, replays)] {
        let done = match (&add, failed) {
            (Ok(add), None) => {
                let result = run(device, *add);
                failed = result.is_err().then_some(what.name);
                what.ended(text(result))
            }
            (_, failed) => what.skipped(format!("`{}` failed", failed.unwrap_or(MODULE.name))),
        };
        out.push(done);
        stop.check()?;
    }
    Ok(())
}

/// Host to device, device to device, device to host, with bytes on either side that nobody may touch.
fn copies(device: &Arc<dyn Device>) -> Result<Result<String, String>, DriverError> {
    let all = BYTES + 2 * GUARD;
    let buffers = [DeviceBuffer::new(device, all, "check")?, DeviceBuffer::new(device, all, "check")?];
    let mut stream = device.stream()?;
    let payload: Vec<u8> = (0..BYTES).map(|i| (i * 31 + i / 251) as u8).collect();
    for b in &buffers {
        stream.write(b.at(), &vec![0xa5; all])?;
    }
    let inner = |b: &DeviceBuffer| b.at().offset(GUARD as u64);
    stream.write(inner(&buffers[0]), &payload)?;
    stream.copy(inner(&buffers[0]), inner(&buffers[1]), BYTES)?;
    let guard = [0xa5; GUARD];
    let want = [&guard[..], &payload, &guard].concat();
    for (b, what) in buffers.iter().zip(["written", "copied on the device"]) {
        let mut got = vec![0; all];
        stream.read(b.at(), &mut got)?;
        if let Some(at) = (0..all).find(|&i| got[i] != want[i]) {
            let place = if (GUARD..GUARD + BYTES).contains(&at) { "byte" } else { "a byte beside, at" };
            let at_inner = at as i64 - GUARD as i64;
            return Ok(Err(format!("{what}: {place} {at_inner} is {:#x}, expected {:#x}", got[at], want[at])));
        }
    }
    Ok(Ok(format!("{BYTES} bytes there and back, {GUARD} on either side untouched")))
}

/// Operands and sums on the device.
struct Sums {
    stream: Box<dyn Stream>,
    a: DeviceBuffer,
    b: DeviceBuffer,
    out: DeviceBuffer,
    add: Function,
}

impl Sums {
    fn new(device: &Arc<dyn Device>, add: Function) -> Result<Sums, DriverError> {
        let buffer = || DeviceBuffer::new(device, SUMS * 4 + GUARD, "check");
        Ok(Sums { stream: device.stream()?, a: buffer()?, b: buffer()?, out: buffer()?, add })
    }

    /// Operands that no other round has: a[i] and b[i].
    fn operand(round: u32, side: u32, i: usize) -> f32 {
        (i as u32 * (2 * side + 1) + 1000 * round) as f32 * 0.5
    }

    /// Writes a round's operands, and what is no sum where the sums go.
    fn set(&mut self, round: u32) -> Result<(), DriverError> {
        for (side, to) in [(0, self.a.at()), (1, self.b.at())] {
            let bytes: Vec<u8> = (0..SUMS).flat_map(|i| Self::operand(round, side, i).to_le_bytes()).collect();
            self.stream.write(to, &bytes)?;
        }
        self.stream.write(self.out.at(), &[0xff; SUMS * 4 + GUARD])
    }

    fn launch(&mut self) -> Result<(), DriverError> {
        let mut args: Vec<u8> = [&self.out, &self.a, &self.b].iter().flat_map(|b| b.at().0.to_le_bytes()).collect();
        args.extend((SUMS as u32).to_le_bytes());
        let grid = [(SUMS as u32).div_ceil(256), 1, 1];
        self.stream.launch(self.add, Size { grid, block: 256 }, &args, &[])
    }

    /// Whether the sums are those of this round, and nothing was written behind them.
    fn look(&mut self, round: u32) -> Result<Result<(), String>, DriverError> {
        let mut got = vec![0; SUMS * 4 + GUARD];
        self.stream.read(self.out.at(), &mut got)?;
        let (sums, behind) = got.split_at(SUMS * 4);
        for (i, b) in sums.as_chunks().0.iter().enumerate() {
            let of = |round| Self::operand(round, 0, i) + Self::operand(round, 1, i);
            let (got, want) = (f32::from_le_bytes(*b), of(round));
            if got.to_bits() != want.to_bits() {
                let stale = (0..round).find(|&r| of(r).to_bits() == got.to_bits());
                let hint = match stale {
                    Some(_) => ": the sum of inputs that were there before",
                    None if got.is_nan() => ": nothing was written",
                    None => "",
                };
                return Ok(Err(format!("sum {i} is {got}, expected {want}{hint}")));
            }
        }
        let kept = behind.iter().all(|b| *b == 0xff);
        Ok(if kept { Ok(()) } else { Err(format!("bytes behind {SUMS} sums were overwritten")) })
    }
}

/// One launch, every sum looked at.
fn adds(device: &Arc<dyn Device>, add: Function) -> Result<Result<String, String>, DriverError> {
    let mut s = Sums::new(device, add)?;
    s.set(0)?;
    s.launch()?;
    Ok(s.look(0)?.map(|()| format!("{SUMS} sums are right, nothing was written behind them")))
}

/// Time passes between two points of a stream with work between them.
fn events(device: &Arc<dyn Device>, add: Function) -> Result<Result<String, String>, DriverError> {
    let mut s = Sums::new(device, add)?;
    s.set(0)?;
    let from = s.stream.event()?;
    for _ in 0..LAUNCHES {
        s.launch()?;
    }
    let to = s.stream.event()?;
    let ms = s.stream.elapsed(from, to)?;
    let text = format!("{LAUNCHES} launches took {:.1} µs", ms * 1e3);
    Ok(if ms > 0.0 && ms.is_finite() { Ok(text) } else { Err(text) })
}

/// A captured launch reads what its buffers hold when it is replayed.
fn replays(device: &Arc<dyn Device>, add: Function) -> Result<Result<String, String>, DriverError> {
    let mut s = Sums::new(device, add)?;
    s.set(0)?;
    s.launch()?;
    s.stream.begin_capture()?;
    let launched = s.launch();
    let graph = s.stream.end_capture()?;
    launched?;
    for round in 1..=3 {
        s.set(round)?;
        s.stream.replay(graph)?;
        if let Err(why) = s.look(round)? {
            return Ok(Err(format!("replay {round} with changed inputs: {why}")));
        }
    }
    s.stream.forget(graph);
    Ok(Ok("3 replays, each with inputs of its own".into()))
}
