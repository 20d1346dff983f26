//! Every test of the workspace, in one binary. A test that lacks something is shown as ignored, with what installs it;
//! `GRETA_REQUIRE=all` (or a list, such as `GRETA_REQUIRE=smollm2,golden`) turns such a skip into a failure.

mod alloc;
mod chat;
mod cli;
mod conformance;
mod diff;
mod faults;
mod foreign;
mod gguf;
mod golden;
mod graph;
mod hip;
mod hip_amd;
mod hypotheses;
mod import;
mod judge;
mod kernels;
mod kv;
mod p1;
mod plain;
mod probe;
mod quant;
mod repeats;
mod report;
mod run_folder;
mod sampling;
mod support;
mod synth;
mod taps;
mod tidy;
mod tokenizer;
mod trace_rows;

fn main() {
    let mut args = libtest_mimic::Arguments::from_args();
    // Sessions bring their own threads; more than two tests at once would only make them wait for each other.
    args.test_threads.get_or_insert(2);
    let trials = [
        quant::trials(),
        conformance::trials(),
        graph::trials(),
        hip::trials(),
        hip_amd::trials(),
        kv::trials(),
        p1::trials(),
        plain::trials(),
        kernels::trials(),
        gguf::trials(),
        tokenizer::trials(),
        chat::trials(),
        sampling::trials(),
        golden::trials(),
        trace_rows::trials(),
        judge::trials(),
        import::trials(),
        faults::trials(),
        repeats::trials(),
        probe::trials(),
        hypotheses::trials(),
        foreign::trials(),
        taps::trials(),
        run_folder::trials(),
        diff::trials(),
        report::trials(),
        synth::trials(),
        tidy::trials(),
        cli::trials(),
    ];
    let trials = trials.into_iter().flatten().collect();
    libtest_mimic::run(&args, trials).exit();
}
