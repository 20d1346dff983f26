//! The one JSON value that `--json` puts on standard output.

use crate::output;
use serde_json::Value;
use std::time::Duration;

/// Prints a value on one line, and nothing else.
pub fn print(value: &Value) -> anyhow::Result<()> {
    output::print(&format!("{value}\n"))?;
    Ok(())
}

/// Milliseconds with microseconds after the point.
pub fn ms(time: Duration) -> Value {
    ((time.as_secs_f64() * 1e6).round() / 1e3).into()
}

/// How many a second; null where no time has passed.
pub fn rate(n: usize, time: Duration) -> Value {
    if time.is_zero() { Value::Null } else { (n as f64 / time.as_secs_f64()).into() }
}
