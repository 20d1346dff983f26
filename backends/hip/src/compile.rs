//! From sources to code objects: clang, found when a kernel is first needed, and a cache on disk.

use crate::driver::DriverError;
use crate::kernels::Source;
use crate::{Target, cache};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The compiler to use, in place of the newest that is found.
pub const CLANG_VARIABLE: &str = "GRETA_CLANG";
/// Where compiled kernels are kept, in place of the user's cache folder.
pub const CACHE_VARIABLE: &str = "GRETA_KERNEL_CACHE";

/// A folder with the kernels' sources, in place of those in the binary.
pub const KERNELS_VARIABLE: &str = "GRETA_KERNELS";

/// Versions of clang that know gfx942, the newest first.
const VERSIONS: std::ops::RangeInclusive<u32> = 18..=24;

/// A compiled module.
#[derive(Clone, Debug)]
pub struct CodeObject {
    /// The ELF file.
    pub code: Vec<u8>,
    /// Its disassembly, with source lines.
    pub listing: String,
    /// Registers and memory of each kernel, in the compiler's words.
    pub resources: String,
    /// What the compiler warned of; of greta's own kernels nothing.
    pub warnings: String,
}

/// clang and the disassembler that belongs to it.
#[derive(Clone, Debug)]
pub struct Clang {
    clang: PathBuf,
    objdump: PathBuf,
    version: String,
}

impl Clang {
    /// The compiler of this machine, looked for once.
    pub fn get() -> Result<&'static Clang, DriverError> {
        static FOUND: OnceLock<Result<Clang, String>> = OnceLock::new();
        FOUND.get_or_init(find).as_ref().map_err(|e| DriverError::Absent(e.clone()))
    }

    /// What it says of itself.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The number in [`Clang::version`]: `22.1.0`.
    pub fn number(&self) -> &str {
        let after = self.version.split_once("version ").map_or(&*self.version, |(_, n)| n);
        after.split_whitespace().next().unwrap_or("of unknown version")
    }

    /// Whether it can make code for an architecture.
    pub fn has_target(&self, name: &str) -> bool {
        said(&self.clang, "--print-targets").is_some_and(|t| t.contains(name))
    }

    /// The module as PTX for NVIDIA's sm_90: that it compiles is checked where no NVIDIA tool is at hand.
    pub fn ptx(&self, source: &Source) -> Result<String, DriverError> {
        let work = WorkFolder::new()?;
        let flags = "-x cuda --cuda-gpu-arch=sm_90 --cuda-device-only -nocudainc -nocudalib -S -O1 -std=c++17 \
                     -ffp-contract=off -Wno-unknown-cuda-version -Wno-pass-failed --cuda-feature=+ptx80";
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let out = self.call(&work, source, &texts(source, None)?, flags, "module.ptx")?;
        String::from_utf8(out.0).map_err(|e| DriverError::Call { call: "reading PTX", why: e.to_string() })
    }

    /// Flags every module is compiled with: no ROCm headers, no contraction, source lines for the emulator's errors.
    fn flags(target: Target) -> Vec<String> {
        let flags = "-x hip --cuda-device-only --no-gpu-bundle-output -nogpuinc -nogpulib -ffp-contract=off \
                     -fno-math-errno -O3 -std=c++17 -mcode-object-version=5 -gline-tables-only -fdebug-compilation-dir=kernels \
                     -Rpass-analysis=kernel-resource-usage -Wall -Wextra -Wno-pass-failed";
        let mut flags: Vec<String> = flags.split_whitespace().map(String::from).collect();
        flags.push(format!("--offload-arch={target}"));
        flags
    }

    /// Compiles a module, or takes it from the cache.
    ///
    /// `from`: a folder to read the sources from, in place of those in the binary.
    pub fn compile(&self, source: &Source, target: Target, from: Option<&Path>) -> Result<CodeObject, DriverError> {
        let texts = texts(source, from)?;
        let key = cache::key(source, &texts, &format!("{} {:?}", self.version, Self::flags(target)));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let made = match cache::load(&key) {
            Some([code, listing, resources, warnings]) => {
                CodeObject { code, listing: text(listing), resources: text(resources), warnings: text(warnings) }
            }
            None => {
                let made = self.run(source, &texts, target)?;
                let texts = [&made.listing, &made.resources, &made.warnings].map(|t| t.as_bytes());
                cache::store(&key, [&made.code, texts[0], texts[1], texts[2]]);
                made
            }
        };
        if from.is_some() && !made.warnings.is_empty() {
            notice(&format!("{source}:\n{}", made.warnings.trim_end()));
        }
        Ok(made)
    }

    fn run(&self, source: &Source, texts: &Texts, target: Target) -> Result<CodeObject, DriverError> {
        let work = WorkFolder::new()?;
        let (code, said) = self.call(&work, source, texts, Self::flags(target), "module.co")?;
        let mut dump = Command::new(&self.objdump);
        let dump = dump.args(["-d", "-l", &format!("--mcpu={target}")]).arg(work.0.join("module.co"));
        let listing = text(dump.output().map_err(|e| io("running llvm-objdump", &e))?, source)?;
        let resources = said.lines().filter_map(|l| l.split_once("remark:")).map(|(_, r)| r);
        let resources =
            resources.map(|r| r.replace("[-Rpass-analysis=kernel-resource-usage]", "").trim_end().to_string());
        let resources = resources.map(|r| r + "\n").collect();
        Ok(CodeObject { code, listing, resources, warnings: diagnostics(&said) })
    }

    /// Runs clang on a module: what it made, and what it said.
    fn call(
        &self,
        work: &WorkFolder,
        source: &Source,
        texts: &Texts,
        flags: impl IntoIterator<Item = impl AsRef<OsStr>>,
        out: &str,
    ) -> Result<(Vec<u8>, String), DriverError> {
        for (name, text) in texts {
            std::fs::write(work.0.join(name), &**text).map_err(|e| io("writing the sources", &e))?;
        }
        let mut command = Command::new(&self.clang);
        command.current_dir(&work.0).args(flags);
        command.args(source.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
        let made = command.arg(source.file).arg("-o").arg(out).output().map_err(|e| io("running clang", &e))?;
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        if !made.status.success() {
            return Err(DriverError::Compile { source_name: source.to_string(), text: diagnostics(&said) });
        }
        let code = std::fs::read(work.0.join(out)).map_err(|e| io("reading clang's output", &e))?;
        Ok((code, said))
    }
}

