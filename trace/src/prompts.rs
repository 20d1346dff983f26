//! The built-in prompts, the same four in every report, and prompts from a file.

use crate::{PromptInfo, TraceError};
use greta_models::Model;
use greta_models::tokenizer::EncodeOptions;
use serde::{Deserialize, Serialize};

/// A prompt of a prompt file, which is a JSON list of them.
///
/// It carries prompts to a machine that has the model, so it need not know the model's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePrompt {
    /// Its name, unlike any other's.
    pub id: String,
    /// Its text, special tokens spelled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its tokens, taken as given; `None`: those of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
    /// Whether its end is cut off where the context has no room for it, as a built-in prompt's is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fit: bool,
}

/// A prompt's name and text.
pub struct BuiltIn {
    /// Its name.
    pub id: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its text, special tokens spelled out.
    pub text: &'static str,
}

/// Every built-in prompt, shortest first.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn { id: "p0_short", about: "one to three tokens", text: "Hi" },
    BuiltIn {
        id: "p4_sys",
        about: "a system message and a question, in ChatML",
        text: "<|im_start|>system\nYou are a concise assistant. Answer in one short sentence.<|im_end|>\n<|im_start|>user\nWhat is the capital of France, and which river runs through it?<|im_end|>\n<|im_start|>assistant\n",
    },
    BuiltIn {
        id: "p5_ba",
        about: "a question in Spanish",
        text: "¿Qué lugares me recomiendas visitar en Buenos Aires si sólo tengo tres días? Quiero conocer San Telmo, la Recoleta y el Obelisco.\n",
    },
    BuiltIn { id: "p6_long", about: "at least 200 tokens", text: include_str!("prompts/p6_long.txt") },
];

/// The built-in prompts of these names as a model's tokens; all of them if none is named.
///
/// `p6_long` has at least 200 tokens wherever the context has room for them.
pub fn built_in(model: &Model, ids: &[String], context: usize) -> Result<Vec<PromptInfo>, TraceError> {
    written(ids)?.into_iter().map(|p| p.read(model, context)).collect()
}

/// The built-in prompts of these names as a prompt file has them; all of them if none is named.
pub fn written(ids: &[String]) -> Result<Vec<FilePrompt>, TraceError> {
    for id in ids {
        if !BUILT_IN.iter().any(|b| b.id == *id) {
            let known = BUILT_IN.iter().map(|b| b.id).collect::<Vec<_>>().join(", ");
            return Err(TraceError::UnknownPrompt { id: id.clone(), known });
        }
    }
    let wanted = BUILT_IN.iter().filter(|b| ids.is_empty() || ids.iter().any(|i| i == b.id));
    Ok(wanted.map(|b| FilePrompt { id: b.id.into(), text: Some(b.text.into()), tokens: None, fit: true }).collect())
}

/// The prompts of a prompt file's text as a model's tokens.
pub fn from_json(model: &Model, json: &str, context: usize) -> Result<Vec<PromptInfo>, TraceError> {
    let list: Vec<FilePrompt> = serde_json::from_str(json).map_err(|e| {
        TraceError::Prompt(format!("no list of prompts such as [{{\"id\": \"a\", \"text\": \"Hi\"}}]: {e}"))
    })?;
    if list.is_empty() {
        return Err(TraceError::Prompt("the list of prompts is empty".into()));
    }
    list.into_iter().map(|p| p.read(model, context)).collect()
}

impl FilePrompt {
    fn read(self, model: &Model, context: usize) -> Result<PromptInfo, TraceError> {
        let mut tokens = match (self.tokens, &self.text) {
            (Some(tokens), _) => tokens,
            (None, Some(text)) => encode(model, text)?,
            (None, None) => return Err(TraceError::Prompt(format!("`{}` has neither text nor tokens", self.id))),
        };
        if self.fit {
            // Leaves room for decode steps after the prompt.
            tokens.truncate(context.saturating_sub(8).max(1));
        }
        Ok(PromptInfo { id: self.id, text: self.text, tokens, decoded: Vec::new() })
    }
}

/// A text as a model's tokens: special tokens recognised, the beginning of sequence added where the tokenizer does so.
pub fn encode(model: &Model, text: &str) -> Result<Vec<u32>, TraceError> {
    let tokenizer = model.tokenizer()?;
    let options = EncodeOptions { add_special: true, parse_special: true };
    let mut tokens = tokenizer.encode(text, options).map_err(|e| TraceError::Prompt(e.to_string()))?;
    if tokenizer.adds_eos() {
        tokens.pop();
    }
    Ok(tokens)
}
