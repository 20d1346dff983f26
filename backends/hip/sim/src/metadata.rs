//! The metadata note: MessagePack with a map for each kernel.

use crate::program::{ArgInfo, LoadError};

/// A MessagePack value; what the note has no use for is left out.
#[derive(Debug, Clone)]
enum Value {
    Nothing,
    Int(i64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    fn get(&self, key: &str) -> &Value {
        if let Value::Map(pairs) = self {
            for (k, v) in pairs {
                if matches!(k, Value::Text(t) if t == key) {
                    return v;
                }
            }
        }
        &Value::Nothing
    }

    fn int(&self) -> u32 {
        if let Value::Int(i) = self { u32::try_from(*i).unwrap_or(0) } else { 0 }
    }

    fn text(&self) -> &str {
        if let Value::Text(t) = self { t } else { "" }
    }

    fn list(&self) -> &[Value] {
        if let Value::List(l) = self { l } else { &[] }
    }
}

/// What the note says of a kernel.
#[derive(Default, Clone)]
pub(crate) struct Notes {
    pub symbol: String,
    pub kernarg: u32,
    pub vgprs: u32,
    pub agprs: u32,
    pub sgprs: u32,
    pub scratch: u32,
    pub lds: u32,
    pub spills: u32,
    pub max_workgroup: u32,
    pub args: Vec<ArgInfo>,
}

pub(crate) fn parse(note: &[u8]) -> Result<Vec<Notes>, LoadError> {
    let mut rest = note;
    let root = value(&mut rest, 0).ok_or(LoadError::Metadata)?;
    let kernels = root.get("amdhsa.kernels").list();
    let arg = |a: &Value| ArgInfo {
        name: a.get(".name").text().into(),
        offset: a.get(".offset").int(),
        size: a.get(".size").int(),
        kind: a.get(".value_kind").text().into(),
    };
    let kernel = |k: &Value| Notes {
        symbol: k.get(".symbol").text().trim_end_matches(".kd").into(),
        kernarg: k.get(".kernarg_segment_size").int(),
        vgprs: k.get(".vgpr_count").int(),
        agprs: k.get(".agpr_count").int(),
        sgprs: k.get(".sgpr_count").int(),
        scratch: k.get(".private_segment_fixed_size").int(),
        lds: k.get(".group_segment_fixed_size").int(),
        spills: k.get(".vgpr_spill_count").int() + k.get(".sgpr_spill_count").int(),
        max_workgroup: k.get(".max_flat_workgroup_size").int(),
        args: k.get(".args").list().iter().map(arg).collect(),
    };
    Ok(kernels.iter().map(kernel).collect())
}

fn take<'a>(b: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = b.split_at_checked(n)?;
    *b = tail;
    Some(head)
}

fn big(b: &mut &[u8], n: usize) -> Option<u64> {
    Some(take(b, n)?.iter().fold(0, |x, byte| x << 8 | u64::from(*byte)))
}

fn value(b: &mut &[u8], depth: usize) -> Option<Value> {
    if depth > 16 {
        return None;
    }
    let tag = take(b, 1)?[0];
    Some(match tag {
        0x00..=0x7f => Value::Int(tag.into()),
        0xe0..=0xff => Value::Int((tag as i8).into()),
        0x80..=0x8f => map(b, (tag & 15).into(), depth)?,
        0xde => {
            let n = big(b, 2)?;
            map(b, n, depth)?
        }
        0xdf => {
            let n = big(b, 4)?;
            map(b, n, depth)?
        }
        0x90..=0x9f => list(b, (tag & 15).into(), depth)?,
        0xdc => {
            let n = big(b, 2)?;
            list(b, n, depth)?
        }
        0xdd => {
            let n = big(b, 4)?;
            list(b, n, depth)?
        }
        0xa0..=0xbf => text(b, (tag & 31).into())?,
        0xd9..=0xdb => {
            let n = big(b, 1 << (tag - 0xd9))?;
            text(b, n)?
        }
        0xc0 => Value::Nothing,
        0xc2 | 0xc3 => Value::Int((tag & 1).into()),
        0xc4..=0xc6 => {
            let n = big(b, 1 << (tag - 0xc4))?;
            take(b, n as usize)?;
            Value::Nothing
        }
        0xca => big(b, 4).map(|_| Value::Nothing)?,
        0xcb => big(b, 8).map(|_| Value::Nothing)?,
        0xcc..=0xcf => Value::Int(big(b, 1 << (tag - 0xcc))? as i64),
        0xd0..=0xd3 => {
            let n = 1 << (tag - 0xd0);
            let unused = 64 - 8 * n as u32;
            Value::Int((big(b, n)? << unused) as i64 >> unused)
        }
        _ => return None,
    })
}

fn text(b: &mut &[u8], n: u64) -> Option<Value> {
    Some(Value::Text(String::from_utf8_lossy(take(b, n as usize)?).into_owned()))
}

fn list(b: &mut &[u8], n: u64, depth: usize) -> Option<Value> {
    let mut out = Vec::new();
    for _ in 0..n {
        out.push(value(b, depth + 1)?);
    }
    Some(Value::List(out))
}

fn map(b: &mut &[u8], n: u64, depth: usize) -> Option<Value> {
    let mut out = Vec::new();
    for _ in 0..n {
        let key = value(b, depth + 1)?;
        out.push((key, value(b, depth + 1)?));
    }
    Some(Value::Map(out))
}
