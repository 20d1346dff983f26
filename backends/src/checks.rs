//! What there is to run on, and whether it works: what `greta backends` lists and `greta doctor` checks.

/// A driver of a backend, and its devices.
#[derive(Clone, Debug)]
pub struct DriverEntry {
    /// The name it is chosen by: `hip:sim`.
    pub name: String,
    /// Its devices, or why it can't be used, in one line.
    pub devices: Result<Vec<DeviceEntry>, String>,
}

/// A device of a driver.
#[derive(Clone, Debug)]
pub struct DeviceEntry {
    /// The name it is chosen by: `hip:sim:0`.
    pub name: String,
    /// What it is, in its driver's words.
    pub about: String,
    /// The architecture, in compilers' words.
    pub arch: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes nobody uses, where the driver says.
    pub free: Option<u64>,
    /// Compute units.
    pub units: u32,
    /// The driver's version.
    pub driver: String,
    /// The version of the compiler that makes its kernels.
    pub compiler: String,
    /// What was measured, if it was asked for and can be.
    pub rates: Option<Result<DeviceRates, String>>,
    /// Whether there are kernels for it, and why not.
    pub usable: Result<(), String>,
}

/// What a device can do at best, measured by its own clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceRates {
    /// Bytes a second of a copy inside its memory: bytes read and bytes written.
    pub copy: f64,
    /// Bytes a second of a kernel that only reads.
    pub read: f64,
    /// Operations a second of a kernel that only multiplies 8-bit integers on the matrix units, with the instructions that
    /// greta's kernels use; a product and its sum are two.
    pub matrix: f64,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Something is wrong.
    Fail,
    /// Not checked: it does not apply, or an earlier check failed.
    Skipped,
}

/// One thing that was checked.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was checked, in a word or two.
    pub name: &'static str,
    /// How it ended.
    pub status: CheckStatus,
    /// What was found.
    pub found: String,
    /// What a failure means, and what to do about it.
    pub advice: &'static str,
}

/// What was checked of a backend's driver and device, and what later checks run on.
#[derive(Clone, Debug)]
pub struct Checkup {
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// The name to open the backend by, with driver and number, if there is a device.
    pub device: Option<String>,
    /// Whether kernels compile, without which nothing else can be said of it.
    pub kernels: bool,
}

/// What one thing is checked for, and what to do if it fails.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// What is checked, in a word or two.
    pub name: &'static str,
    /// What a failure means, and what to do about it.
    pub advice: &'static str,
}

impl Checked {
    /// How it ended: what was found, or what is wrong.
    pub fn ended(self, result: Result<String, String>) -> Check {
        let (status, found) = match result {
            Ok(found) => (CheckStatus::Ok, found),
            Err(found) => (CheckStatus::Fail, found),
        };
        Check { name: self.name, status, found, advice: self.advice }
    }

    /// Why it was not checked.
    pub fn skipped(self, why: impl Into<String>) -> Check {
        Check { name: self.name, status: CheckStatus::Skipped, found: why.into(), advice: self.advice }
    }
}
