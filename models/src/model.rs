//! A model file, opened.

use crate::arch::{self, Architecture, Limits};
use crate::chat::ChatTemplate;
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;
use crate::{ModelError, chat::ChatError, vocab};
use greta_backend::{BackendError, WeightView, Weights};
use greta_graph::{Graph, Kind};
use greta_ops::{DType, Dim, TensorDesc};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A GGUF file of a known architecture. Its tokenizer is made when first asked for.
pub struct Model {
    gguf: Arc<Gguf>,
    arch: &'static Architecture,
    limits: Limits,
    tokenizer: OnceLock<Tokenizer>,
}

impl Model {
    /// Maps the file and reads its header; no weight is touched.
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        let gguf = Gguf::open(path)?;
        let parts = gguf.metadata().u64("split.count")?.unwrap_or(0);
        if parts > 1 {
            let why = format!("is {parts}: this file is one part of a model; join them (llama-gguf-split --merge)");
            return Err(ModelError::Config { path: path.into(), key: "split.count".into(), why });
        }
        let arch = arch::of(&gguf)?;
        let limits = (arch.limits)(&gguf)?;
        Ok(Model { gguf: Arc::new(gguf), arch, limits, tokenizer: OnceLock::new() })
    }

    /// The file.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Name of the architecture.
    pub fn architecture(&self) -> &'static str {
        self.arch.name
    }

    /// Entries of the vocabulary, as the embedding table has them.
    pub fn vocab(&self) -> usize {
        self.limits.vocab
    }

    /// Tokens the model was trained to attend to.
    pub fn context(&self) -> usize {
        self.limits.context
    }

    /// The model's graph with a KV cache of this type, before any pass.
    pub fn graph(&self, kv: DType) -> Result<Graph, ModelError> {
        (self.arch.build)(&self.gguf, kv)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer, ModelError> {
        if let Some(t) = self.tokenizer.get() {
            return Ok(t);
        }
        let made = vocab::read(&self.gguf)?;
        let made =
            Tokenizer::new(made).map_err(|source| ModelError::Tokenizer { path: self.gguf.path().into(), source })?;
        Ok(self.tokenizer.get_or_init(|| made))
    }

    /// The file's chat template.
    pub fn chat_template(&self) -> Result<ChatTemplate, ModelError> {
        let key = "tokenizer.chat_template";
        let error = |why: String| ModelError::Config { path: self.gguf.path().into(), key: key.into(), why };
        let source = self.gguf.metadata().str(key)?;
        let source = source
            .ok_or_else(|| error("is missing: this model has no chat template; use `run` without --chat".into()))?;
        let t = self.tokenizer()?;
        let text = |id: Option<u32>| id.and_then(|i| t.token_text(i)).unwrap_or_default();
        ChatTemplate::new(source, text(t.bos()), text(t.eos())).map_err(|e: ChatError| error(e.to_string()))
    }

    /// The weights, for a backend.
    pub fn weights(&self) -> Arc<dyn Weights> {
        self.gguf.clone()
    }
}

impl Weights for Gguf {
    fn tensor(&self, name: &str) -> Result<WeightView<'_>, BackendError> {
        let error = |why: &str| BackendError::Weight { tensor: name.into(), why: why.into() };
        let t = Gguf::tensor(self, name).ok_or_else(|| error("is not in the file"))?;
        let desc = desc(t).ok_or_else(|| error("has a dimension that does not fit memory"))?;
        Ok(WeightView { desc, bytes: self.bytes(t) })
    }

    fn release(&self, name: &str) {
        if let Some(t) = Gguf::tensor(self, name) {
            Gguf::release(self, t);
        }
    }
}

/// A tensor's type and shape as the graph writes them: slowest dimension first, trailing ones of size 1 dropped.
fn desc(t: &crate::gguf::TensorInfo) -> Option<TensorDesc> {
    let size = |n: u64| usize::try_from(n).ok().map(Dim::Const);
    match t.rows() {
        1 if t.dims.len() == 1 => Some(TensorDesc::vector(t.dtype, size(t.cols())?)),
        rows => Some(TensorDesc::matrix(t.dtype, size(rows)?, size(t.cols())?)),
    }
}

/// Tensors of old files that hold nothing a graph needs.
fn ignorable(name: &str) -> bool {
    name.ends_with(".attn_rot_embd") || name.ends_with("rope.freqs") || name.ends_with("rotary_emb.inv_freq")
}

/// Every weight of the graph is in the file with its very shape, and every tensor of the file is used.
pub(crate) fn check_tensors(gguf: &Gguf, graph: &Graph) -> Result<(), ModelError> {
    let error =
        |tensor: &str, why: String| Err(ModelError::Tensor { path: gguf.path().into(), tensor: tensor.into(), why });
    for (_, node) in graph.nodes() {
        let Kind::Weight { tensor, .. } = &node.kind else { continue };
        let want = &node.outs[0];
        match gguf.tensor(tensor).map(desc) {
            None => return error(tensor, format!("is missing; the model's metadata calls for {want}")),
            Some(Some(found)) if found == *want => {}
            Some(found) => {
                let found = found.map_or("too large".into(), |d| d.to_string());
                return error(tensor, format!("is {found}; the model's metadata calls for {want}"));
            }
        }
    }
    match gguf.tensors().iter().find(|t| graph.find(&t.name).is_none() && !ignorable(&t.name)) {
        Some(t) => error(
            &t.name,
            "is in the file, but no op of this architecture uses it: the model has a part greta does not know".into(),
        ),
        None => Ok(()),
    }
}
