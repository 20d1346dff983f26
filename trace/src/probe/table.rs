//! Rows of a probe's table, and sentences in two languages.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number; JSON writes null for what is not finite.
    Number(f64),
    /// A number that counts or numbers things, such as a layer's.
    Whole(u32),
    /// Yes or no.
    Flag(bool),
    /// It was not recorded, or does not exist.
    Missing,
}

impl From<Option<f64>> for Cell {
    fn from(x: Option<f64>) -> Cell {
        x.map_or(Cell::Missing, Cell::Number)
    }
}

impl From<Option<bool>> for Cell {
    fn from(x: Option<bool>) -> Cell {
        x.map_or(Cell::Missing, Cell::Flag)
    }
}

impl From<f64> for Cell {
    fn from(x: f64) -> Cell {
        Cell::Number(x)
    }
}

impl From<&str> for Cell {
    fn from(x: &str) -> Cell {
        Cell::Text(x.into())
    }
}

impl From<String> for Cell {
    fn from(x: String) -> Cell {
        Cell::Text(x)
    }
}

impl From<u32> for Cell {
    fn from(x: u32) -> Cell {
        Cell::Whole(x)
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Text(t) => f.write_str(t),
            Cell::Number(0.0) => f.write_str("0.0"),
            Cell::Number(x) if !x.is_finite() => f.write_str("inf"),
            Cell::Number(x) if x.fract() == 0.0 && x.abs() < 1e6 => write!(f, "{x}"),
            Cell::Number(x) if (1e-3..1e5).contains(&x.abs()) => write!(f, "{x:.7}"),
            Cell::Number(x) => write!(f, "{x:.3e}"),
            Cell::Whole(n) => write!(f, "{n}"),
            Cell::Flag(b) => write!(f, "{b}"),
            Cell::Missing => f.write_str("–"),
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Text(t) => s.serialize_str(t),
            Cell::Number(x) if x.is_finite() => s.serialize_f64(*x),
            Cell::Whole(n) => s.serialize_u32(*n),
            Cell::Flag(b) => s.serialize_bool(*b),
            Cell::Number(_) | Cell::Missing => s.serialize_none(),
        }
    }
}

/// One row: cells by column, in the table's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row(pub Vec<(&'static str, Cell)>);

impl Row {
    /// With one more column.
    pub fn with(mut self, column: &'static str, cell: impl Into<Cell>) -> Row {
        self.0.push((column, cell.into()));
        self
    }

    /// The cell of a column.
    pub fn get(&self, column: &str) -> Option<&Cell> {
        self.0.iter().find(|(c, _)| *c == column).map(|(_, cell)| cell)
    }

    /// The words of a column; empty if it has none.
    pub fn text(&self, column: &str) -> &str {
        match self.get(column) {
            Some(Cell::Text(t)) => t,
            _ => "",
        }
    }

    /// The number of a column.
    pub fn number(&self, column: &str) -> Option<f64> {
        match self.get(column) {
            Some(Cell::Number(x)) => Some(*x),
            Some(Cell::Whole(n)) => Some(f64::from(*n)),
            _ => None,
        }
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (column, cell) in &self.0 {
            map.serialize_entry(column, cell)?;
        }
        map.end()
    }
}

/// A language of sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Spanish.
    Es,
}

/// A sentence in both languages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// English.
    pub en: String,
    /// Spanish.
    pub es: String,
}

impl Text {
    /// A sentence.
    pub fn new(en: impl Into<String>, es: impl Into<String>) -> Text {
        Text { en: en.into(), es: es.into() }
    }

    /// The sentence in a language.
    pub fn get(&self, lang: Lang) -> &str {
        match lang {
            Lang::En => &self.en,
            Lang::Es => &self.es,
        }
    }

    /// Followed by another.
    pub fn and(mut self, more: &Text) -> Text {
        self.en = format!("{} {}", self.en, more.en);
        self.es = format!("{} {}", self.es, more.es);
        self
    }
}
