//! The metadata of a file: keys in file order, and getters that say what they found instead.

use std::path::{Path, PathBuf};

use super::check::sorted_unique;
use super::error::{GgufError, GgufErrorKind};
use super::value::{Array, Value};

/// The metadata of a GGUF file, in file order.
///
/// The typed getters return `Ok(None)` for an absent key and an error for a value of another type, so
/// that a default is taken only where the file is silent. Where a key must be there:
/// `meta.u32(key)?.ok_or_else(|| meta.missing(key))?`.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    /// Entry numbers in the order of their keys, for look-up.
    by_key: Vec<usize>,
    /// The file, for messages.
    path: Option<PathBuf>,
}

impl Metadata {
    /// Metadata of these entries, each key once.
    pub(super) fn new(entries: Vec<(String, Value)>) -> Result<Self, GgufError> {
        let by_key = sorted_unique(&entries, |e| &e.0).map_err(|e| GgufErrorKind::DuplicateKey { key: e.0.clone() })?;
        Ok(Metadata { entries, by_key, path: None })
    }

    /// Adds an entry at the end, whose key must be new.
    pub(super) fn insert(&mut self, key: &str, value: Value) -> Result<(), GgufError> {
        match self.search(key) {
            Ok(_) => Err(self.error(GgufErrorKind::DuplicateKey { key: key.to_owned() })),
            Err(at) => {
                self.by_key.insert(at, self.entries.len());
                self.entries.push((key.to_owned(), value));
                Ok(())
            }
        }
    }

    /// Names the file in every later message.
    pub(super) fn set_path(&mut self, path: &Path) {
        self.path = Some(path.to_owned());
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let i = self.search(key).ok()?;
        Some(&self.entries[self.by_key[i]].1)
    }

    /// The error for a key that must be there and is not.
    pub fn missing(&self, key: &str) -> GgufError {
        self.error(GgufErrorKind::MissingKey { key: key.to_owned() })
    }

    /// An integer of any type whose value fits `u32`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.integer(key, "u32")
    }

    /// An integer of any type whose value fits `u64`.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.integer(key, "u64")
    }

    /// An integer of any type whose value fits `i32`.
    pub fn i32(&self, key: &str) -> Result<Option<i32>, GgufError> {
        self.integer(key, "i32")
    }

    /// A float of either type, rounded to `f32`.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::F32(v)) => Ok(Some(v)),
            Some(&Value::F64(v)) => narrow(v).map(Some).ok_or_else(|| self.range(key, "f32", v)),
            Some(other) => Err(self.wrong_type(key, "f32", other)),
        }
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::Bool(v)) => Ok(Some(v)),
            Some(other) => Err(self.wrong_type(key, "bool", other)),
        }
    }

    /// Text.
    pub fn str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(other) => Err(self.wrong_type(key, "string", other)),
        }
    }

    /// An array of any type.
    pub fn array(&self, key: &str) -> Result<Option<&Array>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(v)) => Ok(Some(v)),
            Some(other) => Err(self.wrong_type(key, "array", other)),
        }
    }

    /// An array of text.
    pub fn str_array(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Strings(v))) => Ok(Some(v)),
            Some(other) => Err(self.wrong_type(key, "array of string", other)),
        }
    }

    /// An array of booleans.
    pub fn bool_array(&self, key: &str) -> Result<Option<&[bool]>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Bools(v))) => Ok(Some(v)),
            Some(other) => Err(self.wrong_type(key, "array of bool", other)),
        }
    }

    /// An array of floats of either type, rounded to `f32`.
    pub fn f32_array(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(v))) => Ok(Some(v.clone())),
            Some(Value::Array(Array::F64(v))) => v
                .iter()
                .map(|&x| narrow(x).ok_or_else(|| self.range(key, "array of f32", x)))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(other) => Err(self.wrong_type(key, "array of f32", other)),
        }
    }

    /// An array of integers of any type whose values fit `u32`.
    pub fn u32_array(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        self.integers(key, "array of u32")
    }

    /// An array of integers of any type whose values fit `i32`.
    pub fn i32_array(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        self.integers(key, "array of i32")
    }

    /// Where `key` stands in the order of keys, or where it would.
    fn search(&self, key: &str) -> Result<usize, usize> {
        self.by_key.binary_search_by(|&i| self.entries[i].0.as_str().cmp(key))
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, want: &'static str) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let n = value.as_integer().ok_or_else(|| self.wrong_type(key, want, value))?;
        T::try_from(n).map(Some).map_err(|_| self.range(key, want, n))
    }

    fn integers<T>(&self, key: &str, want: &'static str) -> Result<Option<Vec<T>>, GgufError>
    where
        T: TryFrom<i128>,
    {
        let convert = |all: &mut dyn Iterator<Item = i128>| {
            all.map(|n| T::try_from(n).map_err(|_| self.range(key, want, n))).collect()
        };
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value {
            Value::Array(Array::U8(v)) => convert(&mut v.iter().map(|&x| x.into())),
            Value::Array(Array::I8(v)) => convert(&mut v.iter().map(|&x| x.into())),
            Value::Array(Array::U16(v)) => convert(&mut v.iter().map(|&x| x.into())),
            Value::Array(Array::I16(v)) => convert(&mut v.iter().map(|&x| x.into())),
            Value::Array(Array::U32(v)) => convert(&mut v.iter().map(|&x| x.into())),
            Value::Array(Array::I32(v)) => convert(&mut v.iter().map(|&x| x.into())),
            Value::Array(Array::U64(v)) => convert(&mut v.iter().map(|&x| x.into())),
            Value::Array(Array::I64(v)) => convert(&mut v.iter().map(|&x| x.into())),
            other => Err(self.wrong_type(key, want, other)),
        }
        .map(Some)
    }

    #[cold]
    fn wrong_type(&self, key: &str, want: &'static str, found: &Value) -> GgufError {
        let found = match found {
            Value::Array(a) => format!("an {} of length {}", found.type_name(), a.len()),
            _ => format!("the {} {found}", found.type_name()),
        };
        self.error(GgufErrorKind::MetadataType { key: key.to_owned(), want, found })
    }

    #[cold]
    fn range(&self, key: &str, want: &'static str, found: impl std::fmt::Display) -> GgufError {
        let found = found.to_string();
        self.error(GgufErrorKind::MetadataRange { key: key.to_owned(), want, found })
    }

    fn error(&self, kind: GgufErrorKind) -> GgufError {
        GgufError::from(kind).in_file(self.path.as_deref())
    }
}

/// `v` rounded to `f32`, unless it is finite and does not stay so.
fn narrow(v: f64) -> Option<f32> {
    let rounded = v as f32;
    (rounded.is_finite() || !v.is_finite()).then_some(rounded)
}