/// What the user is to know and nobody can return.
pub(crate) fn notice(text: &str) {
    say(&format!("warning: {text}"));
}

/// A line on standard error.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    // There is no one left to tell that telling failed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The errors, warnings and notes of what clang said: without remarks, which are asked for to learn of registers.
fn diagnostics(said: &str) -> String {
    let mut wanted = true;
    let keep = |line: &&str| {
        let starts = |word: &str| line.starts_with(word) || line.contains(&format!(": {word}"));
        if starts("remark: ") {
            wanted = false;
        } else if ["error: ", "fatal error: ", "warning: ", "note: "].iter().any(|w| starts(w)) {
            wanted = true;
        }
        wanted && !line.trim().is_empty() && !line.contains(" generated when compiling for ")
    };
    said.lines().filter(keep).map(|l| format!("{l}\n")).collect()
}

/// Which sources kernels are compiled from: a hash, and the folder if it isn't those in the binary.
pub fn describe_sources(from: Option<&Path>) -> Result<String, DriverError> {
    let mut hash = Sha256::new();
    for file in crate::kernels::FILES {
        let (name, text) = read(file, from)?;
        hash.update(format!("{name} {} ", text.len()));
        hash.update(&*text);
    }
    let mut out = String::new();
    hash.finalize().iter().take(6).for_each(|b| {
        // Writing to a string can't fail.
        let _ = write!(out, "{b:02x}");
    });
    if let Some(folder) = from {
        let _ = write!(out, " from {} ({KERNELS_VARIABLE})", folder.display());
    }
    Ok(out)
}

