//! Chat templates of real models, the Python ways they lean on, and what is refused.

use greta_models::chat::{ChatError, ChatTemplate, Message};
use libtest_mimic::{Failed, Trial};
use std::fmt::Write as _;

/// SmolLM2's template.
const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Llama 3's template.
const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";

/// Llama 2's way of refusing roles out of turn.
const ALTERNATING: &str = "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{{ message['content'] }}{{ eos_token }}{% endfor %}";

/// The block style of newer templates: tags on lines of their own, whitespace control, a namespace.
const BLOCKS: &str = "{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{% set ns = namespace(n=0) %}
{% for message in messages %}
  {% if message.role == 'user' %}
    {% set ns.n = ns.n + 1 %}
U{{ ns.n }}: {{ message.content.strip() }}
  {% elif message['role'].startswith('a') %}
A: {{ message.content.split('</think>')[-1].lstrip('\\n') }}
  {% endif %}
{% endfor %}
{% if tools is none and not message is defined %}
no tools
{% endif %}
";

fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

/// All failures of a table, or none.
fn verdict(failures: &[String]) -> Result<(), Failed> {
    if failures.is_empty() {
        return Ok(());
    }
    let mut report = format!("{} wrong:", failures.len());
    for line in failures {
        write!(report, "\n  {line}")?;
    }
    Err(report.into())
}

/// Templates and what Jinja2 makes of them, with the settings of `transformers`.
fn renders() -> Result<(), Failed> {
    let system = "You are a concise assistant. Answer in one short sentence.";
    let question = "What is the capital of France, and which river runs through it?";
    type Turns<'a> = &'a [(&'a str, &'a str)];
    let table: [(&str, &str, Turns, bool, String); 13] = [
        ("smollm2", SMOLLM2, &[("system", system), ("user", question)], true,
         format!("<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")),
        ("smollm2, own system", SMOLLM2, &[("user", "Hi")], false,
         "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n".into()),
        ("smollm2, nothing", SMOLLM2, &[], true, "<|im_start|>assistant\n".into()),
        ("llama3", LLAMA3, &[("user", "  Hi \n"), ("assistant", "Yo")], false,
         "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n".into()),
        ("alternating", ALTERNATING, &[("user", "a"), ("assistant", "b")], false, "a</s>b</s>".into()),
        ("blocks", BLOCKS, &[("user", " x "), ("assistant", "<think>hm</think>\n\ny"), ("user", "z")], true,
         "U1: x\nA: y\nU2: z\nno tools\n".into()),
        ("nothing is escaped", "{{ messages[0].content }}", &[("user", "<b>&'\"</b> {{ x }} {% y %}")], false,
         "<b>&'\"</b> {{ x }} {% y %}".into()),
        ("unicode", "{{ messages[0]['content'] | length }}:{{ messages[0]['content'] }}", &[("user", "日本語 😀")], false, "5:日本語 😀".into()),
        ("undefined is empty", "[{{ foo }}]{% if foo %}x{% endif %}{{ messages[0].tool_calls is defined }}", &[("user", "")], false, "[]False".into()),
        ("last newline goes", "a\n\n", &[], false, "a\n".into()),
        ("tojson", "{{ {'a': [1, 2.5, none, true], 'b': '<é\"\n>'} | tojson }}", &[], false,
         "{\"a\": [1, 2.5, null, true], \"b\": \"<é\\\"\\n>\"}".into()),
        ("tojson, indented", "{{ [1, {'k': []}] | tojson(indent=2) }}", &[], false,
         "[\n  1,\n  {\n    \"k\": []\n  }\n]".into()),
        ("python", "{{ 'a,b'.split(',')[1].upper() }}{{ messages[0].get('x', 'y') }}{{ messages[-1].role }}{{ messages[1:] | length }}", &[("user", "q")], false,
         "Byuser0".into()),
    ];
    let mut failures = Vec::new();
    for (name, source, turns, open, wanted) in table {
        let got = ChatTemplate::new(source, "<s>", "</s>")?.render(&messages(turns), open);
        if got.as_ref().ok() != Some(&wanted) {
            failures.push(format!("{name}: {got:?}, wanted {wanted:?}"));
        }
    }
    verdict(&failures)
}

/// A broken template, a refusal and a failure are told apart, with the line.
fn refusals() -> Result<(), Failed> {
    let turns = messages(&[("assistant", "b")]);
    let mut failures = Vec::new();
    match ChatTemplate::new("a\n{% if x %}\n{% endfo %}", "", "") {
        Err(ChatError::Template(words)) if words.contains("line 3") => {}
        other => failures.push(format!("broken: {other:?}")),
    }
    match ChatTemplate::new(ALTERNATING, "", "")?.render(&turns, false) {
        Err(ChatError::Refused(words)) if words.starts_with("Conversation roles must") => {}
        other => failures.push(format!("refusal: {other:?}")),
    }
    for source in [
        "\n{{ messages | nofilter }}",
        "\n{{ missing.attribute }}",
        "\n{{ 'a'.nomethod() }}",
        "\n{{ strftime_now('%Q') }}",
    ] {
        match ChatTemplate::new(source, "", "").and_then(|t| t.render(&turns, false)) {
            Err(ChatError::Render(words) | ChatError::Template(words)) if words.contains("line 2") => {}
            other => failures.push(format!("{source:?}: {other:?}")),
        }
    }
    // A template that never ends its own recursion must not take the process with it.
    let deep = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    match ChatTemplate::new(deep, "", "")?.render(&turns, false) {
        Err(ChatError::Render(_)) => {}
        other => failures.push(format!("recursion: {other:?}")),
    }
    verdict(&failures)
}

/// The date, as Llama 3.1's template asks for it, at fixed moments (`date -u -d @N` says the same) and now.
fn dates() -> Result<(), Failed> {
    let long = "%A %a %d %-d %B %b %Y %y %m %H:%M:%S %I %p %F %T %%";
    let table = [
        (0, "%d %b %Y", "01 Jan 1970"),
        (951_782_399, "%d %b %Y", "28 Feb 2000"),
        (951_782_400, "%d %b %Y", "29 Feb 2000"),
        (951_868_800, "%d %b %Y", "01 Mar 2000"),
        (1_721_952_000, "%d %b %Y", "26 Jul 2024"),
        (4_107_542_399, "%d %b %Y", "28 Feb 2100"),
        (4_107_542_400, "%d %b %Y", "01 Mar 2100"),
        (1_735_689_599, long, "Tuesday Tue 31 31 December Dec 2024 24 12 23:59:59 11 PM 2024-12-31 23:59:59 %"),
        (1_736_035_504, long, "Sunday Sun 05 5 January Jan 2025 25 01 00:05:04 12 AM 2025-01-05 00:05:04 %"),
    ];
    let mut failures = Vec::new();
    for (seconds, format, wanted) in table {
        let source = format!("{{{{ strftime_now('{format}') }}}}");
        let got = ChatTemplate::new(&source, "", "")?.with_time(seconds).render(&[], false)?;
        if got != wanted {
            failures.push(format!("{seconds}: {got:?}, wanted {wanted:?}"));
        }
    }
    let year = ChatTemplate::new("{{ strftime_now('%Y') }}", "", "")?.render(&[], false)?;
    if !year.parse().is_ok_and(|y: u32| y >= 2024) {
        failures.push(format!("now: {year:?}"));
    }
    verdict(&failures)
}

/// Every test of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("chat::renders", renders),
        Trial::test("chat::refusals", refusals),
        Trial::test("chat::dates", dates),
    ]
}
