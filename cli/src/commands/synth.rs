//! stub
/// stub
#[derive(clap::Args, Debug)]
pub struct Synth {}
impl Synth {
    pub fn run(&self) -> anyhow::Result<std::process::ExitCode> {
        anyhow::bail!("later")
    }
}