/// What a program prints, if it can be run.
fn said(program: &Path, arg: &str) -> Option<String> {
    let out = Command::new(program).arg(arg).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

fn text(out: Output, source: &Source) -> Result<String, DriverError> {
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    Err(DriverError::Compile { source_name: source.to_string(), text })
}

/// A module's file and the headers: names and texts.
pub(crate) type Texts = Vec<(&'static str, Cow<'static, str>)>;

/// A module's texts, those of a folder where one is given.
pub(crate) fn texts(source: &Source, from: Option<&Path>) -> Result<Texts, DriverError> {
    source.texts().map(|file| read(file, from)).collect()
}

fn read(
    (name, text): &'static (&'static str, &'static str),
    from: Option<&Path>,
) -> Result<(&'static str, Cow<'static, str>), DriverError> {
    let Some(folder) = from else { return Ok((*name, Cow::Borrowed(*text))) };
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path)
        .map_err(|e| DriverError::Absent(format!("{}: {e}; {KERNELS_VARIABLE} names a folder", path.display())))?;
    Ok((*name, Cow::Owned(text)))
}

fn io(what: &'static str, e: &std::io::Error) -> DriverError {
    DriverError::Call { call: what, why: e.to_string() }
}

/// A folder that goes when it is done with.
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn new() -> Result<WorkFolder, DriverError> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("greta-kernels-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| io("making a folder for the compiler", &e))?;
        Ok(WorkFolder(path))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Looks for clang, the linker it calls, and the disassembler of the same version.
fn find() -> Result<Clang, String> {
    let install = "install them with: apt-get install clang-22 lld-22 llvm-22 (any version from 18 on), or export \
                   GRETA_CLANG=PROGRAM; hip:gfx942, which only plans, works without them";
    if let Some(path) = std::env::var_os(CLANG_VARIABLE).filter(|p| !p.is_empty()) {
        // The compiler is called from another folder; a bare name is looked for in PATH.
        let given = PathBuf::from(&path);
        let whole = if given.components().count() > 1 { given.canonicalize().unwrap_or(given) } else { given };
        return check(whole).map_err(|why| {
            let why = if why.is_empty() { "it can't be run".into() } else { why };
            format!("{CLANG_VARIABLE}={}: {why}; {install}", Path::new(&path).display())
        });
    }
    let names = VERSIONS.rev().map(|v| format!("clang-{v}")).chain(["clang".into(), "/opt/rocm/llvm/bin/clang".into()]);
    let mut why = "none of clang-24 … clang-18, clang was found".to_string();
    for name in names {
        match check(PathBuf::from(&name)) {
            Ok(clang) => return Ok(clang),
            Err(e) if e.is_empty() => {}
            Err(e) => why = format!("{name}: {e}"),
        }
    }
    Err(format!("compiling kernels for gfx942 needs clang, lld and llvm-objdump: {why}; {install}"))
}

/// Whether a compiler can be used. Empty: it is not there.
fn check(clang: PathBuf) -> Result<Clang, String> {
    let Some(version) = said(&clang, "--version") else { return Err(String::new()) };
    let version = version.lines().next().unwrap_or_default().to_string();
    let tool = |name: &str| -> Option<PathBuf> {
        let found = said(&clang, &format!("--print-prog-name={name}"))?;
        let found = PathBuf::from(found.trim());
        // clang answers the bare name where it knows of none.
        if found.is_absolute() { Some(found) } else { said(&found, "--version").map(|_| found) }
    };
    if !said(&clang, "--print-targets").is_some_and(|t| t.contains("amdgcn")) {
        return Err("it has no AMDGPU target".into());
    }
    tool("lld").or_else(|| tool("ld.lld")).ok_or("lld of the same version is missing")?;
    let objdump = tool("llvm-objdump").ok_or("llvm-objdump of the same version is missing")?;
    Ok(Clang { clang, objdump, version })
}
