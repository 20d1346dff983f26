//! What is needed of a code object's ELF: its loaded image, its kernel descriptors, its metadata note.

use crate::program::LoadError;

/// A kernel descriptor (64 bytes in `.rodata`, symbol `NAME.kd`).
pub(crate) struct Descriptor {
    pub name: String,
    pub entry: u64,
    pub lds: u32,
    pub rsrc1: u32,
    pub rsrc2: u32,
    pub properties: u16,
    pub preload: u16,
}

pub(crate) struct Elf {
    /// Loaded segments at their virtual addresses.
    pub image: Vec<u8>,
    pub descriptors: Vec<Descriptor>,
    pub note: Vec<u8>,
}

fn bad(why: &str) -> LoadError {
    LoadError::Elf { why: why.into() }
}

fn int(b: &[u8], at: usize, n: usize) -> Result<u64, LoadError> {
    let bytes = at.checked_add(n).and_then(|end| b.get(at..end)).ok_or_else(|| bad("a table lies outside the file"))?;
    Ok(bytes.iter().rev().fold(0, |x, byte| x << 8 | u64::from(*byte)))
}

fn slice(b: &[u8], at: u64, n: u64) -> Result<&[u8], LoadError> {
    let end = at.checked_add(n).ok_or_else(|| bad("a range overflows"))?;
    b.get(at as usize..end as usize).ok_or_else(|| bad("a section lies outside the file"))
}

pub(crate) fn parse(b: &[u8]) -> Result<Elf, LoadError> {
    if b.get(..5) != Some(b"\x7fELF\x02") {
        return Err(bad("not a 64-bit ELF file"));
    }
    if int(b, 18, 2)? != 224 {
        return Err(bad("not made for an AMD GPU"));
    }
    // EF_AMDGPU_MACH_AMDGCN_GFX942.
    if int(b, 48, 4)? & 0xff != 0x4c {
        return Err(bad("not made for gfx942"));
    }
    let image = load(b)?;
    let (mut descriptors, mut note) = (Vec::new(), Vec::new());
    let (table, count) = (int(b, 40, 8)? as usize, int(b, 60, 2)? as usize);
    for section in (0..count).map(|i| table + i * 64) {
        let (at, size) = (int(b, section + 24, 8)?, int(b, section + 32, 8)?);
        match int(b, section + 4, 4)? {
            7 => notes(slice(b, at, size)?, &mut note)?,
            // .dynsym
            11 => {
                let names = table + int(b, section + 40, 4)? as usize * 64;
                let names = slice(b, int(b, names + 24, 8)?, int(b, names + 32, 8)?)?;
                for symbol in slice(b, at, size)?.chunks_exact(24) {
                    let name = names.get(int(symbol, 0, 4)? as usize..).unwrap_or_default();
                    let name = name.split(|c| *c == 0).next().unwrap_or_default();
                    if let Some(name) = String::from_utf8_lossy(name).strip_suffix(".kd") {
                        descriptors.push(descriptor(&image, int(symbol, 8, 8)?, name)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Elf { image, descriptors, note })
}

fn load(b: &[u8]) -> Result<Vec<u8>, LoadError> {
    let (table, count) = (int(b, 32, 8)? as usize, int(b, 56, 2)? as usize);
    let mut image = Vec::new();
    for header in (0..count).map(|i| table + i * 56) {
        if int(b, header, 4)? != 1 {
            continue;
        }
        let (offset, at) = (int(b, header + 8, 8)?, int(b, header + 16, 8)? as usize);
        let (stored, size) = (int(b, header + 32, 8)?, int(b, header + 40, 8)? as usize);
        let end = at.checked_add(size).filter(|e| *e <= 1 << 28).ok_or_else(|| bad("a segment is too large"))?;
        if image.len() < end {
            image.resize(end, 0);
        }
        let bytes = slice(b, offset, stored)?;
        image
            .get_mut(at..at + bytes.len())
            .ok_or_else(|| bad("a segment holds more than its size"))?
            .copy_from_slice(bytes);
    }
    Ok(image)
}

fn notes(b: &[u8], out: &mut Vec<u8>) -> Result<(), LoadError> {
    let mut at = 0;
    while at + 12 <= b.len() {
        let (name, size, kind) = (int(b, at, 4)? as usize, int(b, at + 4, 4)?, int(b, at + 8, 4)?);
        let start = at + 12 + name.next_multiple_of(4);
        let body = slice(b, start as u64, size)?;
        if kind == 32 && b.get(at + 12..at + 18) == Some(b"AMDGPU") {
            *out = body.to_vec();
        }
        at = start + body.len().next_multiple_of(4);
    }
    Ok(())
}

fn descriptor(image: &[u8], at: u64, name: &str) -> Result<Descriptor, LoadError> {
    let a = at as usize;
    Ok(Descriptor {
        name: name.into(),
        lds: int(image, a, 4)? as u32,
        entry: at.wrapping_add(int(image, a + 16, 8)?),
        rsrc1: int(image, a + 48, 4)? as u32,
        rsrc2: int(image, a + 52, 4)? as u32,
        properties: int(image, a + 56, 2)? as u16,
        preload: int(image, a + 58, 2)? as u16,
    })
}
