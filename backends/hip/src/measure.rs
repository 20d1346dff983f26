//! What a device can do at best, measured: kernels' times are held against it.

use crate::driver::{Device, DriverError, Event, Size, Stream};
use crate::kernels::Source;
use crate::memory::DeviceBuffer;
use greta_backend::DeviceRates;
use std::sync::Arc;

/// The kernels whose time is taken.
const SOURCE: &str = "measure.hip";
/// Most and least bytes of an array that is copied and read for rates to be told: more than any cache holds.
const MOST: u64 = 2 << 30;
const LEAST: u64 = 512 << 20;
/// Bytes that come from the host; the rest of the array is copies of them.
const SEED: usize = 1 << 20;
/// How often a thing is done whose time is taken.
const TIMES: u32 = 8;

/// What a device can do, with arrays that no cache holds and all units busy.
pub fn rates(device: &Arc<dyn Device>) -> Result<DeviceRates, DriverError> {
    let bytes = device.free_memory().map_or(LEAST, |free| free / 4).min(MOST);
    if bytes < LEAST {
        let why = format!("{} MiB are free; arrays that no cache holds take {}", bytes >> 18, LEAST >> 18);
        return Err(DriverError::Absent(why));
    }
    let [copy, read] = bandwidth(device, bytes)?;
    Ok(DeviceRates { copy, read, matrix: matrix_rate(device, device.info().units.max(1) * 4, 2048)? })
}

/// Copies an array and reads it, and takes the device's time for both: bytes a second of the copy, those read and those
/// written together, then of the read. What was read is summed up and compared, so that the figures are of work that was done.
/// The array has `bytes` in whole MiB, from one to 2,048.
pub fn bandwidth(device: &Arc<dyn Device>, bytes: u64) -> Result<[f64; 2], DriverError> {
    // Whole seeds, of which there is one at least; the kernel counts 16 bytes in 32 bits.
    let bytes = (bytes as usize / SEED).clamp(1, MOST as usize / SEED) * SEED;
    let (from, to) = (DeviceBuffer::new(device, bytes, "bandwidth")?, DeviceBuffer::new(device, bytes, "bandwidth")?);
    let groups = device.info().units.max(1) * 16;
    let sums = DeviceBuffer::new(device, groups as usize * 1024, "bandwidth")?;
    let mut stream = device.stream()?;
    let seed: Vec<u8> = (0..SEED / 4).flat_map(|i| (i as u32).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    stream.write(from.at(), &seed)?;
    let mut filled = SEED;
    while filled < bytes {
        let now = filled.min(bytes - filled);
        stream.copy(from.at(), from.at().offset(filled as u64), now)?;
        filled += now;
    }
    let read = device.function(&Source::of(SOURCE), "read_all")?;
    let mut args = Vec::new();
    args.extend(sums.at().0.to_le_bytes());
    args.extend(to.at().0.to_le_bytes());
    args.extend((bytes as u32 / 16).to_le_bytes());
    args.extend((groups * 256).to_le_bytes());
    let size = Size { grid: [groups, 1, 1], block: 256 };
    // The first of each is not measured: pages and code are brought in.
    stream.copy(from.at(), to.at(), bytes)?;
    stream.launch(read, size, &args, &[])?;
    let mut marks = vec![stream.event()?];
    for _ in 0..TIMES {
        stream.copy(from.at(), to.at(), bytes)?;
    }
    marks.push(stream.event()?);
    for _ in 0..TIMES {
        stream.launch(read, size, &args, &[])?;
    }
    marks.push(stream.event()?);
    let mut seen = vec![0; groups as usize * 1024];
    stream.read(sums.at(), &mut seen)?;
    let sum = |b: &[u8]| b.as_chunks().0.iter().fold(0u32, |s, w| s.wrapping_add(u32::from_le_bytes(*w)));
    let want = sum(&seed).wrapping_mul((bytes / SEED) as u32);
    if sum(&seen) != want {
        return Err(wrong(format!("the copy's words add up to {:#x}, expected {want:#x}", sum(&seen))));
    }
    let [copy, read] = [[marks[0], marks[1]], [marks[1], marks[2]]].map(|m| seconds(&mut *stream, m));
    let moved = bytes as f64 * f64::from(TIMES);
    Ok([2.0 * moved / copy?, moved / read?])
}

/// Multiplies on the matrix units alone, `times` over in each of `groups` workgroups: operations a second. The sums are
/// compared with what they must be.
pub fn matrix_rate(device: &Arc<dyn Device>, groups: u32, times: u32) -> Result<f64, DriverError> {
    let sums = DeviceBuffer::new(device, groups as usize * 1024, "matrix rate")?;
    let kernel = device.function(&Source::of(SOURCE), "multiply_all")?;
    let mut stream = device.stream()?;
    let mut args = Vec::new();
    args.extend(sums.at().0.to_le_bytes());
    // Threes and minus twos.
    args.extend([0x0303_0303_u32, 0xfefe_fefe, times].iter().flat_map(|v| v.to_le_bytes()));
    let size = Size { grid: [groups, 1, 1], block: 256 };
    stream.launch(kernel, size, &args, &[])?;
    let from = stream.event()?;
    for _ in 0..TIMES {
        stream.launch(kernel, size, &args, &[])?;
    }
    let to = stream.event()?;
    let mut seen = vec![0; groups as usize * 1024];
    stream.read(sums.at(), &mut seen)?;
    // Eight products of 16 by 16 outputs a wave; a lane has its part of each.
    let waves = 256 / device.info().target.wave();
    let outputs = 8 * 256 / device.info().target.wave();
    let want = (outputs * times).wrapping_mul(32).wrapping_mul(6).wrapping_neg();
    let words = || seen.as_chunks().0.iter().map(|w| u32::from_le_bytes(*w));
    if let Some(got) = words().find(|w| *w != want) {
        return Err(wrong(format!("the matrix units' sums are {:#x}, expected {want:#x}", got)));
    }
    let each = 2.0 * 16.0 * 16.0 * 32.0 * 8.0 * f64::from(waves) * f64::from(times) * f64::from(groups);
    Ok(each * f64::from(TIMES) / seconds(&mut *stream, [from, to])?)
}

/// The device's time between two points.
fn seconds(stream: &mut dyn Stream, [from, to]: [Event; 2]) -> Result<f64, DriverError> {
    match stream.elapsed(from, to)? {
        ms if ms > 0.0 => Ok(ms / 1e3),
        ms => Err(wrong(format!("the device's clock says that it took {ms} ms"))),
    }
}

fn wrong(why: String) -> DriverError {
    DriverError::Fault(why)
}
