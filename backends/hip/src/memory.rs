//! Device memory that is given back when it is dropped.

use crate::driver::{Device, DriverError, Pointer};
use std::sync::Arc;

/// Some bytes of a device.
pub(crate) struct DeviceBuffer {
    device: Arc<dyn Device>,
    at: Pointer,
    bytes: usize,
}

impl DeviceBuffer {
    /// Allocates; nothing has a buffer of no bytes, whose address nobody could tell from another's.
    pub fn new(device: &Arc<dyn Device>, bytes: usize, what: &str) -> Result<DeviceBuffer, DriverError> {
        let bytes = bytes.max(4);
        Ok(DeviceBuffer { device: device.clone(), at: device.alloc(bytes, what)?, bytes })
    }

    pub fn at(&self) -> Pointer {
        self.at
    }

    /// Another buffer in this one's place if it is too small. Its contents are not kept.
    pub fn reserve(&mut self, bytes: usize, what: &str) -> Result<(), DriverError> {
        if bytes > self.bytes {
            *self = DeviceBuffer::new(&self.device, bytes.next_power_of_two(), what)?;
        }
        Ok(())
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        self.device.free(self.at);
    }
}
