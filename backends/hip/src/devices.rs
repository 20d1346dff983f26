//! The devices of every driver, for people and programs that look for one.

use crate::driver::{Device, DeviceInfo, Driver, DriverError, Size};
use crate::kernels::Source;
use crate::memory::DeviceBuffer;
use crate::{HipOptions, drivers};
use greta_backend::{Bandwidth, DeviceEntry, DriverEntry};
use std::sync::Arc;

/// Most bytes of an array that is copied and read: more than any cache holds.
const MOST: u64 = 2 << 30;
/// Bytes that come from the host; the rest of the array is copies of them.
const SEED: usize = 1 << 20;
/// How often a thing is done whose time is taken.
const TIMES: u32 = 8;

/// Every driver with its devices, the best first. `bandwidth`: copies and reads are measured, which takes a second; an
/// emulated device has none.
pub fn devices(options: &HipOptions, bandwidth: bool) -> Vec<DriverEntry> {
    let list = drivers(options);
    let entry = |(name, driver): &(&'static str, Box<dyn Driver>)| {
        let found = driver.devices().map_err(|e| one_line(&e));
        let one = |(i, info): (usize, DeviceInfo)| device(name, &**driver, i, info, bandwidth);
        DriverEntry { name: name.to_string(), devices: found.map(|all| all.into_iter().enumerate().map(one).collect()) }
    };
    list.iter().map(entry).collect()
}

fn device(driver_name: &str, driver: &dyn Driver, ordinal: usize, info: DeviceInfo, bandwidth: bool) -> DeviceEntry {
    let opened = match &info.usable {
        Ok(()) => driver.open(ordinal).map_err(|e| one_line(&e)),
        Err(why) => Err(why.clone()),
    };
    let measured = match &opened {
        Ok(device) if bandwidth && !driver.emulated() => {
            let bytes = device.free_memory().map_or(64 << 20, |free| free / 4).min(MOST);
            Some(measure(device, bytes).map_err(|e| one_line(&e)))
        }
        _ => None,
    };
    DeviceEntry {
        name: format!("{driver_name}:{ordinal}"),
        about: info.name,
        arch: info.arch,
        memory: info.memory,
        free: opened.as_ref().ok().and_then(|d| d.free_memory()),
        units: info.units,
        driver: info.driver,
        compiler: info.compiler,
        bandwidth: measured,
        usable: opened.map(|_| ()),
    }
}

/// An error as a cell of a table has it.
fn one_line(e: &DriverError) -> String {
    e.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Copies an array and reads it, and takes the device's time for both. What was read is summed up and compared, so that
/// the figures are of work that was done.
pub fn measure(device: &Arc<dyn Device>, bytes: u64) -> Result<Bandwidth, DriverError> {
    let wrong = |why: String| DriverError::Fault(why);
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
    let read = device.function(&Source::of("bandwidth.hip"), "read_all")?;
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
    let mut rate = |from: usize, moved: usize| -> Result<f64, DriverError> {
        let ms = stream.elapsed(marks[from], marks[from + 1])?;
        match ms > 0.0 {
            true => Ok(moved as f64 * f64::from(TIMES) / (ms / 1e3)),
            false => Err(wrong(format!("the device's clock says that it took {ms} ms"))),
        }
    };
    Ok(Bandwidth { copy: rate(0, 2 * bytes)?, read: rate(1, bytes)? })
}
