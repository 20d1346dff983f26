//! `greta verify --repeat`: further runs are processes.

use super::models::models;
use super::{check, fed, greta, text};
use crate::support::{Outcome, hip_sim, trial};
use libtest_mimic::{Failed, Trial};

pub fn trials() -> Vec<Trial> {
    let mut list = vec![Trial::test("cli/repeat/alike", alike)];
    #[cfg(unix)]
    list.extend([
        trial("cli/repeat/fault_in_one_process", || unix::in_emulator("fault", unix::fault_in_one)),
        trial("cli/repeat/process_that_fails", || unix::in_emulator("fails", unix::one_fails)),
    ]);
    #[cfg(target_os = "linux")]
    list.push(Trial::test("cli/repeat/ctrl_c", linux::ctrl_c));
    list
}

/// Each way to say what is run reaches the further runs: they would not be alike otherwise.
fn alike() -> Result<(), Failed> {
    let m = models()?;
    let list = m.file("repeat-prompts.json", br#"[{"id": "a", "text": "Hi"}, {"id": "b", "tokens": [1, 2, 3, 4]}]"#)?;
    let cases: [&[&str]; 5] = [
        &["Hello"],
        &["--prompt-file", text(&list), "--decode", "3", "--chunk", "2"],
        &["--tokens", "1,2,3", "--arith", "exact", "--kv", "f32", "-t", "1", "-c", "64", "--eager"],
        &["--tokens", "5,6", "--nodes", "blk.*.{q,k}", "--rows", "1", "--route", "blk.*.q:decode=plain"],
        &["--tokens", "7", "--without", "fuse_dequant", "-b", "reference", "--nodes", "blk.0.q"],
    ];
    for args in cases {
        let args = [&["verify", "--repeat", "3", "--json", "-m", text(&m.whole)], args].concat();
        let v = greta(&args)?.code(0)?.json()?;
        check(v["verdict"] == "CLEAN" && v["repeats"] == 3 && v["differing"] == 0, || format!("{args:?}: {v}"))?;
    }
    // Standard input is read once, by the first process.
    let mut c = super::command(&["verify", "--repeat", "2", "-m", text(&m.whole), "-"]);
    c.env("GRETA_MAX_SEQ_LEN", "32");
    let done = fed(c, b"Hello")?.code(0)?;
    check(done.out.contains("2 runs, a process each, are alike to the bit"), || done.out.clone())?;
    let v = greta(&["verify", "--json", "--tokens", "1", "-m", text(&m.whole)])?.code(0)?.json()?;
    check(v["repeats"] == 1 && v["differing"] == 0, || v.to_string())
}

#[cfg(unix)]
mod unix {
    use super::super::Done;
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    /// A folder of kernels, and a compiler that a process asks for its version once, before it reads the kernels.
    pub struct Toolchain {
        folder: PathBuf,
    }

    pub fn in_emulator(name: &str, run: fn(&Toolchain) -> Result<(), Failed>) -> Result<(), Outcome> {
        hip_sim(1)?;
        let failed = |e: Failed| Outcome::Failed(e.message().unwrap_or_default().into());
        let folder = models().map_err(failed)?.folder.join(format!("repeat-{name}"));
        fs::create_dir_all(&folder)?;
        run(&Toolchain { folder }).map_err(failed)
    }

    /// The compiler that `greta` would find.
    fn clang() -> Result<String, Failed> {
        let given = std::env::var("GRETA_CLANG").ok().filter(|c| !c.is_empty());
        let known =
            (18..=24).rev().map(|v| format!("clang-{v}")).chain(["clang".into(), "/opt/rocm/llvm/bin/clang".into()]);
        let runs = |name: &String| std::process::Command::new(name).arg("--version").output().is_ok();
        Ok(given.into_iter().chain(known).find(runs).ok_or("no clang")?)
    }

    impl Toolchain {
        /// `verify` where `script` is run when a process, the `$n`th, asks for the compiler's version.
        fn verify(&self, args: &[&str], script: &str) -> Result<Done, Failed> {
            let kernels = self.folder.join("kernels");
            fs::create_dir_all(&kernels)?;
            for (name, source) in greta_hip::kernels::FILES {
                fs::write(kernels.join(name), source)?;
            }
            let wrapper = self.folder.join("clang");
            let asked = self.folder.join("asked");
            let _ = fs::remove_file(&asked);
            let body = format!(
                "#!/bin/sh\nif [ \"$1\" = --version ]; then\necho >>'{asked}'\nn=$(wc -l <'{asked}')\ncd '{kernels}'\n{script}\nfi\nexec '{clang}' \"$@\"\n",
                asked = text(&asked),
                kernels = text(&kernels),
                clang = clang()?,
            );
            fs::write(&wrapper, body)?;
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
            let m = models()?;
            let all = ["verify", "-b", "hip:sim", "-t", "1", "--tokens", "1,2", "--no-bundle", "-m", text(&m.whole)];
            let mut c = super::super::command(&[&all, args].concat());
            c.env("GRETA_KERNELS", &kernels).env("GRETA_CLANG", &wrapper);
            // Where a run that fails leaves something, it is here.
            c.env("TMPDIR", self.temp()?);
            fed(c, b"")
        }

        fn temp(&self) -> Result<PathBuf, Failed> {
            let temp = self.folder.join("temp");
            fs::create_dir_all(&temp)?;
            Ok(temp)
        }

        fn left(&self) -> Result<Vec<PathBuf>, Failed> {
            Ok(fs::read_dir(self.temp()?)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?)
        }
    }

    /// A kernel that subtracts where it should add, in one process of four. Its node is named, and all four are run.
    pub fn fault_in_one(t: &Toolchain) -> Result<(), Failed> {
        let wrong = |path: &Path| format!("sed -i 's/a\\[i\\] + b\\[i\\]/a[i] - b[i]/' '{}'", text(path));
        let right = |path: &Path| format!("sed -i 's/a\\[i\\] - b\\[i\\]/a[i] + b[i]/' '{}'", text(path));
        let add = PathBuf::from("add.hip");
        let script = format!("case $n in 3) {};; 4) {};; esac", wrong(&add), right(&add));
        let v = t.verify(&["--repeat", "4", "--json"], &script)?.code(1)?.json()?;
        let c = &v["culprit"];
        let held = v["verdict"] == "FAULT" && v["class"] == "G_stale_data" && v["repeats"] == 4 && v["differing"] == 1;
        check(held && c["node"] == "blk.0.ffn_inp", || v.to_string())?;
        let detail = c["detail"].as_str().unwrap_or_default();
        check(detail.contains("differs in 1 of 4 runs") && t.left()?.is_empty(), || v.to_string())
    }

    /// What a further run says before it fails is told, with its number.
    pub fn one_fails(t: &Toolchain) -> Result<(), Failed> {
        let done = t.verify(&["--repeat", "3"], "case $n in 2) exit 1;; esac")?.code(2)?;
        let words = ["error: run 2 of 3: exit status: 2", "GRETA_CLANG", "  error: "];
        let missing: Vec<_> = words.iter().filter(|w| !done.err.contains(**w)).collect();
        check(missing.is_empty() && done.out.is_empty() && t.left()?.is_empty(), || {
            format!("{missing:?} not in {}{}", done.err, done.out)
        })
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    /// The processes that a process has started and that still are.
    fn children(of: u32) -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
        lists.flat_map(|l| l.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<_>>()).collect()
    }

    /// Ctrl-C while a further run is going on ends both. Told to the first process alone, or without a word: killed.
    pub fn ctrl_c() -> Result<(), Failed> {
        let m = models()?;
        for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
            let args = ["verify", "-b", "reference", "--repeat", "1000", "--prompts", "p4_sys", "-m", text(&m.whole)];
            let first = super::super::command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            let (start, mut further) = (Instant::now(), Vec::new());
            while further.is_empty() {
                check(start.elapsed() < Duration::from_secs(60), || "no further process was started".into())?;
                std::thread::sleep(Duration::from_millis(5));
                further = children(first.id());
            }
            let start = Instant::now();
            Command::new("kill").args([signal, &first.id().to_string()]).status()?;
            let out = first.wait_with_output()?;
            // One that nobody waits for may stay listed.
            let gone = |n: &u32| fs::read_to_string(format!("/proc/{n}/stat")).map_or(true, |s| s.contains(") Z "));
            while !further.iter().all(gone) {
                check(start.elapsed() < Duration::from_secs(20), || format!("{signal}: a further process goes on"))?;
                std::thread::sleep(Duration::from_millis(5));
            }
            let said = String::from_utf8_lossy(&out.stderr);
            check(out.status.code() == code && !said.contains("error"), || {
                format!("{signal}: {:?} {said}", out.status)
            })?;
        }
        Ok(())
    }
}
