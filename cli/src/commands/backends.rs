//! `greta backends`: what there is to run on.

use crate::{json, output};
use greta::backends::{DeviceEntry, DeviceRates, DriverEntry};
use greta::{BACKENDS, BackendOptions};
use serde_json::{Value, json};
use std::process::ExitCode;

/// List the backends, their drivers and devices, and whether each can be used here
///
/// A device that is listed as `hip:amd:0` is chosen with `-b hip:amd:0`; `-b hip:amd` is its driver's first, `-b hip` the
/// first of all. The drivers' libraries obey HIP_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES: devices are
/// numbered as they then see them.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  greta backends\n  greta backends --bandwidth\n  greta backends --json")]
pub struct Backends {
    /// Measure what each GPU can do, by its own clock: copies in its memory, a kernel that reads it, and products of 8-bit
    /// integers on its matrix units; takes a second each
    #[arg(long)]
    bandwidth: bool,
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

impl Backends {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let options = BackendOptions::default();
        let opened = BACKENDS.iter().map(|b| (b, b.open(&options), b.drivers(&options, self.bandwidth)));
        if self.json {
            let list: Vec<_> = opened
                .map(|(b, made, drivers)| {
                    let drivers: Vec<Value> = drivers.iter().map(driver_json).collect();
                    let mut value = json!({"name": b.name, "about": b.about, "available": made.is_ok()});
                    match made {
                        Ok(m) => value["device"] = m.describe().into(),
                        Err(e) => value["why"] = e.to_string().into(),
                    }
                    value["drivers"] = drivers.into();
                    value
                })
                .collect();
            json::print(&list.into())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = vec![["name", "what it is", "here"].map(String::from).to_vec()];
        let mut drivers = Vec::new();
        for (b, made, list) in opened {
            let here = made.map_or_else(|e| format!("no: {e}"), |m| m.describe());
            rows.push(vec![b.name.into(), b.about.into(), here]);
            drivers.extend(list);
        }
        output::print(&output::table(&rows, &[]))?;
        output::print(&format!("\n{}", devices(&drivers, self.bandwidth)))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The devices as a table, then the drivers that have none. The last columns are there if they were asked for.
fn devices(drivers: &[DriverEntry], bandwidth: bool) -> String {
    let head =
        ["device", "what it is", "arch", "units", "memory", "free", "driver", "compiler", "copy", "read", "int8"];
    let shown = if bandwidth { head.len() } else { head.len() - 3 };
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut absent = String::new();
    for d in drivers {
        match &d.devices {
            Ok(list) if list.is_empty() => absent += &format!("{}: no device\n", d.name),
            Ok(list) => rows.extend(list.iter().map(row)),
            Err(why) => absent += &format!("{}: {why}\n", d.name),
        }
        for e in d.devices.iter().flatten() {
            if let Err(why) = &e.usable {
                absent += &format!("{}: {why}\n", e.name);
            }
            if let Some(Err(why)) = &e.rates {
                absent += &format!("{}: not measured: {why}\n", e.name);
            }
        }
    }
    rows.iter_mut().for_each(|r| r.truncate(shown));
    let table =
        if rows.len() > 1 { output::table(&rows, &[false, false, false, true, true, true]) } else { String::new() };
    table + &absent
}

fn row(e: &DeviceEntry) -> Vec<String> {
    let rate = |of: fn(&DeviceRates) -> String| match &e.rates {
        Some(Ok(rates)) => of(rates),
        _ => "–".into(),
    };
    vec![
        e.name.clone(),
        e.about.clone(),
        e.arch.clone(),
        e.units.to_string(),
        output::bytes(e.memory),
        e.free.map_or("–".into(), output::bytes),
        e.driver.clone(),
        e.compiler.clone(),
        rate(|r| format!("{:.1} GB/s", r.copy / 1e9)),
        rate(|r| format!("{:.1} GB/s", r.read / 1e9)),
        rate(|r| format!("{:.1} Top/s", r.matrix / 1e12)),
    ]
}

/// A driver as JSON has it.
pub fn driver_json(d: &DriverEntry) -> Value {
    match &d.devices {
        Ok(list) => json!({"name": d.name, "devices": list.iter().map(device_json).collect::<Vec<_>>()}),
        Err(why) => json!({"name": d.name, "devices": [], "why": why}),
    }
}

fn device_json(e: &DeviceEntry) -> Value {
    let mut value = json!({
        "name": e.name,
        "about": e.about,
        "arch": e.arch,
        "units": e.units,
        "memory": e.memory,
        "free": e.free,
        "driver": e.driver,
        "compiler": e.compiler,
        "usable": e.usable.is_ok(),
    });
    if let Err(why) = &e.usable {
        value["why"] = why.as_str().into();
    }
    match &e.rates {
        Some(Ok(r)) => value["bandwidth"] = json!({"copy": r.copy, "read": r.read, "matrix": r.matrix}),
        Some(Err(why)) => value["bandwidth"] = json!({"why": why}),
        None => {}
    }
    value
}
