//! The page, in headless Chromium.

use super::{faulty, of, run};
use crate::support::{CHROMIUM, Outcome, all, trial};
use greta_models::Arithmetic;
use greta_trace::report::{Languages, Report, html};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("report/page/asks_for_nothing", asks_for_nothing),
        trial("report/page/hostile", hostile),
        trial("report/page/browser", browser),
    ]
}

/// No address, no request, and the policy that forbids them.
fn asks_for_nothing() -> Result<(), Outcome> {
    let (model, rec) = run(&[], Arithmetic::Exact, "blk.0.q")?;
    let page = html(&of(&model, &rec)?, Languages::Both)?;
    let mut failures = Vec::new();
    for word in [
        "http:",
        "https:",
        "url(",
        "@import",
        "src=",
        "href=",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "innerHTML",
        "eval(",
    ] {
        if page.contains(word) {
            failures.push(format!("the page says {word}"));
        }
    }
    if !page.contains("default-src 'none'") {
        failures.push("the page has no policy".into());
    }
    all(failures)
}

const HOSTILE: &str = "</script><img src=x onerror=\"document.documentElement.dataset.hit=1\">`**{{js}}";

/// A report whose label, prompt and nodes are markup.
fn hostile_report() -> Result<Report, Outcome> {
    let (model, mut rec) = run(&[], Arithmetic::Exact, "blk.0.q")?;
    rec.info.label = Some(HOSTILE.into());
    rec.info.prompts[0].id = HOSTILE.into();
    rec.info.device = HOSTILE.into();
    rec.info.command.push(HOSTILE.into());
    rec.info.flags.push(("GRETA_X".into(), HOSTILE.into()));
    of(&model, &rec)
}

fn hostile() -> Result<(), Outcome> {
    let made = hostile_report()?;
    let page = html(&made, Languages::Both)?;
    let mut failures = Vec::new();
    if page.contains("<img") || page.matches("</script>").count() != 2 {
        failures.push("markup from the run is markup of the page".to_string());
    }
    let text = greta_trace::report::markdown(&made, Languages::Both);
    for (i, line) in text.lines().enumerate() {
        // Outside code spans and blocks.
        let outside: String = line.split('`').step_by(2).collect();
        if outside.contains("<img") && !text.lines().take(i).last().unwrap_or_default().starts_with("```") {
            failures.push(format!("line {}: {line}", i + 1));
        }
    }
    all(failures)
}

fn chromium() -> Result<PathBuf, Outcome> {
    if let Some(path) = std::env::var_os("CHROMIUM").filter(|p| !p.is_empty()) {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path).flat_map(|d| names.map(|n| d.join(n))).find(|p| p.exists());
    found.ok_or(Outcome::Lacks(CHROMIUM, "chromium".into()))
}

/// What the page has become once its script ran.
fn dom(chromium: &Path, page: &Path, hash: &str) -> Result<String, Outcome> {
    let profile = tempfile::tempdir()?;
    let out = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--window-size=1280,900", "--virtual-time-budget=4000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("--dump-dom")
        .arg(format!("file://{}{hash}", page.display()))
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // What the script was given is no part of what it made of it.
    let start = text.find("<script type=\"application/json\"").unwrap_or(text.len());
    Ok(text[..start].to_string())
}

fn browser() -> Result<(), Outcome> {
    let chromium = chromium()?;
    let dir = tempfile::tempdir()?;
    let failures = std::cell::RefCell::new(Vec::new());
    let check = |name: &str, page: &str, hash: &str, has: &[&str], not: &[&str]| -> Result<String, Outcome> {
        let path = dir.path().join(format!("{name}.html"));
        std::fs::write(&path, page)?;
        let dom = dom(&chromium, &path, hash)?;
        let mut found = super::holds(&dom, has, not);
        found.extend(super::holds(&dom, &["data-ready=\"yes\""], &["data-error", "data-hit"]));
        failures.borrow_mut().extend(found.into_iter().map(|f| format!("{name}{hash}: {f}")));
        Ok(dom)
    };

    let (model, rec) = faulty()?;
    let made = of(&model, &rec)?;
    let page = html(&made, Languages::Both)?;
    let has = [
        "id=\"culprit-node\"><button type=\"button\" title=\"Mostrar en el mapa\">blk.0.q</button>",
        "D_kernel_math",
        "Español",
        "lang=\"es\"",
    ];
    let text = check("fault", &page, "", &has, &["Every op is within its bound"])?;
    let layered: Vec<_> = made.runs[0].nodes.iter().filter(|n| n.layer.is_some()).collect();
    let mut points: Vec<&str> = layered.iter().map(|n| n.point.as_str()).collect();
    points.sort_unstable();
    points.dedup();
    let layers = layered.iter().filter_map(|n| n.layer).max().unwrap_or(0) as usize + 1;
    let cells = text.matches("data-node=\"blk.").count();
    if cells != layers * points.len() || layers < 2 || points.len() < 12 {
        failures.borrow_mut().push(format!("{cells} cells for {layers} layers and {} ops", points.len()));
    }
    check(
        "fault",
        &page,
        "#node=blk.1.ffn_norm&prompt=p6_long&lang=en",
        &[
            "id=\"detail-node\">blk.1.ffn_norm<",
            "Error ÷ bound by position",
            "Worst row",
            "lang=\"en\"",
            "Elements by error ÷ bound",
            "1 / rms",
        ],
        &["id=\"detail-node\">blk.0.q<"],
    )?;
    check("fault", &page, "#node=blk.0.q&prompt=p4_sys&measure=diff&lang=en", &["over its limit", "rel L2"], &[])?;

    let (model, rec) = run(&[], Arithmetic::Int8, "all")?;
    let page = html(&of(&model, &rec)?, Languages::En)?;
    check("clean", &page, "", &["Every op is within its bound", "Equal to the bit", "lang=\"en\""], &["card fault"])?;
    let page = html(&hostile_report()?, Languages::En)?;
    check("hostile", &page, "#node=blk.0.q", &["&lt;/script&gt;&lt;img src=x"], &["<img"])?;
    all(failures.into_inner())
}
