//! `greta chat`: a conversation.

use super::run::{Answer, answer};
use crate::args::{Common, Generation};
use crate::interrupt::Guard;
use crate::output::{self, Stream};
use crate::session::{self, Loaded};
use crate::{errors, json};
use greta::chat::{ChatTemplate, Message};
use greta::sampling::Sampler;
use greta::tokenizer::Tokenizer;
use greta::{GenerateOptions, Stop};
use serde_json::json;
use std::io::{self, BufRead};
use std::process::ExitCode;

/// Talk with a model
///
/// Each line is a turn. Ctrl-C stops an answer; at the prompt it quits, as Ctrl-D does.
#[derive(clap::Args, Debug)]
#[command(after_help = "Within a chat:
  /help            what there is
  /reset           forget the conversation, keep the system message
  /system [TEXT]   set the system message, or show it
  /exit            quit

Examples:
  greta chat
  greta chat -m model.gguf --system \"You answer in rhymes.\" --temp 0.6
  printf 'Hi!\\nAnd you?\\n' | greta chat --json")]
pub struct Chat {
    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of an answer; -1: until the model ends or the context is full
    #[arg(short = 'n', long = "predict", value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    n: i64,
    #[command(flatten)]
    generation: Generation,
    #[command(flatten)]
    common: Common,
}

const HELP: &str = "/help   this list\n/reset  forget the conversation, keep the system message\n\
                    /system [TEXT]  set the system message, or show it\n/exit   quit (Ctrl-D does too)";

impl Chat {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let sampler = self.generation.sampler()?;
        let options = self.generation.options(self.n)?;
        let model = self.common.open()?;
        let tokenizer = session::tokenizer(&model)?;
        let template = model.chat_template()?;
        let loaded = self.common.load(&model, self.common.engine_options())?;
        let messages = self.system.iter().map(|s| Message::new("system", s)).collect();
        let people = Stream::Out.is_terminal() && io::IsTerminal::is_terminal(&io::stdin()) && !self.common.json;
        let json = self.common.json.then(Vec::new);
        let mut talk = Talk { loaded, tokenizer, template, sampler, options, messages, people, turns: json };
        if people {
            output::say(
                &Stream::Err.paint("2", "Type a message; /help lists commands, Ctrl-C stops an answer, Ctrl-D quits."),
            );
        }
        let end = talk.all();
        // The turns that were answered are worth keeping, however the conversation ended.
        if let Some(turns) = &talk.turns {
            let settings = talk.loaded.settings(&self.common);
            json::print(&json!({
                "settings": settings,
                "seed": talk.sampler.seed(),
                "messages": talk.messages,
                "turns": turns,
            }))?;
        }
        end.map(|()| ExitCode::SUCCESS)
    }
}

/// A conversation going on.
struct Talk<'m> {
    loaded: Loaded,
    tokenizer: &'m Tokenizer,
    template: ChatTemplate,
    sampler: Sampler,
    options: GenerateOptions,
    messages: Vec<Message>,
    /// Whether someone types and reads; else lines come from a pipe, or go to one.
    people: bool,
    /// What `--json` prints at the end.
    turns: Option<Vec<serde_json::Value>>,
}

impl Talk<'_> {
    fn all(&mut self) -> anyhow::Result<()> {
        let mut input = io::stdin().lock();
        for number in 1.. {
            if self.people {
                output::print(&Stream::Out.paint("32;1", "> "))?;
            }
            let Some(line) = read_line(&mut input, number)? else {
                // The shell's next prompt belongs on a line of its own.
                if self.people {
                    output::print("\n")?;
                }
                break;
            };
            match line.trim() {
                "" => {}
                "/exit" | "/quit" => break,
                command if command.starts_with('/') => self.command(command),
                message => match self.turn(message) {
                    // Someone can shorten the message or reset; a script can't, and must see that it failed.
                    Err(e) if self.people && !errors::is_quiet(&e) => {
                        errors::report(&e);
                    }
                    other => other?,
                },
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &str) {
        let (name, rest) = command.split_once(char::is_whitespace).map_or((command, ""), |(n, r)| (n, r.trim()));
        let system = self.messages.first().filter(|m| m.role == "system").cloned();
        match name {
            "/help" => output::say(HELP),
            "/reset" => {
                self.messages = system.into_iter().collect();
                output::say("the conversation is forgotten");
            }
            "/system" if rest.is_empty() => {
                output::say(system.as_ref().map_or("there is no system message", |m| &m.content))
            }
            "/system" => {
                let turns = self.messages.split_off(usize::from(system.is_some()));
                self.messages = std::iter::once(Message::new("system", rest)).chain(turns).collect();
                output::say("the system message is set");
            }
            _ => output::warn(&format!("unknown command {name}; /help lists them (a message can't start with `/`)")),
        }
    }

    /// One message and its answer. If it fails, the message is not part of the conversation.
    fn turn(&mut self, message: &str) -> anyhow::Result<()> {
        self.messages.push(Message::new("user", message));
        let result = self.answer();
        if result.is_err() {
            self.messages.pop();
        }
        result
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        let prompt = self.tokenizer.encode_chat(&self.template.render(&self.messages, true)?)?;
        let guard = Guard::arm();
        let (mut text, silent) = (String::new(), self.turns.is_some());
        let mut show = |piece: &str| {
            text.push_str(piece);
            if silent { Ok(()) } else { output::print(piece) }
        };
        // The cache still holds the turns so far: only what is new is run.
        let context = &mut self.loaded.context;
        let a = answer(context, self.tokenizer, &prompt, &mut self.sampler, &self.options, &guard, &mut show)?;
        drop(guard);
        if !silent {
            output::print("\n")?;
        }
        self.note(&a);
        if let Some(turns) = &mut self.turns {
            turns.push(json!({
                "prompt_tokens": prompt,
                "generated_tokens": a.generated.tokens,
                "text": text,
                "stop": a.generated.stop.to_string(),
                "timings": a.timings(self.loaded.time),
            }));
        }
        self.messages.push(Message::new("assistant", text));
        Ok(())
    }

    /// What a person would want to know of how the answer ended.
    fn note(&self, a: &Answer) {
        let dim = |text: &str| output::say(&Stream::Err.paint("2", text));
        match a.generated.stop {
            Stop::Context => output::warn("the context is full; /reset starts anew, a larger -c holds more"),
            Stop::Interrupted if self.people => dim("(stopped)"),
            Stop::Length if self.people => dim("(-n reached)"),
            _ => {}
        }
    }
}

/// The next line, or `None` at the end of the input.
fn read_line(input: &mut impl BufRead, number: usize) -> anyhow::Result<Option<String>> {
    let mut line = Vec::new();
    if input.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let bad = |e: std::string::FromUtf8Error| {
        anyhow::anyhow!(
            "line {number} of standard input is not valid UTF-8 at its byte {}",
            e.utf8_error().valid_up_to()
        )
    };
    String::from_utf8(line).map(Some).map_err(bad)
}
