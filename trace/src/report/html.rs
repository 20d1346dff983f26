//! A report as one page.

use super::data::Report;
use super::texts::Languages;
use crate::TraceError;

/// The report as one page that needs nothing else.
pub fn html(_: &Report, _: Languages) -> Result<String, TraceError> {
    Ok(String::new())
}
