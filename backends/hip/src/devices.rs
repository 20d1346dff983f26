//! The devices of every driver, for people and programs that look for one.

use crate::driver::{DeviceInfo, Driver, DriverError};
use crate::measure::rates;
use crate::{HipOptions, drivers};
use greta_backend::{DeviceEntry, DriverEntry};

/// Every driver with its devices, the best first. `measured`: what they can do at best is measured, which takes a second; an
/// emulated device has no speed.
pub fn devices(options: &HipOptions, measured: bool) -> Vec<DriverEntry> {
    let list = drivers(options);
    let entry = |(name, driver): &(&'static str, Box<dyn Driver>)| {
        let found = driver.devices().map_err(|e| one_line(&e));
        let one = |(i, info): (usize, DeviceInfo)| device(name, &**driver, i, info, measured);
        DriverEntry { name: name.to_string(), devices: found.map(|all| all.into_iter().enumerate().map(one).collect()) }
    };
    list.iter().map(entry).collect()
}

fn device(driver_name: &str, driver: &dyn Driver, ordinal: usize, info: DeviceInfo, measured: bool) -> DeviceEntry {
    let opened = match &info.usable {
        Ok(()) => driver.open(ordinal).map_err(|e| one_line(&e)),
        Err(why) => Err(why.clone()),
    };
    let measured = match &opened {
        Ok(device) if measured && !driver.emulated() => Some(rates(device).map_err(|e| one_line(&e))),
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
        rates: measured,
        usable: opened.map(|_| ()),
    }
}

/// An error as a cell of a table has it.
fn one_line(e: &DriverError) -> String {
    e.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
