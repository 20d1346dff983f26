//! Lists instructions of a code object that the emulator would refuse: `unknown CODE LISTING ...`.

use greta_gfx942::Program;

fn main() {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    for pair in paths.chunks_exact(2) {
        let code = std::fs::read(&pair[0]).unwrap_or_default();
        let listing = std::fs::read_to_string(&pair[1]).unwrap_or_default();
        match Program::load(&code, &listing) {
            Err(e) => println!("{}: {e}", pair[0]),
            Ok(p) => {
                for k in p.kernels() {
                    for text in p.unknown(&k.name) {
                        println!("{} {}: {text}", pair[0], k.name);
                    }
                }
            }
        }
    }
}
