//! Metadata values: one number, flag or text, or an array of them stored compactly.

use super::cursor::Cursor;
use super::error::{GgufError, GgufErrorKind};
use super::words::quote;

/// How deep arrays may stand in arrays. No known model nests them at all.
const MAX_DEPTH: usize = 4;

const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

macro_rules! values {
    ($($(#[$doc:meta])* $id:ident($num:ty) = $code:literal;)*) => {
        /// A metadata value.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Value {
            $($(#[$doc])* $id($num),)*
            /// True or false.
            Bool(bool),
            /// UTF-8 text.
            String(String),
            /// Values of one type.
            Array(Array),
        }

        /// An array of metadata values of one type.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Array {
            $($(#[$doc])* $id(Vec<$num>),)*
            /// True or false.
            Bools(Vec<bool>),
            /// UTF-8 text.
            Strings(Vec<String>),
            /// Arrays, each with a type of its own.
            Arrays(Vec<Array>),
        }

        impl Value {
            /// Reads a value of the type with number `code`.
            pub(super) fn read(cur: &mut Cursor<'_>, code: u32) -> Result<Value, GgufError> {
                Ok(match code {
                    $($code => Value::$id(<$num>::from_le_bytes(cur.fixed()?)),)*
                    BOOL => {
                        let [byte] = cur.fixed()?;
                        Value::Bool(flag(cur, byte, cur.offset() - 1)?)
                    }
                    STRING => Value::String(cur.string()?.to_owned()),
                    ARRAY => Value::Array(Array::read(cur, MAX_DEPTH)?),
                    _ => return Err(unknown(cur, code)),
                })
            }

            /// Appends the type number and the value.
            pub(super) fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Value::$id(v) => {
                        out.extend_from_slice(&u32::to_le_bytes($code));
                        out.extend_from_slice(&v.to_le_bytes());
                    })*
                    Value::Bool(v) => {
                        out.extend_from_slice(&BOOL.to_le_bytes());
                        out.push(u8::from(*v));
                    }
                    Value::String(v) => {
                        out.extend_from_slice(&STRING.to_le_bytes());
                        write_str(v, out);
                    }
                    Value::Array(v) => {
                        out.extend_from_slice(&ARRAY.to_le_bytes());
                        v.write(out);
                    }
                }
            }

            /// The type in words, such as `u32` or `array of string`.
            pub fn type_name(&self) -> String {
                match self {
                    $(Value::$id(_) => stringify!($num).to_owned(),)*
                    Value::Bool(_) => "bool".to_owned(),
                    Value::String(_) => "string".to_owned(),
                    Value::Array(a) => format!("array of {}", a.element_name()),
                }
            }
        }

        impl Array {
            /// Reads an array: its element type, its length, its elements.
            fn read(cur: &mut Cursor<'_>, depth: usize) -> Result<Array, GgufError> {
                if depth == 0 {
                    let (place, offset) = (cur.place(), cur.offset());
                    return Err(GgufErrorKind::Depth { place, offset, limit: MAX_DEPTH }.into());
                }
                Ok(match cur.u32()? {
                    $($code => {
                        const SIZE: usize = size_of::<$num>();
                        let n = cur.count(stringify!($num), SIZE)?;
                        let (chunks, _) = cur.take(n * SIZE)?.as_chunks::<SIZE>();
                        Array::$id(chunks.iter().map(|c| <$num>::from_le_bytes(*c)).collect())
                    })*
                    BOOL => {
                        let n = cur.count("bool", 1)?;
                        let start = cur.offset();
                        let raw = cur.take(n)?;
                        let mut flags = Vec::with_capacity(n);
                        for (i, &byte) in raw.iter().enumerate() {
                            cur.element = Some(i);
                            flags.push(flag(cur, byte, start + i as u64)?);
                        }
                        cur.element = None;
                        Array::Bools(flags)
                    }
                    STRING => {
                        let n = cur.count("strings", 8)?;
                        let mut strings = Vec::with_capacity(n);
                        for i in 0..n {
                            cur.element = Some(i);
                            strings.push(cur.string()?.to_owned());
                        }
                        cur.element = None;
                        Array::Strings(strings)
                    }
                    ARRAY => {
                        let n = cur.count("arrays", 12)?;
                        let mut arrays = Vec::with_capacity(n);
                        for i in 0..n {
                            cur.element = Some(i);
                            arrays.push(Array::read(cur, depth - 1)?);
                        }
                        cur.element = None;
                        Array::Arrays(arrays)
                    }
                    code => return Err(unknown(cur, code)),
                })
            }

            /// Appends the element type, the length and the elements.
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Array::$id(v) => {
                        write_head($code, v.len(), out);
                        v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
                    })*
                    Array::Bools(v) => {
                        write_head(BOOL, v.len(), out);
                        out.extend(v.iter().map(|&b| u8::from(b)));
                    }
                    Array::Strings(v) => {
                        write_head(STRING, v.len(), out);
                        v.iter().for_each(|s| write_str(s, out));
                    }
                    Array::Arrays(v) => {
                        write_head(ARRAY, v.len(), out);
                        v.iter().for_each(|a| a.write(out));
                    }
                }
            }

            /// How many elements it has.
            pub fn len(&self) -> usize {
                match self {
                    $(Array::$id(v) => v.len(),)*
                    Array::Bools(v) => v.len(),
                    Array::Strings(v) => v.len(),
                    Array::Arrays(v) => v.len(),
                }
            }

            /// The type of the elements in words, such as `f32`.
            pub fn element_name(&self) -> &'static str {
                match self {
                    $(Array::$id(_) => stringify!($num),)*
                    Array::Bools(_) => "bool",
                    Array::Strings(_) => "string",
                    Array::Arrays(_) => "array",
                }
            }
        }

        impl std::fmt::Display for Value {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Value::$id(v) => v.fmt(f),)*
                    Value::Bool(v) => v.fmt(f),
                    Value::String(v) => f.write_str(&quote(v)),
                    Value::Array(a) => write!(f, "[{}; {}]", a.element_name(), a.len()),
                }
            }
        }

        $(
            impl From<$num> for Value {
                fn from(v: $num) -> Value { Value::$id(v) }
            }
            impl From<Vec<$num>> for Value {
                fn from(v: Vec<$num>) -> Value { Value::Array(Array::$id(v)) }
            }
        )*
    };
}

