//! Text from tokens that arrive one at a time.

use super::Tokenizer;

/// Turns tokens into text as they come. A token may end inside a character; its bytes wait for the next one, so that
/// what is printed is always whole characters. Bytes that can never become a character print as U+FFFD.
#[derive(Debug, Clone, Default)]
pub struct StreamDecoder {
    waiting: Vec<u8>,
    hide_control: bool,
}

impl StreamDecoder {
    /// A decoder that prints every token, control tokens by their text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder to which control tokens (`<|im_end|>` and the like) are nothing.
    #[must_use]
    pub fn hiding_control() -> Self {
        StreamDecoder { waiting: Vec::new(), hide_control: true }
    }

    /// The text that `id` completes; empty while a character is unfinished.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if self.hide_control && tokenizer.is_control(id) {
            return String::new();
        }
        self.push_bytes(&tokenizer.piece(id))
    }

    /// The text that `bytes` complete.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.waiting.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        while done < self.waiting.len() {
            match std::str::from_utf8(&self.waiting[done..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    done = self.waiting.len();
                }
                Err(e) => {
                    let valid = done + e.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.waiting[done..valid]));
                    done = valid;
                    // Without a length, more bytes may still make it a character.
                    let Some(bad) = e.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    done += bad;
                }
            }
        }
        self.waiting.drain(..done);
        text
    }

    /// What is left at the end: U+FFFD for a character that never got its last byte, else nothing.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.waiting).into_owned();
        self.waiting.clear();
        rest
    }
}
