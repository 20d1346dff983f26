//! Every sentence of a report, in English and Spanish. `{name}` is filled in; names from files stand between backticks.

use super::data::Finding;
use std::borrow::Cow;

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    /// English.
    En,
    /// Spanish.
    Es,
}

impl Lang {
    /// Its code, as HTML writes it.
    pub fn code(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Es => "es",
        }
    }
}

/// Which languages a report is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Languages {
    /// English.
    #[default]
    En,
    /// Spanish.
    Es,
    /// Both: Spanish first, as the reports that greta began with have it.
    Both,
}

impl Languages {
    /// The languages, in the order of the report.
    pub fn list(self) -> &'static [Lang] {
        match self {
            Languages::En => &[Lang::En],
            Languages::Es => &[Lang::Es],
            Languages::Both => &[Lang::Es, Lang::En],
        }
    }
}

impl std::str::FromStr for Languages {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "en" => Ok(Languages::En),
            "es" => Ok(Languages::Es),
            "both" => Ok(Languages::Both),
            _ => Err(format!("unknown language `{s}`; known: en, es, both")),
        }
    }
}

/// A text: key, English, Spanish.
pub type Text = (&'static str, &'static str, &'static str);

/// Every text.
pub fn all() -> impl Iterator<Item = &'static Text> {
    super::words::HEADINGS.iter().chain(super::words::PAGE).chain(super::sentences::SENTENCES)
}

/// The text of a key; the key itself if there is none, which a test rules out.
pub fn text(key: &'static str, lang: Lang) -> &'static str {
    match all().find(|t| t.0 == key) {
        Some(t) if lang == Lang::Es => t.2,
        Some(t) => t.1,
        None => key,
    }
}

/// Puts values into a text's places.
pub fn fill<'t>(text: &'t str, get: impl Fn(&str) -> Option<String>) -> Cow<'t, str> {
    if !text.contains('{') {
        return text.into();
    }
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else { break };
        out.push_str(&get(name).unwrap_or_default());
        rest = tail;
    }
    out.push_str(rest);
    out.into()
}

/// Names in a text's places.
pub fn places(text: &str) -> Vec<&str> {
    text.split('{').skip(1).filter_map(|p| p.split_once('}')).map(|p| p.0).collect()
}

impl Finding {
    /// The sentence, as Markdown. What comes from files can't end a code span or a line.
    pub fn sentence(&self, lang: Lang) -> String {
        let get = |name: &str| {
            // A list of names brings its own backticks, between its items alone.
            let value = self.args.get(name)?;
            let parts = value.split("`, `").map(|p| p.replace('`', "'").replace(['\n', '\r'], " "));
            Some(parts.collect::<Vec<_>>().join("`, `"))
        };
        fill(text(self.key, lang), get).into_owned()
    }
}