values! {
    /// Unsigned, 8 bits.
    U8(u8) = 0;
    /// Signed, 8 bits.
    I8(i8) = 1;
    /// Unsigned, 16 bits.
    U16(u16) = 2;
    /// Signed, 16 bits.
    I16(i16) = 3;
    /// Unsigned, 32 bits.
    U32(u32) = 4;
    /// Signed, 32 bits.
    I32(i32) = 5;
    /// IEEE single precision.
    F32(f32) = 6;
    /// Unsigned, 64 bits.
    U64(u64) = 10;
    /// Signed, 64 bits.
    I64(i64) = 11;
    /// IEEE double precision.
    F64(f64) = 12;
}

impl Value {
    /// The number, of whatever integer type it is.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            _ => return None,
        })
    }
}

impl Array {
    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

macro_rules! from {
    ($($ty:ty: $v:ident => $value:expr;)*) => {
        $(impl From<$ty> for Value {
            fn from($v: $ty) -> Value { $value }
        })*
    };
}

from! {
    bool: v => Value::Bool(v);
    &str: v => Value::String(v.to_owned());
    String: v => Value::String(v);
    Vec<String>: v => Value::Array(Array::Strings(v));
    Array: v => Value::Array(v);
}

fn flag(cur: &Cursor<'_>, byte: u8, offset: u64) -> Result<bool, GgufError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(GgufErrorKind::Bool { place: cur.place(), offset, byte }.into()),
    }
}

#[cold]
fn unknown(cur: &Cursor<'_>, id: u32) -> GgufError {
    // The type number has been read: it stands in the four bytes before the cursor.
    GgufErrorKind::ValueType { place: cur.place(), offset: cur.offset() - 4, id }.into()
}

fn write_head(code: u32, len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&(len as u64).to_le_bytes());
}

/// Appends a length and text.
pub(super) fn write_str(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
