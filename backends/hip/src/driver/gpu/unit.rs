//! A source in the form that run-time compilers take: texts that end in zero, lists of pointers to them.

use super::api::{Called, Image, Unit};
use crate::driver::DriverError;
use std::ffi::{CStr, CString, c_char};

/// A unit's texts. They live as long as this.
pub(super) struct Texts {
    name: CString,
    source: CString,
    header_names: Vec<CString>,
    headers: Vec<CString>,
    options: Vec<CString>,
}

impl Texts {
    /// `call` is who wants them.
    pub fn of(call: &'static str, unit: &Unit<'_>) -> Called<Texts> {
        let headers = unit.headers.iter();
        Ok(Texts {
            name: text(call, unit.name)?,
            source: text(call, unit.text)?,
            header_names: headers.clone().map(|(name, _)| text(call, name)).collect::<Called<_>>()?,
            headers: headers.map(|(_, t)| text(call, t)).collect::<Called<_>>()?,
            options: unit.options.iter().map(|o| text(call, o)).collect::<Called<_>>()?,
        })
    }

    pub fn name(&self) -> &CStr {
        &self.name
    }

    pub fn source(&self) -> &CStr {
        &self.source
    }

    pub fn header_names(&self) -> Vec<*const c_char> {
        pointers(&self.header_names)
    }

    pub fn headers(&self) -> Vec<*const c_char> {
        pointers(&self.headers)
    }

    pub fn options(&self) -> Vec<*const c_char> {
        pointers(&self.options)
    }
}

fn pointers(list: &[CString]) -> Vec<*const c_char> {
    list.iter().map(|c| c.as_ptr()).collect()
}

/// A text as C has it.
pub(super) fn text(call: &'static str, text: &str) -> Called<CString> {
    CString::new(text).map_err(|_| DriverError::Call { call, why: "a text has a zero in it".into() })
}

/// What a compiler made, unless it refused: then what it said, or what its call came back with.
pub(super) fn image(
    call: &'static str,
    done: Called<()>,
    log: &[u8],
    code: impl FnOnce() -> Called<Vec<u8>>,
) -> Called<Image> {
    let log = String::from_utf8_lossy(log).trim_end_matches('\0').to_string();
    done.map_err(|e| match log.trim() {
        "" => e,
        said => DriverError::Call { call, why: said.into() },
    })?;
    Ok(Image { code: code()?, log })
}
