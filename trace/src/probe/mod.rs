//! Narrow questions about one layer, each answered by a table and by the judge.
//!
//! | probe | asks |
//! |---|---|
//! | [`norm_qkv`] | which of a layer's first norm, q, k and v differs first between prefill and decode |
//! | [`rmsnorm`] | whether a norm, its weight, its input, or something before it is wrong |
//! | [`weights`] | in which layout each weight matrix of a layer was read |
//! | [`embedding`] | in which layout the table of embeddings was read |
//! | [`rope`] | by which pairing and position queries and keys were rotated |
//! | [`cache`] | which layer's cache, head map and length attention used |
//!
//! The table shows what the run says of itself: `prefill_last`, the row of the prompt's last token, against `decode0`, the
//! same token run again alone. Two phases that agree may both be wrong and two that differ name no cause, so what is
//! concluded comes from the judge, which holds each op against its reference on what the graph gives it.

mod attention;
mod fit;
mod layouts;
mod look;
mod qkv;
mod record;
mod rms;
mod rotation;
mod table;

pub use record::record;
pub use table::{Cell, Lang, Row, Text};

use crate::judge::{Class, Culprit, NotJudged, VerdictKind};
use crate::{Recording, TraceError};
use greta_models::Model;
use look::Look;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// Which question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`norm_qkv`].
    NormQkv,
    /// See [`weights`].
    Weights,
    /// See [`rmsnorm`].
    RmsNorm(Point),
    /// See [`embedding`].
    Embedding,
    /// See [`rope`].
    Rope,
    /// See [`cache`].
    Cache,
}

/// Which of a layer's norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Point {
    /// The one before attention.
    AttnNorm,
    /// The one before the feed-forward part.
    #[default]
    FfnNorm,
}

impl Point {
    /// The point's name in a layer.
    pub fn name(self) -> &'static str {
        match self {
            Point::AttnNorm => "attn_norm",
            Point::FfnNorm => "ffn_norm",
        }
    }
}

/// An answer.
///
/// As JSON: `{probe, layer, rows, culprit, class, hypothesis, interpretation, findings, not_judged, verdict}`; each row is
/// an object with the table's columns.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The probe's name on the command line.
    pub probe: &'static str,
    /// The layer; none for the embedding.
    pub layer: Option<u32>,
    /// The table.
    pub rows: Vec<Row>,
    /// Every op found wrong, the one to blame first.
    pub findings: Vec<Culprit>,
    /// What was asked for and could not be judged.
    pub not_judged: Vec<NotJudged>,
    /// Whether something is wrong, nothing is, or it can't be said.
    pub verdict: VerdictKind,
    /// What follows, in words.
    pub interpretation: Text,
    /// The language of the JSON's interpretation.
    pub lang: Lang,
}

impl Probe {
    /// The op to blame.
    pub fn culprit(&self) -> Option<&Culprit> {
        self.findings.first()
    }

    /// Its class; `NONE` where nothing is wrong, `UNKNOWN` where something is and no op is found.
    pub fn class(&self) -> Class {
        match (self.culprit(), self.verdict) {
            (Some(c), _) => c.class,
            (None, VerdictKind::Fault) => Class::Unknown,
            _ => Class::None,
        }
    }
}

impl Serialize for Probe {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("probe", self.probe)?;
        map.serialize_entry("layer", &self.layer)?;
        map.serialize_entry("rows", &self.rows)?;
        map.serialize_entry("culprit", &self.culprit().map(|c| &c.node))?;
        map.serialize_entry("class", &self.class())?;
        map.serialize_entry("hypothesis", &self.culprit().and_then(|c| c.hypothesis.as_ref()))?;
        map.serialize_entry("interpretation", self.interpretation.get(self.lang))?;
        map.serialize_entry("findings", &self.findings)?;
        map.serialize_entry("not_judged", &self.not_judged)?;
        map.serialize_entry("verdict", &self.verdict)?;
        map.end()
    }
}

/// Asks one question of a run.
///
/// # Errors
/// A layer that the model lacks, a run without a graph, or values that can't be read.
pub fn run(kind: Kind, rec: &Recording, model: &Model, layer: u32) -> Result<Probe, TraceError> {
    match kind {
        Kind::NormQkv => norm_qkv(rec, model, layer),
        Kind::Weights => weights(rec, model, layer),
        Kind::RmsNorm(point) => rmsnorm(rec, model, layer, point),
        Kind::Embedding => embedding(rec, model),
        Kind::Rope => rope(rec, model, layer),
        Kind::Cache => cache(rec, model, layer),
    }
}

/// A layer's first norm against its three projections: which differs first between `prefill_last` and `decode0`, and which
/// phase is wrong.
pub fn norm_qkv(rec: &Recording, model: &Model, layer: u32) -> Result<Probe, TraceError> {
    let weights = model.weights();
    qkv::probe(&Look::new(rec, &*weights, layer)?)
}

/// A norm's input, weight, statistics and output in both phases, and whose fault a difference is: the norm's own, or that
/// of an op before it, which is then named.
pub fn rmsnorm(rec: &Recording, model: &Model, layer: u32, point: Point) -> Result<Probe, TraceError> {
    let weights = model.weights();
    rms::probe(&Look::new(rec, &*weights, layer)?, point)
}

/// The layout in which each weight matrix of a layer was read, by what its product gave.
pub fn weights(rec: &Recording, model: &Model, layer: u32) -> Result<Probe, TraceError> {
    let weights = model.weights();
    layouts::weights(&Look::new(rec, &*weights, layer)?)
}

/// The layout in which the table of embeddings was read.
pub fn embedding(rec: &Recording, model: &Model) -> Result<Probe, TraceError> {
    let weights = model.weights();
    layouts::embedding(&Look::new(rec, &*weights, 0)?)
}

/// Pairing and position of a layer's rotations.
pub fn rope(rec: &Recording, model: &Model, layer: u32) -> Result<Probe, TraceError> {
    let weights = model.weights();
    rotation::probe(&Look::new(rec, &*weights, layer)?)
}

/// Which cache rows a layer's attention read, and how its heads share them.
pub fn cache(rec: &Recording, model: &Model, layer: u32) -> Result<Probe, TraceError> {
    let weights = model.weights();
    attention::probe(&Look::new(rec, &*weights, layer)?)
}
